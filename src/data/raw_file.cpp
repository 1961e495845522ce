#include "data/raw_file.h"

#include <arrow/io/compressed.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <tuple>

#include "base/error.h"
#include "data/arrow_check.h"

namespace ektm {
namespace fs = std::filesystem;

bool recognize(InputFile& file) {
  std::string name = file.path.filename().string();
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  static const std::tuple<const char*, Format, arrow::Compression::type> endings[] = {
      {".csv", Format::Csv, arrow::Compression::UNCOMPRESSED},
      {".csv.gz", Format::Csv, arrow::Compression::GZIP},
      {".csv.zst", Format::Csv, arrow::Compression::ZSTD},
      {".csv.bz2", Format::Csv, arrow::Compression::BZ2},
      {".parquet", Format::Parquet, arrow::Compression::UNCOMPRESSED},
      {".arrow", Format::Arrow, arrow::Compression::UNCOMPRESSED},
      {".arrows", Format::Arrow, arrow::Compression::UNCOMPRESSED},
      {".ipc", Format::Arrow, arrow::Compression::UNCOMPRESSED},
      {".feather", Format::Arrow, arrow::Compression::UNCOMPRESSED}};
  for (auto [ending, format, compression] : endings)
    if (name.ends_with(ending)) {
      file.format = format;
      file.compression = compression;
      return true;
    }
  return false;
}

namespace {

std::string decode_percent(const std::string& text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    int byte = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(&text[i + 1], &text[i + 1] + 2, byte, 16).ptr == &text[i + 1] + 2) {
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
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.path().filename() < b.path().filename(); });
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
           "found a file in a data folder that is no known data file; expected {}. Move it away, begin its name with '_' or '.', "
           "or name the "
           "data files one by one.",
           kKnownEndings);
    }
  }
}

}  // namespace

std::vector<InputFile> list_input(const std::vector<std::string>& names) {
  std::vector<InputFile> files;
  for (const auto& name : names) {
    InputFile file;
    file.path = name;
    std::error_code code;
    if (!fs::exists(file.path, code))
      fail(ErrorKind::Io, name, "does not exist{}. Check the path.", code ? " or cannot be read: " + code.message() : "");
    if (fs::is_directory(file.path, code)) {
      size_t before = files.size();
      list_folder(file.path, InputFile{}, files);
      if (files.size() == before)
        fail(ErrorKind::Io, name, "the folder holds no data file; expected {}. Check the path.", kKnownEndings);
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
  if (!opened.ok())
    fail(ErrorKind::Io, path.string(), "cannot be opened: {}. Check the path and its permissions.", opened.status().message());
  return *opened;
}

std::shared_ptr<arrow::io::InputStream> open_stream(const InputFile& file, std::shared_ptr<arrow::io::ReadableFile> raw) {
  if (file.compression == arrow::Compression::UNCOMPRESSED) return raw;
  auto codec = arrow::util::Codec::Create(file.compression);
  if (!codec.ok()) fail(ErrorKind::Io, file.path.string(), "this build of Arrow cannot read it: {}.", codec.status().message());
  // The stream keeps what it needs of the codec.
  return checked_data(arrow::io::CompressedInputStream::Make(codec->get(), raw), file.path.string(), "cannot be decompressed");
}

}  // namespace ektm
