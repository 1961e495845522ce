#include "data/raw_reader.h"

#include <arrow/compute/api.h>
#include <arrow/csv/api.h>
#include <arrow/csv/parser.h>
#include <arrow/io/compressed.h>
#include <arrow/io/file.h>
#include <arrow/ipc/reader.h>
#include <arrow/util/byte_size.h>
#include <arrow/util/compression.h>
#include <arrow/util/utf8.h>
#include <parquet/arrow/reader.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "base/hash.h"

namespace ektm {
namespace fs = std::filesystem;
namespace {

constexpr const char* kSideTableKey = "ektm.side_table";  // metadata of a joined field: the side table's file
constexpr int64_t kMaxChunkRows = 1 << 16;
constexpr size_t kShownCharacters = 80;

std::string shown(std::string_view text) {
  return text.size() <= kShownCharacters ? std::string(text) : std::string(text.substr(0, kShownCharacters)) + "...";
}

// ---------------------------------------------------------------------------------------------------------------- files

enum class Format { Csv, Parquet, Arrow };

struct InputFile {
  fs::path path;
  Format format = Format::Csv;
  arrow::Compression::type compression = arrow::Compression::UNCOMPRESSED;
  std::vector<std::pair<std::string, std::optional<std::string>>> partitions;  // of its key=value folders; nullopt = missing
  int64_t bytes = 0;
};

constexpr const char* kKnownEndings = ".csv, .csv.gz, .csv.zst, .csv.bz2, .parquet, .arrow, .arrows, .ipc or .feather";

// False when the name has no known ending.
bool recognize(InputFile& file) {
  std::string name = file.path.filename().string();
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  static const std::tuple<const char*, Format, arrow::Compression::type> endings[] = {
      {".csv", Format::Csv, arrow::Compression::UNCOMPRESSED},    {".csv.gz", Format::Csv, arrow::Compression::GZIP},
      {".csv.zst", Format::Csv, arrow::Compression::ZSTD},        {".csv.bz2", Format::Csv, arrow::Compression::BZ2},
      {".parquet", Format::Parquet, arrow::Compression::UNCOMPRESSED}, {".arrow", Format::Arrow, arrow::Compression::UNCOMPRESSED},
      {".arrows", Format::Arrow, arrow::Compression::UNCOMPRESSED}, {".ipc", Format::Arrow, arrow::Compression::UNCOMPRESSED},
      {".feather", Format::Arrow, arrow::Compression::UNCOMPRESSED}};
  for (auto [ending, format, compression] : endings)
    if (name.ends_with(ending)) {
      file.format = format;
      file.compression = compression;
      return true;
    }
  return false;
}

std::string decode_percent(const std::string& text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    int byte = 0;
    if (text[i] == '%' && i + 2 < text.size() && std::from_chars(&text[i + 1], &text[i + 1] + 2, byte, 16).ptr == &text[i + 1] + 2) {
      decoded += static_cast<char>(byte);
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

// The data files below `folder`, sorted by name, with their key=value folders as Hive writes them.
void list_folder(const fs::path& folder, const InputFile& inherited, std::vector<InputFile>& files) {
  std::vector<fs::directory_entry> entries;
  std::error_code code;
  for (fs::directory_iterator it(folder, code), end; !code && it != end; it.increment(code)) entries.push_back(*it);
  if (code) fail(ErrorKind::Io, folder.string(), "cannot list the folder: {}. Check its permissions.", code.message());
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.path().filename() < b.path().filename(); });
  for (const auto& entry : entries) {
    std::string name = entry.path().filename().string();
    if (name.starts_with(".") || name.starts_with("_")) continue;  // as Hive and Spark do: _SUCCESS, _metadata
    InputFile file = inherited;
    file.path = entry.path();
    if (entry.is_directory(code)) {
      if (size_t equals = name.find('='); equals != std::string::npos && equals > 0) {
        std::string value = decode_percent(name.substr(equals + 1));
        bool missing = value == "__HIVE_DEFAULT_PARTITION__";
        file.partitions.emplace_back(decode_percent(name.substr(0, equals)), missing ? std::nullopt : std::optional(value));
      }
      list_folder(entry.path(), file, files);
    } else if (recognize(file)) {
      files.push_back(std::move(file));
    } else {
      fail(ErrorKind::Io, entry.path().string(),
           "found a file in a data folder that is no known data file; expected {}. Move it away, begin its name with '_' or '.', or name the "
           "data files one by one.", kKnownEndings);
    }
  }
}

std::vector<InputFile> list_input(const std::vector<std::string>& names) {
  std::vector<InputFile> files;
  for (const auto& name : names) {
    InputFile file;
    file.path = name;
    std::error_code code;
    if (!fs::exists(file.path, code)) fail(ErrorKind::Io, name, "does not exist{}. Check the path.", code ? " or cannot be read: " + code.message() : "");
    if (fs::is_directory(file.path, code)) {
      size_t before = files.size();
      list_folder(file.path, InputFile{}, files);
      if (files.size() == before) fail(ErrorKind::Io, name, "the folder holds no data file; expected {}. Check the path.", kKnownEndings);
    } else if (recognize(file)) {
      files.push_back(std::move(file));
    } else {
      fail(ErrorKind::Io, name, "the name has no known ending; expected {}. Rename the file.", kKnownEndings);
    }
  }
  for (auto& file : files) {
    std::error_code code;
    file.bytes = static_cast<int64_t>(fs::file_size(file.path, code));
    if (code) file.bytes = 0;
  }
  return files;
}

std::shared_ptr<arrow::io::ReadableFile> open_file(const fs::path& path) {
  auto opened = arrow::io::ReadableFile::Open(path.string());
  if (!opened.ok()) fail(ErrorKind::Io, path.string(), "cannot be opened: {}. Check the path and its permissions.", opened.status().message());
  return *opened;
}

// A failure of Arrow while it read `where`. IOError is also what its codecs report, so compressed files are taken as damaged.
[[noreturn]] void fail_arrow(const arrow::Status& status, const std::string& where, const std::string& what) {
  std::string message = status.message();
  while (!message.empty() && (message.back() == '.' || message.back() == '\n')) message.pop_back();
  fail(ErrorKind::Data, where, "{} ({}).", what, message);
}

template <class T>
T value_or_fail(arrow::Result<T> result, const std::string& where, const std::string& what) {
  if (!result.ok()) fail_arrow(result.status(), where, what);
  return std::move(result).ValueUnsafe();
}

// ---------------------------------------------------------------------------------------------------------------- sources

// Ragged rows over all files of a reader.
struct BadRows {
  int64_t limit = 0, count = 0;
};

// One file, read in order.
class Source {
 public:
  virtual ~Source() = default;
  const std::vector<std::string>& names() const { return names_; }  // its columns in the order of the file
  // Once, before next(): the columns to read, each present exactly once; or all of them, in the order of the file.
  virtual void select(const std::vector<std::string>& columns) = 0;
  virtual void select_all() = 0;
  virtual std::shared_ptr<arrow::RecordBatch> next() = 0;  // nullptr at the end
  virtual int64_t bytes_read() = 0;
  virtual std::shared_ptr<const std::vector<int64_t>> skipped_rows() const { return nullptr; }

