#include "checkpoint/safetensors.h"

#include <ATen/core/grad_mode.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"

namespace ektm {
namespace {

const char* dtype_name(at::ScalarType type) {
  switch (type) {
    case at::kFloat: return "F32";
    case at::kDouble: return "F64";
    case at::kLong: return "I64";
    case at::kInt: return "I32";
    case at::kByte: return "U8";
    default: fail(ErrorKind::Internal, "save_tensors", "the tensor type {} is not supported.", at::toString(type));
  }
}

at::ScalarType dtype_of(const std::string& name, const std::string& where) {
  for (at::ScalarType type : {at::kFloat, at::kDouble, at::kLong, at::kInt, at::kByte})
    if (name == dtype_name(type)) return type;
  fail(ErrorKind::Data, where, "found the tensor type '{}'; expected F32, F64, I64, I32 or U8.", name);
}

// What the checksum covers of one tensor, and of the metadata.
std::string digest(const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape, std::string_view bytes) {
  return name + "\n" + dtype + "\n" + nlohmann::json(shape).dump() + "\n" + checksum(bytes) + "\n";
}
std::string digest(std::map<std::string, std::string> metadata) {
  metadata.erase("ektm.checksum");
  return nlohmann::json(metadata).dump();
}

[[noreturn]] void damaged(const std::filesystem::path& file, const std::string& what) {
  fail(ErrorKind::Data, file.string(), "the file is damaged: {}. Take another checkpoint, or train again.", what);
}

}  // namespace

const at::Tensor& TensorFile::at(const std::string& name, const std::filesystem::path& file) const {
  for (const auto& [key, tensor] : tensors)
    if (key == name) return tensor;
  fail(ErrorKind::Model, file.string(), "the tensor '{}' is missing. The file belongs to another model or configuration.", name);
}

void save_tensors(const std::filesystem::path& file, const TensorFile& content) {
  nlohmann::ordered_json header;
  std::vector<at::Tensor> tensors;
  uint64_t offset = 0;
  std::string digests;
  for (const auto& [name, tensor] : content.tensors) {
    at::Tensor whole = tensor.detach().contiguous();
    const uint64_t bytes = whole.nbytes();
    header[name] = {{"dtype", dtype_name(whole.scalar_type())}, {"shape", whole.sizes().vec()}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
    digests += digest(name, dtype_name(whole.scalar_type()), whole.sizes().vec(), {static_cast<const char*>(whole.const_data_ptr()), bytes});
    tensors.push_back(std::move(whole));
  }
  auto metadata = content.metadata;
  metadata["ektm.format"] = std::to_string(kCheckpointFormatVersion);
  metadata["ektm.checksum"] = checksum(digests + digest(metadata));
  header["__metadata__"] = metadata;
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // tensors start at a multiple of 8
  const uint64_t length = text.size();
  AtomicFile out(file);
  out.write(&length, sizeof length);
  out.write(text.data(), text.size());
  for (const auto& tensor : tensors) out.write(tensor.const_data_ptr(), tensor.nbytes());
  out.commit();
}

TensorFile load_tensors(const std::filesystem::path& file) {
  const std::string bytes = read_file(file);
  uint64_t length = 0;
  if (bytes.size() < sizeof length) damaged(file, "it has no header");
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > bytes.size() - sizeof length) damaged(file, "its header is cut off");
  nlohmann::ordered_json header = nlohmann::ordered_json::parse(bytes.begin() + 8, bytes.begin() + 8 + length, nullptr, false);
  if (!header.is_object()) damaged(file, "its header is no JSON object");
  TensorFile content;
  const char* data = bytes.data() + sizeof length + length;
  const uint64_t data_bytes = bytes.size() - sizeof length - length;
  std::string digests;
  try {
    if (header.contains("__metadata__")) content.metadata = header["__metadata__"].get<std::map<std::string, std::string>>();
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__") continue;
      const auto type = dtype_of(entry.at("dtype").get<std::string>(), file.string() + ", tensor " + name);
      const auto shape = entry.at("shape").get<std::vector<int64_t>>();
      const auto offsets = entry.at("data_offsets").get<std::vector<uint64_t>>();
      for (int64_t size : shape)
        if (size < 0) damaged(file, "tensor " + name + " has a negative size");
      if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data_bytes) damaged(file, "tensor " + name + " is cut off");
      at::Tensor tensor = at::empty(shape, at::TensorOptions().dtype(type));
      if (tensor.nbytes() != offsets[1] - offsets[0]) damaged(file, "tensor " + name + " has the wrong size");
      if (tensor.nbytes() > 0) std::memcpy(tensor.data_ptr(), data + offsets[0], tensor.nbytes());
      digests += digest(name, dtype_name(type), shape, {data + offsets[0], tensor.nbytes()});
      content.tensors.emplace_back(name, tensor);
    }
  } catch (const nlohmann::json::exception& error) {
    damaged(file, std::string("its header is malformed (") + error.what() + ")");
  }
  const std::string version = content.metadata.count("ektm.format") ? content.metadata["ektm.format"] : "";
  if (version != std::to_string(kCheckpointFormatVersion))
    fail(ErrorKind::Data, file.string(), "found format version '{}'; this ektm reads version {}. Use the ektm that wrote it.", version,
         kCheckpointFormatVersion);
  if (content.metadata["ektm.checksum"] != checksum(digests + digest(content.metadata))) damaged(file, "its checksum does not match");
  return content;
}

void load_into(const TensorFile& content, const std::vector<std::pair<std::string, at::Tensor>>& targets, const std::filesystem::path& file) {
  at::NoGradGuard no_grad;
  for (const auto& [name, target] : targets) {
    const at::Tensor& source = content.at(name, file);
    if (source.sizes() != target.sizes())
      fail(ErrorKind::Model, file.string(), "the tensor '{}' has another shape than the configuration gives. The file belongs to another "
           "configuration or data set.", name);
    target.detach().copy_(source);
  }
}

}  // namespace ektm
