#include "experiment/plan.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/did_you_mean.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "data/dataset.h"
#include "data/expression.h"
#include "data/schema.h"
#include "experiment/search.h"
#include "models/evaluation.h"
#include "models/network.h"
#include "train/trainer.h"

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

TrialChoices random_choices(const Plan& plan, const std::vector<Drawn>& keys, int64_t trial) {
  TrialChoices choices;
  for (const auto& drawn : keys) {
    Rng rng(static_cast<uint64_t>(plan.tune->seed), hash64(fmt::format("{}/{}/{}", drawn.owner, trial, drawn.owner_key)));
    choices.push_back(trial == 0 ? 0 : rng.below(drawn.choices->size()));
  }
  return choices;
}

// Of the trials 0 .. last, as indices into the choices of drawn_keys: [last + 1][keys]; of a random search's, `last` alone.
std::vector<TrialChoices> choices_of_trials(const Plan& plan, const PlanModel& model, int64_t last, const std::string& dataset,
                                            const TrialValues& values) {
  const std::vector<Drawn> keys = drawn_keys(plan, model);
  const TuneSection& tune = *plan.tune;
  if (tune.method == "random" || last < tune.startup) return {random_choices(plan, keys, last)};

  const PlanModel* baseline = model.baseline.empty() ? nullptr : plan.find_model(model.baseline);
  std::vector<Drawn> baseline_keys;
  std::vector<TrialChoices> baseline_choices;
  if (baseline) baseline_keys = drawn_keys(plan, *baseline), baseline_choices = choices_of_trials(plan, *baseline, last, dataset, values);
  // A key that stands there again, for the model alone, takes the later choice; the one before it has no effect and is not searched.
  std::vector<bool> hidden;
  for (size_t i = 0; i < keys.size(); ++i)
    hidden.push_back(std::any_of(keys.begin() + static_cast<std::ptrdiff_t>(i) + 1, keys.end(), [&](const Drawn& later) { return later.key == keys[i].key; }));

  std::vector<size_t> sizes;
  for (size_t i = 0; i < keys.size(); ++i) sizes.push_back(hidden[i] ? 1 : keys[i].choices->size());
  std::vector<TrialChoices> all;
  std::vector<TriedChoices> history;
  for (int64_t trial = 0; trial <= last; ++trial) {
    TrialChoices choices = random_choices(plan, keys, trial);
    if (trial >= tune.startup) {
      std::vector<std::optional<size_t>> fixed(keys.size());
      for (size_t i = 0; i < keys.size(); ++i) {
        if (hidden[i]) fixed[i] = 0;
        if (hidden[i] || keys[i].owner == model.name) continue;
        for (size_t b = 0; b < baseline_keys.size(); ++b)  // the list itself, not the name: a key of the baseline alone may stand there twice
          if (baseline_keys[b].choices == keys[i].choices) fixed[i] = baseline_choices[static_cast<size_t>(trial)][b];
      }
      Rng rng(static_cast<uint64_t>(tune.seed), hash64(fmt::format("tpe/{}/{}/{}", dataset, model.name, trial)));
      TpeOptions options;
      options.gamma = tune.gamma;
      const TrialChoices proposed = propose_tpe(sizes, fixed, history, options, rng);
      for (size_t i = 0; i < keys.size(); ++i)
        if (!hidden[i]) choices[i] = proposed[i];
    }
    all.push_back(choices);
    for (size_t i = 0; i < keys.size(); ++i)
      if (hidden[i]) choices[i] = 0;  // its one choice in `sizes`
    if (trial < last) history.push_back({choices, values(model, trial)});
  }
  return all;
}

// `set`: key of a run's config: value, as of --set.
YAML::Node read_set(const YAML::Node& node, const std::string& prefix, ConfigErrors& errors) {
  const YAML::Node given = node["set"];
  YAML::Node set(YAML::NodeType::Map);
  if (!given || given.IsNull()) return set;
  if (!given.IsMap()) {
    errors.add(given, prefix + "set", "expected a map of key: value, e.g. set: {model.lambda: 0.3}.");
    return set;
  }
  for (const auto& item : given) {
    const std::string key = item.first.Scalar();
    if (key == "data" || key == "seed" || key == "threads")
      errors.add(given, prefix + "set", fmt::format("has the key '{}', which the plan decides for all models. Remove it there.", key));
    set[key] = merged({}, item.second);
  }
  return set;
}