 protected:
  std::vector<std::string> names_;
};

std::shared_ptr<arrow::io::InputStream> open_stream(const InputFile& file, std::shared_ptr<arrow::io::ReadableFile> raw) {
  if (file.compression == arrow::Compression::UNCOMPRESSED) return raw;
  auto codec = arrow::util::Codec::Create(file.compression);
  if (!codec.ok()) fail(ErrorKind::Io, file.path.string(), "this build of Arrow cannot read it: {}.", codec.status().message());
  // The stream keeps what it needs of the codec.
  return value_or_fail(arrow::io::CompressedInputStream::Make(codec->get(), raw), file.path.string(), "cannot be decompressed");
}

constexpr const char* kDamagedCompression = "the compressed file is damaged or cut off: copy or write it again";

// How far a scan of a CSV file came.
struct CsvPlace {
  int64_t row = -1;        // the last row that began; 0 is the header
  int64_t line = 0;        // the line, from 1, on which it began: quoted cells may hold line ends, and blank lines are no rows
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
      place.open_quote = at == At::Quoted;
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

// Counts the quotes that pass: in a file without stray quotes an odd number tells that one was left open.
class QuoteCounter : public arrow::io::InputStream {
 public:
  explicit QuoteCounter(std::shared_ptr<arrow::io::InputStream> inner) : inner_(std::move(inner)) {}
  int64_t quotes() const { return quotes_; }

  arrow::Status Close() override { return inner_->Close(); }
  bool closed() const override { return inner_->closed(); }
  arrow::Result<int64_t> Tell() const override { return inner_->Tell(); }
  arrow::Result<int64_t> Read(int64_t count, void* out) override {
    ARROW_ASSIGN_OR_RAISE(int64_t read, inner_->Read(count, out));
    this->count(static_cast<const char*>(out), read);
    return read;
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t count) override {
    ARROW_ASSIGN_OR_RAISE(auto buffer, inner_->Read(count));
    this->count(buffer->data_as<char>(), buffer->size());
    return buffer;
  }

 private:
  void count(const char* bytes, int64_t size) { quotes_ += std::count(bytes, bytes + size, '"'); }

  std::shared_ptr<arrow::io::InputStream> inner_;
  std::atomic<int64_t> quotes_ = 0;  // Arrow reads ahead in a thread of its own
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
    if (!batch && stream_->quotes() % 2 == 1) refuse_open_quote();
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
      if (end && head.empty()) fail(ErrorKind::Data, where_, "the file is empty; expected a header line with the names of the columns.");
      refuse_other_formats(head);
      size_t bom = head.starts_with("\xEF\xBB\xBF") ? 3 : 0;
      arrow::csv::BlockParser parser(parse_, -1, -1, 1);
      uint32_t parsed = 0;
      std::string_view text = std::string_view(head).substr(bom);
      auto status = end ? parser.ParseFinal(text, &parsed) : parser.Parse(text, &parsed);
      // Without a whole row the parser reports an error too: then the header goes on in the next piece.
      if (status.ok() && parser.num_rows() == 1) {
        if (end && std::count(head.begin(), head.end(), '"') % 2 == 1) refuse_open_quote();
        if (!arrow::util::ValidateUTF8(text.substr(0, parsed)))
          fail(ErrorKind::Data, where_ + ", line 1", "the header line is not in UTF-8. Convert the file, e.g. iconv -f latin1 -t utf-8.");
        (void)parser.VisitLastRow([&](const uint8_t* data, uint32_t size, bool, bool) {
          names_.emplace_back(reinterpret_cast<const char*>(data), size);
          return arrow::Status::OK();
        });
        has_rows_ = !end || parsed < text.size();
        // A block must hold the whole header and one more row.
        read_.block_size = static_cast<int32_t>(std::clamp<int64_t>(chunk_bytes, 2 * static_cast<int64_t>(bom + parsed), 1 << 30));
        return;
      }
      if (end) fail(ErrorKind::Data, where_, "found only blank lines or an unclosed quote; expected a header line with the names of the columns.");
      if (static_cast<int64_t>(head.size()) > std::max<int64_t>(chunk_bytes, kStepBytes))
        fail(ErrorKind::Data, where_, "the first line does not end within {} bytes; expected a header line. Is a quote left open?", head.size());
    }
  }

  void refuse_other_formats(const std::string& head) {
    auto refuse = [&](const char* found, const char* remedy) { fail(ErrorKind::Data, where_, "found {}; expected CSV text. {}", found, remedy); };
    if (head.starts_with("\x1f\x8b")) refuse("gzip data", "Give the file the ending .csv.gz.");
    if (head.starts_with("PAR1")) refuse("a Parquet file", "Give the file the ending .parquet.");
    if (head.starts_with("ARROW1")) refuse("an Arrow file", "Give the file the ending .arrow.");
    if (head.starts_with("\xff\xfe") || head.starts_with("\xfe\xff")) refuse("UTF-16 text", "Convert it: iconv -f utf-16 -t utf-8.");
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
    stream_ = std::make_shared<QuoteCounter>(open_stream(file_, raw_));
    auto made = arrow::csv::StreamingReader::Make(arrow::io::default_io_context(), stream_, read_, parse_, convert_);
    check(made.status());
    reader_ = *made;
  }

  // Arrow takes the end of the file for the end of an open quote, and so the rows behind it for one cell.
  void refuse_open_quote() {
    CsvPlace place = scan_csv(file_, std::numeric_limits<int64_t>::max());
    if (place.open_quote)
      fail(ErrorKind::Data, fmt::format("{}, row {} (line {})", where_, place.row, place.line), "a quote is opened and not closed before the end of the file. Close it.");
  }

  void check(const arrow::Status& status) {
    if (status.ok()) return;
    refuse_open_quote();
    if (ragged_) {
      std::string limit = bad_rows_.limit == 0 ? "Correct the row, or let such rows be skipped by max_bad_rows in the schema"
                                               : fmt::format("{} rows were skipped already, as many as max_bad_rows in the schema allows: correct the data, or raise it", bad_rows_.count);
      RawChunk place;
      place.file = where_;
      place.csv = true;
      place.first_row = ragged_->row;
      fail(ErrorKind::Data, place.where(0, ""), "found {} columns; expected {} as in the header: '{}'. {}.", ragged_->found, ragged_->expected,
           ragged_->text, limit);
    }
    fail_reading(status);
  }

