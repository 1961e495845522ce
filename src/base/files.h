#pragma once
// Files that are whole or absent: write beside, fsync, rename.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace ektm {

// The whole content. Error Io when missing or unreadable.
std::string read_file(const std::filesystem::path& path);

// Writes `path`.partial-<pid>, fsyncs, renames over `path`, fsyncs the folder. Error Io (disk full, read-only folder, ...) leaves
// no partial file behind.
void write_file_atomic(const std::filesystem::path& path, std::string_view content);

// A file that appears under its name only when commit() was called. write() may be called many times.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();  // without commit(): removes the partial file
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(const void* bytes, size_t count);
  void commit();
  const std::filesystem::path& partial_path() const { return partial_; }

 private:
  std::filesystem::path path_, partial_;
  int fd_ = -1;
};

// A folder that appears under its name only when commit() was called. Work inside path(); commit() fsyncs every file, then renames
// over `target` (an existing target is replaced: moved aside, then removed).
class StagedDirectory {
 public:
  explicit StagedDirectory(std::filesystem::path target);
  ~StagedDirectory();  // without commit(): removes everything that was staged
  StagedDirectory(const StagedDirectory&) = delete;
  StagedDirectory& operator=(const StagedDirectory&) = delete;
  const std::filesystem::path& path() const { return staging_; }
  void commit();

 private:
  std::filesystem::path target_, staging_;
  bool committed_ = false;
};

// Creates the folder and its parents; Error Io with the remedy when that is impossible.
void make_directories(const std::filesystem::path& path);

// XXH3-64 of bytes or of a file's content, as 16 hexadecimal digits.
std::string checksum(std::string_view bytes);
std::string checksum_file(const std::filesystem::path& path);

}  // namespace ektm
