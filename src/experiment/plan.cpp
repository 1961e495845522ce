#include "experiment/plan.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "data/dataset.h"
#include "data/schema.h"
#include "models/evaluation.h"
#include "models/network.h"

namespace ektm {
namespace fs = std::filesystem;
namespace {

// A copy of `over`, with what it lacks from `base`. The copy stands in no line of any file.
YAML::Node merged(const YAML::Node& base, const YAML::Node& over) {
  if (!over.IsMap()) {
    if (over.IsScalar()) return YAML::Node(over.Scalar());
    YAML::Node copy(over.Type());
    if (over.IsSequence())
      for (const auto& item : over) copy.push_back(merged({}, item));
    return copy;
  }
  YAML::Node copy(YAML::NodeType::Map);
  if (base.IsMap())
    for (const auto& item : base) copy[item.first.Scalar()] = merged({}, item.second);
  for (const auto& item : over) {
    const std::string key = item.first.Scalar();
    // read, not indexed: operator[] of a copy that is written would create the key
    const YAML::Node& fixed = copy;
    copy[key] = merged(fixed[key] ? fixed[key] : YAML::Node(), item.second);
  }
  return copy;
}

std::string one_line(const YAML::Node& node) {
  YAML::Emitter emitter;
  emitter.SetSeqFormat(YAML::Flow);
  emitter.SetMapFormat(YAML::Flow);
  emitter << node;
  return emitter.c_str();
}

void set_key(YAML::Node& config, const std::string& key, const YAML::Node& value) { apply_override(config, key + "=" + one_line(value)); }

bool good_name(const std::string& name) {
  return !name.empty() && name[0] != '.' && name[0] != '-' &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) || c == '.' || c == '_' || c == '-'; });
}

void check_name(const YAML::Node& node, const std::string& key, const std::string& name, std::set<std::string>& taken, ConfigErrors& errors) {
  if (!good_name(name))
    errors.add(node, key, fmt::format("found '{}'; expected a name of letters, digits, '.', '_' and '-'.", name));
  else if (!taken.insert(name).second)
    errors.add(node, key, fmt::format("'{}' stands here a second time; every name must be its own.", name));
}

// Calls item(node, prefix) for the maps of a list.
template <class Item>
void for_each_item(const YAML::Node& root, const std::string& key, ConfigErrors& errors, Item item) {
  const YAML::Node list = root[key];
  if (!list || !list.IsSequence() || list.size() == 0) {
    errors.add(list ? list : YAML::Node(), key, "expected a list of maps with at least one item, e.g. " + key + ": [{name: ...}].");
    return;
  }
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string place = fmt::format("{}[{}]", key, i);
    if (list[i].IsMap())
      item(list[i], place + ".");
    else
      errors.add(list[i], place, "expected a map.");
  }
}

std::vector<SearchedKey> read_space(const YAML::Node& map, const std::string& key, ConfigErrors& errors) {
  std::vector<SearchedKey> space;
  if (!map || map.IsNull()) return space;
  if (!map.IsMap()) {
    errors.add(map, key, "expected a map of key: [choices], e.g. optimizer.learning_rate: [0.001, 0.002].");
    return space;
  }
  for (const auto& item : map) {
    SearchedKey searched{item.first.Scalar(), {}};
    if (!item.second.IsSequence() || item.second.size() == 0) {
      errors.add(item.second, key + "." + searched.key, "expected a list of at least one choice, e.g. [0.001, 0.002]; the first is trial 0's.");
      continue;
    }
    for (const auto& choice : item.second) searched.choices.push_back(merged({}, choice));
    space.push_back(std::move(searched));
  }
  return space;
}

// A key of a model's trials: what it may be, and by whose name it is drawn.
struct Drawn {
  std::string key, owner, owner_key;
  const std::vector<YAML::Node>* choices;
};

std::string backbone_of(const YAML::Node& config) {
  const YAML::Node backbone = config["model"]["backbone"];
  return backbone && backbone.IsMap() && backbone["name"] ? backbone["name"].as<std::string>("") : "";
}

std::vector<Drawn> drawn_keys(const Plan& plan, const PlanModel& model) {
  std::vector<Drawn> keys;
  const PlanModel* baseline = model.baseline.empty() ? nullptr : plan.find_model(model.baseline);
  const std::string& common_owner = baseline ? baseline->name : model.name;
  for (const auto& searched : plan.tune->space) keys.push_back({searched.key, common_owner, searched.key, &searched.choices});
  if (baseline && backbone_of(model.config) == baseline->config["model"]["name"].as<std::string>(""))
    for (const auto& searched : baseline->space) {
      const bool of_model = searched.key.rfind("model.", 0) == 0;
      keys.push_back({of_model ? "model.backbone." + searched.key.substr(6) : searched.key, baseline->name, searched.key, &searched.choices});
    }
  for (const auto& searched : model.space) keys.push_back({searched.key, model.name, searched.key, &searched.choices});
  return keys;
}

