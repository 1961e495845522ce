#include "data/coded_spool.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "data/arrow_check.h"

namespace ektm {
namespace {

constexpr size_t kPaddingBytes = 8;

// Values one behind the other; arrays as their count and bytes.
class Packer {
 public:
  explicit Packer(std::vector<char>& buffer) : buffer_(buffer) {}

  void number(int64_t value) { claim(static_cast<size_t>(value), 0); }
  template <class T>
  void array(const std::vector<T>& values) {
    char* out = claim(values.size(), values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(out, values.data(), values.size() * sizeof(T));
  }
  // At least -1 each.
  void codes(const std::vector<int32_t>& codes) {
    int32_t highest = 0;
    for (int32_t code : codes) highest = std::max(highest, code + 1);
    const uint8_t width = highest <= UINT8_MAX ? 1 : highest <= UINT16_MAX ? 2 : 4;
    claim(width, 0);
    if (width == 1) put_as<uint8_t>(codes);
    if (width == 2) put_as<uint16_t>(codes);
    if (width == 4) put_as<uint32_t>(codes);
  }
  size_t size() const { return size_; }

 private:
  template <class T>
  void put_as(const std::vector<int32_t>& codes) {
    char* out = claim(codes.size(), codes.size() * sizeof(T));
    for (size_t i = 0; i < codes.size(); ++i) {
      const T value = static_cast<T>(codes[i] + 1);
      std::memcpy(out + i * sizeof(T), &value, sizeof(T));
    }
  }
  // Room for `bytes` behind a number.
  char* claim(size_t number, size_t bytes) {
    const size_t at = size_;
    size_ += sizeof number + bytes;
    if (buffer_.size() < size_ + kPaddingBytes) buffer_.resize(2 * size_ + kPaddingBytes);
    std::memcpy(buffer_.data() + at, &number, sizeof number);
    return buffer_.data() + at + sizeof number;
  }

  std::vector<char>& buffer_;
  size_t size_ = 0;
};

class Unpacker {
 public:
  explicit Unpacker(const char* at) : at_(at) {}

  void number(int64_t& value) { value = static_cast<int64_t>(take()); }
  template <class T>
  void array(std::vector<T>& values) {
    values.resize(take());
    if (!values.empty()) std::memcpy(values.data(), at_, values.size() * sizeof(T));
    at_ += values.size() * sizeof(T);
  }
  void codes(std::vector<int32_t>& codes) {
    const size_t width = take();
    codes.resize(take());
    if (width == 1) get_as<uint8_t>(codes);
    if (width == 2) get_as<uint16_t>(codes);
    if (width == 4) get_as<uint32_t>(codes);
  }

 private:
  template <class T>
  void get_as(std::vector<int32_t>& codes) {
    for (size_t i = 0; i < codes.size(); ++i) {
      T value;
      std::memcpy(&value, at_ + i * sizeof(T), sizeof(T));
      codes[i] = static_cast<int32_t>(value) - 1;
    }
    at_ += codes.size() * sizeof(T);
  }

  size_t take() {
    size_t number;
    std::memcpy(&number, at_, sizeof number);
    at_ += sizeof number;
    return number;
  }

  const char* at_;
};

// The order of a chunk's parts, for both ways.
template <class Stream, class Chunk>
void pass(Stream& stream, Chunk& chunk) {
  stream.number(chunk.rows);
  for (auto& column : chunk.features) {
    stream.codes(column.codes);
    stream.array(column.offsets);
    stream.array(column.numbers);
  }
  stream.array(chunk.labels);
  stream.array(chunk.weights);
  stream.array(chunk.groups);
  stream.codes(chunk.scenarios);
}

}  // namespace

CodedSpool::CodedSpool(const std::filesystem::path& path) : where_(path.string()) {
  out_ = checked_io(arrow::io::FileOutputStream::Open(where_), where_);
  in_ = checked_io(arrow::io::ReadableFile::Open(where_), where_);
  unlink(where_.c_str());
}

void CodedSpool::write(const CodedChunk& chunk) {
  Packer packer(buffer_);
  features_ = chunk.features.size();
  pass(packer, chunk);
  checked_io(out_->Write(buffer_.data(), static_cast<int64_t>(packer.size())), where_);
  sizes_.push_back(packer.size());
  bytes_ += static_cast<int64_t>(packer.size());
}

bool CodedSpool::read(CodedChunk& chunk) {
  if (out_) {
    checked_io(out_->Close(), where_);
    out_.reset();
  }
  if (next_ == sizes_.size()) return false;
  const size_t size = sizes_[next_++];
  if (buffer_.size() < size) buffer_.resize(size);
  const int64_t count = checked_io(in_->Read(static_cast<int64_t>(size), buffer_.data()), where_);
  if (count != static_cast<int64_t>(size))
    fail(ErrorKind::Io, where_, "an intermediate file was cut off: check the disk and run again.");
  bytes_read_ += count;
  Unpacker unpacker(buffer_.data());
  chunk.features.resize(features_);
  pass(unpacker, chunk);
  return true;
}

}  // namespace ektm
