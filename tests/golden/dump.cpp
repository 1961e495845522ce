// ektm_golden OUT: for each golden case OUT/<case>.safetensors with everything that an independent implementation needs to compute the
// same: the config (metadata "config", JSON), the batches, the start weights, and what ektm computed from them.
//
//   info/...            metadata "info": tables, fields, bags, numbers, tasks (JSON)
//   batch<k>/ids [B,F], bag<j>_offsets, bag<j>_values, numbers [B,N], labels [B,K], observed [B,K], weights [B]   for k = 0, 1, 2
//   start/<name>        weights before the first step
//   output/logits, output/base_logits, output/enhanced_logits, and what else the model hands to its loss: of batch 0 at the start weights
//   loss/total, loss/values (metadata "loss_names")                of batch 0
//   grad/<name>         of batch 0 at the start weights; embeddings as a dense [R,W] tensor, L2 term included
//   end/<name>          weights after three steps on batches 0, 1, 2
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "checkpoint/safetensors.h"
#include "models/zoo.h"
#include "tests/golden/cases.h"
#include "tests/support/toy_data.h"
#include "train/stepper.h"

using namespace ektm;

namespace {

constexpr int64_t kRows = 32;
constexpr int64_t kSteps = 3;

nlohmann::json to_json(const YAML::Node& node) {
  if (node.IsMap()) {
    nlohmann::json json = nlohmann::json::object();
    for (const auto& item : node) json[item.first.as<std::string>()] = to_json(item.second);
    return json;
  }
  if (node.IsSequence()) {
    nlohmann::json json = nlohmann::json::array();
    for (const auto& item : node) json.push_back(to_json(item));
    return json;
  }
  nlohmann::json json = nlohmann::json::parse(node.Scalar(), nullptr, false);
  return json.is_discarded() ? nlohmann::json(node.Scalar()) : json;
}

template <class T>
at::Tensor tensor_of(const std::vector<T>& values, std::vector<int64_t> shape, at::ScalarType type) {
  at::Tensor tensor = at::empty(shape, at::TensorOptions().dtype(type));
  EKTM_CHECK(tensor.numel() == static_cast<int64_t>(values.size()));
  if (!values.empty()) std::memcpy(tensor.data_ptr(), values.data(), values.size() * sizeof(T));
  return tensor;
}

void dump(const GoldenCase& golden, const std::filesystem::path& folder) {
  RunConfig config = parse_run_config(parse_yaml(kGoldenBase, "golden"), "golden " + golden.name, golden.overrides);
  const DatasetInfo info = toy_info(golden.chain);
  const int64_t tasks = static_cast<int64_t>(info.tasks.size());
  std::vector<Batch> batches;
  for (int64_t k = 0; k < kSteps; ++k) batches.push_back(toy_batch(info, kRows, 100 + k, golden.weights));
  at::Tensor similarity = at::eye(tasks);
  for (int64_t i = 0; i < tasks; ++i)
    for (int64_t j = 0; j < tasks; ++j)
      if (i != j) similarity[i][j] = 0.1 * static_cast<double>(i + j) - 0.25;
  Network network(config, info, {similarity, at::full({tasks, tasks}, 400), at::arange(1, tasks + 1) * 100});
  // Layers that start at zero would hide what flows through them.
  Rng rng(17);
  for (const auto& entry : network.parameters().entries())
    if (entry.trainable) {
      float* values = entry.tensor.data_ptr<float>();
      for (int64_t i = 0; i < entry.tensor.numel(); ++i) values[i] += static_cast<float>(0.1 * rng.normal());
    }
  if (const at::Tensor choice = network.model().head_choice(); choice.defined()) choice.copy_(at::arange(tasks).remainder(2));  // both kinds of heads serve
  Stepper stepper(network, config, 10);

  TensorFile file;
  auto add = [&](const std::string& name, const at::Tensor& tensor) { file.tensors.emplace_back(name, tensor.detach().clone()); };
  nlohmann::json info_json;
  for (const auto& table : info.tables) info_json["tables"].push_back({{"name", table.name}, {"rows", table.rows}});
  for (const auto& field : info.fields) info_json["fields"].push_back({{"name", field.name}, {"table", field.table}});
  for (const auto& bag : info.bags) info_json["bags"].push_back({{"name", bag.name}, {"table", bag.table}, {"sum", bag.sum_pooling}});
  info_json["numbers"] = info.numbers;
  for (const auto& task : info.tasks) info_json["tasks"].push_back({{"name", task.name}, {"parent", task.parent}});
  file.metadata["info"] = info_json.dump();
  file.metadata["config"] = to_json(YAML::Load(run_config_text(config))).dump();
  file.metadata["total_steps"] = "10";
  for (int64_t k = 0; k < kSteps; ++k) {
    const Batch& batch = batches[k];
    const std::string prefix = "batch" + std::to_string(k) + "/";
    add(prefix + "ids", tensor_of(batch.ids, {kRows, static_cast<int64_t>(info.fields.size())}, at::kInt));
    for (size_t j = 0; j < batch.bags.size(); ++j) {
      const Bag& bag = batch.bags[j];
      add(prefix + "bag" + std::to_string(j) + "_offsets", tensor_of(bag.offsets, {kRows + 1}, at::kInt));
      add(prefix + "bag" + std::to_string(j) + "_values", tensor_of(bag.values, {static_cast<int64_t>(bag.values.size())}, at::kInt));
    }
    add(prefix + "numbers", tensor_of(batch.numbers, {kRows, static_cast<int64_t>(info.numbers.size())}, at::kFloat));
    add(prefix + "labels", tensor_of(batch.labels, {kRows, tasks}, at::kByte));
    add(prefix + "observed", tensor_of(batch.observed, {kRows, tasks}, at::kByte));
    if (golden.weights) add(prefix + "weights", tensor_of(batch.weights, {kRows}, at::kFloat));
  }
  for (const auto& [name, tensor] : network.state(false)) add("start/" + name, tensor);

  std::vector<std::pair<at::Tensor, at::Tensor>> buffers;  // a training pass moves running statistics
  for (const auto& entry : network.parameters().entries())
    if (!entry.trainable) buffers.emplace_back(entry.tensor, entry.tensor.clone());
  {  // Outputs, loss and gradients of batch 0, without a step.
    Context context;
    context.training = true;
    network.parameters().zero_grad();
    const PrecisionScope precision(config.precision == "bf16" ? Precision::Bf16 : Precision::F32);
    Network::Pass pass = network.forward(batches[0], context);
    LossTerms loss = network.model().loss(pass.output, make_targets(batches[0], tasks));
    add("output/logits", pass.output.logits);
    if (pass.output.base_logits.defined()) add("output/base_logits", pass.output.base_logits);
    if (pass.output.enhanced_logits.defined()) add("output/enhanced_logits", pass.output.enhanced_logits);
    for (const auto& [name, tensor] : pass.output.extra) add("output/" + name, tensor);
    add("loss/total", loss.total.reshape({1}));
    add("loss/values", loss.values);
    file.metadata["loss_names"] = nlohmann::json(loss.names).dump();
    loss.total.backward();
    for (const auto& entry : network.parameters().entries())
      if (entry.trainable) add("grad/" + entry.name, entry.tensor.grad());
    EmbeddingStore& embeddings = network.embeddings();
    network.collect(batches[0], pass);
    at::Tensor dense = at::zeros_like(embeddings.weights());
    at::Tensor rows = embeddings.row_grads();
    for (size_t u = 0; u < embeddings.unique_rows().size(); ++u) dense[embeddings.unique_rows()[u]].copy_(rows[static_cast<int64_t>(u)]);
    add("grad/embedding.weights", dense);
  }
  for (auto& [buffer, start] : buffers) buffer.copy_(start);
  for (int64_t k = 0; k < kSteps; ++k) stepper.step(batches[k]);
  for (const auto& [name, tensor] : network.state(false)) add("end/" + name, tensor);
  save_tensors(folder / (golden.name + ".safetensors"), file);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: ektm_golden OUT\n"), 1;
  try {
    make_directories(argv[1]);
    for (const auto& golden : golden_cases()) dump(golden, argv[1]);
    std::printf("%zu cases\n", golden_cases().size());
  } catch (const std::exception& error) {
    return std::fprintf(stderr, "%s\n", error.what()), 2;
  }
  return 0;
}
