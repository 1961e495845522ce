#include "experiment/plan.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/error.h"

namespace ektm {
namespace {

Plan parse(const std::string& text) {
  ConfigErrors errors("plan.yaml");
  Plan plan = parse_plan(parse_yaml(text, "plan.yaml"), errors);
  errors.throw_if_any();
  return plan;
}

std::string error_of(const std::string& text) {
  try {
    parse(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Config);
    return error.what();
  }
  return "no error";
}

constexpr const char* kPlan = R"(
seeds: [3, 4]
datasets: [{name: shop, data: data/shop}]
models:
  - {name: mmoe, config: {model: {name: mmoe, experts: 2}}}
  - {name: over, baseline: mmoe, config: {model: {name: ektm, backbone: {name: mmoe, experts: 2}}, embedding: {l2: 0.5}}}
  - {name: other, baseline: mmoe, config: {model: {name: ektm, backbone: {name: ple}}}}
common: {embedding: {dim: 4, l2: 0.25}}
tune:
  trials: 40
  space: {optimizer.learning_rate: [0.001, 0.002, 0.005], embedding.dim: [4, 8]}
  models:
    mmoe: {model.dropout: [0, 0.1, 0.2, 0.3]}
    over: {model.lambda: [1, 0.5, 0.25]}
    other: {model.lambda: [1, 0.5]}
)";

TEST(Plan, CommonKeysLieBelowAModelsOwn) {
  const Plan plan = parse(kPlan);
  EXPECT_EQ(plan.title, "shop");
  const RunConfig mmoe = run_config(plan, plan.models[0].config, plan.datasets[0], "data/shop", 3), over = run_config(plan, plan.models[1].config, plan.datasets[0], "data/shop", 3);
  EXPECT_EQ(mmoe.embedding.dim, 4);
  EXPECT_EQ(mmoe.embedding.l2, 0.25);
  EXPECT_EQ(over.embedding.l2, 0.5);
  EXPECT_EQ(over.embedding.dim, 4);
  EXPECT_EQ(over.model["backbone"]["experts"].as<int>(), 2);
  EXPECT_EQ(mmoe.seed, 3);
  EXPECT_EQ(mmoe.threads, 1);
  EXPECT_EQ(mmoe.data, "data/shop");
}

TEST(Plan, TrialZeroTakesTheFirstChoices) {
  const Plan plan = parse(kPlan);
  const YAML::Node config = trial_config(plan, plan.models[1], 0);
  EXPECT_EQ(config["optimizer"]["learning_rate"].as<double>(), 0.001);
  EXPECT_EQ(config["model"]["backbone"]["dropout"].as<double>(), 0);
  EXPECT_EQ(config["model"]["lambda"].as<double>(), 1);
}

TEST(Plan, APairedModelTakesItsBaselinesDraws) {
  const Plan plan = parse(kPlan);
  std::set<std::string> seen, lambdas;
  for (int64_t trial = 0; trial < plan.tune->trials; ++trial) {
    const YAML::Node mmoe = trial_config(plan, plan.models[0], trial), over = trial_config(plan, plan.models[1], trial),
                     other = trial_config(plan, plan.models[2], trial);
    for (const char* section : {"optimizer", "embedding"})
      for (const char* key : {"learning_rate", "dim"})
        if (mmoe[section][key]) EXPECT_EQ(mmoe[section][key].as<std::string>(), over[section][key].as<std::string>());
    EXPECT_EQ(mmoe["model"]["dropout"].as<std::string>(), over["model"]["backbone"]["dropout"].as<std::string>());
    EXPECT_EQ(mmoe["optimizer"]["learning_rate"].as<std::string>(), other["optimizer"]["learning_rate"].as<std::string>());
    EXPECT_FALSE(other["model"]["backbone"]["dropout"]);  // its backbone is another one
    seen.insert(to_text(mmoe));
    lambdas.insert(over["model"]["lambda"].as<std::string>());
  }
  EXPECT_GT(seen.size(), 12u);  // of 24 possible ones
  EXPECT_EQ(lambdas.size(), 3u);
}

TEST(Plan, TrialsDependOnSeedAndNumberAlone) {
  const Plan plan = parse(kPlan);
  Plan more = parse(kPlan), seed = parse(kPlan);
  more.tune->trials = 80;
  more.tune->space.push_back({"train.batch_rows", {YAML::Node("512"), YAML::Node("1024")}});
  seed.tune->seed = 2;
  int differing = 0;
  for (int64_t trial = 0; trial < 20; ++trial) {
    const YAML::Node before = trial_config(plan, plan.models[0], trial), now = trial_config(more, more.models[0], trial);
    EXPECT_EQ(before["model"]["dropout"].as<std::string>(), now["model"]["dropout"].as<std::string>());
    EXPECT_EQ(before["optimizer"]["learning_rate"].as<std::string>(), now["optimizer"]["learning_rate"].as<std::string>());
    differing += to_text(before) != to_text(trial_config(seed, seed.models[0], trial));
  }
  EXPECT_GT(differing, 10);
}

// A response by the texts of two settings: TPE finds its way; the paired model differs in its own keys alone, from the first trial to the last.
TEST(Plan, TpeBeginsWithTheRandomTrialsAndKeepsThePairs) {
  Plan random = parse(kPlan), plan = parse(kPlan);
  plan.tune->method = "tpe";
  std::map<std::string, std::map<int64_t, std::optional<double>>> values;
  int64_t asked = -1;
  const TrialValues of = [&](const PlanModel& model, int64_t trial) -> std::optional<double> {
    asked = std::max(asked, trial);
    return values.at(model.name).at(trial);
  };
  std::set<std::string> seen, seen_over;
  bool differs = false;
  for (int64_t trial = 0; trial < 20; ++trial) {
    asked = -1;
    const YAML::Node mmoe = trial_config(plan, plan.models[0], trial, "shop", of), over = trial_config(plan, plan.models[1], trial, "shop", of);
    EXPECT_EQ(asked, trial < plan.tune->startup ? -1 : trial - 1);
    EXPECT_EQ(to_text(mmoe), to_text(trial_config(plan, plan.models[0], trial, "shop", of)));
    EXPECT_EQ(mmoe["model"]["dropout"].as<std::string>(), over["model"]["backbone"]["dropout"].as<std::string>());
    EXPECT_EQ(mmoe["embedding"]["dim"].as<std::string>(), over["embedding"]["dim"].as<std::string>());
    EXPECT_EQ(mmoe["optimizer"]["learning_rate"].as<std::string>(), over["optimizer"]["learning_rate"].as<std::string>());
    const bool same = to_text(mmoe) == to_text(trial_config(random, random.models[0], trial));
    if (trial < plan.tune->startup) EXPECT_TRUE(same) << trial;
    differs |= !same;
    const bool first_of_mmoe = seen.insert(to_text(mmoe)).second, first_of_over = seen_over.insert(to_text(over)).second;
    if (trial >= plan.tune->startup) EXPECT_TRUE(first_of_mmoe && first_of_over) << trial;
    if (trial == 7) {
      values["mmoe"][trial] = values["over"][trial] = std::nullopt;  // broke off
    } else {
      values["mmoe"][trial] = -mmoe["model"]["dropout"].as<double>();
      values["over"][trial] = over["model"]["lambda"].as<double>();
    }
  }
  EXPECT_TRUE(differs);
  // Another data set has a stream of its own.
  int other = 0;
  for (int64_t trial = 5; trial < 12; ++trial)
    other += to_text(trial_config(plan, plan.models[0], trial, "shop", of)) != to_text(trial_config(plan, plan.models[0], trial, "mall", of));
  EXPECT_GT(other, 0);
}

TEST(Plan, TpeIsChecked) {
  const std::string head = "datasets: [{name: d, data: x}]\nmodels: [{name: a, config: {model: {name: mmoe}}}]\n";
  const std::string space = "space: {embedding.dim: [4, 8]}}\n";
  EXPECT_EQ(error_of(head + "tune: {trials: 8, method: tpe, startup: 4, gamma: 0.3, " + space), "no error");
  EXPECT_NE(error_of(head + "tune: {method: tpee, " + space).find("tune.method: found 'tpee'"), std::string::npos);
  EXPECT_NE(error_of(head + "tune: {trials: 4, method: tpe, " + space).find("tune.startup: found 5 with 4 trials, so that every trial would be random"),
            std::string::npos);
  EXPECT_NE(error_of(head + "tune: {trials: 8, gamma: 0.3, " + space).find("tune.gamma: belongs to method: tpe; found method: random"), std::string::npos);
  EXPECT_NE(error_of(head + "tune: {trials: 8, method: tpe, gamma: 1.5, " + space).find("tune.gamma: found 1.5"), std::string::npos);
}

TEST(Plan, EveryProblemAtOnceWithTheNearestName) {
  const std::string text = error_of(R"(
seads: [1]
seeds: [1, 1]
parallel: 0
datasets:
  - {name: "a b", data: x}
  - {name: b, data: x, schema: y}
models:
  - {name: mmoe, config: {model: {name: mmoe}, seed: 4}}
  - {name: mmoe, config: {model: {name: mmoe}}}
  - {name: c, baseline: mmeo, config: {model: {name: mmoe}}}
tune: {trial: 3, models: {mmo: {}}}
)");
  for (const char* part :
       {"line 2, seads: unknown key. Did you mean 'seeds'?", "a seed stands here twice", "parallel: found 0; expected a value in 1 .. 1024",
        "datasets[0].name: found 'a b'", "datasets[1].data: expected one of: `data`", "has the key 'seed', which the plan decides",
        "models[1].name: 'mmoe' stands here a second time", "models[2].baseline: found 'mmeo'", "Did you mean 'mmoe'?",
        "tune.trial: unknown key. Did you mean 'tune.trials'?", "tune.models.mmo: no model of the plan has this name"})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n in \n" << text;
}

TEST(Plan, ConfigsAreReadAsRunConfigs) {
  const std::string head = "datasets: [{name: d, data: x}]\nmodels:\n";
  EXPECT_NE(error_of(head + "  - {name: m, config: {model: {name: mmoe, expert: 3}}}\n")
                .find("models[0].config: model.expert: unknown key. Did you mean 'model.experts'?"),
            std::string::npos);
  EXPECT_NE(error_of(head + "  - {name: m, config: {model: {name: mmeo}}}\n").find("Did you mean 'mmoe'?"), std::string::npos);
  EXPECT_NE(error_of(head + "  - {name: m}\n").find("models[0].config: expected a file"), std::string::npos);
  EXPECT_NE(error_of(head + "  - {name: m, config: absent.yaml}\n").find("absent.yaml"), std::string::npos);
  EXPECT_NE(error_of("models: []\n").find("datasets: expected a list"), std::string::npos);
}

TEST(Plan, ASearchIsTheSameForAll) {
  const std::string head = "datasets: [{name: d, data: x}]\nmodels:\n  - {name: a, config: {model: {name: mmoe}}}\n";
  EXPECT_NE(error_of(head + "tune: {trials: 2}\n").find("tune.models.a: nothing is searched for this model"), std::string::npos);
  EXPECT_NE(error_of(head + "tune: {space: {optimizer.learning_rate: 0.1}}\n").find("expected a list of at least one choice"), std::string::npos);
  EXPECT_NE(error_of(head + "tune: {space: {optimizer.learning_rat: [1, 2]}}\n")
                .find("tune, model a with optimizer.learning_rat: 1: optimizer.learning_rat: unknown key. Did you mean 'optimizer.learning_rate'?"),
            std::string::npos);
  EXPECT_NE(error_of(head + "tune: {space: {seed: [1, 2]}}\n").find("searches the key 'seed'"), std::string::npos);
  EXPECT_NE(
      error_of(
          head +
          "  - {name: b, config: {model: {name: mmoe}, train: {early_stopping: {metric: mean_logloss}}}}\ntune: {space: {embedding.dim: [4, 8]}}\n")
          .find("trials must be chosen by the same metric"),
      std::string::npos);
}

TEST(Plan, ChoicesAreCheckedAgainstTheDataSet) {
  Plan plan = parse(kPlan);
  DatasetInfo info;
  info.tables = {{"user", int64_t{1} << 40}};  // never allocated
  info.fields = {{"user", 0, false}};
  info.tasks = {{"click", -1}, {"buy", 0}};
  ConfigErrors none("plan.yaml");
  check_models(plan, plan.datasets[0], info, none);
  EXPECT_NO_THROW(none.throw_if_any());
  plan.models[0].space.push_back({"model.expert_hidden", {YAML::Load("[16]"), YAML::Load("[0]")}});
  plan.models[1].space.push_back({"loss.task_weights", {YAML::Load("{}"), YAML::Load("{bye: 2}")}});
  ConfigErrors errors("plan.yaml");
  check_models(plan, plan.datasets[0], info, errors);
  try {
    errors.throw_if_any();
    FAIL();
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("tune, model mmoe with model.expert_hidden: [0] on shop"), std::string::npos) << text;
    EXPECT_NE(text.find("tune, model over with loss.task_weights: {bye: 2} on shop"), std::string::npos) << text;
    EXPECT_NE(text.find("Did you mean 'buy'?"), std::string::npos) << text;
    EXPECT_NE(text.find("2 problems"), std::string::npos) << text;
  }
}

