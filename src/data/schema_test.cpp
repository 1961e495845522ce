#include "data/schema.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"

namespace ektm {
namespace {

const char* kWhole = R"(features:
  - {name: user_id, kind: id, min_count: 2}
  - {name: tag, kind: ids, separator: "|", pooling: sum, max_length: 7}
  - {name: duration, column: duration_ms, kind: number, bins: 20}
  - {name: price, kind: number, normalize: log_standard}
  - {name: recent_tags, kind: sequence, table: tag}
  - {names: [a, b, c], kind: id, hash_buckets: 100}
tasks:
  - {name: pay, label: is_pay, after: cart, observed: reported == 1}
  - {name: like, label: is_like > 0, after: click}
  - {name: cart, label: is_cart, after: click}
  - {name: click, label: is_click}
join:
  - {file: users.csv.gz, key: user_id}
group: user_id
scenario: tab
weight: w
missing: ["", NA, "-1"]
split: {valid_from: test, valid_fraction: 0.25, valid_seed: 9}
allow_leak: false
max_bad_rows: 3
)";
const char* kSmall = "features:\n  - {name: f}\ntasks:\n  - {name: t, label: y}\n";

Schema parse(const std::string& text) { return parse_schema(text, "schema.yaml", "folder"); }

std::string error_of(const std::string& text) {
  try {
    parse(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Config);
    EXPECT_EQ(error.where().rfind("schema.yaml", 0), 0u) << error.where();
    return error.what();
  }
  ADD_FAILURE() << "accepted:\n" << text;
  return "";
}

void expect_error(const std::string& text, const std::vector<std::string>& parts) {
  std::string message = error_of(text);
  for (const auto& part : parts) EXPECT_NE(message.find(part), std::string::npos) << "lacks '" << part << "': " << message;
}

std::string with_feature(const std::string& feature) {
  return std::string("features:\n  - {name: f}\n  - ") + feature + "\ntasks:\n  - {name: t, label: y}\n";
}
std::string with_task(const std::string& task) {
  return std::string("features:\n  - {name: f}\ntasks:\n  - {name: t, label: y}\n  - ") + task + "\n";
}

TEST(Schema, ReadsEveryKey) {
  Schema schema = parse(kWhole);
  ASSERT_EQ(schema.features.size(), 8u);
  EXPECT_EQ(schema.features[0].name, "user_id");
  EXPECT_EQ(schema.features[0].column, "user_id");
  EXPECT_EQ(schema.features[0].table, "user_id");
  EXPECT_EQ(schema.features[0].min_count, 2);
  EXPECT_EQ(schema.features[1].kind, FeatureKind::Ids);
  EXPECT_EQ(schema.features[1].separator, "|");
  EXPECT_EQ(schema.features[1].pooling, "sum");
  EXPECT_EQ(schema.features[1].max_length, 7);
  EXPECT_EQ(schema.features[2].kind, FeatureKind::Number);
  EXPECT_EQ(schema.features[2].column, "duration_ms");
  EXPECT_EQ(schema.features[2].bins, 20);
  EXPECT_EQ(schema.features[3].normalize, "log_standard");
  EXPECT_EQ(schema.features[4].kind, FeatureKind::Sequence);
  EXPECT_EQ(schema.features[4].table, "tag");
  for (int i = 5; i < 8; ++i) {
    EXPECT_EQ(schema.features[i].name, std::string(1, static_cast<char>('a' + i - 5)));
    EXPECT_EQ(schema.features[i].column, schema.features[i].name);
    EXPECT_EQ(schema.features[i].table, schema.features[i].name);
    EXPECT_EQ(schema.features[i].hash_buckets, 100);
  }
  ASSERT_EQ(schema.joins.size(), 1u);
  EXPECT_EQ(schema.joins[0].file, "users.csv.gz");
  EXPECT_EQ(schema.joins[0].key, "user_id");
  EXPECT_EQ(schema.group, "user_id");
  EXPECT_EQ(schema.scenario, "tab");
  EXPECT_EQ(schema.weight, "w");
  EXPECT_EQ(schema.missing, (std::vector<std::string>{"", "NA", "-1"}));
  EXPECT_EQ(schema.valid_from, "test");
  EXPECT_EQ(schema.valid_fraction, 0.25);
  EXPECT_EQ(schema.valid_seed, 9);
  EXPECT_EQ(schema.max_bad_rows, 3);
  EXPECT_EQ(schema.folder, "folder");
  EXPECT_EQ(schema.text, kWhole);
}

TEST(Schema, TasksAreSortedParentsFirstAndOtherwiseAsInTheFile) {
  Schema schema = parse(kWhole);
  std::vector<std::string> names;
  for (const auto& task : schema.tasks) names.push_back(task.name);
  EXPECT_EQ(names, (std::vector<std::string>{"click", "like", "cart", "pay"}));
  EXPECT_EQ(schema.parents(), (std::vector<int>{-1, 0, 0, 2}));
  EXPECT_EQ(schema.task_index("cart"), 2);
  EXPECT_EQ(schema.task_index("none"), -1);
  EXPECT_EQ(schema.tasks[3].observed, "reported == 1");
}

TEST(Schema, Defaults) {
  Schema schema = parse(kSmall), plain;
  EXPECT_EQ(schema.missing, plain.missing);
  EXPECT_EQ(schema.valid_from, "");
  EXPECT_EQ(schema.valid_fraction, 0.5);
  EXPECT_EQ(schema.max_bad_rows, 0);
  EXPECT_FALSE(schema.allow_leak);
  EXPECT_EQ(schema.features[0].kind, FeatureKind::Id);
  EXPECT_EQ(parse(std::string(kSmall) + "split: {valid_from: none}\n").valid_from, "");
}

TEST(Schema, UnknownKeysNameTheNearest) {
  expect_error(std::string(kSmall) + "gruop: x\n", {"line 5", "gruop", "'group'"});
  expect_error(with_feature("{name: g, min_cuont: 2}"), {"line 3", "features.g.min_cuont", "min_count"});
  expect_error(with_task("{name: u, lable: x}"), {"line 5", "lable", "label"});
  expect_error(std::string(kSmall) + "split: {valid_form: test}\n", {"split.valid_form", "split.valid_from"});
  expect_error(std::string(kSmall) + "join:\n  - {file: a.csv, kye: x}\n", {"kye", "key"});
}

TEST(Schema, AllErrorsTogether) {
  expect_error("features:\n  - {name: f, kind: idd}\n  - {name: f}\ntasks:\n  - {name: t, label: y, after: q}\nfoo: 1\n",
               {"4 problems", "line 2", "'id'", "line 3", "named twice", "line 5", "'q' is no task", "line 6", "foo"});
}

TEST(Schema, NothingToDo) {
  expect_error("tasks:\n  - {name: t, label: y}\n", {"features", "at least one"});
  expect_error("features: []\ntasks:\n  - {name: t, label: y}\n", {"features", "at least one"});
  expect_error("features:\n  - {name: f}\n", {"tasks", "at least one"});
  expect_error("features:\n  - {name: f}\ntasks:\n", {"tasks", "at least one"});
  expect_error("features: f\ntasks:\n  - {name: t, label: y}\n", {"features", "expected a list"});
  expect_error("features:\n  - f\ntasks:\n  - {name: t, label: y}\n", {"line 2", "features[0]", "expected a map"});
  expect_error("- a\n", {"map"});
  expect_error("features: [\n", {"YAML"});
}

TEST(Schema, NamesAreThereAndOnce) {
  expect_error(with_feature("{name: f}"), {"line 3", "features.f", "named twice", "line 2"});
  expect_error(with_feature("{names: [g, f]}"), {"features.f", "named twice"});
  expect_error(with_feature("{names: [g, g]}"), {"features.g", "named twice"});
  expect_error(with_feature("{kind: id}"), {"features[1].name", "missing"});
  expect_error(with_feature("{name: \"\"}"), {"features[1].name", "empty"});
  expect_error(with_feature("{names: []}"), {"names", "empty"});
  expect_error(with_feature("{names: [\"\"]}"), {"names", "empty name"});
  expect_error(with_feature("{names: [g], name: h}"), {"name", "beside 'names'"});
  expect_error(with_feature("{names: [g], column: h}"), {"column", "beside 'names'"});
  expect_error(with_task("{name: t, label: z}"), {"line 5", "tasks.t", "named twice", "line 4"});
  expect_error(with_task("{label: z}"), {"tasks[1].name", "missing"});
  expect_error(with_task("{name: u}"), {"tasks.u.label", "missing"});
  expect_error(with_task("{name: u, label: \"\"}"), {"tasks.u.label", "empty"});
}

TEST(Schema, AfterNamesATask) {
  expect_error("features:\n  - {name: f}\ntasks:\n  - {name: click, label: y}\n  - {name: like, label: z, after: clik}\n",
               {"line 5", "tasks.like.after", "'clik'", "'click'"});
  expect_error(with_task("{name: u, label: z, after: u}"), {"line 5", "tasks.u.after", "itself"});
  expect_error(with_task("{name: u, label: z, after: \"\"}"), {"tasks.u.after", "empty"});
  expect_error("features:\n  - {name: f}\ntasks:\n  - {name: t, label: y, after: q}\n", {"no other task"});
}

TEST(Schema, CyclesAreReportedOnceEach) {
  std::string message = error_of(
      "features:\n  - {name: f}\ntasks:\n"
      "  - {name: a, label: y, after: b}\n  - {name: b, label: y, after: c}\n  - {name: c, label: y, after: a}\n"
      "  - {name: d, label: y, after: a}\n");
  EXPECT_NE(message.find("a after b after c after a"), std::string::npos) << message;
  EXPECT_EQ(message.find("problems"), std::string::npos) << message;
}

TEST(Schema, LabelExpressionsGiveThePosition) {
  expect_error(with_task("{name: u, label: \"a ==\"}"), {"line 5", "tasks.u.label", "position 5", "found the end"});
  expect_error(with_task("{name: u, label: z, observed: a && b}"), {"line 5", "tasks.u.observed", "'and'"});
}

TEST(Schema, LeaksAreRefusedUnlessAllowed) {
  std::string by_column =
      "features:\n  - {name: f}\n  - {name: g, column: y}\ntasks:\n  - {name: t, label: \"x == 1 and y > 2\"}\n";
  expect_error(by_column, {"line 3", "features.g", "column 'y'", "task 't'", "allow_leak: true", "Remove the feature"});
  EXPECT_EQ(parse(by_column + "allow_leak: true\n").features.size(), 2u);
  expect_error("features:\n  - {name: f}\n  - {name: o}\ntasks:\n  - {name: t, label: y, observed: o == 1}\n",
               {"features.o", "column 'o'"});
  expect_error(with_feature("{name: w}") + "weight: w\n", {"features.w", "weight"});
  expect_error(std::string(kSmall) + "scenario: y\n", {"scenario", "'y'", "task 't'"});
}

TEST(Schema, ValuesOutOfRange) {
  for (const char* bad :
       {"min_count: 0", "min_count: -1", "hash_buckets: -5", "hash_buckets: 3000000000", "min_count: 1.5", "min_count: two"}) {
    std::string key = std::string(bad).substr(0, std::string(bad).find(':'));
    expect_error(with_feature("{name: g, " + std::string(bad) + "}"), {"line 3", "features.g." + key});
  }
  expect_error(with_feature("{name: g, kind: ids, max_length: 0}"), {"features.g.max_length"});
  expect_error(with_feature("{name: g, kind: ids, separator: \"\"}"), {"features.g.separator", "empty"});
  expect_error(with_feature("{name: g, kind: ids, pooling: max}"), {"features.g.pooling", "mean, sum"});
  expect_error(with_feature("{name: g, kind: number, bins: -1}"), {"features.g.bins"});
  expect_error(with_feature("{name: g, kind: number, bins: 1}"), {"features.g.bins", "at least 2"});
  expect_error(with_feature("{name: g, kind: number, normalize: log}"), {"features.g.normalize"});
  expect_error(with_feature("{name: g, kind: category}"), {"features.g.kind", "id, ids, sequence, number"});
  expect_error(with_feature("{name: g, table: \"\"}"), {"features.g.table", "empty"});
  expect_error(std::string(kSmall) + "max_bad_rows: -1\n", {"max_bad_rows"});
  for (const char* bad : {"0", "1", "-0.5", "2", ".nan"})
    expect_error(std::string(kSmall) + "split: {valid_fraction: " + bad + "}\n", {"valid_fraction"});
  expect_error(std::string(kSmall) + "split: {valid_from: tset}\n", {"split.valid_from", "'test'"});
}

TEST(Schema, KeysWithoutEffectAreErrors) {
  expect_error(with_feature("{name: g, bins: 3}"), {"features.g.bins", "no effect", "'id'"});
  expect_error(with_feature("{name: g, pooling: sum}"), {"features.g.pooling", "no effect"});
  expect_error(with_feature("{name: g, kind: number, min_count: 3}"), {"features.g.min_count", "no effect"});
  expect_error(with_feature("{name: g, kind: number, bins: 3, normalize: none}"), {"features.g.normalize", "beside 'bins'"});
  expect_error(with_feature("{name: g, hash_buckets: 10, min_count: 3}"), {"features.g.min_count", "beside 'hash_buckets'"});
}

TEST(Schema, SharedTablesAgree) {
  expect_error(with_feature("{name: g, table: f, hash_buckets: 10}"),
               {"features.g", "hash_buckets 10", "'f'", "line 2", "Give both the same"});
  expect_error(with_feature("{name: g, table: f, min_count: 3}"), {"features.g", "min_count 3", "Give both the same"});
  expect_error("features:\n  - {name: g, table: n}\n  - {name: n, kind: number, bins: 4}\ntasks:\n  - {name: t, label: y}\n",
               {"bins of a number"});
  EXPECT_EQ(parse(with_feature("{name: g, table: f}")).features[1].table, "f");
}

TEST(Schema, Joins) {
  std::string join = std::string(kSmall) + "join:\n  - {file: users.csv, key: user_id}\n";
  EXPECT_EQ(parse(join + "  - {file: users.csv, key: friend_id}\n").joins.size(), 2u);
  expect_error(join + "  - {file: users.csv, key: user_id}\n", {"line 7", "joined twice"});
  expect_error(std::string(kSmall) + "join:\n  - {file: users.csv}\n", {"join.users.csv.key", "missing"});
  expect_error(std::string(kSmall) + "join:\n  - {key: user_id}\n", {"join[0].file", "missing"});

  const std::string history = std::string(kSmall) + "join:\n  - {file: h.csv, key: user_id, many: true, where: long_view == 1, prefix: seen_}\n";
  const Schema schema = parse(history + "  - {file: h.csv, key: user_id, many: true, where: is_like == 1, prefix: liked_}\n");
  ASSERT_EQ(schema.joins.size(), 2u);
  EXPECT_TRUE(schema.joins[0].many);
  EXPECT_EQ(schema.joins[0].where, "long_view == 1");
  EXPECT_EQ(schema.joins[1].prefix, "liked_");
  expect_error(history + "  - {file: h.csv, key: user_id, many: true, where: is_like == 1, prefix: seen_}\n", {"line 7", "another prefix"});
  expect_error(std::string(kSmall) + "join:\n  - {file: h.csv, key: user_id, where: \"a ==\"}\n", {"line 6", "join.h.csv.where"});
  // What a joined list holds decides the encoding; a plain join's file does not.
  const std::string plain = std::string(kSmall) + "join:\n  - {file: h.csv, key: user_id}\n";
  EXPECT_EQ(parse(plain).hash(), parse(kSmall).hash());
  std::set<std::string> hashes{parse(plain).hash()};
  for (const char* keys : {"many: true", "many: true, where: a == 1", "many: true, where: a == 2", "many: true, prefix: h_", "prefix: h_", "where: a == 1"})
    EXPECT_TRUE(hashes.insert(parse(std::string(kSmall) + "join:\n  - {file: h.csv, key: user_id, " + keys + "}\n").hash()).second) << keys;
}

TEST(Schema, HashFollowsWhatDecidesTheEncoding) {
  std::string base = parse(kWhole).hash();
  EXPECT_EQ(base.size(), 16u);
  EXPECT_EQ(base, parse(kWhole).hash());
  auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = kWhole;
    size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return parse(text.replace(at, from.size(), to)).hash();
  };
  std::set<std::string> hashes = {base};
  for (auto [from, to] : {std::pair{"min_count: 2", "min_count: 3"},
                          {"separator: \"|\"", "separator: \";\""},
                          {"bins: 20", "bins: 21"},
                          {"column: duration_ms", "column: duration"},
                          {"log_standard", "minmax"},
                          {"label: is_pay", "label: is_pay > 0"},
                          {"after: cart", "after: click"},
                          {"reported == 1", "reported == 2"},
                          {"group: user_id", "group: tab"},
                          {"weight: w", "weight: v"},
                          {"NA", "NAN"},
                          {"name: like", "name: thumb"},
                          {"pooling: sum", "pooling: mean"}})
    EXPECT_TRUE(hashes.insert(changed(from, to)).second) << from;
  for (auto [from, to] : {std::pair{"features:", "# a comment\nfeatures:"},
                          {"max_bad_rows: 3", "max_bad_rows: 0"},
                          {"users.csv.gz", "users.parquet"},
                          {"valid_seed: 9", "valid_seed: 8"},
                          {"kind: id, min_count: 2", "min_count: 2, kind: id"}})
    EXPECT_EQ(changed(from, to), base) << from;
}

