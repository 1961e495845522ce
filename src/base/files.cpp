#include "base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>

#include "base/error.h"

namespace ektm {
namespace fs = std::filesystem;
namespace {

std::string remedy(int error) {
  switch (error) {
    case ENOSPC: return "The disk is full: free some space or choose another folder.";
    case EACCES:
    case EPERM:
    case EROFS: return "The place is not writable: choose another folder or change its permissions.";
    case ENOENT: return "Check the path.";
    case EDQUOT: return "The disk quota is used up: free some space or choose another folder.";
    default: return "Check the path and the disk.";
  }
}

[[noreturn]] void fail_io(const fs::path& path, const char* what) {
  int error = errno;
  fail(ErrorKind::Io, path.string(), "cannot {}: {}. {}", what, std::strerror(error), remedy(error));
}

fs::path partial_name(const fs::path& path) { return fs::path(path.string() + ".partial-" + std::to_string(getpid())); }

void sync_path(const fs::path& path, bool directory) {
  int fd = open(path.c_str(), O_RDONLY | (directory ? O_DIRECTORY : 0));
  if (fd < 0) fail_io(path, "open for syncing");
  int result = fsync(fd);
  int error = errno;
  close(fd);
  if (result != 0 && error != EINVAL && error != EROFS) errno = error, fail_io(path, "sync to disk");
}

fs::path parent_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

}  // namespace

std::string read_file(const fs::path& path) {
  std::error_code code;
  if (fs::is_directory(path, code)) fail(ErrorKind::Io, path.string(), "is a folder; expected a file. Check the path.");
  int fd = open(path.c_str(), O_RDONLY);
  if (fd < 0) fail_io(path, "open for reading");
  std::string content;
  char buffer[1 << 16];
  ssize_t count;
  while ((count = read(fd, buffer, sizeof buffer)) > 0) content.append(buffer, count);
  int error = errno;
  close(fd);
  if (count < 0) errno = error, fail_io(path, "read");
  return content;
}

void make_directories(const fs::path& path) {
  std::error_code code;
  fs::create_directories(path, code);
  if (code) errno = code.value(), fail_io(path, "create the folder");
  if (!fs::is_directory(path)) errno = ENOTDIR, fail_io(path, "create the folder");
}

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)), partial_(partial_name(path_)) {
  fd_ = open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_io(path_, "open for writing");
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(partial_.c_str());
}

void AtomicFile::write(const void* bytes, size_t count) {
  const char* at = static_cast<const char*>(bytes);
  while (count > 0) {
    ssize_t written = ::write(fd_, at, count);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_io(path_, "write");
    at += written;
    count -= written;
  }
}

void AtomicFile::commit() {
  if (fsync(fd_) != 0 && errno != EINVAL) fail_io(path_, "sync to disk");
  if (close(std::exchange(fd_, -1)) != 0) {
    int error = errno;
    unlink(partial_.c_str());
    errno = error;
    fail_io(path_, "close");
  }
  if (rename(partial_.c_str(), path_.c_str()) != 0) {
    int error = errno;
    unlink(partial_.c_str());
    errno = error;
    fail_io(path_, "rename into place");
  }
  sync_path(parent_of(path_), true);
}

void write_file_atomic(const fs::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content.data(), content.size());
  file.commit();
}

StagedDirectory::StagedDirectory(fs::path target) : target_(std::move(target)) {
  if (!target_.has_filename()) target_ = target_.parent_path();  // "out/" -> "out"
  staging_ = partial_name(target_);
  make_directories(parent_of(target_));
  std::error_code code;
  fs::remove_all(staging_, code);
  make_directories(staging_);
}

StagedDirectory::~StagedDirectory() {
  std::error_code code;
  if (!committed_) fs::remove_all(staging_, code);
}

void StagedDirectory::commit() {
  for (const auto& entry : fs::recursive_directory_iterator(staging_)) sync_path(entry.path(), entry.is_directory());
  sync_path(staging_, true);
  fs::path aside = fs::path(target_.string() + ".replaced-" + std::to_string(getpid()));
  bool replaces = fs::exists(target_);
  if (replaces && rename(target_.c_str(), aside.c_str()) != 0) fail_io(target_, "move the old folder aside");
  if (rename(staging_.c_str(), target_.c_str()) != 0) {
    int error = errno;
    if (replaces) rename(aside.c_str(), target_.c_str());
    errno = error;
    fail_io(target_, "rename into place");
  }
  committed_ = true;
  sync_path(parent_of(target_), true);
  std::error_code code;
  if (replaces) fs::remove_all(aside, code);
}

std::string checksum(std::string_view bytes) { return fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size())); }

std::string checksum_file(const fs::path& path) {
  int fd = open(path.c_str(), O_RDONLY);
  if (fd < 0) fail_io(path, "open for reading");
  auto buffer = std::make_unique<char[]>(1 << 20);
  XXH3_state_t* state = XXH3_createState();
  XXH3_64bits_reset(state);
  ssize_t count;
  while ((count = read(fd, buffer.get(), 1 << 20)) > 0) XXH3_64bits_update(state, buffer.get(), count);
  int error = errno;
  uint64_t digest = XXH3_64bits_digest(state);
  XXH3_freeState(state);
  close(fd);
  if (count < 0) errno = error, fail_io(path, "read");
  return fmt::format("{:016x}", digest);
}

}  // namespace ektm