  [[noreturn]] void fail_reading(const arrow::Status& status) {
    if (file_.compression != arrow::Compression::UNCOMPRESSED && !status.IsInvalid()) fail_arrow(status, where_, kDamagedCompression);
    if (status.message().find("straddling") != std::string::npos)
      fail(ErrorKind::Data, where_, "a row is longer than {} bytes, the size of a chunk. Is a quote left open? Find the cell whose quote is not closed.",
           read_.block_size);
    fail_arrow(status, where_, status.IsIOError() ? "cannot be read" : "the CSV cannot be read");
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
  std::shared_ptr<QuoteCounter> stream_;
  std::shared_ptr<arrow::csv::StreamingReader> reader_;
};

int64_t rows_for(int64_t chunk_bytes, int64_t total_bytes, int64_t total_rows) {
  int64_t row_bytes = std::max<int64_t>(1, total_bytes / std::max<int64_t>(1, total_rows));
  return std::clamp<int64_t>(chunk_bytes / row_bytes, 1, kMaxChunkRows);
}

class ParquetSource : public Source {
 public:
  ParquetSource(const InputFile& file, int64_t chunk_bytes) : where_(file.path.string()), bytes_(file.bytes) {
    guarded([&] {
      parquet::ReaderProperties properties;
      properties.enable_buffered_stream();  // pages as they are needed, not whole row groups
      properties.set_page_checksum_verification(true);
      parquet::arrow::FileReaderBuilder builder;
      check(builder.Open(open_file(file.path), properties));
      reader_ = value_or_fail(builder.Build(), where_, kDamaged);
      check(reader_->GetSchema(&schema_));
      auto metadata = reader_->parquet_reader()->metadata();
      int64_t data_bytes = 0;
      for (int g = 0; g < metadata->num_row_groups(); ++g) data_bytes += metadata->RowGroup(g)->total_byte_size();
      total_rows_ = metadata->num_rows();
      reader_->set_use_threads(false);
      reader_->set_batch_size(rows_for(chunk_bytes, data_bytes, total_rows_));
      names_ = schema_->field_names();
    });
  }

  void select(const std::vector<std::string>& columns) override {
    guarded([&] {
      const auto* descriptor = reader_->parquet_reader()->metadata()->schema();
      std::vector<int> leaves;
      for (int leaf = 0; leaf < descriptor->num_columns(); ++leaf) {
        std::string root = descriptor->GetColumnRoot(leaf)->name();
        if (std::find(columns.begin(), columns.end(), root) != columns.end()) leaves.push_back(leaf);
      }
      open(leaves);
    });
  }
  void select_all() override {
    guarded([&] {
      std::vector<int> leaves(reader_->parquet_reader()->metadata()->num_columns());
      for (size_t i = 0; i < leaves.size(); ++i) leaves[i] = static_cast<int>(i);
      open(leaves);
    });
  }

  std::shared_ptr<arrow::RecordBatch> next() override {
    std::shared_ptr<arrow::RecordBatch> batch;
    guarded([&] { check(batches_->ReadNext(&batch)); });
    if (batch) rows_read_ += batch->num_rows();
    if (!batch && rows_read_ != total_rows_)
      fail(ErrorKind::Data, where_, "found {} rows; the file's footer promises {}. {}.", rows_read_, total_rows_, kDamaged);
    return batch;
  }
  int64_t bytes_read() override { return total_rows_ == 0 ? bytes_ : static_cast<int64_t>(static_cast<double>(bytes_) * rows_read_ / total_rows_); }

 private:
  static constexpr const char* kDamaged = "the Parquet file is damaged or cut off: copy or write it again";

  void open(const std::vector<int>& leaves) {
    std::vector<int> groups(reader_->num_row_groups());
    for (size_t i = 0; i < groups.size(); ++i) groups[i] = static_cast<int>(i);
    batches_ = value_or_fail(reader_->GetRecordBatchReader(groups, leaves), where_, kDamaged);
  }
  void check(const arrow::Status& status) {
    if (!status.ok()) fail_arrow(status, where_, status.IsNotImplemented() ? "uses a part of Parquet that Arrow cannot read" : kDamaged);
  }
  template <class Work>
  void guarded(const Work& work) {
    try {
      work();
    } catch (const parquet::ParquetException& error) {
      fail(ErrorKind::Data, where_, "{} ({}).", kDamaged, error.what());
    }
  }

  std::string where_;
  int64_t bytes_ = 0, total_rows_ = 0, rows_read_ = 0;
  std::shared_ptr<arrow::Schema> schema_;
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::unique_ptr<arrow::RecordBatchReader> batches_;
};

class ArrowSource : public Source {
 public:
  ArrowSource(const InputFile& file, int64_t chunk_bytes)
      : where_(file.path.string()), chunk_bytes_(chunk_bytes), raw_(open_file(file.path)) {
    bytes_ = value_or_fail(raw_->GetSize(), where_, kDamaged);
    std::string magic(6, '\0');
    int64_t count = value_or_fail(raw_->ReadAt(0, static_cast<int64_t>(magic.size()), magic.data()), where_, kDamaged);
    if (count == 0) fail(ErrorKind::Data, where_, "the file is empty; expected Arrow IPC data.");
    if (magic.starts_with("FEA1")) fail(ErrorKind::Data, where_, "found Feather version 1; expected Arrow IPC (Feather version 2). Write it again.");
    is_file_ = magic == "ARROW1";
    open(arrow::ipc::IpcReadOptions::Defaults());
    names_ = schema()->field_names();
  }

  void select(const std::vector<std::string>& columns) override {
    auto options = arrow::ipc::IpcReadOptions::Defaults();
    for (const auto& column : columns) options.included_fields.push_back(schema()->GetFieldIndex(column));
    // An empty list would mean all; a batch without columns could not tell its number of rows.
    if (columns.empty() && !names_.empty()) options.included_fields = {0};
    open(options);
  }
  void select_all() override {}

  std::shared_ptr<arrow::RecordBatch> next() override {
    while (!batch_ || offset_ >= batch_->num_rows()) {
      batch_ = read();
      if (!batch_) return nullptr;
      check_buffers(*batch_);
      offset_ = 0;
      slice_rows_ = rows_for(chunk_bytes_, arrow::util::TotalBufferSize(*batch_), batch_->num_rows());
    }
    auto slice = batch_->Slice(offset_, slice_rows_);
    offset_ += slice->num_rows();
    return slice;
  }
  int64_t bytes_read() override {
    if (is_file_) return file_reader_->num_record_batches() == 0 ? bytes_ : bytes_ * batches_read_ / file_reader_->num_record_batches();
    auto position = raw_->Tell();
    return position.ok() ? *position : 0;
  }

 private:
  static constexpr const char* kDamaged = "the Arrow file is damaged or cut off: copy or write it again";

  std::shared_ptr<arrow::Schema> schema() const { return is_file_ ? file_reader_->schema() : stream_reader_->schema(); }

  void open(arrow::ipc::IpcReadOptions options) {
    options.use_threads = false;
    if (is_file_) {
      file_reader_ = value_or_fail(arrow::ipc::RecordBatchFileReader::Open(raw_, options), where_, kDamaged);
    } else {
      if (auto status = raw_->Seek(0); !status.ok()) fail_arrow(status, where_, kDamaged);
      stream_reader_ = value_or_fail(arrow::ipc::RecordBatchStreamReader::Open(raw_, options), where_, kDamaged);
    }
  }

