// CSV by Arrow's streaming reader. All cells stay texts.
#include <arrow/csv/api.h>
#include <arrow/csv/parser.h>
#include <arrow/util/utf8.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "data/arrow_check.h"
#include "data/cell_texts.h"
#include "data/raw_source.h"

namespace ektm {
namespace {

// How far a scan of a CSV file came.
struct CsvPlace {
  int64_t row = -1;         // the last row that began; 0 is the header
  int64_t line = 0;         // the line, from 1, on which it began: quoted cells may hold line ends, and blank lines are no rows
  bool open_quote = false;  // the file ended inside quotes
};

// From the beginning of the file to the beginning of row `last_row`, or to the end.
CsvPlace scan_csv(const InputFile& file, int64_t last_row) {
  CsvPlace place;
  auto raw = arrow::io::ReadableFile::Open(file.path.string());
  if (!raw.ok()) return place;
  auto stream = open_stream(file, *raw);
  enum class At { RowStart, CellStart, Plain, Quoted, QuoteInQuoted } at = At::RowStart;
  int64_t line = 1;
  bool after_cr = false;
  for (;;) {
    auto piece = stream->Read(1 << 16);
    if (!piece.ok() || (*piece)->size() == 0) {
      place.open_quote = piece.ok() && at == At::Quoted;
      return place;
    }
    for (char c : std::string_view(**piece)) {
      bool second_of_crlf = c == '\n' && after_cr;
      after_cr = c == '\r';
      if (second_of_crlf) continue;
      bool line_end = c == '\n' || c == '\r';
      if (at == At::RowStart && !line_end) {
        at = At::CellStart;
        place.line = line;
        if (++place.row == last_row) return place;
      }
      if (at == At::Quoted)
        at = c == '"' ? At::QuoteInQuoted : At::Quoted;
      else if (line_end)
        at = At::RowStart;
      else if (c == ',')
        at = At::CellStart;
      else if (c == '"' && (at == At::CellStart || at == At::QuoteInQuoted))
        at = At::Quoted;
      else
        at = At::Plain;
      line += line_end;
    }
  }
}

// Whether a text has an odd number of quotes. Parity, unlike a count, fits the bytes of a vector register.
bool has_odd_quotes(std::string_view text) {
  uint8_t odd = 0;
  for (char c : text) odd ^= static_cast<uint8_t>(c == '"');
  return odd != 0;
}

// Follows the quotes that pass: in a file without stray quotes an odd number tells that one was left open.
class QuoteParity : public arrow::io::InputStream {
 public:
  explicit QuoteParity(std::shared_ptr<arrow::io::InputStream> inner) : inner_(std::move(inner)) {}
  bool odd() const { return odd_; }

  arrow::Status Close() override { return inner_->Close(); }
  bool closed() const override { return inner_->closed(); }
  arrow::Result<int64_t> Tell() const override { return inner_->Tell(); }
  arrow::Result<int64_t> Read(int64_t count, void* out) override {
    ARROW_ASSIGN_OR_RAISE(int64_t read, inner_->Read(count, out));
    follow({static_cast<const char*>(out), static_cast<size_t>(read)});
    return read;
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t count) override {
    ARROW_ASSIGN_OR_RAISE(auto buffer, inner_->Read(count));
    follow(std::string_view(*buffer));
    return buffer;
  }

 private:
  void follow(std::string_view bytes) { odd_ = odd_ != has_odd_quotes(bytes); }

  std::shared_ptr<arrow::io::InputStream> inner_;
  std::atomic<bool> odd_ = false;  // Arrow reads ahead in a thread of its own
};

class CsvSource : public Source {
 public:
  CsvSource(const InputFile& file, int64_t chunk_bytes, BadRows& bad_rows)
      : file_(file), where_(file.path.string()), bad_rows_(bad_rows), skipped_(std::make_shared<std::vector<int64_t>>()) {
    parse_.newlines_in_values = true;
    read_header(chunk_bytes);
  }