YAML::Node with_set(const YAML::Node& config, const YAML::Node& set) {
  YAML::Node copy = merged({}, config);
  for (const auto& item : set) set_key(copy, item.first.Scalar(), item.second);
  return copy;
}

// `ektm`: EKTM with these keys around the model of the config, whatever it is.
YAML::Node around(const YAML::Node& config, const YAML::Node& keys, const std::string& prefix, ConfigErrors& errors) {
  const YAML::Node inner = config["model"];
  const std::string name = inner && inner.IsMap() && inner["name"] && inner["name"].IsScalar() ? inner["name"].Scalar() : "";
  if (!keys.IsMap()) {
    errors.add(keys, prefix + "ektm", "expected a map of EKTM's keys, e.g. ektm: {} for its defaults, or ektm: {detach_own: true}.");
  } else if (keys["name"] || keys["backbone"]) {
    errors.add(keys, prefix + "ektm", "has `name` or `backbone`; the backbone is the model of `config`. Remove the key.");
  } else if (name.empty() || name == "ektm") {
    errors.add(keys, prefix + "ektm",
               fmt::format("puts EKTM around the model of `config`, which {}. Name the backbone's config, or remove `ektm`.",
                           name.empty() ? "names none" : "is EKTM already"));
  } else {
    YAML::Node copy = merged({}, config), model = merged({}, keys);
    model["name"] = "ektm";
    model["backbone"] = merged({}, inner);
    copy["model"] = model;
    return copy;
  }
  return config;
}

// The cuts of `rolling`, as data sets of their own.
std::vector<PlanDataset> rolling_cuts(const YAML::Node& rolling, const PlanDataset& dataset, const std::string& prefix, std::set<std::string>& taken,
                                      ConfigErrors& errors) {
  std::vector<PlanDataset> cuts;
  const std::string key = prefix + "rolling";
  if (!dataset.data.empty()) errors.add(rolling, key, "needs raw files or `simulate`: an encoded data set is divided already.");
  if (!rolling.IsSequence() || rolling.size() < 2) {
    errors.add(rolling, key, "expected a list of at least two cuts, e.g. rolling: [{train: day < 5, valid: day == 5, test: day == 6}, {train: day < 6, ...}].");
    return cuts;
  }
  for (size_t k = 0; k < rolling.size(); ++k) {
    PlanDataset cut = dataset;
    cut.cut_of = dataset.name;
    cut.name = fmt::format("{}.{}", dataset.name, k + 1);
    check_name(rolling[k], key, cut.name, taken, errors);
    const std::string place = fmt::format("{}[{}].", key, k);
    struct Conditions {
      PlanDataset& cut;
      void fields(FieldVisitor& v) {
        v.field("train", cut.train_where, "an expression over the columns: the training rows");
        v.field("valid", cut.valid_where, "the validation rows");
        v.field("test", cut.test_where, "the test rows");
      }
    } conditions{cut};
    read_config(rolling[k], conditions, errors, place);
    for (const auto& [name, text] : {std::pair("train", cut.train_where), {"valid", cut.valid_where}, {"test", cut.test_where}}) {
      if (text.empty()) {
        errors.add(rolling[k], place + name, "is missing; a cut needs `train`, `valid` and `test`, each an expression over the columns.");
        continue;
      }
      try {
        Expression::parse(text, place + name);
      } catch (const Error& error) {
        errors.add(rolling[k], place + name, error.message());
      }
    }
    for (size_t before = 0; before < cuts.size(); ++before)
      if (!cut.test_where.empty() && cuts[before].test_where == cut.test_where)
        errors.add(rolling[k], place + "test",
                   fmt::format("is that of cut {}; rows that are counted twice prove nothing. Give each cut test rows of its own.", before + 1));
    cuts.push_back(std::move(cut));
  }
  return cuts;
}

