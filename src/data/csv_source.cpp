// CSV text as Arrow columns. All cells stay texts.
#include <arrow/util/utf8.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <string_view>

#include "base/error.h"
#include "data/arrow_check.h"
#include "data/cell_texts.h"
#include "data/csv_tokenizer.h"
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

// Cells of up to so many bytes (a 64-bit id has 20) are copied as so many at once: behind a text as many must be readable.
constexpr size_t kCopyBytes = 32;

// Builds the text columns of one place, batch after batch. Memory that no batch holds any more is used again: fresh pages would
// cost more than the copies into them.
class TextColumn {
 public:
  void begin(const std::string& where) {
    offsets_ = free_buffer(where);
    bytes_ = free_buffer(where);
    rows_ = size_ = 0;
    reserve(*offsets_, sizeof(int32_t), where);
    offsets()[0] = 0;
  }

  // The cells at `cells`, `stride` apart.
  void append(const char* text, const CsvCell* cells, size_t rows, size_t stride, const std::string& where) {
    int64_t bytes = size_ + static_cast<int64_t>(kCopyBytes);
    for (size_t r = 0; r < rows; ++r) bytes += cells[r * stride].end - cells[r * stride].begin;
    reserve(*bytes_, bytes, where);
    reserve(*offsets_, (rows_ + static_cast<int64_t>(rows) + 1) * static_cast<int64_t>(sizeof(int32_t)), where);
    char* const start = reinterpret_cast<char*>(bytes_->mutable_data());
    char* out = start + size_;
    int32_t* ends = offsets() + rows_ + 1;
    for (size_t r = 0; r < rows; ++r) {
      const CsvCell cell = cells[r * stride];
      const char* from = text + cell.begin;
      const size_t count = cell.end - cell.begin;
      if (cell.is_escaped) {
        out += unescape_csv({from, count}, out);
      } else {
        if (count <= kCopyBytes)
          std::memcpy(out, from, kCopyBytes);
        else
          std::memcpy(out, from, count);
        out += count;
      }
      ends[r] = static_cast<int32_t>(out - start);
    }
    size_ = out - start;
    rows_ += static_cast<int64_t>(rows);
  }

  std::shared_ptr<arrow::Array> finish() {
    return std::make_shared<arrow::StringArray>(rows_, std::move(offsets_), std::move(bytes_), nullptr, 0);
  }

 private:
  std::shared_ptr<arrow::ResizableBuffer> free_buffer(const std::string& where) {
    for (const auto& buffer : buffers_)
      if (buffer.use_count() == 1) return buffer;
    buffers_.push_back(checked_io(arrow::AllocateResizableBuffer(0), where));
    return buffers_.back();
  }
  static void reserve(arrow::ResizableBuffer& buffer, int64_t bytes, const std::string& where) {
    if (buffer.size() < bytes) checked_io(buffer.Resize(2 * bytes, false), where);
  }
  int32_t* offsets() { return reinterpret_cast<int32_t*>(offsets_->mutable_data()); }

  std::vector<std::shared_ptr<arrow::ResizableBuffer>> buffers_;
  std::shared_ptr<arrow::ResizableBuffer> offsets_, bytes_;  // of the column in work
  int64_t rows_ = 0, size_ = 0;
};

class CsvSource : public Source {
 public:
  CsvSource(const InputFile& file, int64_t chunk_bytes, BadRows& bad_rows)
      : file_(file), where_(file.path.string()), bad_rows_(bad_rows), skipped_(std::make_shared<std::vector<int64_t>>()) {
    read_header(chunk_bytes);
  }

  void select(const std::vector<std::string>& columns) override {
    for (const auto& column : columns)
      selected_.push_back(static_cast<size_t>(std::find(names_.begin(), names_.end(), column) - names_.begin()));
    open();
  }
  void select_all() override {
    selected_.resize(names_.size());
    std::iota(selected_.begin(), selected_.end(), 0);
    open();
  }

  std::shared_ptr<arrow::RecordBatch> next() override {
    while (!at_end_) {
      fill_block();
      if (auto batch = parse_block()) return batch;
    }
    return nullptr;
  }

