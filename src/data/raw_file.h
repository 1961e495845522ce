#pragma once
// The files of an input: their formats, the folders that hold them, and their bytes.
#include <arrow/io/file.h>
#include <arrow/util/compression.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ektm {

enum class Format { Csv, Parquet, Arrow };

struct InputFile {
  std::filesystem::path path;
  Format format = Format::Csv;
  arrow::Compression::type compression = arrow::Compression::UNCOMPRESSED;
  std::vector<std::pair<std::string, std::optional<std::string>>> partitions;  // of its key=value folders; nullopt = missing
  int64_t bytes = 0;
};

inline constexpr const char* kKnownEndings = ".csv, .csv.gz, .csv.zst, .csv.bz2, .parquet, .arrow, .arrows, .ipc or .feather";

// Sets format and compression by the ending of the name; false when it is not known.
bool recognize(InputFile& file);

// The data files that `names` stand for, folders listed recursively and sorted by name. Error Io for a file or folder that is not
// there, without a known ending, or for a folder without data files.
std::vector<InputFile> list_input(const std::vector<std::string>& names);

// Error Io when it cannot be opened.
std::shared_ptr<arrow::io::ReadableFile> open_file(const std::filesystem::path& path);

// `raw` decompressed.
std::shared_ptr<arrow::io::InputStream> open_stream(const InputFile& file, std::shared_ptr<arrow::io::ReadableFile> raw);

}  // namespace ektm