TEST(Schema, ReferenceNamesEveryKeyWithHelp) {
  auto reference = schema_reference();
  ASSERT_EQ(reference.size(), 4u);
  std::set<std::string> keys;
  for (const auto& [section, rows] : reference)
    for (const auto& row : rows) {
      EXPECT_FALSE(row.help.empty()) << row.key;
      keys.insert(section + (section.empty() ? "" : ".") + row.key);
    }
  for (const char* key :
       {"group", "missing", "split.valid_from", "features[].names", "features[].kind", "tasks[].after", "join[].key"})
    EXPECT_TRUE(keys.count(key)) << key;
}

TEST(Schema, ShippedSchemasAreValid) {
  std::filesystem::path configs = std::filesystem::path(EKTM_SOURCE_DIR) / "configs";
  Schema kuairand = load_schema(configs / "kuairand" / "schema.yaml");
  EXPECT_EQ(kuairand.parents(), (std::vector<int>{-1, 0, 0, 0, 0, 0, 0}));
  for (const auto& feature : kuairand.features)  // known only after the impression
    for (const char* late : {"play_time_ms", "profile_stay_time", "comment_stay_time", "is_hate"})
      EXPECT_NE(feature.column, late);
  Schema income = load_schema(configs / "census" / "schema_income.yaml"),
         education = load_schema(configs / "census" / "schema_education.yaml");
  EXPECT_EQ(income.features.size(), 38u);  // 40 columns less two labels
  EXPECT_EQ(education.features.size(), 38u);
  EXPECT_EQ(income.parents(), (std::vector<int>{-1, -1}));
  EXPECT_EQ(education.tasks[0].name, "education");
  EXPECT_EQ(education.valid_from, "test");
}

TEST(Schema, MissingFile) {
  try {
    load_schema("no_such_folder/schema.yaml");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Io);
    EXPECT_EQ(error.where(), "no_such_folder/schema.yaml");
  }
}

}  // namespace
}  // namespace ektm