  int64_t bytes_read() override {
    auto position = raw_->Tell();
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
      const size_t bom = head.starts_with("\xEF\xBB\xBF") ? 3 : 0;
      if (parse_header(std::string_view(head).substr(bom), end)) {
        header_bytes_ += static_cast<int64_t>(bom);
        max_block_bytes_ = std::clamp<int64_t>(chunk_bytes, 2 * header_bytes_, CsvTokenizer::kMaxTextBytes);
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

  // False when `text` does not hold the whole line.
  bool parse_header(std::string_view text, bool is_final) {
    // The number of columns is not known yet: that of the line is found as that of a ragged row.
    CsvTokenizer counter(0);
    size_t rows = 0;
    counter.begin(text, is_final);
    const auto stop = counter.read(nullptr, 1, rows);
    if (stop == CsvTokenizer::Stop::OpenQuote) fail_open_quote(0);
    if (stop != CsvTokenizer::Stop::Ragged) return false;
    const std::string_view line = counter.ragged().text;
    if (!arrow::util::ValidateUTF8(line))
      fail(ErrorKind::Data, where_ + ", line 1",
           "the header line is not in UTF-8. Convert the file, e.g. iconv -f latin1 -t utf-8.");
    std::vector<CsvCell> cells(static_cast<size_t>(counter.ragged().found));
    CsvTokenizer tokenizer(cells.size());
    tokenizer.begin(line, true);
    tokenizer.read(cells.data(), 1, rows);
    EKTM_CHECK(rows == 1);
    for (const CsvCell& cell : cells) {
      std::string name(line.substr(cell.begin, cell.end - cell.begin));
      if (cell.is_escaped) name.resize(unescape_csv(std::string(name), name.data()));
      names_.push_back(std::move(name));
    }
    header_bytes_ = static_cast<int64_t>(counter.consumed());
    return true;
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
    raw_ = open_file(file_.path);
    stream_ = open_stream(file_, raw_);
    for (int64_t rest = header_bytes_; rest > 0;) {
      auto piece = stream_->Read(rest);
      if (!piece.ok()) fail_reading(piece.status());
      if ((*piece)->size() == 0) fail(ErrorKind::Io, where_, "the file became shorter while it was read. Run again.");
      rest -= (*piece)->size();
    }
    cells_.resize(kRowsAtATime * names_.size());
    arrow::FieldVector fields;
    for (size_t column : selected_) fields.push_back(arrow::field(names_[column], arrow::utf8()));
    schema_ = arrow::schema(fields);
    columns_.resize(selected_.size());
    set_block_bytes(std::min(kBlockBytes, max_block_bytes_));
  }

  void set_block_bytes(int64_t bytes) {
    block_.resize(static_cast<size_t>(bytes) + kCopyBytes);
    block_bytes_ = bytes;
  }

  // Reads behind what the last block left, a row without its end.
  void fill_block() {
    while (filled_ < block_bytes_ && !is_final_) {
      auto count = stream_->Read(block_bytes_ - filled_, block_.data() + filled_);
      if (!count.ok()) fail_reading(count.status());
      is_final_ = *count == 0;
      filled_ += *count;
    }
  }

  // The whole rows of the block; nullptr when there is none.
  std::shared_ptr<arrow::RecordBatch> parse_block() {
    CsvTokenizer tokenizer(names_.size());
    tokenizer.begin({block_.data(), static_cast<size_t>(filled_)}, is_final_);
    for (auto& column : columns_) column.begin(where_);
    int64_t batch_rows = 0;
    for (auto stop = CsvTokenizer::Stop::Full; stop != CsvTokenizer::Stop::End;) {
      size_t rows = 0;
      stop = tokenizer.read(cells_.data(), kRowsAtATime, rows);
      for (size_t c = 0; c < columns_.size(); ++c)
        columns_[c].append(block_.data(), cells_.data() + selected_[c], rows, names_.size(), where_);
      batch_rows += static_cast<int64_t>(rows);
      rows_ += static_cast<int64_t>(rows);
      if (stop == CsvTokenizer::Stop::Ragged) skip_ragged(tokenizer.ragged());
      if (stop == CsvTokenizer::Stop::OpenQuote) fail_open_quote(rows_ + 1);
    }
    const int64_t consumed = static_cast<int64_t>(tokenizer.consumed());
    if (consumed == 0 && !is_final_) grow_block();
    at_end_ = is_final_;
    filled_ -= consumed;
    std::memmove(block_.data(), block_.data() + consumed, static_cast<size_t>(filled_));
    if (batch_rows == 0) return nullptr;
    arrow::ArrayVector arrays;
    for (auto& column : columns_) arrays.push_back(column.finish());
    return arrow::RecordBatch::Make(schema_, batch_rows, std::move(arrays));
  }

  void skip_ragged(const CsvTokenizer::Ragged& row) {
    ++rows_;
    if (bad_rows_.count < bad_rows_.limit) {
      ++bad_rows_.count;
      // Chunks that were given out keep the list as it was.
      if (skipped_.use_count() > 1) skipped_ = std::make_shared<std::vector<int64_t>>(*skipped_);
      skipped_->push_back(rows_);
      return;
    }
    refuse_open_quote();
    const std::string limit =
        bad_rows_.limit == 0
            ? "Correct the row, or let such rows be skipped by max_bad_rows in the schema"
            : fmt::format(
                  "{} rows were skipped already, as many as max_bad_rows in the schema allows: correct the data, or raise it",
                  bad_rows_.count);
    fail(ErrorKind::Data, csv_row(file_, rows_), "found {} columns; expected {} as in the header: '{}'. {}.", row.found,
         names_.size(), shown(row.text), limit);
  }

  void grow_block() {
    if (block_bytes_ < max_block_bytes_) return set_block_bytes(std::min(2 * block_bytes_, max_block_bytes_));
    refuse_open_quote();
    fail(ErrorKind::Data, where_,
         "a row is longer than {} bytes, the size of a chunk. Is a quote left open? Find the cell whose quote is not closed.",
         max_block_bytes_);
  }

  // A quote left open makes one cell of the rows behind it, up to the next quote: what is wrong there has this cause.
  void refuse_open_quote() {
    const CsvPlace place = scan_csv(file_, std::numeric_limits<int64_t>::max());
    if (place.open_quote) fail_open_quote(place.row);
  }
  [[noreturn]] void fail_open_quote(int64_t row) {
    fail(ErrorKind::Data, csv_row(file_, row), "a quote is opened and not closed before the end of the file. Close it.");
  }

  [[noreturn]] void fail_reading(const arrow::Status& status) {
    if (file_.compression != arrow::Compression::UNCOMPRESSED && !status.IsInvalid())
      fail(ErrorKind::Data, where_, "the compressed file is damaged or cut off: copy or write it again ({}).", status.message());
    fail(ErrorKind::Data, where_, "the CSV cannot be read ({}).", status.message());
  }

  static constexpr int64_t kBlockBytes = 1 << 20;  // stays in the cache from the file to the encoded rows
  static constexpr size_t kRowsAtATime = 64;

  InputFile file_;
  std::string where_;
  BadRows& bad_rows_;
  std::shared_ptr<std::vector<int64_t>> skipped_;
  int64_t header_bytes_ = 0;     // with the byte order mark and the line end
  int64_t max_block_bytes_ = 0;  // a block must hold the header or a row
  std::vector<size_t> selected_;
  std::shared_ptr<arrow::Schema> schema_;  // of a batch
  std::shared_ptr<arrow::io::ReadableFile> raw_;
  std::shared_ptr<arrow::io::InputStream> stream_;
  std::vector<char> block_;
  int64_t block_bytes_ = 0, filled_ = 0;
  bool is_final_ = false, at_end_ = false;  // all was read; all was parsed
  std::vector<CsvCell> cells_;
  std::vector<TextColumn> columns_;  // aligned with selected_
  int64_t rows_ = 0;                 // data rows so far, skipped ones included
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