PlanDataset read_dataset(const YAML::Node& node, const std::string& prefix, std::set<std::string>& taken, ConfigErrors& errors) {
  PlanDataset dataset;
  read_config(node, dataset, errors, prefix);
  check_name(node, prefix + "name", dataset.name, taken, errors);
  const bool raw = !dataset.schema.empty() || !dataset.train.empty() || !dataset.valid.empty() || !dataset.test.empty();
  if (raw == !dataset.data.empty()) {
    errors.add(node, prefix + "data", "expected either `data`, an encoded data set, or `schema` with the raw files `train` and `test`.");
  } else if (raw) {
    for (const auto& [key, missing] : {std::pair("schema", dataset.schema.empty()), {"train", dataset.train.empty()}, {"test", dataset.test.empty()}})
      if (missing) errors.add(node, prefix + key, "is missing; raw files need `schema`, `train` and `test`.");
  }
  return dataset;
}

PlanModel read_model(const YAML::Node& node, const std::string& prefix, const YAML::Node& common, std::set<std::string>& taken,
                     ConfigErrors& errors) {
  PlanModel model;
  read_config(node, model, errors, prefix, {"config"});
  check_name(node, prefix + "name", model.name, taken, errors);
  const YAML::Node given = node["config"];
  YAML::Node own;
  if (given && given.IsScalar()) {
    try {
      own = load_yaml(given.Scalar());
    } catch (const Error& error) {
      errors.add(given, prefix + "config", error.what());
      return model;
    }
  } else if (given && given.IsMap()) {
    own = given;
  } else {
    errors.add(node, prefix + "config", "expected a file with a run's config, or the config itself, e.g. config: {model: {name: mmoe}}.");
    return model;
  }
  model.config = merged(common, own);
  for (const char* key : {"data", "seed", "threads"})
    if (model.config[key])
      errors.add(given, prefix + "config", fmt::format("has the key '{}', which the plan decides for all models. Remove it there.", key));
  return model;
}

void check_baselines(const Plan& plan, ConfigErrors& errors) {
  std::vector<std::string> names;
  for (const auto& model : plan.models)
    if (model.baseline.empty()) names.push_back(model.name);
  for (size_t i = 0; i < plan.models.size(); ++i) {
    const auto& model = plan.models[i];
    if (model.baseline.empty() || std::find(names.begin(), names.end(), model.baseline) != names.end()) continue;
    const std::string near = nearest_name(model.baseline, names);
    errors.add({}, fmt::format("models[{}].baseline", i),
               fmt::format("found '{}'; expected a model of the plan without a baseline of its own: {}.{}", model.baseline, fmt::join(names, ", "),
                           near.empty() ? "" : " Did you mean '" + near + "'?"));
  }
}

void read_tune(const YAML::Node& node, Plan& plan, ConfigErrors& errors) {
  TuneSection tune;
  if (!node.IsMap()) {
    errors.add(node, "tune", "expected a map, e.g. tune: {trials: 8, space: {embedding.dim: [8, 16]}}.");
    return;
  }
  read_config(node, tune, errors, "tune.", {"space", "models"});
  tune.space = read_space(node["space"], "tune.space", errors);
  plan.tune = tune;
  const YAML::Node models = node["models"];
  std::vector<std::string> names;
  for (const auto& model : plan.models) names.push_back(model.name);
  if (models && !models.IsMap()) errors.add(models, "tune.models", "expected a map of model: {key: [choices]}.");
  if (models && models.IsMap())
    for (const auto& item : models) {
      const std::string name = item.first.Scalar();
      const auto found = std::find(names.begin(), names.end(), name);
      if (found == names.end()) {
        const std::string near = nearest_name(name, names);
        errors.add(item.first, "tune.models." + name,
                   fmt::format("no model of the plan has this name; the models are: {}.{}", fmt::join(names, ", "),
                               near.empty() ? "" : " Did you mean '" + near + "'?"));
        continue;
      }
      plan.models[found - names.begin()].space = read_space(item.second, "tune.models." + name, errors);
    }
}