TEST(Plan, SetLiesOverTheConfig) {
  const Plan plan = parse(R"(
datasets:
  - {name: whole, simulate: {rows: 20000, pattern: sequential, relatedness: {pay: 0}}}
  - {name: scarce, data: data/shop, set: {train.label_shares: {pay: 0.1}, optimizer.learning_rate: 0.004}}
models:
  - {name: mmoe, config: {model: {name: mmoe, experts: 2}, optimizer: {learning_rate: 0.002}}, set: {model.experts: 3}}
)");
  EXPECT_EQ(plan.datasets[0].simulation->rows, 20000);
  EXPECT_EQ(plan.datasets[0].simulation->tasks()[2].relatedness, 0);
  const RunConfig whole = run_config(plan, plan.models[0].config, plan.datasets[0], "d", 1),
                  scarce = run_config(plan, plan.models[0].config, plan.datasets[1], "d", 1);
  EXPECT_EQ(whole.model["experts"].as<int>(), 3);
  EXPECT_EQ(whole.optimizer.learning_rate, 0.002);
  EXPECT_TRUE(whole.train.label_shares.empty());
  EXPECT_EQ(scarce.model["experts"].as<int>(), 3);
  EXPECT_EQ(scarce.optimizer.learning_rate, 0.004);
  ASSERT_EQ(scarce.train.label_shares.size(), 1u);
  EXPECT_EQ(scarce.train.label_shares[0].second, 0.1);
}

