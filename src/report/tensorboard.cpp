#include "report/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/error.h"
#include "base/files.h"

namespace ektm {
namespace {

static_assert(std::endian::native == std::endian::little, "TFRecords and protobufs are little-endian");

// Protobuf's wire types.
enum WireType : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

template <class T>
void put_fixed(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void put_key(std::string& out, uint64_t field, WireType type) {
  put_varint(out, field << 3 | type);
}

void put_bytes(std::string& out, uint64_t field, std::string_view bytes) {
  put_key(out, field, kBytes);
  put_varint(out, bytes.size());
  out.append(bytes);
}

uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return std::rotr(crc, 15) + 0xa282ead8u;
}

std::chrono::microseconds now() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch());
}

// The fields of `Event` that every event has: wall_time = 1, step = 2.
std::string event(double wall_time, int64_t step) {
  std::string out;
  put_key(out, 1, kFixed64);
  put_fixed(out, wall_time);
  put_key(out, 2, kVarint);
  put_varint(out, static_cast<uint64_t>(step));
  return out;
}

double seconds_now() {
  return std::chrono::duration<double>(now()).count();
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static const std::array<uint32_t, 256> kTable = [] {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0x82f63b78u : 0);
      table[i] = value;
    }
    return table;
  }();
  uint32_t crc = 0xffffffffu;
  for (char byte : bytes) crc = (crc >> 8) ^ kTable[(crc ^ static_cast<unsigned char>(byte)) & 0xff];
  return ~crc;
}

TensorBoardWriter::TensorBoardWriter(const std::filesystem::path& folder) {
  make_directories(folder);
  // TensorBoard reads the files of a folder in the order of their names: later sessions must come later.
  int fd = -1;
  do {
    const int64_t time_us = now().count();
    file_ = folder / fmt::format("events.out.tfevents.{}.{:06}.ektm", time_us / 1000000, time_us % 1000000);
    fd = open(file_.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0666);
  } while (fd < 0 && errno == EEXIST);
  if (fd >= 0) stream_.reset(fdopen(fd, "wb"));
  if (!stream_)
    fail(ErrorKind::Io, file_.string(), "cannot create the file: {}. Check the folder and its permissions.",
         std::strerror(errno));
  std::string version = event(seconds_now(), 0);
  put_bytes(version, 3, "brain.Event:2");  // file_version
  write_record(version);
}

TensorBoardWriter::~TensorBoardWriter() = default;

void TensorBoardWriter::scalar(const std::string& tag, int64_t step, double value, std::optional<double> wall_time) {
  const double seconds = wall_time ? *wall_time : seconds_now();
  if (!started_) {
    // SessionLog {status: START}: readers drop what an interrupted session wrote from this step on.
    std::string log, start = event(seconds, step);
    put_key(log, 1, kVarint);
    put_varint(log, 1);
    put_bytes(start, 7, log);
    write_record(start);
    started_ = true;
  }
  std::string point, summary, out = event(seconds, step);
  put_bytes(point, 1, tag);
  put_key(point, 2, kFixed32);  // simple_value
  put_fixed(point, static_cast<float>(value));
  put_bytes(summary, 1, point);
  put_bytes(out, 5, summary);
  write_record(out);
}

void TensorBoardWriter::write_record(const std::string& event) {
  std::string length, record;
  put_fixed(length, static_cast<uint64_t>(event.size()));
  record = length;
  put_fixed(record, masked_crc(length));
  record += event;
  put_fixed(record, masked_crc(event));
  if (std::fwrite(record.data(), 1, record.size(), stream_.get()) != record.size())
    fail(ErrorKind::Io, file_.string(), "cannot write: {}. Check the disk.", std::strerror(errno));
}

void TensorBoardWriter::flush() {
  if (std::fflush(stream_.get()) != 0)
    fail(ErrorKind::Io, file_.string(), "cannot write: {}. Check the disk.", std::strerror(errno));
}

}  // namespace ektm