  void select(const std::vector<std::string>& columns) override {
    convert_.include_columns = columns;
    if (columns.empty()) convert_.include_columns = {names_[0]};  // rows are counted even when no own column is needed
    open();
  }
  void select_all() override { open(); }

  std::shared_ptr<arrow::RecordBatch> next() override {
    if (!reader_) return nullptr;
    std::shared_ptr<arrow::RecordBatch> batch;
    check(reader_->ReadNext(&batch));
    if (!batch && stream_->odd()) refuse_open_quote();
    return batch;
  }

  int64_t bytes_read() override {
    auto position = raw_ ? raw_->Tell() : arrow::Result<int64_t>(0);
    return position.ok() ? *position : 0;
  }
  std::shared_ptr<const std::vector<int64_t>> skipped_rows() const override { return skipped_; }

 private:
  void read_header(int64_t chunk_bytes) {
    auto stream = open_stream(file_, open_file(file_.path));
    std::string head;
    constexpr int64_t kStepBytes = 1 << 16;
    for (bool end = false;;) {
      auto piece = stream->Read(kStepBytes);
      if (!piece.ok()) fail_reading(piece.status());
      std::string_view bytes(**piece);
      head += bytes;
      end = bytes.empty();
      if (end && head.empty())
        fail(ErrorKind::Data, where_, "the file is empty; expected a header line with the names of the columns.");
      refuse_other_formats(head);
      size_t bom = head.starts_with("\xEF\xBB\xBF") ? 3 : 0;
      arrow::csv::BlockParser parser(parse_, -1, -1, 1);
      uint32_t parsed = 0;
      std::string_view text = std::string_view(head).substr(bom);
      auto status = end ? parser.ParseFinal(text, &parsed) : parser.Parse(text, &parsed);
      // Without a whole row the parser reports an error too: then the header goes on in the next piece.
      if (status.ok() && parser.num_rows() == 1) {
        if (end && has_odd_quotes(head)) refuse_open_quote();
        if (!arrow::util::ValidateUTF8(text.substr(0, parsed)))
          fail(ErrorKind::Data, where_ + ", line 1",
               "the header line is not in UTF-8. Convert the file, e.g. iconv -f latin1 -t utf-8.");
        (void)parser.VisitLastRow([&](const uint8_t* data, uint32_t size, bool, bool) {
          names_.emplace_back(reinterpret_cast<const char*>(data), size);
          return arrow::Status::OK();
        });
        has_rows_ = !end || parsed < text.size();
        // A block must hold the whole header and one more row.
        read_.block_size =
            static_cast<int32_t>(std::clamp<int64_t>(chunk_bytes, 2 * static_cast<int64_t>(bom + parsed), 1 << 30));
        return;
      }
      if (end)
        fail(ErrorKind::Data, where_,
             "found only blank lines or an unclosed quote; expected a header line with the names of the columns.");
      if (static_cast<int64_t>(head.size()) > std::max<int64_t>(chunk_bytes, kStepBytes))
        fail(ErrorKind::Data, where_,
             "the first line does not end within {} bytes; expected a header line. Is a quote left open?", head.size());
    }
  }

  void refuse_other_formats(const std::string& head) {
    auto refuse = [&](const char* found, const char* remedy) {
      fail(ErrorKind::Data, where_, "found {}; expected CSV text. {}", found, remedy);
    };
    if (head.starts_with("\x1f\x8b")) refuse("gzip data", "Give the file the ending .csv.gz.");
    if (head.starts_with("PAR1")) refuse("a Parquet file", "Give the file the ending .parquet.");
    if (head.starts_with("ARROW1")) refuse("an Arrow file", "Give the file the ending .arrow.");
    if (head.starts_with("\xff\xfe") || head.starts_with("\xfe\xff"))
      refuse("UTF-16 text", "Convert it: iconv -f utf-16 -t utf-8.");
  }