  std::shared_ptr<arrow::RecordBatch> read() {
    if (is_file_) {
      if (batches_read_ == file_reader_->num_record_batches()) return nullptr;
      return value_or_fail(file_reader_->ReadRecordBatch(batches_read_++), where_, kDamaged);
    }
    std::shared_ptr<arrow::RecordBatch> batch;
    if (auto status = stream_reader_->ReadNext(&batch); !status.ok()) fail_arrow(status, where_, kDamaged);
    if (!batch) check_end_of_stream();
    return batch;
  }

  // Arrow takes a stream that is cut off between two messages for a whole one; only the end mark tells them apart.
  void check_end_of_stream() {
    static constexpr unsigned char kEndMark[8] = {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0};
    unsigned char last[8] = {};
    auto count = bytes_ >= 8 ? raw_->ReadAt(bytes_ - 8, 8, last) : arrow::Result<int64_t>(0);
    if (!count.ok() || *count != 8 || std::memcmp(last, kEndMark, 8) != 0)
      fail(ErrorKind::Data, where_, "the Arrow stream has no end mark, so it was cut off: copy or write it again (and close the writer).");
  }

  // Offsets that point outside their buffers must not reach the readers of cells. Texts are checked as bytes: their UTF-8 is CellReader's.
  void check_buffers(const arrow::RecordBatch& batch) {
    for (int i = 0; i < batch.num_columns(); ++i) {
      std::shared_ptr<arrow::Array> column = batch.column(i);
      if (auto status = column->Validate(); !status.ok()) fail_arrow(status, where_ + ", column " + batch.column_name(i), kDamaged);
      auto status = arrow::MakeArray(texts_as_bytes(*column->data()))->ValidateFull();
      if (!status.ok()) fail_arrow(status, where_ + ", column " + batch.column_name(i), kDamaged);
    }
  }

  static std::shared_ptr<arrow::ArrayData> texts_as_bytes(const arrow::ArrayData& data) {
    auto copy = data.Copy();
    if (!copy->child_data.empty()) copy->child_data[0] = texts_as_bytes(*data.child_data[0]);
    if (copy->dictionary) copy->dictionary = texts_as_bytes(*data.dictionary);
    switch (data.type->id()) {
      case arrow::Type::STRING: copy->type = arrow::binary(); break;
      case arrow::Type::LARGE_STRING: copy->type = arrow::large_binary(); break;
      case arrow::Type::LIST: copy->type = arrow::list(copy->child_data[0]->type); break;
      case arrow::Type::LARGE_LIST: copy->type = arrow::large_list(copy->child_data[0]->type); break;
      case arrow::Type::FIXED_SIZE_LIST:
        copy->type = arrow::fixed_size_list(copy->child_data[0]->type, static_cast<const arrow::FixedSizeListType&>(*data.type).list_size());
        break;
      case arrow::Type::DICTIONARY:
        copy->type = arrow::dictionary(static_cast<const arrow::DictionaryType&>(*data.type).index_type(), copy->dictionary->type);
        break;
      default: return data.Copy();  // kinds that CellReader refuses, or that hold no text
    }
    return copy;
  }

  std::string where_;
  int64_t bytes_ = 0, chunk_bytes_ = 0, offset_ = 0, slice_rows_ = 0;
  int batches_read_ = 0;
  bool is_file_ = false;
  std::shared_ptr<arrow::io::ReadableFile> raw_;
  std::shared_ptr<arrow::ipc::RecordBatchFileReader> file_reader_;
  std::shared_ptr<arrow::ipc::RecordBatchStreamReader> stream_reader_;
  std::shared_ptr<arrow::RecordBatch> batch_;
};

std::unique_ptr<Source> open_source(const InputFile& file, int64_t chunk_bytes, BadRows& bad_rows) {
  switch (file.format) {
    case Format::Csv: return std::make_unique<CsvSource>(file, chunk_bytes, bad_rows);
    case Format::Parquet: return std::make_unique<ParquetSource>(file, chunk_bytes);
    case Format::Arrow: return std::make_unique<ArrowSource>(file, chunk_bytes);
  }
  return nullptr;
}

// ---------------------------------------------------------------------------------------------------------------- cells

// Texts that mean "missing". Nearly every cell is ruled out by its first byte and length.
class MissingTexts {
 public:
  explicit MissingTexts(const std::vector<std::string>& texts) : texts_(texts) {
    for (const auto& text : texts_) lengths_[first_byte(text)] |= length_bit(text);
  }
  bool contains(std::string_view text) const {
    return (lengths_[first_byte(text)] & length_bit(text)) != 0 && std::find(texts_.begin(), texts_.end(), text) != texts_.end();
  }

 private:
  static uint8_t first_byte(std::string_view text) { return text.empty() ? 0 : static_cast<uint8_t>(text[0]); }
  static uint64_t length_bit(std::string_view text) { return uint64_t{1} << std::min<size_t>(text.size(), 63); }

  std::vector<std::string> texts_;
  std::array<uint64_t, 256> lengths_{};  // by first byte: the lengths that occur
};

bool is_ascii(const uint8_t* data, int64_t size) {
  uint64_t bits = 0;
  int64_t i = 0;
  for (; i + 8 <= size; i += 8) {
    uint64_t word;
    std::memcpy(&word, data + i, 8);
    bits |= word;
  }
  for (; i < size; ++i) bits |= static_cast<uint64_t>(data[i]) << 56;
  return (bits & 0x8080808080808080ULL) == 0;
}

// The first element that is no UTF-8, -1 when there is none. Each element by itself: two halves of a character in neighbouring cells
// are two bad cells.
template <class StringArray>
int64_t find_invalid_text(const StringArray& array) {
  if (array.length() == 0) return -1;
  auto first = array.value_offset(0), last = array.value_offset(array.length());
  if (is_ascii(array.raw_data() + first, last - first)) return -1;
  for (int64_t i = 0; i < array.length(); ++i)
    if (array.IsValid(i) && !arrow::util::ValidateUTF8(array.GetView(i))) return i;
  return -1;
}

int64_t find_invalid_text(const arrow::Array& array) {
  switch (array.type_id()) {
    case arrow::Type::STRING:
    case arrow::Type::BINARY: return find_invalid_text(static_cast<const arrow::BinaryArray&>(array));
    case arrow::Type::LARGE_STRING:
    case arrow::Type::LARGE_BINARY: return find_invalid_text(static_cast<const arrow::LargeBinaryArray&>(array));
    default: return -1;
  }
}

constexpr const char* kNotUtf8 = "found bytes that are not UTF-8; expected text in UTF-8. Convert the file, e.g. iconv -f latin1 -t utf-8.";

// The elements of an array as texts.
class Texts {
 public:
  // Errors name `place`: file and column.
  Texts(std::shared_ptr<arrow::Array> array, const std::string& place) : array_(std::move(array)), place_(place) {
    prepare();
    has_nulls_ = array_->null_count() > 0;
  }

