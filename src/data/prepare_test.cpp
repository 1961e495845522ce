#include "data/prepare.h"

#include <arrow/builder.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>

#include "base/hash.h"
#include "base/random.h"
#include "data/prepare_testing.h"

namespace ektm {
namespace {

using testing::contents;
using testing::expect_equal;
using testing::expect_error;
using testing::Folder;
using testing::prepare_csv;
using testing::whole_split;
namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;
using Bytes = std::vector<uint8_t>;

const std::string kClick = "tasks: [{name: click, label: click}]\n";

// ---------------------------------------------------------------------------------------------------------------- encoders

TEST(Prepare, VocabularyByHand) {
  Folder folder;
  // u: a and b twice, c once; v: z three times, x twice, y once.
  const auto summary =
      prepare_csv(folder, "features: [{name: u, min_count: 2}, {name: v}]\n" + kClick,
                  "u,v,click\nb,x,1\na,x,0\na,y,0\nb,z,0\nc,z,0\nNA,z,0\n", "", "u,v,click\nd,z,0\n,w,0\nb,y,1\n");
  EXPECT_EQ(whole_split(folder / "out", "train").ids, (Ids{3, 3, 2, 3, 2, 4, 3, 2, kOovRow, 2, kMissingRow, 2}));
  EXPECT_EQ(whole_split(folder / "out", "test").ids, (Ids{kOovRow, 2, kMissingRow, kOovRow, 3, 4}));
  const DatasetInfo info = read_dataset_info(folder / "out");
  ASSERT_EQ(info.tables.size(), 2u);
  EXPECT_EQ(info.tables[0].rows, 4);
  EXPECT_EQ(info.tables[1].rows, 5);
  EXPECT_EQ(info.fields[1].name, "v");
  EXPECT_EQ(info.fields[1].table, 1);
  const auto& train = summary.splits[0].counts;
  EXPECT_EQ(train.fields[0].missing, 1);
  EXPECT_EQ(train.fields[0].unseen, 1);
  EXPECT_EQ(train.fields[1].unseen, 0);
  const auto& test = summary.splits[1].counts;
  EXPECT_EQ(test.rows, 3);
  EXPECT_EQ(test.fields[0].missing, 1);
  EXPECT_EQ(test.fields[0].unseen, 1);
  EXPECT_EQ(test.fields[1].unseen, 1);
}

TEST(Prepare, FeaturesShareATable) {
  Folder folder;
  // Together: b three times, a twice, c once (min_count 2 over both columns).
  prepare_csv(folder,
              "features: [{name: x, table: t, min_count: 2}, {name: y, table: t, min_count: 2}, {name: l, kind: ids, table: t, "
              "min_count: 2}]\n" +
                  kClick,
              "x,y,l,click\na,b,b,1\nc,b,a,0\n");
  EXPECT_EQ(read_dataset_info(folder / "out").tables.size(), 1u);
  const Batch train = whole_split(folder / "out", "train");
  EXPECT_EQ(train.ids, (Ids{3, 2, kOovRow, 2}));
  EXPECT_EQ(train.bags[0].values, (Ids{2, 3}));
}

TEST(Prepare, HashingByHand) {
  Folder folder;
  prepare_csv(folder, "features: [{name: u, hash_buckets: 10}]\n" + kClick, "u,click\nabc,1\n,0\n-5,0\n");
  EXPECT_EQ(whole_split(folder / "out", "train").ids,
            (Ids{2 + static_cast<int32_t>(hash64("abc") % 10), kMissingRow, 2 + static_cast<int32_t>(hash64("-5") % 10)}));
  EXPECT_EQ(read_dataset_info(folder / "out").tables[0].rows, 12);
}

TEST(Prepare, NumbersByHand) {
  Folder folder;
  prepare_csv(folder,
              "features: [{name: p, kind: number}, {name: q, kind: number, normalize: minmax}, {name: b, column: p, kind: "
              "number, bins: 2}]\n" +
                  kClick,
              "p,q,click\n1,0,1\n2,10,0\n3,,0\n4,5,0\n", "", "p,q,click\nNaN,20,0\n100,0,0\n");
  const float s = static_cast<float>(1 / std::sqrt(1.25));
  const Batch train = whole_split(folder / "out", "train"), test = whole_split(folder / "out", "test");
  const std::vector<float> expected = {-1.5f * s, 0, -0.5f * s, 1, 0.5f * s, 0, 1.5f * s, 0.5f};
  ASSERT_EQ(train.numbers.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_FLOAT_EQ(train.numbers[i], expected[i]);
  EXPECT_EQ(test.numbers[0], 0);  // missing
  EXPECT_EQ(test.numbers[1], 2);
  EXPECT_EQ(train.ids, (Ids{2, 2, 3, 3}));  // at most 2; above
  EXPECT_EQ(test.ids, (Ids{kMissingRow, 3}));
  EXPECT_EQ(read_dataset_info(folder / "out").tables[0].rows, 4);
}

TEST(Prepare, NumbersThatAreNone) {
  for (const char* text : {"abc", "inf", "1e999"}) {
    Folder folder;
    expect_error(ErrorKind::Data, {"train.csv", "row 2", "line 3", "column p", text, "expected a finite number"}, [&] {
      prepare_csv(folder, "features: [{name: p, kind: number}]\n" + kClick, std::string("p,click\n1,1\n") + text + ",0\n");
    });
    EXPECT_FALSE(fs::exists(folder / "out"));
  }
  Folder folder;
  expect_error(ErrorKind::Data, {"row 1", "column p", "1e+300", "32-bit float"}, [&] {
    prepare_csv(folder, "features: [{name: p, kind: number, normalize: none}]\n" + kClick, "p,click\n1e300,1\n1,0\n");
  });
}

TEST(Prepare, ListsByHand) {
  Folder folder;
  const auto summary = prepare_csv(folder,
                                   "features: [{name: t, kind: ids, max_length: 2, separator: \"|\"}, {name: s, kind: sequence, "
                                   "max_length: 2, separator: \"|\", pooling: sum}]\n" +
                                       kClick,
                                   "t,s,click\na|b|c,x|y|z,1\na,z,0\n,,0\n", "", "t,s,click\nc|a,x|NA|z,0\n");
  // t keeps the first two: a twice, b once. s keeps the newest two: z twice, y once.
  const Batch train = whole_split(folder / "out", "train"), test = whole_split(folder / "out", "test");
  EXPECT_EQ(train.bags[0].offsets, (Ids{0, 2, 3, 4}));
  EXPECT_EQ(train.bags[0].values, (Ids{2, 3, 2, kMissingRow}));
  EXPECT_EQ(train.bags[1].offsets, (Ids{0, 2, 3, 4}));
  EXPECT_EQ(train.bags[1].values, (Ids{3, 2, 2, kMissingRow}));
  EXPECT_EQ(test.bags[0].values, (Ids{kOovRow, 2}));
  EXPECT_EQ(test.bags[1].values, (Ids{kOovRow, 2}));
  const DatasetInfo info = read_dataset_info(folder / "out");
  EXPECT_FALSE(info.bags[0].sum_pooling);
  EXPECT_TRUE(info.bags[1].sum_pooling);
  EXPECT_EQ(summary.splits[0].counts.fields[0].values, 3);
  EXPECT_EQ(summary.splits[0].counts.fields[0].missing, 1);
}

TEST(Prepare, IdsOf64BitsStayExactAndLongerOnesAreRefused) {
  Folder folder;
  const std::string train =
      "u,click\n9223372036854775807,1\n9223372036854775806,0\n18446744073709551615,0\n18446744073709551614,0\n-"
      "9223372036854775808,0\n";
  prepare_csv(folder, "features: [{name: u}]\n" + kClick, train);
  EXPECT_EQ(read_dataset_info(folder / "out").tables[0].rows, 7);
  for (const std::string id : {"18446744073709551616", "-9223372036854775809", "99999999999999999999999"})
    for (const std::string feature : {"{name: u}", "{name: u, hash_buckets: 9}", "{name: u, kind: ids}"}) {
      Folder other;
      expect_error(ErrorKind::Data, {"row 2", "column u", id, "64 bits"},
                   [&] { prepare_csv(other, "features: [" + feature + "]\n" + kClick, "u,click\n1,1\n" + id + ",0\n"); });
      expect_error(ErrorKind::Data, {"test.csv", "row 1", "column u", id, "64 bits"}, [&] {
        prepare_csv(other, "features: [" + feature + "]\n" + kClick, "u,click\n1,1\n2,0\n", "", "u,click\n" + id + ",0\n");
      });
      EXPECT_FALSE(fs::exists(other / "out"));
    }
  prepare_csv(folder, "features: [{name: u}]\n" + kClick, "u,click\nx18446744073709551616,1\n", "", "",
              "texts");  // a text is no number
}

TEST(Prepare, TheOrderOfRowsDoesNotMatterToVocabularies) {
  Folder folder;
  const std::string schema = "features: [{name: u}, {name: p, kind: number, bins: 3}]\n" + kClick;
  std::vector<std::string> rows;
  Rng rng(1);
  for (int i = 0; i < 500; ++i) rows.push_back(fmt::format("{},{},{}\n", rng.below(60), rng.below(1000), i % 2));
  auto text = [&] {
    std::string csv = "u,p,click\n";
    for (const auto& row : rows) csv += row;
    return csv;
  };
  prepare_csv(folder, schema, text(), "", "", "a");
  shuffle(rows, rng);
  prepare_csv(folder, schema, text(), "", "", "b");
  EXPECT_EQ(contents(folder / "a/encoders"), contents(folder / "b/encoders"));
  EXPECT_NE(contents(folder / "a/train"), contents(folder / "b/train"));
}

// ---------------------------------------------------------------------------------------------------------------- labels and
// roles

TEST(Prepare, LabelsAndMasksByHand) {
  Folder folder;
  const std::string schema =
      "features: [{name: u}]\n"
      "tasks:\n"
      "  - {name: click, label: click}\n"
      "  - {name: cart, label: cart, after: click}\n"
      "  - {name: pay, label: 'amount > 10', after: cart, observed: 'reports == 1'}\n";
  const auto summary = prepare_csv(folder, schema,
                                   "u,click,cart,amount,reports\n"
                                   "a,1,1,20,1\n"    // all happened
                                   "a,1,1,20,0\n"    // pay is not reported
                                   "a,1,0,20,1\n"    // pay without cart
                                   "a,0,1,20,1\n"    // cart and pay without click
                                   "a,1,NA,20,1\n"   // cart unknown, so pay is unobserved too
                                   "a,1,1,NA,1\n"    // pay unknown
                                   "a,NA,1,5,1\n");  // click unknown
  const Batch train = whole_split(folder / "out", "train");
  EXPECT_EQ(train.labels, (Bytes{1, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0}));
  EXPECT_EQ(train.observed, (Bytes{1, 1, 1, 1, 1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0}));
  const auto& tasks = summary.splits[0].counts.tasks;
  EXPECT_EQ(tasks[0].observed, 6);
  EXPECT_EQ(tasks[0].positives, 5);
  EXPECT_EQ(tasks[1].observed, 4);
  EXPECT_EQ(tasks[1].positives, 3);
  EXPECT_EQ(tasks[1].orphans, 2);
  EXPECT_EQ(tasks[2].observed, 1);
  EXPECT_EQ(tasks[2].positives, 1);
  EXPECT_EQ(tasks[2].orphans, 3);
  EXPECT_EQ(read_dataset_info(folder / "out").tasks[2].parent, 1);
}

TEST(Prepare, LabelsBeyondZeroAndOneNameTheRow) {
  Folder folder;
  expect_error(ErrorKind::Data, {"train.csv", "row 3", "line 4", "column click", "'2'", "expected 0 or 1"},
               [&] { prepare_csv(folder, "features: [{name: u}]\n" + kClick, "u,click\na,1\na,0\na,2\n"); });
  EXPECT_FALSE(fs::exists(folder / "out"));
}

TEST(Prepare, ATaskWithoutPositivesIsNamed) {
  Folder folder;
  expect_error(ErrorKind::Data, {"task click", "no positive", "2 observed"},
               [&] { prepare_csv(folder, "features: [{name: u}]\n" + kClick, "u,click\na,0\na,0\n"); });
  expect_error(ErrorKind::Data, {"task pay", "no positive", "1 rows have the label", "click"}, [&] {
    prepare_csv(folder, "features: [{name: u}]\ntasks: [{name: click, label: click}, {name: pay, label: pay, after: click}]\n",
                "u,click,pay\na,1,0\na,0,1\n");
  });
  EXPECT_FALSE(fs::exists(folder / "out"));
}

TEST(Prepare, GroupsScenariosAndWeights) {
  Folder folder;
  prepare_csv(folder, "features: [{name: u}]\ngroup: u\nscenario: s\nweight: w\n" + kClick,
              "u,s,w,click\nx,feed,0.5,1\n,search,2,0\nx,search,0,0\n", "", "u,s,w,click\nx,new,1,0\nx,,1,0\nx,feed,1,0\n");
  const Batch train = whole_split(folder / "out", "train");
  EXPECT_EQ(train.groups, (std::vector<uint64_t>{hash64("x"), hash64(""), hash64("x")}));
  EXPECT_EQ(train.weights, (std::vector<float>{0.5f, 2, 0}));
  EXPECT_EQ(train.scenarios, (Ids{1, 0, 0}));
  EXPECT_EQ(read_dataset_info(folder / "out").scenarios, (std::vector<std::string>{"search", "feed"}));
  EXPECT_EQ(whole_split(folder / "out", "test").scenarios, (Ids{-1, -1, 1}));
}

TEST(Prepare, WeightsMustBeFiniteAndNotNegative) {
  for (const char* weight : {"-1", "inf", "x", "", "1e300"}) {
    Folder folder;
    expect_error(ErrorKind::Data, {"row 2", "column w", "weight"}, [&] {
      prepare_csv(folder, "features: [{name: u}]\nweight: w\n" + kClick, std::string("u,w,click\na,1,1\na,") + weight + ",0\n");
    });
  }
}

// ---------------------------------------------------------------------------------------------------------------- formats

std::shared_ptr<arrow::Array> strings(const std::vector<std::string>& values) {  // "" = null
  arrow::StringBuilder builder;
  for (const auto& value : values) EXPECT_TRUE((value.empty() ? builder.AppendNull() : builder.Append(value)).ok());
  return builder.Finish().ValueOrDie();
}

// The same logical rows as CSV text and as Arrow columns.
struct Column {
  std::string name;
  std::shared_ptr<arrow::Array> array;
  std::vector<std::string> texts;
};
template <class Builder, class Make>
Column column_of(const std::string& name, int rows, const Make& make) {
  Builder builder;
  Column column{name, nullptr, {}};
  for (int i = 0; i < rows; ++i) {
    const auto value = make();
    EXPECT_TRUE((value ? builder.Append(*value) : builder.AppendNull()).ok());
    column.texts.push_back(value ? fmt::format("{}", *value) : "");
  }
  column.array = builder.Finish().ValueOrDie();
  return column;
}
template <class Builder, class Make>
Column lists_of(const std::string& name, int rows, Rng& rng, const Make& make) {
  auto values = std::make_shared<Builder>();
  arrow::ListBuilder builder(arrow::default_memory_pool(), values);
  Column column{name, nullptr, {}};
  for (int i = 0; i < rows; ++i) {
    std::string text;
    const bool is_null = rng.below(9) == 0;
    EXPECT_TRUE((is_null ? builder.AppendNull() : builder.Append()).ok());
    for (uint64_t k = 0, count = is_null ? 0 : rng.below(6); k < count; ++k) {
      const auto value = make();
      EXPECT_TRUE((value ? values->Append(*value) : values->AppendNull()).ok());
      text += (k > 0 ? " " : "") + (value ? fmt::format("{}", *value) : "");
    }
    column.texts.push_back(text);
  }
  column.array = builder.Finish().ValueOrDie();
  return column;
}

// Whole numbers of all sizes, texts that repeat and so are read as dictionaries, texts that do not, lists of both, labels.
TEST(Prepare, CsvAndParquetGiveTheSameBytes) {
  Folder folder;
  Rng rng(4);
  const int rows = 3000;
  auto one_of = [&](uint64_t count) { return rng.below(count); };
  std::vector<Column> columns;
  columns.push_back(column_of<arrow::Int64Builder>("u", rows, [&] { return std::optional(static_cast<int64_t>(rng.next())); }));
  columns.push_back(column_of<arrow::UInt64Builder>("v", rows, [&] {
    return one_of(9) == 0 ? std::nullopt : std::optional(one_of(40) == 0 ? UINT64_MAX - one_of(3) : rng.next() >> one_of(64));
  }));
  columns.push_back(column_of<arrow::Int8Builder>("n", rows, [&] { return std::optional(static_cast<int8_t>(one_of(100)) - 5); }));
  columns.push_back(column_of<arrow::StringBuilder>("c", rows, [&] {
    return one_of(5) == 0 ? std::nullopt : std::optional("c" + std::to_string(one_of(40)));
  }));
  columns.push_back(column_of<arrow::StringBuilder>("s", rows, [&] {
    return std::optional(std::string(one_of(30), 'a') + "é" + std::to_string(one_of(100000)) + (one_of(20) == 0 ? "NA" : ""));
  }));
  columns.push_back(column_of<arrow::DoubleBuilder>("p", rows, [&] { return std::optional(rng.normal()); }));
  columns.push_back(lists_of<arrow::Int32Builder>("l", rows, rng, [&] { return std::optional(static_cast<int>(one_of(30)) - 2); }));
  columns.push_back(lists_of<arrow::StringBuilder>("t", rows, rng, [&] {
    return one_of(7) == 0 ? std::nullopt : std::optional(one_of(9) == 0 ? "NA" : "tag_" + std::to_string(one_of(50)));
  }));
  columns.push_back(column_of<arrow::Int8Builder>("click", rows, [&] { return std::optional(static_cast<int8_t>(one_of(2))); }));

  std::string csv;
  arrow::FieldVector fields;
  arrow::ArrayVector arrays;
  for (const auto& column : columns) {
    csv += (csv.empty() ? "" : ",") + column.name;
    fields.push_back(arrow::field(column.name, column.array->type()));
    arrays.push_back(column.array);
  }
  for (int i = 0; i < rows; ++i)
    for (size_t c = 0; c < columns.size(); ++c) csv += (c == 0 ? "\n" : ",") + columns[c].texts[i];
  const std::string schema =
      "features: [{name: u}, {name: v}, {name: n}, {name: c, min_count: 2}, {name: s}, {name: s_hash, column: s, hash_buckets: 50}, "
      "{name: v_hash, column: v, hash_buckets: 50}, {name: p, kind: number}, {name: q, column: p, kind: number, bins: 5}, "
      "{name: l, kind: ids, separator: \" \"}, {name: t, kind: ids, separator: \" \", max_length: 3}, "
      "{name: r, column: t, kind: sequence, table: t, separator: \" \", max_length: 2}]\n"
      "group: u\nscenario: c\ntasks: [{name: click, label: click}]\n";
  prepare_csv(folder, schema, csv);
  const auto expected = contents(folder / "out");
  const auto table = arrow::Table::Make(arrow::schema(fields), arrays);
  for (int64_t group_rows : {700, 1 << 20}) {
    PrepareConfig config;
    config.schema = folder / "schema.yaml";
    config.train.files = {folder.write_parquet("train.parquet", table, group_rows)};
    config.output = folder / "parquet";
    config.force = true;
    prepare(config);
    EXPECT_EQ(contents(folder / "parquet"), expected);
  }
}

// Everything a schema can ask for, in rows that straddle blocks.
TEST(Prepare, ThreadsAndChunksDoNotMatter) {
  Folder folder;
  Rng rng(11);
  auto rows = [&](int count) {
    std::string csv = "u,c,s,p,l,h,w,scene,click,buy\n";
    for (int i = 0; i < count; ++i) {
      const uint64_t user = rng.below(60), first = rng.below(30);
      csv += fmt::format("{},{},\"{}\",{},{},{},{},{},{},{}\n", user == 0 ? "" : std::to_string(user << 58 | user),
                         "c" + std::to_string(rng.below(300)), rng.below(2) ? "a \"\"quoted\"\",\ntext" : "plain",
                         rng.below(9) == 0 ? "NA" : fmt::format("{:.3f}", rng.normal()),
                         rng.below(4) == 0 ? "" : fmt::format("t{}|t{}|t{}", first, first + 1, rng.below(30)), rng.below(5000),
                         rng.uniform(), rng.below(3), rng.below(3) == 0 ? 1 : 0, rng.below(2));
    }
    return csv;
  };
  folder.write("side.csv", "u,city\n" + [] {
    std::string text;
    for (uint64_t user = 1; user < 50; ++user) text += fmt::format("{},city {}\n", user << 58 | user, user % 7);
    return text;
  }());
  PrepareConfig config;
  config.schema = folder.write(
      "schema.yaml",
      "features: [{name: u, min_count: 3}, {name: c, min_count: 2}, {name: s}, {name: city}, {name: p, kind: number}, "
      "{name: q, column: p, kind: number, bins: 7}, {name: r, column: p, kind: number, normalize: log_standard}, "
      "{name: l, kind: sequence, separator: \"|\", max_length: 2}, {name: m, column: l, kind: ids, separator: \"|\", table: l}, "
      "{name: h, hash_buckets: 100}]\n"
      "join: [{file: side.csv, key: u}]\ngroup: u\nscenario: scene\nweight: w\nallow_leak: true\n"
      "split: {valid_from: train, valid_fraction: 0.2}\n"
      "tasks: [{name: click, label: click}, {name: buy, label: buy > 0, after: click, observed: p < 2}]\n");
  config.train.files = {folder.write("train.csv", rows(1200)), folder.write("train2.csv", rows(1))};
  config.test.files = {folder.write("test.csv", rows(300))};
  config.output = folder / "once";
  config.threads = 1;
  prepare(config);
  const auto expected = contents(folder / "once");
  EXPECT_EQ(expected.count("valid/part-00000.arrow"), 1u);
  for (int64_t threads : {1, 2, 3})
    for (int64_t chunk_bytes : {200, 1000, 30000}) {
      config.output = folder / fmt::format("out-{}-{}", threads, chunk_bytes);
      config.threads = threads;
      config.chunk_bytes = chunk_bytes;
      prepare(config);
      EXPECT_EQ(contents(config.output), expected) << threads << " " << chunk_bytes;
    }
}

// Whichever thread meets it: of several errors the one that stands first in the file is told.
TEST(Prepare, TheFirstErrorOfTheFileIsToldWhateverTheThreads) {
  Folder folder;
  std::string csv = "u,p,click\n";
  for (int i = 1; i <= 30000; ++i)  // the first rows are looked at before the pass
    csv += i == 15000   ? "a,none,0\n"
           : i == 29990 ? "a,1,2,3,4\n"
                        : fmt::format("{},{},{}\n", i % 7, i, i == 16000 ? 7 : i % 2);
  PrepareConfig config;
  config.schema = folder.write("schema.yaml", "features: [{name: u}, {name: p, kind: number}]\n" + kClick);
  config.train.files = {folder.write("train.csv", csv)};
  config.output = folder / "out";
  config.chunk_bytes = 2000;
  for (config.threads = 1; config.threads <= 3; ++config.threads) {
    expect_error(ErrorKind::Data, {"train.csv", "row 15000 (line 15001)", "column p", "'none'"}, [&] { prepare(config); });
    EXPECT_FALSE(fs::exists(config.output));
  }
  config.threads = -1;
  expect_error(ErrorKind::Config, {"--threads", "-1"}, [&] { prepare(config); });
}

TEST(Prepare, FloatsAreNoIds) {
  Folder folder;
  arrow::DoubleBuilder u;
  arrow::Int8Builder click;
  ASSERT_TRUE(u.Append(1).ok() && click.Append(1).ok());
  auto table = arrow::Table::Make(arrow::schema({arrow::field("u", arrow::float64()), arrow::field("click", arrow::int8())}),
                                  {u.Finish().ValueOrDie(), click.Finish().ValueOrDie()});
  for (const char* feature : {"{name: u}", "{name: u, hash_buckets: 5}"}) {
    PrepareConfig config;
    config.schema = folder.write("schema.yaml", std::string("features: [") + feature + "]\n" + kClick);
    config.train.files = {folder.write_parquet("train.parquet", table)};
    config.output = folder / "out";
    expect_error(ErrorKind::Data, {"train.parquet", "column u", "floating", "integers or text"}, [&] { prepare(config); });
  }
}

// ---------------------------------------------------------------------------------------------------------------- predict

struct Predicted {
  Batch batch;  // of all chunks
  int64_t raw_columns = 0;
};

Predicted predict(const fs::path& dir, const std::string& file) {
  auto encoders = load_encoders(dir);
  Predicted predicted;
  encode_raw(*encoders, RawInput{{file}}, [&](const Batch& batch, const std::shared_ptr<arrow::RecordBatch>& raw) {
    EXPECT_EQ(predicted.batch.rows, 0) << "small inputs come as one chunk";
    EXPECT_EQ(raw->num_rows(), batch.rows);
    predicted.batch = batch;
    predicted.raw_columns = raw->num_columns();
  });
  return predicted;
}

const std::string kJoinedSchema =
    "features:\n"
    "  - {name: user, min_count: 2}\n"
    "  - {name: city}\n"
    "  - {name: income, kind: number}\n"
    "  - {name: age, kind: number, bins: 4}\n"
    "  - {name: tags, kind: ids, separator: '|'}\n"
    "tasks: [{name: click, label: click}, {name: pay, label: 'amount > 3', after: click}]\n"
    "join: [{file: users.csv, key: user}]\n"
    "group: user\nscenario: city\nweight: w\n";

std::string joined_rows(uint64_t seed, bool with_labels = true) {
  Rng rng(seed);
  std::string csv = with_labels ? "id,user,age,w,click,amount\n" : "id,user,age\n";
  for (int i = 0; i < 400; ++i) {
    csv += fmt::format("{},u{},{}", i, rng.below(60), rng.below(70));
    const uint64_t weight = rng.below(3), click = rng.below(2), amount = rng.below(9);
    if (with_labels) csv += fmt::format(",{},{},{}", weight, click, amount);
    csv += "\n";
  }
  return csv;
}

void write_users(const Folder& folder) {
  std::string users = "user,city,income,tags\n";
  for (int i = 0; i < 50; ++i)  // the users 50 .. 59 have no match
    users += fmt::format("u{},{},{},{}\n", i, i % 7 == 0 ? "" : "city" + std::to_string(i % 5), i * 1.5,
                         i % 3 ? fmt::format("t{}|t{}", i % 4, i % 9) : "");
  folder.write("users.csv", users);
}

TEST(Predict, EncodesAsPrepareDid) {
  Folder folder;
  write_users(folder);
  const auto summary = prepare_csv(folder, kJoinedSchema, joined_rows(1), "", joined_rows(2));
  EXPECT_GT(summary.inputs[0].unmatched[0], 0);
  const Batch test = whole_split(folder / "out", "test");
  // A run folder: schema.yaml and encoders/ alone, elsewhere, without the side table that prepare read.
  Folder run;
  fs::copy(folder / "out/schema.yaml", run / "schema.yaml");
  fs::copy(folder / "out/encoders", run / "encoders", fs::copy_options::recursive);
  fs::remove(folder / "users.csv");
  const Predicted predicted = predict(run.path(), (folder / "test.csv").string());
  expect_equal(predicted.batch, test);
  EXPECT_EQ(predicted.raw_columns, 6);
}

TEST(Predict, AHistoryBecomesASequence) {
  Folder folder;
  folder.write("history.csv", "user,item,liked\nu,a,1\nv,b,1\nu,b,0\nu,c,1\nu,a,1\nw,b,0\n");
  prepare_csv(folder,
              "features: [{name: item}, {name: seen, kind: sequence, column: past_item, table: item, max_length: 2}]\n" + kClick +
                  "join: [{file: history.csv, key: user, many: true, where: liked == 1, prefix: past_}]\n",
              "user,item,click\nu,b,1\nv,b,0\nu,b,1\nx,b,0\n", "", "user,item,click\nw,a,0\nu,c,0\n");
  // Of u: a, c, a, of which the newest two are kept; of v: b; w likes nothing, x is not there. b: five times, a and c: twice each.
  const Batch train = whole_split(folder / "out", "train");
  EXPECT_EQ(train.ids, (Ids{2, 2, 2, 2}));
  EXPECT_EQ(train.bags[0].offsets, (Ids{0, 2, 3, 5, 6}));
  EXPECT_EQ(train.bags[0].values, (Ids{4, 3, 2, 4, 3, kMissingRow}));
  // What predict needs of the history lies in the encoders.
  fs::remove(folder / "history.csv");
  const Predicted predicted = predict(folder / "out", (folder / "test.csv").string());
  expect_equal(predicted.batch, whole_split(folder / "out", "test"));
  EXPECT_EQ(predicted.batch.bags[0].values, (Ids{kMissingRow, 4, 3}));
}

TEST(Predict, NeedsNoLabelsOrRoles) {
  Folder folder;
  write_users(folder);
  prepare_csv(folder, kJoinedSchema, joined_rows(1), "", joined_rows(2));
  Batch expected = whole_split(folder / "out", "test");
  expected.labels.assign(expected.labels.size(), 0);
  expected.observed.assign(expected.observed.size(), 0);
  expected.weights.assign(expected.weights.size(), 1);
  expect_equal(predict(folder / "out", folder.write("new.csv", joined_rows(2, false))).batch, expected);
}

TEST(Predict, NeedsEveryFeature) {
  Folder folder;
  prepare_csv(folder, "features: [{name: u}, {name: v}]\n" + kClick, "u,v,click\na,b,1\n");
  expect_error(ErrorKind::Data, {"new.csv", "'v'"}, [&] { predict(folder / "out", folder.write("new.csv", "u\na\n")); });
}

TEST(LoadEncoders, DamageIsFound) {
  Folder folder;
  prepare_csv(folder, "features: [{name: u}, {name: p, kind: number, bins: 3}]\n" + kClick, "u,p,click\na,1,1\nb,2,0\nc,3,0\n");
  auto damaged = [&](const std::string& file, const std::vector<std::string>& parts, const auto& damage,
                     ErrorKind kind = ErrorKind::Data) {
    Folder copy;
    fs::copy(folder / "out", copy / "run", fs::copy_options::recursive);
    damage(copy / "run" / file);
    expect_error(kind, parts, [&] { load_encoders(copy / "run"); });
  };
  auto flip = [](const fs::path& file) {
    std::string content = read_file(file);
    content[content.size() / 2] ^= 1;
    write_file_atomic(file, content);
  };
  damaged("encoders/encoders.json", {"encoders.json", "damaged"}, flip);
  damaged("encoders/vocabulary_000.arrow", {"vocabulary_000.arrow", "damaged: checksum", "ektm prepare"}, flip);
  damaged("encoders/vocabulary_000.arrow", {"vocabulary_000.arrow", "damaged", "missing"},
          [](const fs::path& file) { fs::remove(file); });
  damaged("encoders/encoders.json", {"encoders.json"}, [](const fs::path& file) { fs::remove(file); }, ErrorKind::Io);
  damaged("schema.yaml", {"schema.yaml", "changed"}, [](const fs::path& file) {
    write_file_atomic(file, "features: [{name: u, min_count: 2}, {name: p, kind: number, bins: 3}]\n" + kClick);
  });
}

// ---------------------------------------------------------------------------------------------------------------- splits

std::string numbered_rows(int count) {
  std::string csv = "n,click\n";
  for (int i = 0; i < count; ++i) csv += fmt::format("{},{}\n", i, i % 2);
  return csv;
}

TEST(Prepare, ValidationRowsFromAnotherSplit) {
  for (const std::string from : {"train", "test"}) {
    Folder folder;
    const std::string schema = "features: [{name: n, kind: number, normalize: none}]\nsplit: {valid_from: " + from +
                               ", valid_fraction: 0.3, valid_seed: 5}\n" + kClick;
    const auto summary = prepare_csv(folder, schema, numbered_rows(2000), "", numbered_rows(2000));
    ASSERT_EQ(summary.splits.size(), 3u);
    EXPECT_EQ(summary.splits[1].name, "valid");
    std::vector<float> rest = whole_split(folder / "out", from).numbers, valid = whole_split(folder / "out", "valid").numbers;
    EXPECT_NEAR(static_cast<double>(valid.size()), 600, 100);
    EXPECT_EQ(summary.splits[1].counts.rows, static_cast<int64_t>(valid.size()));
    rest.insert(rest.end(), valid.begin(), valid.end());
    std::sort(rest.begin(), rest.end());
    ASSERT_EQ(rest.size(), 2000u);
    for (int i = 0; i < 2000; ++i) ASSERT_EQ(rest[i], static_cast<float>(i));
    expect_error(ErrorKind::Config, {"--valid", "valid_from"},
                 [&] { prepare_csv(folder, schema, numbered_rows(9), numbered_rows(9), numbered_rows(9)); });
  }
}

TEST(Prepare, ValidationRowsOfTrainingAreNotFitted) {
  Folder folder;
  prepare_csv(folder, "features: [{name: n}]\nsplit: {valid_from: train}\n" + kClick, numbered_rows(100));
  for (int32_t id : whole_split(folder / "out", "valid").ids) EXPECT_EQ(id, kOovRow);  // every n occurs once
  for (int32_t id : whole_split(folder / "out", "train").ids) EXPECT_NE(id, kOovRow);
}

// One log, divided by conditions over a column that is no feature, is the data set of three files that hold those rows.
TEST(PrepareWhere, DividesOneLogAsFilesWould) {
  Folder folder;
  const std::string schema = "features: [{name: n, min_count: 2}, {name: c}]\njoin: [{file: side.csv, key: n}]\n" + kClick;
  std::string side = "n,c\n", log = "n,click,day\n", parts[3] = {"n,click\n", "n,click\n", "n,click\n"};
  for (int i = 0; i < 40; ++i) side += fmt::format("{},{}\n", i, i % 3);
  for (int i = 0; i < 600; ++i) {
    const int day = i * 7 % 11;  // not in the file's order
    log += fmt::format("{},{},{}\n", i * i % 37, i % 5 == 0, day == 10 ? "" : std::to_string(day));
    if (day < 10) parts[day < 6 ? 0 : day == 6 ? 1 : 2] += fmt::format("{},{}\n", i * i % 37, i % 5 == 0);  // a missing day: nowhere
  }
  folder.write("side.csv", side);
  prepare_csv(folder, schema, parts[0], parts[1], parts[2], "files");
  for (int64_t chunk_bytes : {int64_t{64}, int64_t{1} << 20})
    for (int64_t threads : {1, 3}) {
      PrepareConfig config;
      config.schema = folder / "schema.yaml";
      config.train.files = config.valid.files = config.test.files = {folder.write("log.csv", log)};
      config.train.where = "day < 6", config.valid.where = "day == 6", config.test.where = "day > 6";
      config.output = folder / "log";
      config.force = true;
      config.chunk_bytes = chunk_bytes, config.threads = threads;
      const PrepareSummary summary = prepare(config);
      for (const char* split : {"train", "valid", "test"}) testing::expect_equal(whole_split(folder / "files", split), whole_split(folder / "log", split));
      auto encoders = [&](const char* name) { return testing::contents(folder / name / "encoders"); };
      EXPECT_EQ(encoders("files"), encoders("log"));
      ASSERT_EQ(summary.inputs.size(), 3u);
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(summary.inputs[i].rows, 600);
        EXPECT_EQ(summary.inputs[i].left_out, 600 - summary.splits[i].counts.rows);
      }
    }
}

TEST(PrepareWhere, GoesWithValidationRowsOfTraining) {
  Folder folder;
  PrepareConfig config;
  config.schema = folder.write("schema.yaml", "features: [{name: n}]\nsplit: {valid_from: train}\n" + kClick);
  config.train.files = {folder.write("a.csv", numbered_rows(400))};
  config.train.where = "n >= 100";
  config.output = folder / "out";
  const PrepareSummary summary = prepare(config);
  EXPECT_EQ(summary.splits[0].counts.rows + summary.splits[1].counts.rows, 300);
  EXPECT_GT(summary.splits[1].counts.rows, 100);
  for (int32_t id : whole_split(folder / "out", "valid").ids) EXPECT_EQ(id, kOovRow);
}

TEST(PrepareWhere, RefusesWhatWouldMixSplits) {
  Folder folder;
  PrepareConfig config;
  config.schema = folder.write("schema.yaml", "features: [{name: n}]\n" + kClick);
  config.train.files = config.test.files = {folder.write("a.csv", numbered_rows(40))};
  config.output = folder / "out";
  config.train.where = "n < 20";
  expect_error(ErrorKind::Config, {"--test", "also given to --train", "--train-where and --test-where"}, [&] { prepare(config); });
  config.test.where = "n >= 19";
  expect_error(ErrorKind::Data, {"a.csv, row 20", "--train-where (n < 20)", "--test-where (n >= 19)", "at most one"}, [&] { prepare(config); });
  config.test.where = "n >= 100";
  expect_error(ErrorKind::Data, {"test split has no row", "--test-where (n >= 100)"}, [&] { prepare(config); });
  config.test.where = "n >= ";
  expect_error(ErrorKind::Config, {"--test-where"}, [&] { prepare(config); });
  config.test.where = "m >= 20";
  expect_error(ErrorKind::Data, {"a.csv", "'m'"}, [&] { prepare(config); });
  config.test.where = "n";
  expect_error(ErrorKind::Data, {"a.csv, row 3", "column n", "expected 0 or 1"}, [&] { prepare(config); });
  EXPECT_FALSE(fs::exists(folder / "out"));
  config.train.files.push_back(config.train.files.front());
  expect_error(ErrorKind::Config, {"--train", "given twice"}, [&] { prepare(config); });
}

TEST(Prepare, RefusesWrongArguments) {
  Folder folder;
  const std::string schema = "features: [{name: n}]\n" + kClick;
  PrepareConfig config;
  config.schema = folder.write("schema.yaml", schema);
  config.output = folder / "out";
  expect_error(ErrorKind::Config, {"--train"}, [&] { prepare(config); });
  config.train.files = {folder.write("a.csv", numbered_rows(10))};
  config.test.files = config.train.files;
  expect_error(ErrorKind::Config, {"--test", "also given to --train"}, [&] { prepare(config); });
  config.test.files = {folder.write("empty.csv", "n,click\n")};
  expect_error(ErrorKind::Data, {"empty.csv", "test split has no row"}, [&] { prepare(config); });
  config.schema = folder.write("other.yaml", schema + "split: {valid_from: test}\n");
  config.test.files.clear();
  expect_error(ErrorKind::Config, {"--test", "valid_from"}, [&] { prepare(config); });
}

TEST(Prepare, EveryInputIsLookedAtBeforeTheFirstPass) {
  Folder folder;
  const std::string schema = "features: [{name: u}]\n" + kClick;
  const std::string bad_train = "u,click\na,7\n";  // found by the passes only
  expect_error(ErrorKind::Data, {"test.csv", "click"}, [&] { prepare_csv(folder, schema, bad_train, "", "u\na\n"); });
  PrepareConfig config;
  config.schema = folder / "schema.yaml";
  config.train.files = {folder.write("train.csv", bad_train)};
  config.test.files = {(folder / "absent.csv").string()};
  config.output = folder / "out";
  expect_error(ErrorKind::Io, {"absent.csv"}, [&] { prepare(config); });
}

// ---------------------------------------------------------------------------------------------------------------- leaks

// A column made by `cell(i, label)`, and whether the check stops.
template <class MakeCell>
void check_leak(const std::string& feature, bool expect_leak, const MakeCell& cell) {
  Folder folder;
  Rng rng(6);
  std::string csv = "x,click\n";
  for (int i = 0; i < 2000; ++i) {
    const bool label = rng.below(4) == 0;
    csv += fmt::format("{},{}\n", cell(i, label, rng), label ? 1 : 0);
  }
  const std::string schema = "features: [" + feature + "]\n" + kClick;
  if (!expect_leak) {
    EXPECT_NO_THROW(prepare_csv(folder, schema, csv)) << feature;
    return;
  }
  expect_error(ErrorKind::Data, {"schema.yaml", "column x", "task click", "AUC", "allow_leak"},
               [&] { prepare_csv(folder, schema, csv); });
  EXPECT_TRUE(!fs::exists(folder / "out"));
  EXPECT_NO_THROW(prepare_csv(folder, schema + "allow_leak: true\n", csv));
}

TEST(LeakCheck, FindsColumnsThatGiveTheLabelAway) {
  check_leak("{name: x}", true, [](int, bool label, Rng&) { return label ? "yes" : "no"; });
  check_leak("{name: x}", true,
             [](int, bool label, Rng& rng) { return fmt::format("{}{}", label ? "yes" : "no", rng.below(50)); });
  check_leak("{name: x, hash_buckets: 100000}", true, [](int, bool label, Rng&) { return label ? "yes" : "no"; });
  check_leak("{name: x, kind: number}", true, [](int, bool label, Rng& rng) { return rng.uniform() - (label ? 1 : 0); });
  check_leak("{name: x, kind: number, bins: 10}", true, [](int, bool label, Rng&) { return label ? 1 : 0; });
  // Known only after the event: a value is there exactly where the label is true.
  check_leak("{name: x, kind: number}", true,
             [](int, bool label, Rng& rng) { return label ? fmt::format("{}", rng.normal()) : std::string(); });
  check_leak("{name: x, kind: ids, separator: '|'}", true,
             [](int, bool label, Rng& rng) { return fmt::format("a{}{}", rng.below(3), label ? "|bought|paid" : ""); });
}

TEST(LeakCheck, LeavesOtherColumnsAlone) {
  check_leak("{name: x}", false, [](int i, bool, Rng&) { return i; });  // a row's own id: every value once
  check_leak("{name: x}", false, [](int i, bool, Rng&) { return i / 2; });
  check_leak("{name: x}", false, [](int, bool, Rng&) { return "one"; });
  check_leak("{name: x}", false,
             [](int, bool label, Rng& rng) { return rng.uniform() < 0.9 ? label : !label; });  // strong, but no leak
  check_leak("{name: x, kind: number}", false, [](int i, bool, Rng&) { return i; });
  check_leak("{name: x, kind: number}", false, [](int, bool label, Rng& rng) { return rng.normal() + (label ? 2 : 0); });
}

// ---------------------------------------------------------------------------------------------------------------- output

const std::string kTiny = "u,click\na,1\nb,0\n";
const std::string kTinySchema = "features: [{name: u}]\n" + kClick;

TEST(PrepareOutput, ReplacesOnlyADataSetAndOnlyByForce) {
  Folder folder;
  prepare_csv(folder, kTinySchema, kTiny);
  expect_error(ErrorKind::Config, {"--output", "--force"}, [&] { prepare_csv(folder, kTinySchema, kTiny); });
  PrepareConfig config;
  config.schema = folder / "schema.yaml";
  config.train.files = {folder.write("more.csv", "u,click\na,1\nb,0\nc,0\n")};
  config.output = folder / "out";
  config.force = true;
  prepare(config);
  EXPECT_EQ(open_dataset(folder / "out", "train")->rows(), 3);
  fs::create_directory(folder / "mine");
  folder.write("mine/notes.txt", "keep");
  config.output = folder / "mine";
  expect_error(ErrorKind::Config, {"something else"}, [&] { prepare(config); });
  EXPECT_EQ(read_file(folder / "mine/notes.txt"), "keep");
}

TEST(PrepareOutput, AFailureLeavesTheOldDataSetAndNothingElse) {
  Folder folder;
  prepare_csv(folder, kTinySchema, kTiny);
  const auto before = contents(folder / "out");
  PrepareConfig config;
  config.schema = folder / "schema.yaml";
  config.train.files = {folder.write("bad.csv", "u,click\na,1\nb,7\n")};
  config.output = folder / "out";
  config.force = true;
  expect_error(ErrorKind::Data, {"bad.csv"}, [&] { prepare(config); });
  EXPECT_EQ(contents(folder / "out"), before);
  for (const auto& entry : fs::directory_iterator(folder.path()))
    EXPECT_EQ(entry.path().filename().string().find("partial"), std::string::npos);
}

TEST(PrepareOutput, UnderAFile) {
  Folder folder;
  folder.write("file", "x");
  expect_error(ErrorKind::Io, {"file", "create the folder"},
               [&] { prepare_csv(folder, kTinySchema, kTiny, "", "", "file/out"); });
}

TEST(PrepareOutput, AFullDiskIsAnErrorAndLeavesNothing) {
  Folder folder;
  std::string csv = "u,click\n";
  for (int i = 0; i < 70000; ++i) csv += fmt::format("{},{}\n", i % 100, i / 100 % 2);
  folder.write("schema.yaml", kTinySchema);
  PrepareConfig config;
  config.schema = folder / "schema.yaml";
  config.train.files = {folder.write("train.csv", csv)};
  config.output = folder / "out";
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small{100000, old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  expect_error(ErrorKind::Io, {"train.spool", "free space"}, [&] { prepare(config); });
  setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_FALSE(fs::exists(folder / "out"));
  for (const auto& entry : fs::directory_iterator(folder.path()))
    EXPECT_EQ(entry.path().filename().string().find("partial"), std::string::npos);
  prepare(config);
  EXPECT_EQ(open_dataset(folder / "out", "train")->rows(), 70000);
}

TEST(PrepareOutput, TheSummaryIsKept) {
  Folder folder;
  const auto summary = prepare_csv(folder, kTinySchema, kTiny);
  const auto json = nlohmann::json::parse(read_file(folder / "out/summary.json"));
  EXPECT_EQ(json, summary.to_json());
  EXPECT_EQ(json.at("splits").at(0).at("tasks").at(0).at("positives"), 1);
}

}  // namespace
}  // namespace ektm