// One, or its rolling cuts.
std::vector<PlanDataset> read_dataset(const YAML::Node& node, const std::string& prefix, std::set<std::string>& taken, ConfigErrors& errors) {
  PlanDataset dataset;
  read_config(node, dataset, errors, prefix, {"simulate", "set", "rolling"});
  check_name(node, prefix + "name", dataset.name, taken, errors);
  dataset.set = read_set(node, prefix, errors);
  dataset.place = prefix.substr(0, prefix.size() - 1);
  if (const YAML::Node simulate = node["simulate"]) {
    dataset.simulation.emplace();
    if (!simulate.IsMap() && !simulate.IsNull()) errors.add(simulate, prefix + "simulate", "expected a map, e.g. simulate: {rows: 400000, ctr: 0.2}.");
    if (simulate.IsMap()) read_config(simulate, *dataset.simulation, errors, prefix + "simulate.");
    try {
      dataset.simulation->check();
    } catch (const Error& error) {
      errors.add(simulate, prefix + "simulate." + error.where(), error.message());
    }
  }
  const bool raw = !dataset.schema.empty() || !dataset.train.empty() || !dataset.valid.empty() || !dataset.test.empty();
  if (raw + !dataset.data.empty() + dataset.simulation.has_value() != 1) {
    errors.add(node, prefix + "data",
               "expected one of: `data`, an encoded data set; `schema` with the raw files `train` and `test`; `simulate`, a simulated platform.");
  } else if (raw) {
    for (const auto& [key, missing] : {std::pair("schema", dataset.schema.empty()), {"train", dataset.train.empty()}, {"test", dataset.test.empty()}})
      if (missing) errors.add(node, prefix + key, "is missing; raw files need `schema`, `train` and `test`.");
  }
  if (node["rolling"]) return rolling_cuts(node["rolling"], dataset, prefix, taken, errors);
  return {dataset};
}

PlanModel read_model(const YAML::Node& node, const std::string& prefix, const YAML::Node& common, std::set<std::string>& taken,
                     ConfigErrors& errors) {
  PlanModel model;
  read_config(node, model, errors, prefix, {"config", "ektm", "set"});
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
  if (node["ektm"]) model.config = around(model.config, node["ektm"], prefix, errors);
  const YAML::Node set = read_set(node, prefix, errors);
  try {
    model.config = with_set(model.config, set);
  } catch (const Error& error) {
    errors.add(node["set"], prefix + "set", error.message());
  }
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
    errors.add({}, fmt::format("models[{}].baseline", i),
               fmt::format("found '{}'; expected a model of the plan without a baseline of its own: {}.{}", model.baseline, fmt::join(names, ", "),
                           did_you_mean(model.baseline, names)));
  }
}

void read_tune(const YAML::Node& node, Plan& plan, ConfigErrors& errors) {
  TuneSection tune;
  if (!node.IsMap()) {
    errors.add(node, "tune", "expected a map, e.g. tune: {trials: 8, space: {embedding.dim: [8, 16]}}.");
    return;
  }
  read_config(node, tune, errors, "tune.", {"space", "models"});
  if (tune.method == "tpe" && tune.startup >= tune.trials)
    errors.add(node, "tune.startup",
               fmt::format("found {} with {} trials, so that every trial would be random; expected fewer than tune.trials. Raise tune.trials, lower "
                           "tune.startup, or take method: random.",
                           tune.startup, tune.trials));
  if (tune.method == "random")
    for (const char* key : {"startup", "gamma"})
      if (node[key]) errors.add(node[key], std::string("tune.") + key, "belongs to method: tpe; found method: random. Add method: tpe, or remove the key.");
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
        errors.add(item.first, "tune.models." + name,
                   fmt::format("no model of the plan has this name; the models are: {}.{}", fmt::join(names, ", "),
                               did_you_mean(name, names)));
        continue;
      }
      plan.models[found - names.begin()].space = read_space(item.second, "tune.models." + name, errors);
    }
}

