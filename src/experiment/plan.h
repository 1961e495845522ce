#pragma once
// plan.yaml of `ektm bench`: which data sets, models and seeds are compared, and what is searched first.
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/batch.h"
#include "models/run_config.h"
#include "sim/config.h"

namespace ektm {

struct PlanDataset {
  std::string name, data, schema;
  std::vector<std::string> train, valid, test;
  std::optional<SimulationConfig> simulation;
  YAML::Node set;  // key of a run's config: value, over every model's
  // One of the rolling cuts of the data set `cut_of`: conditions choose the rows of each split among those of all files.
  std::string cut_of, train_where, valid_where, test_where;
  std::string place;  // "datasets[0]": the item of the plan, for messages; all cuts have that of their data set
  void fields(FieldVisitor& v) {
    v.field("name", name, "names folders and tables; letters, digits, '.', '_' and '-'");
    v.field("data", data, "folder that `ektm prepare` wrote, with a test split; or, instead of it, raw files or `simulate`");
    v.field("schema", schema, "schema.yaml of raw files, which are prepared into WORK/data/NAME first");
    v.field("train", train, "raw files of the training split");
    v.field("valid", valid, "raw files of the validation split (or split.valid_from in the schema)");
    v.field("test", test, "raw files of the test split");
  }
};

// A key of the run config and what may stand there; the first choice is trial 0's.
struct SearchedKey {
  std::string key;
  std::vector<YAML::Node> choices;
};

struct PlanModel {
  std::string name, baseline;
  YAML::Node config;               // `common` with the model's own keys over it
  std::vector<SearchedKey> space;  // of tune.models
  void fields(FieldVisitor& v) {
    v.field("name", name, "names folders and tables; letters, digits, '.', '_' and '-'");
    v.field("baseline", baseline, "a model of the plan without a baseline of its own: trials, seeds and differences are paired with it");
  }
};

struct TuneSection {
  int64_t trials = 8, seed = 1, startup = 5;
  std::string method = "random";
  double gamma = 0.25;
  std::vector<SearchedKey> space;  // of every model
  void fields(FieldVisitor& v) {
    v.field("trials", trials, {1, 100000}, "of each model on each data set: the same number for all");
    v.field("seed", seed, {0, std::numeric_limits<int64_t>::max()}, "of the draws, and of the trials' training");
    v.field("method", method, {"random", "tpe"}, "random draws, or TPE: draws that follow the model's earlier trials on the data set");
    v.field("startup", startup, {1, 100000}, "of `tpe`: so many first trials are those of `random`");
    v.field("gamma", gamma, {0.01, 0.99}, "of `tpe`: share of the earlier trials that count as good");
  }
};

struct Plan {
  std::string title;
  std::vector<int64_t> seeds{1, 2, 3, 4, 5};
  int64_t parallel = 1, threads = 1, min_positives = 100;
  std::vector<PlanDataset> datasets;
  std::vector<PlanModel> models;
  std::optional<TuneSection> tune;
  void fields(FieldVisitor& v) {
    v.field("title", title, "of the report; empty = the names of the data sets");
    v.field("seeds", seeds, {0, std::numeric_limits<int64_t>::max()}, "a run each, of every model on every data set");
    v.field("parallel", parallel, {1, 1024}, "runs at a time; more than one are programs of their own");
    v.field("threads", threads, {1, 4096}, "of each run");
    v.field("min_positives", min_positives, {1, int64_t{1} << 40},
            "tasks with fewer positives in the test split are left out of means and comparisons");
  }
  const PlanModel* find_model(const std::string& name) const;  // null when absent
};

// Reads and checks the plan, also against its data sets where they are encoded: one Error Config with every problem.
// `overrides`: "a.b=c" over the file's values. `raw`: where relative paths of raw files begin; empty = the working directory.
Plan load_plan(const std::filesystem::path& file, const std::vector<std::string>& overrides, const std::filesystem::path& raw = {});
// The part of it that needs no data.
Plan parse_plan(const YAML::Node& root, ConfigErrors& errors);

// Trial k of a model as a run config without data, seed and threads: trial 0 takes the first choice of every key, the others draw each
// key by (tune.seed, model, k, key). A model with a baseline takes over what its baseline draws for trial k: the common keys, and the
// keys of its backbone where the baseline is that very model. So the two differ in the model's own keys alone.
// With tune.method tpe this holds for the trials below tune.startup. From there on, a key that is drawn by the model itself follows TPE on the
// model's trials 0 .. k-1 on the data set (the stream is that of tune.seed, data set, model and k); what a baseline's trial k chose is still
// taken over. `values`: asked for trials below k of the model and its baseline, only from tune.startup on.
using TrialValues = std::function<std::optional<double>(const PlanModel& model, int64_t trial)>;  // larger is better; absent: it broke off
YAML::Node trial_config(const Plan& plan, const PlanModel& model, int64_t trial, const std::string& dataset = "", const TrialValues& values = {});

// `config` (a model's, or a trial's) as a run on a data set, encoded at `data`.
RunConfig run_config(const Plan& plan, const YAML::Node& config, const PlanDataset& dataset, const std::string& data, int64_t seed);

// Whether every model of the plan, with every choice of its space, can be built over a data set with these fields and tasks: adds what
// cannot. Tables are not allocated.
void check_models(const Plan& plan, const PlanDataset& dataset, const DatasetInfo& info, ConfigErrors& errors);

// Every key of a plan file with type, default, range and meaning, by section: "", "datasets[]", "models[]", "tune".
std::vector<std::pair<std::string, std::vector<FieldHelp>>> plan_reference();

}  // namespace ektm