  bool is_float() const {
    if (elements_) return elements_->is_float();
    return type_ == arrow::Type::FLOAT || type_ == arrow::Type::DOUBLE || is_half_float_;
  }
  bool is_list() const { return is_list_ || (type_ == arrow::Type::DICTIONARY && elements_->is_list()); }

  // False: missing. `text` is valid until the next call.
  bool get(int64_t i, std::string_view& text) {
    if (has_nulls_ && array_->IsNull(i)) return false;
    switch (type_) {
      case arrow::Type::STRING: text = static_cast<const arrow::BinaryArray&>(*array_).GetView(i); return true;
      case arrow::Type::LARGE_STRING: text = static_cast<const arrow::LargeBinaryArray&>(*array_).GetView(i); return true;
      case arrow::Type::BOOL: text = static_cast<const arrow::BooleanArray&>(*array_).Value(i) ? "1" : "0"; return true;
      case arrow::Type::INT8: return number<arrow::Int8Array>(i, text);
      case arrow::Type::INT16: return number<arrow::Int16Array>(i, text);
      case arrow::Type::INT32: return number<arrow::Int32Array>(i, text);
      case arrow::Type::INT64: return number<arrow::Int64Array>(i, text);
      case arrow::Type::UINT8: return number<arrow::UInt8Array>(i, text);
      case arrow::Type::UINT16: return number<arrow::UInt16Array>(i, text);
      case arrow::Type::UINT32: return number<arrow::UInt32Array>(i, text);
      case arrow::Type::UINT64: return number<arrow::UInt64Array>(i, text);
      case arrow::Type::FLOAT: return number<arrow::FloatArray>(i, text);
      case arrow::Type::DOUBLE: return number<arrow::DoubleArray>(i, text);
      case arrow::Type::DICTIONARY: return elements_->get(dictionary_index(i), text);
      default: return false;  // Type::NA
    }
  }

  // Calls consume(text) for each element of list i that is not null.
  template <class Consume>
  void for_each(int64_t i, const Consume& consume) {
    if (has_nulls_ && array_->IsNull(i)) return;
    if (type_ == arrow::Type::DICTIONARY) return elements_->for_each(dictionary_index(i), consume);
    auto [first, last] = list_range(i);
    std::string_view text;
    for (int64_t k = first; k < last; ++k)
      if (elements_->get(k, text)) consume(text);
  }

  // The first row with a text that is not UTF-8, -1 when there is none. Dictionaries are checked where they are made.
  int64_t find_invalid() const {
    if (!is_list_) return find_invalid_text(*array_);
    int64_t bad = find_invalid_text(*elements_->array_);
    for (int64_t i = 0; bad >= 0 && i < array_->length(); ++i) {
      auto [first, last] = list_range(i);
      if (first <= bad && bad < last && array_->IsValid(i)) return i;
    }
    return -1;
  }

 private:
  void prepare() {
    type_ = array_->type_id();
    switch (type_) {
      case arrow::Type::BINARY: type_ = arrow::Type::STRING; return;  // the same layout
      case arrow::Type::LARGE_BINARY: type_ = arrow::Type::LARGE_STRING; return;
      case arrow::Type::NA:
      case arrow::Type::STRING:
      case arrow::Type::LARGE_STRING:
      case arrow::Type::BOOL:
      case arrow::Type::INT8:
      case arrow::Type::INT16:
      case arrow::Type::INT32:
      case arrow::Type::INT64:
      case arrow::Type::UINT8:
      case arrow::Type::UINT16:
      case arrow::Type::UINT32:
      case arrow::Type::UINT64:
      case arrow::Type::FLOAT:
      case arrow::Type::DOUBLE: return;
      case arrow::Type::DICTIONARY:
        prepare_dictionary(static_cast<const arrow::DictionaryArray&>(*array_));
        return;
      case arrow::Type::LIST: return prepare_list(static_cast<const arrow::ListArray&>(*array_).values());
      case arrow::Type::LARGE_LIST: return prepare_list(static_cast<const arrow::LargeListArray&>(*array_).values());
      case arrow::Type::FIXED_SIZE_LIST: return prepare_list(static_cast<const arrow::FixedSizeListArray&>(*array_).values());
      case arrow::Type::HALF_FLOAT: is_half_float_ = true; [[fallthrough]];
      case arrow::Type::DATE32:
      case arrow::Type::DATE64:
      case arrow::Type::TIME32:
      case arrow::Type::TIME64:
      case arrow::Type::TIMESTAMP:
      case arrow::Type::DECIMAL128:
      case arrow::Type::DECIMAL256:
      case arrow::Type::STRING_VIEW:
      case arrow::Type::BINARY_VIEW: {
        auto cast = arrow::compute::Cast(*array_, arrow::utf8());
        if (!cast.ok()) fail_type();
        array_ = *cast;
        type_ = arrow::Type::STRING;
        return;
      }
      default: fail_type();
    }
  }

  void prepare_dictionary(const arrow::DictionaryArray& array) {
    elements_ = std::make_unique<Texts>(array.dictionary(), place_);
    if (array.indices()->type_id() == arrow::Type::INT32)
      int32_indices_ = static_cast<const arrow::Int32Array&>(*array.indices()).raw_values();
  }
  int64_t dictionary_index(int64_t i) const {
    return int32_indices_ ? int32_indices_[i] : static_cast<const arrow::DictionaryArray&>(*array_).GetValueIndex(i);
  }

  void prepare_list(std::shared_ptr<arrow::Array> values) {
    is_list_ = true;
    elements_ = std::make_unique<Texts>(std::move(values), place_);
    if (elements_->is_list()) fail_type();
  }

  std::pair<int64_t, int64_t> list_range(int64_t i) const {
    auto range = [i](const auto& list) { return std::pair<int64_t, int64_t>(list.value_offset(i), list.value_offset(i) + list.value_length(i)); };
    if (type_ == arrow::Type::LIST) return range(static_cast<const arrow::ListArray&>(*array_));
    if (type_ == arrow::Type::LARGE_LIST) return range(static_cast<const arrow::LargeListArray&>(*array_));
    return range(static_cast<const arrow::FixedSizeListArray&>(*array_));
  }

  [[noreturn]] void fail_type() {
    fail(ErrorKind::Data, place_, "the column has the type {}; expected text, numbers, bools, dates, or lists of them. Convert the column.",
         array_->type()->ToString());
  }

  template <class Array>
  bool number(int64_t i, std::string_view& text) {
    auto value = static_cast<const Array&>(*array_).Value(i);
    if constexpr (std::is_floating_point_v<decltype(value)>)
      if (std::isnan(value)) return false;
    text = {buffer_, static_cast<size_t>(std::to_chars(buffer_, buffer_ + sizeof buffer_, value).ptr - buffer_)};
    return true;
  }

