#include "config/yaml.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace ektm {
namespace {

struct Inner {
  std::vector<int64_t> sizes{4, 2};
  std::string mode = "fast";
  void fields(FieldVisitor& v) {
    v.field("sizes", sizes, {1, 100}, "layer sizes");
    v.field("mode", mode, {"fast", "slow"}, "how");
  }
};

struct Outer {
  int64_t count = 3;
  double rate = 0.1;
  bool on = false;
  std::string name = "x";
  std::vector<std::pair<std::string, double>> weights;
  std::vector<std::pair<std::string, std::string>> pairs;
  std::vector<std::vector<std::string>> groups;
  Inner inner;
  void fields(FieldVisitor& v) {
    v.field("count", count, {1, 10}, "how many");
    v.field("rate", rate, {0, 1}, "a share");
    v.field("on", on, "switch");
    v.field("name", name, "text");
    v.field("weights", weights, {0, 10}, "by name");
    v.field("pairs", pairs, "name by name");
    v.field("groups", groups, "of names");
    v.group("inner", inner, "nested");
  }
};

Outer read(const std::string& text) {
  Outer config;
  ConfigErrors errors("test.yaml");
  read_config(parse_yaml(text, "test.yaml"), config, errors);
  errors.throw_if_any();
  return config;
}

std::string error_of(const std::string& text) {
  try {
    read(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Config);
    return error.what();
  }
  return "no error";
}

TEST(Yaml, ReadsWhatIsGivenAndKeepsDefaults) {
  Outer config = read("count: 7\nweights: {a: 2, b: 0.5}\ninner: {sizes: [8]}\n");
  EXPECT_EQ(config.count, 7);
  EXPECT_EQ(config.rate, 0.1);
  ASSERT_EQ(config.weights.size(), 2u);
  EXPECT_EQ(config.weights[1].first, "b");
  EXPECT_EQ(config.weights[1].second, 0.5);
  EXPECT_EQ(config.inner.sizes, std::vector<int64_t>{8});
  EXPECT_EQ(config.inner.mode, "fast");
}

TEST(Yaml, ListsOfLists) {
  EXPECT_EQ(read("groups: [[a, b], [c], []]\n").groups, (std::vector<std::vector<std::string>>{{"a", "b"}, {"c"}, {}}));
  for (const char* bad : {"groups: [a, b]\n", "groups: a\n", "groups: [[a], [[b]]]\n"})
    EXPECT_NE(error_of(bad).find("expected a list of lists of names, e.g. [[a, b], [c]]"), std::string::npos) << bad;
}

TEST(Yaml, WrittenAndReadAgainIsTheSame) {
  Outer config = read("rate: 0.25\non: true\nweights: {a: 2}\npairs: {a: b, c: \"1\"}\ngroups: [[a, b], [c]]\ninner: {mode: slow}\n");
  EXPECT_EQ(config.pairs, (std::vector<std::pair<std::string, std::string>>{{"a", "b"}, {"c", "1"}}));
  const std::string text = to_text(write_config(config));
  EXPECT_EQ(to_text(write_config(read(text))), text);
  EXPECT_NE(text.find("rate: 0.25"), std::string::npos);
}

TEST(Yaml, ErrorsNameLineKeyFindingAndExpectation) {
  EXPECT_NE(error_of("count: 11\n").find("test.yaml: line 1, count: found 11; expected a value in 1 .. 10."), std::string::npos) << error_of("count: 11\n");
  EXPECT_NE(error_of("name: a\ncuont: 1\n").find("line 2, cuont: unknown key. Did you mean 'count'?"), std::string::npos) << error_of("name: a\ncuont: 1\n");
  EXPECT_NE(error_of("rate: high\n").find("found 'high'; expected a number"), std::string::npos);
  EXPECT_NE(error_of("rate: .nan\n").find("expected a value in 0 .. 1"), std::string::npos) << error_of("rate: .nan\n");
  EXPECT_NE(error_of("count: 2.5\n").find("expected a whole number"), std::string::npos);
  EXPECT_NE(error_of("on: perhaps\n").find("expected true or false"), std::string::npos);
  EXPECT_NE(error_of("inner: {mode: fats}\n").find("inner.mode: found 'fats'; expected one of: fast, slow. Did you mean 'fast'?"), std::string::npos);
  EXPECT_NE(error_of("inner: {sizes: 3}\n").find("expected a list of whole numbers"), std::string::npos);
  EXPECT_NE(error_of("inner: 3\n").find("expected a map"), std::string::npos);
  EXPECT_NE(error_of("weights: {a: -1}\n").find("weights.a: found -1"), std::string::npos);
  EXPECT_NE(error_of("pairs: [a]\n").find("pairs: found a list; expected a map of name: name"), std::string::npos);
  EXPECT_NE(error_of("count: 1\npairs: {a: [b]}\n").find("line 2, pairs.a: found a list; expected a name"), std::string::npos);
  EXPECT_NE(error_of("count: [1\n").find("no valid YAML"), std::string::npos);
  EXPECT_NE(error_of("- 1\n").find("expected a YAML map"), std::string::npos);
  EXPECT_NE(error_of("count: 1\nname: a\ncount: 2\n").find("line 3: the key 'count' stands here a second time"), std::string::npos)
      << error_of("count: 1\nname: a\ncount: 2\n");
}

TEST(Yaml, AllErrorsOfAFileTogether) {
  const std::string text = error_of("count: 0\nrate: 2\nbogus: 1\n");
  EXPECT_NE(text.find("3 problems"), std::string::npos) << text;
}

TEST(Yaml, OverridesMakeTheWay) {
  YAML::Node root = parse_yaml("count: 1\n", "t");
  apply_override(root, "inner.mode=slow");
  apply_override(root, "count=5");
  apply_override(root, "inner.sizes=[1, 2, 3]");
  Outer config;
  ConfigErrors errors("t");
  read_config(root, config, errors);
  errors.throw_if_any();
  EXPECT_EQ(config.count, 5);
  EXPECT_EQ(config.inner.mode, "slow");
  EXPECT_EQ(config.inner.sizes.size(), 3u);
  EXPECT_THROW(apply_override(root, "count"), Error);
  EXPECT_THROW(apply_override(root, "count.deeper=1"), Error);
}

TEST(Yaml, DescribeGivesTypeDefaultAndRange) {
  auto rows = describe(Outer{});
  ASSERT_EQ(rows.size(), 9u);
  EXPECT_EQ(rows[5].type, "map of text");
  EXPECT_EQ(rows[5].default_value, "{}");
  EXPECT_EQ(rows[0].key, "count");
  EXPECT_EQ(rows[0].type, "int");
  EXPECT_EQ(rows[0].default_value, "3");
  EXPECT_EQ(rows[0].range, "1 .. 10");
  EXPECT_EQ(rows[6].type, "list of lists of text");
  EXPECT_EQ(rows[6].default_value, "[]");
  EXPECT_EQ(rows[7].key, "inner.sizes");
  EXPECT_EQ(rows[7].default_value, "[4, 2]");
}

}  // namespace
}  // namespace ektm
