#pragma once
// Scalars for TensorBoard, without TensorFlow: event files are TFRecords of `Event` protobufs, both encoded here.
// https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace ektm {

// CRC-32C (Castagnoli), as TFRecords use it.
uint32_t crc32c(std::string_view bytes);

class TensorBoardWriter {
 public:
  // Creates `folder` where needed and in it a new file events.out.tfevents.<seconds>.<microseconds>.ektm; TensorBoard shows all
  // files of a folder as one run. Error Io when that is impossible.
  explicit TensorBoardWriter(const std::filesystem::path& folder);
  ~TensorBoardWriter();  // flushes what it can; errors show in flush() only
  TensorBoardWriter(const TensorBoardWriter&) = delete;
  TensorBoardWriter& operator=(const TensorBoardWriter&) = delete;

  // One point of the curve `tag`; '/' in a tag groups curves. wall_time: seconds since 1970, now when absent.
  // A resumed run replaces what earlier files of the folder hold from its first step on.
  void scalar(const std::string& tag, int64_t step, double value, std::optional<double> wall_time = std::nullopt);
  // Makes everything so far visible to readers. Error Io (disk full, ...).
  void flush();

  const std::filesystem::path& file() const { return file_; }

 private:
  void write_record(const std::string& event);
  std::filesystem::path file_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> stream_{nullptr, &std::fclose};
  bool started_ = false;  // the session's first step is known and written
};

}  // namespace ektm