  std::shared_ptr<arrow::Array> array_;
  std::string place_;
  arrow::Type::type type_ = arrow::Type::NA;
  bool has_nulls_ = false, is_list_ = false, is_half_float_ = false;
  const int32_t* int32_indices_ = nullptr;  // of a dictionary; the usual type, that of joined columns
  std::unique_ptr<Texts> elements_;  // of a list: its values; of a dictionary: the dictionary
  char buffer_[32];
};

// ---------------------------------------------------------------------------------------------------------------- side tables

struct TextHash {
  size_t operator()(std::string_view text) const { return hash64(text); }
};

class SideTable {
 public:
  SideTable(const Join& join, const fs::path& path, const Schema& schema, int64_t chunk_bytes, BadRows& bad_rows)
      : key_(join.key), missing_(schema.missing) {
    file_.path = path;
    if (!recognize(file_)) fail(ErrorKind::Io, path.string(), "the name has no known ending; expected {}. Rename the file.", kKnownEndings);
    source_ = open_source(file_, chunk_bytes, bad_rows);
    names_ = source_->names();
    int64_t keys = std::count(names_.begin(), names_.end(), key_);
    if (keys == 0) {
      std::string near = nearest_name(key_, names_);
      fail(ErrorKind::Data, shown_path(), "the side table lacks the key column '{}'{} Correct the schema's join or the file.", key_,
           near.empty() ? "." : fmt::format("; did you mean '{}'?", near));
    }
    if (keys > 1) fail(ErrorKind::Data, shown_path(), "the column '{}' stands in the header {} times; expected once.", key_, keys);
  }

  const std::string& key() const { return key_; }
  std::string shown_path() const { return file_.path.string(); }
  const std::vector<std::string>& names() const { return names_; }
  bool provides(const std::string& column) const { return column != key_ && std::count(names_.begin(), names_.end(), column) > 0; }

  // Reads those of `wanted` that the table provides.
  void load(const std::vector<std::string>& wanted) {
    std::vector<std::string> selected = {key_};
    for (const auto& column : wanted)
      if (provides(column)) {
        if (std::count(names_.begin(), names_.end(), column) > 1)
          fail(ErrorKind::Data, shown_path(), "the column '{}' stands in the header more than once; expected once.", column);
        selected.push_back(column);
      }
    source_->select(selected);
    std::vector<arrow::ArrayVector> pieces(selected.size());
    RawChunk place;
    place.file = shown_path();
    place.csv = file_.format == Format::Csv;
    place.skipped_rows = source_->skipped_rows();
    place.first_row = 1;
    int64_t rows = 0;
    while (auto batch = source_->next()) {
      for (size_t c = 0; c < selected.size(); ++c) pieces[c].push_back(batch->GetColumnByName(selected[c]));
      rows += batch->num_rows();
    }
    if (rows >= INT32_MAX) fail(ErrorKind::Data, shown_path(), "the side table has {} rows; expected fewer than {}.", rows, INT32_MAX);
    for (size_t c = 0; c < selected.size(); ++c) {
      auto column = pieces[c].empty() ? value_or_fail(arrow::MakeEmptyArray(arrow::utf8()), shown_path(), "cannot be held in memory")
                                      : value_or_fail(arrow::Concatenate(pieces[c]), shown_path(), "cannot be held in memory");
      if (column->type_id() == arrow::Type::DICTIONARY)
        column = value_or_fail(arrow::compute::Cast(*column, static_cast<const arrow::DictionaryType&>(*column->type()).value_type()), shown_path(),
                               "the dictionary cannot be read");
      if (int64_t bad = Texts(column, shown_path()).find_invalid(); bad >= 0)
        throw Error(ErrorKind::Data, place.where(bad, selected[c]), kNotUtf8);
      columns_[selected[c]] = column;
    }
    source_.reset();
    index_keys(columns_[key_], place);
  }

  std::shared_ptr<arrow::Array> column(const std::string& name) const { return columns_.at(name); }

  // For each row of `keys` the row of the table, null where there is none.
  std::shared_ptr<arrow::Array> match(const std::shared_ptr<arrow::Array>& keys, const std::string& place) {
    Texts texts(keys, place);
    if (texts.is_list() || texts.is_float()) fail_key_type(*keys, place);
    arrow::Int32Builder rows;
    if (auto status = rows.Reserve(keys->length()); !status.ok()) fail_arrow(status, place, "cannot be joined");
    std::string_view text;
    for (int64_t i = 0; i < keys->length(); ++i) {
      auto found = texts.get(i, text) && !missing_.contains(text) ? rows_.find(text) : rows_.end();
      if (found == rows_.end()) {
        rows.UnsafeAppendNull();
        ++unmatched_rows_;
      } else {
        rows.UnsafeAppend(found->second);
      }
    }
    return value_or_fail(rows.Finish(), place, "cannot be joined");
  }

  int64_t unmatched_rows() const { return unmatched_rows_; }

 private:
  void index_keys(const std::shared_ptr<arrow::Array>& keys, const RawChunk& place) {
    std::string where = shown_path() + ", column " + key_;
    Texts texts(keys, where);
    if (texts.is_list() || texts.is_float()) fail_key_type(*keys, where);
    std::vector<std::pair<size_t, int32_t>> ends;  // end of a row's key in key_texts_, and the row
    std::string_view text;
    for (int64_t i = 0; i < keys->length(); ++i)
      if (texts.get(i, text) && !missing_.contains(text)) {
        key_texts_ += text;
        ends.emplace_back(key_texts_.size(), static_cast<int32_t>(i));
      }
    rows_.reserve(ends.size());
    size_t start = 0;
    for (auto [end, row] : ends) {
      auto [first, is_new] = rows_.emplace(std::string_view(key_texts_).substr(start, end - start), row);
      if (!is_new)
        fail(ErrorKind::Data, place.where(row, key_), "the key '{}' stands in row {} already; expected each key once in a side table. Remove one.",
             shown(first->first), place.file_row(first->second));
      start = end;
    }
  }

  [[noreturn]] void fail_key_type(const arrow::Array& keys, const std::string& place) {
    fail(ErrorKind::Data, place, "the join key has the type {}; expected whole numbers or text. Convert the column.", keys.type()->ToString());
  }