  void open() {
    if (!has_rows_) return;
    parse_.invalid_row_handler = [this](const arrow::csv::InvalidRow& row) {
      if (bad_rows_.count >= bad_rows_.limit) {
        ragged_ = Ragged{row.number - 1, row.expected_columns, row.actual_columns, shown(row.text)};
        return arrow::csv::InvalidRowResult::Error;
      }
      ++bad_rows_.count;
      skipped_->push_back(row.number - 1);  // row.number counts the header line
      return arrow::csv::InvalidRowResult::Skip;
    };
    read_.use_threads = false;
    convert_.default_column_type = arrow::utf8();
    convert_.check_utf8 = false;  // CellReader checks, and names the row
    raw_ = open_file(file_.path);
    stream_ = std::make_shared<QuoteParity>(open_stream(file_, raw_));
    auto made = arrow::csv::StreamingReader::Make(arrow::io::default_io_context(), stream_, read_, parse_, convert_);
    check(made.status());
    reader_ = *made;
  }

  // Arrow takes the end of the file for the end of an open quote, and so the rows behind it for one cell.
  void refuse_open_quote() {
    CsvPlace place = scan_csv(file_, std::numeric_limits<int64_t>::max());
    if (place.open_quote)
      fail(ErrorKind::Data, fmt::format("{}, row {} (line {})", where_, place.row, place.line),
           "a quote is opened and not closed before the end of the file. Close it.");
  }

  void check(const arrow::Status& status) {
    if (status.ok()) return;
    refuse_open_quote();
    if (ragged_) {
      std::string limit =
          bad_rows_.limit == 0
              ? "Correct the row, or let such rows be skipped by max_bad_rows in the schema"
              : fmt::format(
                    "{} rows were skipped already, as many as max_bad_rows in the schema allows: correct the data, or raise it",
                    bad_rows_.count);
      fail(ErrorKind::Data, csv_row(file_, ragged_->row), "found {} columns; expected {} as in the header: '{}'. {}.",
           ragged_->found, ragged_->expected, ragged_->text, limit);
    }
    fail_reading(status);
  }

  [[noreturn]] void fail_reading(const arrow::Status& status) {
    if (file_.compression != arrow::Compression::UNCOMPRESSED && !status.IsInvalid())
      fail(ErrorKind::Data, where_, "the compressed file is damaged or cut off: copy or write it again ({}).", status.message());
    if (status.message().find("straddling") != std::string::npos)
      fail(ErrorKind::Data, where_,
           "a row is longer than {} bytes, the size of a chunk. Is a quote left open? Find the cell whose quote is not closed.",
           read_.block_size);
    fail(ErrorKind::Data, where_, "the CSV cannot be read ({}).", status.message());
  }

  struct Ragged {
    int64_t row;
    int32_t expected, found;
    std::string text;
  };

  InputFile file_;
  std::string where_;
  BadRows& bad_rows_;
  std::shared_ptr<std::vector<int64_t>> skipped_;
  arrow::csv::ReadOptions read_ = arrow::csv::ReadOptions::Defaults();
  arrow::csv::ParseOptions parse_ = arrow::csv::ParseOptions::Defaults();
  arrow::csv::ConvertOptions convert_ = arrow::csv::ConvertOptions::Defaults();
  bool has_rows_ = false;
  std::optional<Ragged> ragged_;
  std::shared_ptr<arrow::io::ReadableFile> raw_;
  std::shared_ptr<QuoteParity> stream_;
  std::shared_ptr<arrow::csv::StreamingReader> reader_;
};

}  // namespace

std::unique_ptr<Source> open_csv(const InputFile& file, int64_t chunk_bytes, BadRows& bad_rows) {
  return std::make_unique<CsvSource>(file, chunk_bytes, bad_rows);
}

std::string csv_row(const InputFile& file, int64_t row) {
  CsvPlace place = scan_csv(file, row);
  return fmt::format("{}, row {}", file.path.string(), row) + (place.row == row ? fmt::format(" (line {})", place.line) : "");
}

}  // namespace ektm
