#pragma once
// Everything that `ektm train CONFIG.yaml` reads: one struct a section, each key with its range and meaning.
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "config/yaml.h"
#include "nn/attention.h"
#include "nn/embedding.h"

namespace ektm {

struct OptimizerConfig {
  double learning_rate = 1e-3, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0, clip_norm = 0;
  std::string schedule = "constant";
  int64_t warmup_steps = 0;
  double final_ratio = 0;
  void fields(FieldVisitor& v) {
    v.field("learning_rate", learning_rate, {0, 100}, "Adam's step size for the dense parameters");
    v.field("beta1", beta1, {0, 0.999999}, "decay of the first moment");
    v.field("beta2", beta2, {0, 0.9999999}, "decay of the second moment");
    v.field("epsilon", epsilon, {1e-16, 1}, "added to the denominator");
    v.field("weight_decay", weight_decay, {0, 100}, "decoupled (AdamW): weights shrink by learning_rate * weight_decay a step");
    v.field("clip_norm", clip_norm, {0, 1e9}, "largest norm of the whole gradient, embedding rows included; 0 = no clipping");
    v.field("schedule", schedule, {"constant", "linear", "cosine"}, "of both learning rates, after the warm-up, over train.epochs");
    v.field("warmup_steps", warmup_steps, {0, int64_t{1} << 40}, "steps over which the learning rates rise from 0");
    v.field("final_ratio", final_ratio, {0, 1}, "linear, cosine: the last learning rate over the first");
  }
};

// The keys of single methods of loss.balance; docs/balancing.md has their equations.
struct BalancingConfig {
  double learning_rate = 0.025, temperature = 2, alpha = 1.5, c = 0.4, relax = 0.7, decay = 0.9;
  int64_t window_steps = 100;
  std::string normalize = "none", target, direction = "both";
  void fields(FieldVisitor& v) {
    v.field("learning_rate", learning_rate, {0, 10}, "uncertainty, gradnorm: Adam's step size of the learned numbers; constant");
    v.field("temperature", temperature, {1e-3, 1e3}, "dwa: the larger, the more equal the weights");
    v.field("window_steps", window_steps, {1, int64_t{1} << 40}, "dwa: steps over which a loss is averaged (the paper: an epoch)");
    v.field("alpha", alpha, {0, 100}, "gradnorm: how strongly tasks that learn slowly are favoured; 0 = equal norms");
    v.field("c", c, {0, 100}, "cagrad: radius of the search around the mean gradient, as a share of its norm; 0 = the mean gradient itself");
    v.field("normalize", normalize, {"none", "norm", "loss"}, "mgda: what a task's gradient is divided by while its weight is sought");
    v.field("target", target, "metabalance: the task whose gradient the others are scaled to; empty = the last one");
    v.field("relax", relax, {0, 1}, "metabalance: 1 = the others get the target's norm, 0 = they keep their own (r in the paper)");
    v.field("decay", decay, {0, 0.999999}, "metabalance: decay of the moving averages of norms (beta in the paper)");
    v.field("direction", direction, {"both", "shrink", "enlarge"},
            "metabalance: which of the others' gradients are scaled: all, those with a larger norm than the target's, those with a smaller one");
  }
};

struct LossConfig {
  std::vector<std::pair<std::string, double>> task_weights;
  std::string balance = "fixed";
  BalancingConfig balancing;
  void fields(FieldVisitor& v) {
    v.field("task_weights", task_weights, {0, 1e6}, "task: weight in the loss; 1 where absent");
    v.field("balance", balance, {"fixed", "uncertainty", "dwa", "gradnorm", "pcgrad", "cagrad", "mgda", "metabalance"},
            "how the tasks' losses, or their gradients in what they share, are brought together (docs/balancing.md): fixed = the sum of the losses; "
            "all from gradnorm on need a backward pass for each task");
    v.group("balancing", balancing, "");
  }
};

struct EarlyStoppingConfig {
  std::string metric = "mean_auc";
  int64_t patience = 3, min_positives = 20;
  void fields(FieldVisitor& v) {
    v.field("metric", metric,
            "on the validation split: mean_auc | mean_cvr_auc | mean_logloss | auc.TASK | logloss.TASK, of the served heads where "
            "labels are observed; the best model is the one that is kept");
    v.field("patience", patience, {0, 1000000}, "validations without improvement before training stops; 0 = never stop early");
    v.field("min_positives", min_positives, {1, int64_t{1} << 40}, "tasks with fewer validation positives are left out of means");
  }
};

struct TrainSection {
  std::vector<std::pair<std::string, double>> label_shares;
  int64_t batch_rows = 1024, epochs = 5, max_steps = 0, validate_every_steps = 0, checkpoint_every_steps = 0, evaluate_batch_rows = 4096;
  bool prefetch = true, evaluate_test = true;
  EarlyStoppingConfig early_stopping;
  void fields(FieldVisitor& v) {
    v.field("batch_rows", batch_rows, {1, 1 << 24}, "rows of a training batch");
    v.field("epochs", epochs, {1, 100000}, "passes over the training split");
    v.field("max_steps", max_steps, {0, int64_t{1} << 40}, "stop after so many steps; 0 = no limit");
    v.field("validate_every_steps", validate_every_steps, {0, int64_t{1} << 40}, "0 = at the end of each epoch");
    v.field("checkpoint_every_steps", checkpoint_every_steps, {0, int64_t{1} << 40}, "0 = at each validation only");
    v.field("evaluate_batch_rows", evaluate_batch_rows, {1, 1 << 24}, "rows scored at once");
    v.field("label_shares", label_shares, {0, 1},
            "task: share of its training rows whose label is seen, drawn by seed and row; 1 where absent. For learning what scarce labels do: the "
            "validation and test splits keep all of theirs");
    v.field("prefetch", prefetch, "a thread prepares the next batch");
    v.field("evaluate_test", evaluate_test, "score the kept model on the test split at the end (nothing is selected by it)");
    v.group("early_stopping", early_stopping, "");
  }
};

struct RunConfig {
  std::string data;      // folder of the encoded data set
  int64_t seed = 1, threads = 0;
  std::string precision = "auto";
  YAML::Node model;      // resolved: `name` and every key of that model
  EmbeddingConfig embedding;
  AttentionConfig attention;
  OptimizerConfig optimizer;
  LossConfig loss;
  TrainSection train;
  void fields(FieldVisitor& v) {
    v.field("data", data, "folder that `ektm prepare` wrote; relative to the working directory");
    v.field("seed", seed, {0, std::numeric_limits<int64_t>::max()}, "of initial weights, shuffling and dropout");
    v.field("threads", threads, {0, 4096}, "0 = all cores");
    v.field("precision", precision, {"auto", "f32", "bf16"},
            "of the factors of training's matrix products; weights, sums and everything else are float32, and so is scoring. auto = bf16 where the "
            "CPU multiplies such numbers faster (AMX; AVX512-BF16 of AMD), else f32; a run keeps what it began with");
    v.group("embedding", embedding, "");
    v.group("attention", attention, "");
    v.group("optimizer", optimizer, "");
    v.group("loss", loss, "");
    v.group("train", train, "");
  }
  std::string model_name() const;  // "mmoe", "ektm(mmoe)"
};

// Reads, applies `overrides` ("a.b=c"), checks, fills in every default. Error Config with all problems at once.
RunConfig load_run_config(const std::filesystem::path& file, const std::vector<std::string>& overrides);
RunConfig parse_run_config(YAML::Node root, const std::string& name, const std::vector<std::string>& overrides);
// config.yaml of the run folder: every key. Reading it again gives the same config.
std::string run_config_text(const RunConfig& config);
// "KEY is NEW instead of OLD" for each key in which two configs differ, apart from `ignored`.
std::vector<std::string> config_differences(const RunConfig& before, const RunConfig& now, const std::vector<std::string>& ignored);

}  // namespace ektm