  std::string key_;
  MissingTexts missing_;
  InputFile file_;
  std::vector<std::string> names_;
  std::unique_ptr<Source> source_;  // until loaded
  std::unordered_map<std::string, std::shared_ptr<arrow::Array>> columns_;
  std::string key_texts_;
  std::unordered_map<std::string_view, int32_t, TextHash> rows_;
  int64_t unmatched_rows_ = 0;
};

}  // namespace

fs::path find_side_file(const Join& join, const Schema& schema, const std::vector<std::string>& folders) {
  std::vector<fs::path> tried = {schema.folder / join.file};
  for (const auto& folder : folders) tried.push_back(fs::path(folder) / join.file);
  std::vector<std::string> names;
  for (const auto& path : tried) {
    std::error_code code;
    if (fs::is_regular_file(path, code)) return path;
    names.push_back(path.string());
  }
  fail(ErrorKind::Io, join.file, "the side table of the schema's join was not found; looked for {}. Correct the join's file, or put it there.",
       fmt::join(names, ", "));
}

// ---------------------------------------------------------------------------------------------------------------- RawChunk

int64_t RawChunk::file_row(int64_t row) const {
  int64_t number = first_row + row;
  if (skipped_rows)
    for (int64_t skipped : *skipped_rows)
      if (skipped >= first_row && skipped <= number) ++number;
  return number;
}

std::string RawChunk::where(int64_t row, const std::string& column) const {
  int64_t number = file_row(row);
  std::string text = fmt::format("{}, row {}", file, number);
  if (csv) {
    InputFile scanned;
    scanned.path = file;
    recognize(scanned);
    if (CsvPlace place = scan_csv(scanned, number); place.row == number) text += fmt::format(" (line {})", place.line);
  }
  if (column.empty()) return text;
  text += ", column " + column;
  auto field = columns ? columns->schema()->GetFieldByName(column) : nullptr;
  if (field && field->metadata()) {
    auto side = field->metadata()->Get(kSideTableKey);
    if (side.ok()) text += " of " + *side;
  }
  return text;
}

// ---------------------------------------------------------------------------------------------------------------- CellReader

struct CellReader::State {
  State(const RawChunk& chunk_in, int column_index, const Schema& schema)
      : chunk(chunk_in), name(chunk.columns->column_name(column_index)),
        texts(chunk.columns->column(column_index), chunk.file + ", column " + name), missing(schema.missing), is_list(texts.is_list()) {
    if (int64_t bad = texts.find_invalid(); bad >= 0) throw Error(ErrorKind::Data, chunk.where(bad, name), kNotUtf8);
  }

  const RawChunk& chunk;
  std::string name;
  Texts texts;
  MissingTexts missing;
  bool is_list;
};

CellReader::CellReader(const RawChunk& chunk, int column_index, const Schema& schema)
    : state_(std::make_shared<State>(chunk, column_index, schema)) {}

Cell CellReader::cell(int64_t row) {
  if (state_->is_list)
    fail(ErrorKind::Data, state_->chunk.where(row, state_->name), "found a list; expected one value. Give the feature the kind ids or sequence.");
  Cell cell;
  cell.missing = !state_->texts.get(row, cell.text) || state_->missing.contains(cell.text);
  return cell;
}

bool CellReader::is_float() const { return state_->texts.is_float(); }
bool CellReader::is_list() const { return state_->is_list; }

void CellReader::elements(int64_t row, const std::string& separator, std::vector<std::string>& out) {
  size_t count = 0;
  auto add = [&](std::string_view text) {
    if (text.empty() || state_->missing.contains(text)) return;
    if (count < out.size())
      out[count].assign(text);  // keeps the string's memory
    else
      out.emplace_back(text);
    ++count;
  };
  if (state_->is_list) {
    state_->texts.for_each(row, add);
  } else if (Cell whole = cell(row); !whole.missing) {
    std::string_view rest = whole.text;
    for (size_t end; (end = rest.find(separator)) != std::string_view::npos; rest.remove_prefix(end + separator.size())) add(rest.substr(0, end));
    add(rest);
  }
  out.resize(count);
}

// ---------------------------------------------------------------------------------------------------------------- RawReader

struct RawReader::State {
  // Where a needed column of the current file comes from.
  struct Origin {
    enum class Kind { Own, Partition, Side, Absent } kind = Kind::Absent;
    size_t index = 0;  // of the partition or the side table
  };

  State(const RawInput& input, const Schema& schema_in, std::vector<std::string> columns_in, Options options_in)
      : schema(schema_in), columns(std::move(columns_in)), options(std::move(options_in)), files(list_input(input.files)) {
    arrow::util::InitializeUTF8();
    if (files.empty()) fail(ErrorKind::Config, "input files", "none was given; expected at least one file or folder.");
    bad_rows.limit = schema.max_bad_rows;
    for (const auto& file : files) total_bytes += file.bytes;
  }

  const InputFile& file() const { return files[file_index]; }

  bool is_optional(const std::string& column) const {
    return std::find(options.optional_columns.begin(), options.optional_columns.end(), column) != options.optional_columns.end();
  }

  std::optional<Origin> find_own(const std::string& column) const {
    int64_t count = std::count(source->names().begin(), source->names().end(), column);
    if (count > 1)
      fail(ErrorKind::Data, file().path.string(), "the column '{}' stands in the header {} times; expected once. Rename or remove one.", column, count);
    if (count == 1) return Origin{Origin::Kind::Own, 0};
    for (size_t i = 0; i < file().partitions.size(); ++i)
      if (file().partitions[i].first == column) return Origin{Origin::Kind::Partition, i};
    return std::nullopt;
  }

  // Among the first `count` side tables.
  std::optional<Origin> find_side(const std::string& column, size_t count) const {
    std::optional<Origin> found;
    for (size_t j = 0; j < count; ++j) {
      if (!sides[j]->provides(column)) continue;
      if (found)
        fail(ErrorKind::Data, file().path.string(), "the column '{}' stands in two side tables, {} and {}; expected one. Rename or remove one.", column,
             sides[found->index]->shown_path(), sides[j]->shown_path());
      found = Origin{Origin::Kind::Side, j};
    }
    return found;
  }

  [[noreturn]] void fail_lacking(const std::string& column, const std::string& purpose) const {
    std::vector<std::string> known = source->names();
    for (const auto& [name, value] : file().partitions) known.push_back(name);
    std::string place = "the file";
    if (!sides.empty()) place = "neither the file nor a side table";
    for (const auto& side : sides) known.insert(known.end(), side->names().begin(), side->names().end());
    std::string near = nearest_name(column, known);
    fail(ErrorKind::Data, file().path.string(), "{} {} the column '{}'{}{} Correct the schema or the data.", place, sides.empty() ? "lacks" : "has", column,
         purpose, near.empty() ? fmt::format("; its columns are: {}.", fmt::join(source->names(), ", ")) : fmt::format("; did you mean '{}'?", near));
  }

  // The columns that side tables must hold: the needed ones, and keys of later joins.
  void load_sides() {
    std::vector<std::string> wanted = columns;
    for (const auto& join : schema.joins) {
      sides.push_back(std::make_unique<SideTable>(join, find_side_file(join, schema, options.join_folders), schema, options.chunk_bytes, bad_rows));
      wanted.push_back(join.key);
    }
    std::sort(wanted.begin(), wanted.end());
    wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
    for (auto& side : sides) side->load(wanted);
  }

