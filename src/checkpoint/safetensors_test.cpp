#include "checkpoint/safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"
#include "base/files.h"

namespace ektm {
namespace {

namespace fs = std::filesystem;

class Safetensors : public testing::Test {
 protected:
  Safetensors() : file_(fs::path(testing::TempDir()) / ("ektm_" + std::to_string(getpid()) + ".safetensors")) {
    content_.tensors = {{"a", at::randn({3, 4})}, {"empty", at::empty({0, 2})}, {"scalar", at::tensor(7.5)}, {"long", at::arange(5)}};
    content_.metadata["state"] = "{\"step\": 3}";
    save_tensors(file_, content_);
  }
  ~Safetensors() override { fs::remove(file_); }
  std::string error_of(const std::string& bytes) {
    write_file_atomic(file_, bytes);
    try {
      load_tensors(file_);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  fs::path file_;
  TensorFile content_;
};

TEST_F(Safetensors, RoundTripIsBitForBit) {
  TensorFile read = load_tensors(file_);
  ASSERT_EQ(read.tensors.size(), content_.tensors.size());
  for (size_t i = 0; i < read.tensors.size(); ++i) {
    EXPECT_EQ(read.tensors[i].first, content_.tensors[i].first);
    EXPECT_TRUE(at::equal(read.tensors[i].second, content_.tensors[i].second)) << read.tensors[i].first;
    EXPECT_EQ(read.tensors[i].second.scalar_type(), content_.tensors[i].second.scalar_type());
  }
  EXPECT_EQ(read.metadata["state"], content_.metadata["state"]);
}

TEST_F(Safetensors, EveryFlippedByteOfTheTensorsIsNoticed) {
  const std::string bytes = read_file(file_);
  for (size_t at = bytes.size() - 90; at < bytes.size(); at += 7) {
    std::string damaged = bytes;
    damaged[at] ^= 1;
    EXPECT_NE(error_of(damaged).find("checksum does not match"), std::string::npos) << at;
  }
}

TEST_F(Safetensors, AFlippedDigitOfTheMetadataIsNoticed) {
  std::string bytes = read_file(file_);
  bytes[bytes.find("step") + 9] = '4';  // {\"step\": 3}
  EXPECT_NE(error_of(bytes).find("checksum does not match"), std::string::npos) << bytes.substr(8, 300);
}

TEST_F(Safetensors, EveryTruncationIsAnError) {
  const std::string bytes = read_file(file_);
  for (size_t length = 0; length < bytes.size(); length += 13) EXPECT_NE(error_of(bytes.substr(0, length)).find("damaged"), std::string::npos) << length;
}

TEST_F(Safetensors, FlippedBytesOfTheHeaderNeverCrash) {
  const std::string bytes = read_file(file_);
  for (size_t at = 0; at < bytes.size() - 96; ++at) {
    std::string damaged = bytes;
    damaged[at] ^= 4;
    error_of(damaged);  // an Error or, where the header's meaning did not change, none
  }
}

TEST_F(Safetensors, LoadIntoChecksNamesAndShapes) {
  TensorFile read = load_tensors(file_);
  at::Tensor target = at::zeros({3, 4});
  load_into(read, {{"a", target}}, file_);
  EXPECT_TRUE(at::equal(target, content_.tensors[0].second));
  EXPECT_THROW(load_into(read, {{"b", target}}, file_), Error);
  EXPECT_THROW(load_into(read, {{"a", at::zeros({4, 3})}}, file_), Error);
}

}  // namespace
}  // namespace ektm