// A winner of more trials, or by another metric, is no equal.
void check_search(const Plan& plan, ConfigErrors& errors) {
  std::string metric;
  for (size_t i = 0; i < plan.models.size(); ++i) {
    const auto& model = plan.models[i];
    if (!model.config.IsMap()) continue;
    const std::vector<Drawn> keys = drawn_keys(plan, model);
    if (keys.empty()) errors.add({}, "tune.models." + model.name, "nothing is searched for this model; give it choices here or in tune.space.");
    for (const auto& drawn : keys)
      for (const char* fixed : {"data", "seed", "threads"})
        if (drawn.key == fixed) errors.add({}, "tune", fmt::format("searches the key '{}', which the plan decides for all models.", fixed));
    const YAML::Node train = model.config["train"];
    const YAML::Node stopping = train && train.IsMap() ? train["early_stopping"] : YAML::Node();
    const YAML::Node own = stopping.IsDefined() && stopping.IsMap() ? stopping["metric"] : YAML::Node();
    const std::string name = own.IsDefined() && own.IsScalar() ? own.Scalar() : EarlyStoppingConfig{}.metric;
    if (i == 0) metric = name;
    if (name != metric)
      errors.add({}, fmt::format("models[{}].config", i),
                 fmt::format("train.early_stopping.metric is {}, that of {} is {}; trials must be chosen by the same "
                             "metric for all models.",
                             name, plan.models[0].name, metric));
  }
}

// Calls check(place, config) for each choice of the model's own keys, over its config.
template <class Check>
void for_each_choice(const Plan& plan, const PlanModel& model, ConfigErrors& errors, Check check) {
  for (const auto& drawn : drawn_keys(plan, model)) {
    if (drawn.owner != model.name) continue;  // the baseline's choices are checked there
    for (const auto& choice : *drawn.choices) {
      YAML::Node config = merged({}, model.config);
      const std::string place = fmt::format("tune, model {} with {}: {}", model.name, drawn.key, one_line(choice));
      try {
        set_key(config, drawn.key, choice);
      } catch (const Error& error) {
        errors.add({}, place, error.message());
        continue;
      }
      check(place, config);
    }
  }
}

std::string complaint(const Error& error) { return error.where() == "config" ? error.message() : error.where() + ": " + error.message(); }

void check_keys(const Plan& plan, const YAML::Node& config, const std::string& place, ConfigErrors& errors) {
  try {
    run_config(plan, config, "data", 0);
  } catch (const Error& error) {
    errors.add({}, place, complaint(error));
  }
}

// Builds the model over tables of two rows: everything that depends on keys, fields and tasks is checked, and costs nothing.
void check_config(const Plan& plan, const YAML::Node& config, const DatasetInfo& small, const std::string& place, ConfigErrors& errors) {
  try {
    const RunConfig run = run_config(plan, config, "data", 0);
    Network network(run, small);
    ValidationResult any;
    for (const auto& task : small.tasks) any.tasks.push_back({task.name, 2, run.train.early_stopping.min_positives, 0.5, 0.5});
    any.selection(run.train.early_stopping, small.tasks);
  } catch (const Error& error) {
    errors.add({}, place, complaint(error));
  }
}

void check_raw_files(const PlanDataset& dataset, const std::string& place, ConfigErrors& errors) {
  try {
    load_schema(dataset.schema);
  } catch (const Error& error) {
    errors.add({}, place + ".schema", error.what());
  }
  for (const auto* files : {&dataset.train, &dataset.valid, &dataset.test})
    for (const auto& file : *files)
      if (!fs::exists(file))
        errors.add({}, place, fmt::format("the raw file {} does not exist. Check the path; it starts at the working directory.", file));
}

void check_datasets(const Plan& plan, ConfigErrors& errors) {
  for (size_t i = 0; i < plan.datasets.size(); ++i) {
    const auto& dataset = plan.datasets[i];
    const std::string place = fmt::format("datasets[{}]", i);
    if (dataset.data.empty()) {
      check_raw_files(dataset, place, errors);
      continue;
    }
    try {
      const DatasetInfo info = read_dataset_info(dataset.data);
      for (const char* split : {"train", "valid", "test"})
        if (!fs::exists(fs::path(dataset.data) / split))
          errors.add({}, place + ".data", fmt::format("{} has no {} split. Prepare it with --{}.", dataset.data, split, split));
      check_models(plan, dataset.name, info, errors);
    } catch (const Error& error) {
      errors.add({}, place + ".data", error.what());
    }
  }
}

}  // namespace

const PlanModel* Plan::find_model(const std::string& name) const {
  for (const auto& model : models)
    if (model.name == name) return &model;
  return nullptr;
}