// A winner of more trials, or by another metric, is no equal.
void check_search(const Plan& plan, ConfigErrors& errors) {
  std::string metric;
  std::set<std::string> said;
  // Whether one key is the other, or holds it.
  const auto overlap = [](const std::string& a, const std::string& b) { return (a + ".").starts_with(b + ".") || (b + ".").starts_with(a + "."); };
  for (size_t i = 0; i < plan.models.size(); ++i) {
    const auto& model = plan.models[i];
    if (!model.config.IsMap()) continue;
    const std::vector<Drawn> keys = drawn_keys(plan, model);
    if (keys.empty()) errors.add({}, "tune.models." + model.name, "nothing is searched for this model; give it choices here or in tune.space.");
    for (const auto& drawn : keys) {
      for (const char* fixed : {"data", "seed", "threads"})
        if (drawn.key == fixed) errors.add({}, "tune", fmt::format("searches the key '{}', which the plan decides for all models.", fixed));
      if (overlap(drawn.key, "train.early_stopping.metric"))
        errors.add({}, "tune",
                   fmt::format("searches the key '{}'; trials are compared by train.early_stopping.metric, which must be one for all. Search other keys of "
                               "train.early_stopping by their whole names.",
                               drawn.key));
      for (const auto& dataset : plan.datasets)
        for (const auto& item : dataset.set)
          if (overlap(drawn.key, item.first.Scalar()) && said.insert(dataset.place + drawn.key).second)
            errors.add({}, dataset.place + ".set",
                       fmt::format("has the key '{}', which lies over the searched key '{}': every trial would be the same. Remove one of them.",
                                   item.first.Scalar(), drawn.key));
    }
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
  std::set<std::string> said;  // the same on every data set, for most
  for (const auto& dataset : plan.datasets) {
    try {
      run_config(plan, config, dataset, "data", 0);
    } catch (const Error& error) {
      if (said.insert(complaint(error)).second) errors.add({}, place, complaint(error));
    }
  }
}

// Builds the model over tables of two rows: everything that depends on keys, fields and tasks is checked, and costs nothing.
void check_config(const Plan& plan, const YAML::Node& config, const PlanDataset& dataset, const DatasetInfo& small, const std::string& place,
                  ConfigErrors& errors) {
  try {
    const RunConfig run = run_config(plan, config, dataset, "data", 0);
    Network network(run, small);
    ValidationResult any;
    for (const auto& task : small.tasks) any.tasks.push_back({task.name, 2, run.train.early_stopping.min_positives, 0.5, 0.5});
    any.selection(run.train.early_stopping, small.tasks);
    loader_config(run, small);
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
      if (!fs::is_regular_file(file))
        errors.add({}, place, fmt::format("the raw file {} {}. Check the path; it starts at the working directory, or at --raw.", file,
                                          fs::exists(file) ? "is a folder, or no file that can be read" : "does not exist"));
}

// A simulated platform's tasks are known before its logs are made.
void check_label_shares(const Plan& plan, const PlanDataset& dataset, ConfigErrors& errors) {
  DatasetInfo info;
  for (const auto& task : dataset.simulation->tasks()) info.tasks.push_back({task.name, task.parent});
  for (size_t i = 0; i < plan.models.size(); ++i) {
    try {
      loader_config(run_config(plan, plan.models[i].config, dataset, "data", 0), info);
    } catch (const Error& error) {
      errors.add({}, fmt::format("models[{}] on {}", i, dataset.name), complaint(error));
    }
  }
}

void check_datasets(const Plan& plan, ConfigErrors& errors) {
  std::set<std::string> checked;  // of several cuts the first one
  for (const auto& dataset : plan.datasets) {
    const std::string& place = dataset.place;
    if (!checked.insert(place).second) continue;
    if (dataset.data.empty()) {
      if (dataset.simulation)
        check_label_shares(plan, dataset, errors);
      else
        check_raw_files(dataset, place, errors);
      continue;
    }
    try {
      const DatasetInfo info = read_dataset_info(dataset.data);
      for (const char* split : {"train", "valid", "test"})
        if (!fs::exists(fs::path(dataset.data) / split))
          errors.add({}, place + ".data", fmt::format("{} has no {} split. Prepare it with --{}.", dataset.data, split, split));
      check_models(plan, dataset, info, errors);
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
                [&](const YAML::Node& node, const std::string& prefix) {
    for (auto& dataset : read_dataset(node, prefix, datasets, errors)) plan.datasets.push_back(std::move(dataset));
  });
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

Plan load_plan(const fs::path& file, const std::vector<std::string>& overrides, const fs::path& raw) {
  YAML::Node root = load_yaml(file);
  for (const auto& assignment : overrides) apply_override(root, assignment);
  ConfigErrors errors(file.string());
  Plan plan = parse_plan(root, errors);
  for (auto& dataset : plan.datasets)
    for (auto* files : {&dataset.train, &dataset.valid, &dataset.test})
      for (auto& path : *files) path = (raw / path).string();  // an absolute path stays
  if (errors.empty()) check_datasets(plan, errors);
  errors.throw_if_any();
  return plan;
}

YAML::Node trial_config(const Plan& plan, const PlanModel& model, int64_t trial, const std::string& dataset, const TrialValues& values) {
  YAML::Node config = merged({}, model.config);
  const std::vector<Drawn> keys = drawn_keys(plan, model);
  const TrialChoices choices = choices_of_trials(plan, model, trial, dataset, values).back();
  for (size_t i = 0; i < keys.size(); ++i) set_key(config, keys[i].key, (*keys[i].choices)[choices[i]]);
  return config;
}

RunConfig run_config(const Plan& plan, const YAML::Node& config, const PlanDataset& dataset, const std::string& data, int64_t seed) {
  RunConfig run = parse_run_config(with_set(config, dataset.set), "config", {});
  run.data = data;
  run.seed = seed;
  run.threads = plan.threads;
  return run;
}

void check_models(const Plan& plan, const PlanDataset& dataset, const DatasetInfo& info, ConfigErrors& errors) {
  DatasetInfo small = info;
  for (auto& table : small.tables) table.rows = kFirstValueRow;
  for (size_t i = 0; i < plan.models.size(); ++i) {
    const auto& model = plan.models[i];
    check_config(plan, model.config, dataset, small, fmt::format("models[{}] on {}", i, dataset.name), errors);
    if (!plan.tune) continue;
    for_each_choice(plan, model, errors, [&](const std::string& choice, const YAML::Node& config) {
      check_config(plan, config, dataset, small, choice + " on " + dataset.name, errors);
    });
  }
}

std::vector<std::pair<std::string, std::vector<FieldHelp>>> plan_reference() {
  std::vector<FieldHelp> models = describe(PlanModel{}), tune = describe(TuneSection{});
  models.push_back(
      {"config", "text or map", "", "", "a file with a run's config, or the config itself; without data, seed and threads, which the plan decides"});
  models.push_back({"ektm", "map", "", "", "EKTM's keys: puts EKTM around the model of `config`; {} with its defaults, e.g. ektm: {detach_own: true}"});
  models.push_back({"set", "map", "{}", "", "key of the run's config: value, over `config`, e.g. set: {model.lambda: 0.3}"});
  std::vector<FieldHelp> datasets = describe(PlanDataset{});
  datasets.push_back({"simulate", "map", "", "", "keys of a simulated platform (`ektm simulate logs --help`, with _ for -), whose logs are made in WORK/logs/NAME"});
  datasets.push_back({"set", "map", "{}", "", "key of a run's config: value, over every model's, e.g. set: {train.label_shares: {pay: 0.1}}"});
  datasets.push_back({"rolling", "list of maps", "[]", "",
                      "cuts in time of raw files or a simulated platform: {train: EXPR, valid: EXPR, test: EXPR} each, expressions over the columns as in the "
                      "schema; every cut is a data set NAME.1, NAME.2, ... over all the files, and the results are put together over them"});
  tune.push_back({"space", "map of lists", "{}", "", "key of a run's config: its choices, for every model; the first is trial 0's"});
  tune.push_back({"models", "map of maps", "{}", "",
                  "model: key: its choices, for that model; a model over a backbone takes those of the backbone from its baseline"});
  std::vector<FieldHelp> whole = describe(Plan{});
  whole.push_back({"common", "map", "{}", "", "keys of a run's config that every model has where its own config does not say otherwise"});
  return {{"", whole}, {"datasets[]", datasets}, {"models[]", models}, {"tune", tune}};
}

}  // namespace ektm
