#pragma once
// Coded chunks on disk, written once and read once in the same order, so that the raw files are read once.
#include <arrow/io/file.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/coded_chunk.h"

namespace ektm {

class CodedSpool {
 public:
  // `path`: a file that loses its name at once, so that it is gone however the process ends. Error Io.
  explicit CodedSpool(const std::filesystem::path& path);
  // Codes take one, two or four bytes each, as those of their chunk need.
  void write(const CodedChunk& chunk);
  // After the last write(). False at the end.
  bool read(CodedChunk& chunk);
  int64_t bytes() const { return bytes_; }
  int64_t bytes_read() const { return bytes_read_; }

 private:
  std::string where_;
  std::shared_ptr<arrow::io::FileOutputStream> out_;
  std::shared_ptr<arrow::io::ReadableFile> in_;
  std::vector<size_t> sizes_;  // of the chunks in bytes
  size_t features_ = 0;        // of a chunk
  size_t next_ = 0;            // chunk to read
  int64_t bytes_ = 0, bytes_read_ = 0;
  std::vector<char> buffer_;
};

}  // namespace ektm