Plan parse_plan(const YAML::Node& root, ConfigErrors& errors) {
  Plan plan;
  read_config(root, plan, errors, "", {"datasets", "models", "common", "tune"});
  if (plan.seeds.empty()) errors.add(root["seeds"], "seeds", "expected at least one seed.");
  std::set<int64_t> seeds(plan.seeds.begin(), plan.seeds.end());
  if (seeds.size() != plan.seeds.size()) errors.add(root["seeds"], "seeds", "a seed stands here twice; a run that is counted twice proves nothing.");
  std::set<std::string> datasets, models;
  for_each_item(root, "datasets", errors,
                [&](const YAML::Node& node, const std::string& prefix) { plan.datasets.push_back(read_dataset(node, prefix, datasets, errors)); });
  YAML::Node common = root["common"] ? root["common"] : YAML::Node(YAML::NodeType::Map);
  if (!common.IsMap()) errors.add(common, "common", "expected a map: the keys of a run's config that all models have.");
  for_each_item(root, "models", errors,
                [&](const YAML::Node& node, const std::string& prefix) { plan.models.push_back(read_model(node, prefix, common, models, errors)); });
  check_baselines(plan, errors);
  if (plan.title.empty())
    for (const auto& dataset : plan.datasets) plan.title += (plan.title.empty() ? "" : ", ") + dataset.name;
  if (root["tune"]) read_tune(root["tune"], plan, errors);
  // What follows reads the models' configs by name.
  if (!errors.empty()) return plan;
  for (size_t i = 0; i < plan.models.size(); ++i) check_keys(plan, plan.models[i].config, fmt::format("models[{}].config", i), errors);
  if (!plan.tune || !errors.empty()) return plan;
  check_search(plan, errors);
  for (const auto& model : plan.models)
    for_each_choice(plan, model, errors, [&](const std::string& place, const YAML::Node& config) { check_keys(plan, config, place, errors); });
  return plan;
}

Plan load_plan(const fs::path& file, const std::vector<std::string>& overrides) {
  YAML::Node root = load_yaml(file);
  for (const auto& assignment : overrides) apply_override(root, assignment);
  ConfigErrors errors(file.string());
  Plan plan = parse_plan(root, errors);
  if (errors.empty()) check_datasets(plan, errors);
  errors.throw_if_any();
  return plan;
}

YAML::Node trial_config(const Plan& plan, const PlanModel& model, int64_t trial) {
  YAML::Node config = merged({}, model.config);
  for (const auto& drawn : drawn_keys(plan, model)) {
    Rng rng(static_cast<uint64_t>(plan.tune->seed), hash64(fmt::format("{}/{}/{}", drawn.owner, trial, drawn.owner_key)));
    set_key(config, drawn.key, (*drawn.choices)[trial == 0 ? 0 : rng.below(drawn.choices->size())]);
  }
  return config;
}

RunConfig run_config(const Plan& plan, const YAML::Node& config, const std::string& data, int64_t seed) {
  RunConfig run = parse_run_config(merged({}, config), "config", {});
  run.data = data;
  run.seed = seed;
  run.threads = plan.threads;
  return run;
}

void check_models(const Plan& plan, const std::string& dataset, const DatasetInfo& info, ConfigErrors& errors) {
  DatasetInfo small = info;
  for (auto& table : small.tables) table.rows = kFirstValueRow;
  for (size_t i = 0; i < plan.models.size(); ++i) {
    const auto& model = plan.models[i];
    check_config(plan, model.config, small, fmt::format("models[{}] on {}", i, dataset), errors);
    if (!plan.tune) continue;
    for_each_choice(plan, model, errors, [&](const std::string& choice, const YAML::Node& config) {
      check_config(plan, config, small, choice + " on " + dataset, errors);
    });
  }
}

std::vector<std::pair<std::string, std::vector<FieldHelp>>> plan_reference() {
  std::vector<FieldHelp> models = describe(PlanModel{}), tune = describe(TuneSection{});
  models.push_back(
      {"config", "text or map", "", "", "a file with a run's config, or the config itself; without data, seed and threads, which the plan decides"});
  tune.push_back({"space", "map of lists", "{}", "", "key of a run's config: its choices, for every model; the first is trial 0's"});
  tune.push_back({"models", "map of maps", "{}", "",
                  "model: key: its choices, for that model; a model over a backbone takes those of the backbone from its baseline"});
  std::vector<FieldHelp> whole = describe(Plan{});
  whole.push_back({"common", "map", "{}", "", "keys of a run's config that every model has where its own config does not say otherwise"});
  return {{"", whole}, {"datasets[]", describe(PlanDataset{})}, {"models[]", models}, {"tune", tune}};
}

}  // namespace ektm