TEST(Plan, EktmLiesAroundTheModelOfTheConfig) {
  const Plan plan = parse(R"(
datasets: [{name: d, data: x}]
models:
  - {name: mmoe, config: {model: {name: mmoe, experts: 2}, optimizer: {learning_rate: 0.002}}}
  - {name: plain, baseline: mmoe, config: {model: {name: mmoe, experts: 2}, optimizer: {learning_rate: 0.002}}, ektm: {}}
  - {name: careful, baseline: mmoe, config: {model: {name: mmoe, experts: 2}}, ektm: {detach_own: true}, set: {model.backbone.experts: 5}}
common: {model: {dropout: 0.3}}
)");
  const RunConfig plain = run_config(plan, plan.models[1].config, plan.datasets[0], "d", 1), careful = run_config(plan, plan.models[2].config, plan.datasets[0], "d", 1);
  EXPECT_EQ(plain.optimizer.learning_rate, 0.002);
  EXPECT_EQ(plain.model["name"].Scalar(), "ektm");
  EXPECT_EQ(plain.model["backbone"]["name"].Scalar(), "mmoe");
  EXPECT_EQ(plain.model["backbone"]["experts"].as<int>(), 2);
  EXPECT_EQ(plain.model["backbone"]["dropout"].as<double>(), 0.3);
  EXPECT_EQ(plan.models[1].config["model"].size(), 2u);  // name and backbone: all else is EKTM's default
  EXPECT_TRUE(careful.model["detach_own"].as<bool>());
  EXPECT_EQ(careful.model["backbone"]["experts"].as<int>(), 5);
  const std::string text = error_of(R"(
datasets: [{name: d, data: x}]
models:
  - {name: a, config: {model: {name: mmoe}}, ektm: yes}
  - {name: b, config: {model: {name: ektm}}, ektm: {}}
  - {name: c, config: {optimizer: {learning_rate: 0.1}}, ektm: {}}
  - {name: d, config: {model: {name: mmoe}}, ektm: {backbone: {name: ple}}}
)");
  for (const char* part : {"models[0].ektm: expected a map of EKTM's keys", "models[1].ektm: puts EKTM around the model of `config`, which is EKTM already",
                           "models[2].ektm: puts EKTM around the model of `config`, which names none", "models[3].ektm: has `name` or `backbone`"})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n in \n" << text;
}

TEST(Plan, SetAndSimulateAreChecked) {
  const std::string text = error_of(R"(
datasets:
  - {name: a, simulate: {row: 20000}}
  - {name: b, simulate: {days: 3, test_days: 3}}
  - {name: c, simulate: {}, data: x}
  - {name: d, data: x, set: {seed: 3}}
models:
  - {name: m, config: {model: {name: mmoe}}, set: [model.experts]}
)");
  for (const char* part : {"datasets[0].simulate.row: unknown key. Did you mean 'datasets[0].simulate.rows'?", "datasets[1].simulate.days: found 3 days",
                           "datasets[2].data: expected one of", "datasets[3].set: has the key 'seed'", "models[0].set: expected a map of key: value"})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n in \n" << text;
  EXPECT_NE(error_of("datasets: [{name: d, data: x, set: {optimizer.learning_rat: 1}}]\nmodels: [{name: m, config: {model: {name: mmoe}}}]\n")
                .find("optimizer.learning_rat: unknown key"),
            std::string::npos);
}

}  // namespace
}  // namespace ektm
