// serve: validated, the default. Each task serves the head that the validation split says is the better one.
#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "models/evaluation.h"
#include "tests/support/toy_data.h"

namespace ektm {
namespace {

class ToyDataset : public Dataset {
 public:
  ToyDataset(const DatasetInfo& info, const Batch& batch) : info_(info), batch_(batch) {}
  int64_t rows() const override { return batch_.rows; }
  const DatasetInfo& info() const override { return info_; }
  void gather(const int64_t* numbers, int64_t count, Batch& batch) const override {
    ASSERT_TRUE(count == batch_.rows && numbers[0] == 0);  // fewer rows than a batch: taken whole
    batch = batch_;
  }

 private:
  DatasetInfo info_;
  Batch batch_;
};

RunConfig config_for(const std::string& keys) {
  return parse_run_config(parse_yaml("embedding: {dim: 4, init_std: 0.1}\nseed: 3", "test"), "test", {"model={name: ektm" + keys + "}"});
}

// AUC of each task's heads, from the definition.
double auc(const at::Tensor& scores, const Batch& batch, int64_t task, int64_t tasks) {
  double wins = 0, pairs = 0;
  for (int64_t i = 0; i < batch.rows; ++i)
    for (int64_t j = 0; j < batch.rows; ++j) {
      const int64_t a = i * tasks + task, b = j * tasks + task;
      if (!batch.observed[a] || !batch.observed[b] || !batch.labels[a] || batch.labels[b]) continue;
      const float x = scores[task][i].item<float>(), y = scores[task][j].item<float>();
      wins += x > y ? 1 : x == y ? 0.5 : 0;
      ++pairs;
    }
  return wins / pairs;
}

TEST(HeadChoice, TheBetterHeadIsServed) {
  for (const std::string chain : {"parallel", "sequential", "roots", "two_roots"}) {
    const DatasetInfo info = toy_info(chain);
    const int64_t tasks = static_cast<int64_t>(info.tasks.size());
    const Batch batch = toy_batch(info, 200, 5);
    const ToyDataset dataset(info, batch);
    bool chosen[2] = {false, false};
    // Untrained heads: which one is better is chance, by the seed of what makes them differ.
    for (int64_t seed = 0; seed < 6; ++seed) {
      Network network(config_for(""), info);
      at::manual_seed(seed);
      for (const auto& entry : network.parameters().entries())
        if (entry.name.rfind("enhanced.", 0) == 0 || entry.name.rfind("transmitter.", 0) == 0) entry.tensor.detach().copy_(at::randn(entry.tensor.sizes()));
      const Network::Scores before = network.score(batch);
      validate_network(network, dataset, 4096);
      const Network::Scores after = network.score(batch);
      EXPECT_TRUE(at::equal(before.base, after.base));
      for (int64_t t = 0; t < tasks; ++t) {
        const bool root = info.tasks[t].parent < 0 && chain != "roots";
        const bool base = !root && auc(before.base, batch, t, tasks) > auc(before.served, batch, t, tasks);
        chosen[base] = true;
        EXPECT_TRUE(at::equal(after.served[t], base ? before.base[t] : before.served[t])) << chain << " task " << t;
        EXPECT_EQ(network.model().head_choice()[t].item<float>(), base ? 0 : 1);
      }
      const at::Tensor first = network.model().head_choice().clone();
      validate_network(network, dataset, 4096);  // again: from both heads, not from what is served by now
      EXPECT_TRUE(at::equal(network.model().head_choice(), first));
    }
    EXPECT_TRUE(chosen[0] && chosen[1]) << chain;
  }
}

TEST(HeadChoice, WithOneHeadToServeNothingIsChosen) {
  const DatasetInfo info = toy_info("parallel");
  const Batch batch = toy_batch(info, 50, 5);
  for (const char* keys : {", serve: enhanced", ", enhanced: false"}) {
    Network network(config_for(keys), info);
    EXPECT_FALSE(network.model().head_choice().defined()) << keys;
    const at::Tensor before = network.score(batch).served;
    validate_network(network, ToyDataset(info, batch), 4096);
    EXPECT_TRUE(at::equal(network.score(batch).served, before)) << keys;
  }
}

}  // namespace
}  // namespace ektm