  void open_file() {
    source = open_source(file(), options.chunk_bytes, bad_rows);
    rows_read = 0;
    origins.clear();
    std::vector<std::string> own_needed;
    bool needs_sides = false;
    for (const auto& column : columns) needs_sides |= !find_own(column) && !is_optional(column);
    if (needs_sides && sides.empty()) load_sides();
    std::vector<bool> used(sides.size(), false);
    auto resolve = [&](const std::string& column, size_t side_count) {
      auto origin = find_own(column);
      if (!origin) origin = find_side(column, side_count);
      if (!origin) return Origin{};
      if (origin->kind == Origin::Kind::Own) own_needed.push_back(column);
      if (origin->kind == Origin::Kind::Side) used[origin->index] = true;
      return *origin;
    };
    for (const auto& column : columns) {
      origins.push_back(resolve(column, sides.size()));
      if (origins.back().kind == Origin::Kind::Absent && !is_optional(column)) fail_lacking(column, "");
    }
    // Keys after columns and the last join first: a key may come from an earlier side table, which is then used too.
    key_origins.assign(sides.size(), Origin{});
    for (size_t j = sides.size(); j-- > 0;) {
      if (!used[j]) continue;
      key_origins[j] = resolve(sides[j]->key(), j);
      if (key_origins[j].kind == Origin::Kind::Absent) fail_lacking(sides[j]->key(), fmt::format(", the key of {}", sides[j]->shown_path()));
    }
    side_used = used;
    std::sort(own_needed.begin(), own_needed.end());
    own_needed.erase(std::unique(own_needed.begin(), own_needed.end()), own_needed.end());
    if (options.keep_own_columns)
      source->select_all();
    else
      source->select(own_needed);
  }

  std::shared_ptr<arrow::Array> partition_array(size_t index, int64_t rows) const {
    const auto& value = file().partitions[index].second;
    std::shared_ptr<arrow::Scalar> scalar = value ? std::make_shared<arrow::StringScalar>(*value) : arrow::MakeNullScalar(arrow::utf8());
    return value_or_fail(arrow::MakeArrayFromScalar(*scalar, rows), file().path.string(), "a folder's value cannot be read");
  }

  bool next(RawChunk& chunk) {
    for (; file_index < files.size(); ++file_index) {
      if (!source) open_file();
      while (auto batch = source->next()) {
        if (batch->num_rows() == 0) continue;
        fill(chunk, batch);
        return true;
      }
      source.reset();
      bytes_done += file().bytes;
    }
    return false;
  }

  void fill(RawChunk& chunk, const std::shared_ptr<arrow::RecordBatch>& batch) {
    int64_t rows = batch->num_rows();
    chunk = RawChunk{};
    chunk.file = file().path.string();
    chunk.csv = file().format == Format::Csv;
    chunk.skipped_rows = source->skipped_rows();
    RawChunk from_start = chunk;
    from_start.first_row = 1;
    chunk.first_row = from_start.file_row(rows_read);
    rows_read += rows;

    std::vector<std::shared_ptr<arrow::Array>> matches(sides.size());
    for (size_t j = 0; j < sides.size(); ++j)
      if (side_used[j]) matches[j] = sides[j]->match(array_of(sides[j]->key(), key_origins[j], batch, matches), chunk.file + ", column " + sides[j]->key());
    arrow::FieldVector fields;
    arrow::ArrayVector arrays;
    for (size_t c = 0; c < columns.size(); ++c) {
      auto array = array_of(columns[c], origins[c], batch, matches);
      std::shared_ptr<const arrow::KeyValueMetadata> metadata;
      if (origins[c].kind == Origin::Kind::Side) metadata = arrow::key_value_metadata({kSideTableKey}, {sides[origins[c].index]->shown_path()});
      fields.push_back(arrow::field(columns[c], array->type(), true, metadata));
      arrays.push_back(std::move(array));
    }
    chunk.columns = arrow::RecordBatch::Make(arrow::schema(fields), rows, arrays);
    if (options.keep_own_columns) chunk.own = own_of(batch);
    check_dictionaries(chunk);
  }

  std::shared_ptr<arrow::Array> array_of(const std::string& column, const Origin& origin, const std::shared_ptr<arrow::RecordBatch>& batch,
                                         const std::vector<std::shared_ptr<arrow::Array>>& matches) const {
    switch (origin.kind) {
      case Origin::Kind::Own: return batch->GetColumnByName(column);
      case Origin::Kind::Partition: return partition_array(origin.index, batch->num_rows());
      case Origin::Kind::Side: {
        auto values = sides[origin.index]->column(column);
        return std::make_shared<arrow::DictionaryArray>(arrow::dictionary(arrow::int32(), values->type()), matches[origin.index], values);
      }
      case Origin::Kind::Absent: return std::make_shared<arrow::NullArray>(batch->num_rows());
    }
    return nullptr;
  }

  std::shared_ptr<arrow::RecordBatch> own_of(const std::shared_ptr<arrow::RecordBatch>& batch) const {
    auto own = batch;
    for (size_t i = 0; i < file().partitions.size(); ++i) {
      const std::string& name = file().partitions[i].first;
      if (std::count(source->names().begin(), source->names().end(), name)) continue;
      own = value_or_fail(own->AddColumn(own->num_columns(), name, partition_array(i, batch->num_rows())), file().path.string(), "a folder's value cannot be added");
    }
    return own;
  }

  // Dictionaries of the file itself; those of side tables were checked when they were loaded.
  void check_dictionaries(const RawChunk& chunk) const {
    for (size_t c = 0; c < columns.size(); ++c) {
      const arrow::Array& column = *chunk.columns->column(static_cast<int>(c));
      if (origins[c].kind != Origin::Kind::Own || column.type_id() != arrow::Type::DICTIONARY) continue;
      const auto& array = static_cast<const arrow::DictionaryArray&>(column);
      int64_t bad = find_invalid_text(*array.dictionary());
      for (int64_t i = 0; bad >= 0 && i < array.length(); ++i)
        if (array.IsValid(i) && array.GetValueIndex(i) == bad) throw Error(ErrorKind::Data, chunk.where(i, columns[c]), kNotUtf8);
    }
  }

  const Schema& schema;
  std::vector<std::string> columns;
  Options options;
  std::vector<InputFile> files;
  size_t file_index = 0;
  BadRows bad_rows;
  int64_t total_bytes = 0, bytes_done = 0, rows_read = 0;
  std::unique_ptr<Source> source;       // of the current file
  std::vector<Origin> origins;          // of the current file, aligned with columns
  std::vector<Origin> key_origins;      // aligned with sides
  std::vector<bool> side_used;          // aligned with sides
  std::vector<std::unique_ptr<SideTable>> sides;
};

RawReader::RawReader(const RawInput& input, const Schema& schema, std::vector<std::string> columns, Options options)
    : state_(std::make_unique<State>(input, schema, std::move(columns), std::move(options))) {}
RawReader::~RawReader() = default;

bool RawReader::next(RawChunk& chunk) { return state_->next(chunk); }
int64_t RawReader::total_bytes() const { return state_->total_bytes; }
int64_t RawReader::read_bytes() const { return state_->bytes_done + (state_->source ? state_->source->bytes_read() : 0); }

std::vector<int64_t> RawReader::unmatched_rows() const {
  std::vector<int64_t> counts(state_->schema.joins.size(), 0);
  for (size_t j = 0; j < state_->sides.size(); ++j) counts[j] = state_->sides[j]->unmatched_rows();
  return counts;
}

int64_t RawReader::bad_rows() const { return state_->bad_rows.count; }

}  // namespace ektm
