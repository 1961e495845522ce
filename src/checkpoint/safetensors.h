#pragma once
// Weights on disk in the safetensors format (a JSON header, then raw tensors), which every Python tool reads.
#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace ektm {

inline constexpr int kCheckpointFormatVersion = 1;

struct TensorFile {
  std::vector<std::pair<std::string, at::Tensor>> tensors;  // float32, float64, int64, int32, uint8; contiguous CPU
  std::map<std::string, std::string> metadata;

  const at::Tensor& at(const std::string& name, const std::filesystem::path& file) const;  // Error Model when absent
};

// Whole or absent. Adds the metadata "ektm.format" and "ektm.checksum" (XXH3-64 over names, shapes, bytes and metadata).
void save_tensors(const std::filesystem::path& file, const TensorFile& content);

// Error Io when missing; Error Data when damaged: truncated, bad header, checksum; Error Data for a newer format version.
TensorFile load_tensors(const std::filesystem::path& file);

// Copies the named tensors of `content` into `targets`. Error Model when one is missing or has another shape.
void load_into(const TensorFile& content, const std::vector<std::pair<std::string, at::Tensor>>& targets, const std::filesystem::path& file);

}  // namespace ektm
