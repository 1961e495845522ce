#include "report/report.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/files.h"
#include "base/random.h"
#include "report/charts.h"

namespace ektm {
namespace {

namespace fs = std::filesystem;

// "" when every tag is closed in order and every attribute and reference is well-formed enough for an XML parser, else what is
// not.
std::string tag_imbalance(const std::string& html) {
  std::vector<std::string> open;
  for (size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    size_t end = at;
    for (bool quoted = false; end < html.size() && (quoted || html[end] != '>'); ++end) quoted ^= html[end] == '"';
    const std::string tag = html.substr(at + 1, end - at - 1);
    if (end == html.size() || tag.find('<') != std::string::npos) return "unfinished <" + tag.substr(0, 60);
    if (tag[0] == '!') continue;
    const std::string name = tag.substr(tag[0] == '/', tag.find_first_of(" /\n", tag[0] == '/') - (tag[0] == '/'));
    if (tag[0] == '/') {
      if (open.empty() || open.back() != name) return "</" + name + "> closes <" + (open.empty() ? "" : open.back()) + ">";
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(name);
    }
    at = end;
  }
  for (size_t at = html.find('&'); at != std::string::npos; at = html.find('&', at + 1)) {
    const std::string reference = html.substr(at, html.find(';', at) - at + 1);
    if (reference != "&amp;" && reference != "&lt;" && reference != "&gt;" && reference != "&quot;" &&
        reference.rfind("&#", 0) != 0)
      return "bare " + html.substr(at, 20);
  }
  return open.empty() ? "" : "<" + open.back() + "> stays open";
}

int occurrences(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

BinaryMetrics metrics(uint64_t seed, double signal, double bias = -1) {
  BinaryAccumulator accumulator;
  Rng rng(7), noise(seed, 1);
  for (int i = 0; i < 2000; ++i) {
    const double z = rng.normal();
    const uint8_t label = rng.uniform() < 1 / (1 + std::exp(-bias - z));
    accumulator.add(static_cast<float>(1 / (1 + std::exp(-bias - signal * z - (1 - signal) * noise.normal()))), label,
                    mix64(rng.below(50)) | 1);
  }
  return accumulator.compute(true);
}

ReportRun make_run(const std::string& name, const std::string& model, double signal, const std::vector<std::string>& conversions,
                   bool base = false) {
  ReportRun run;
  run.name = name;
  run.evaluation = {model, "test", {}};
  auto& results = run.evaluation.results;
  for (const std::string scenario : {"", "feed"}) {
    results.push_back({"click", "all rows", "ctr", "served", scenario, metrics(1, signal)});
    for (const auto& task : conversions) {
      results.push_back({task, "rows where click = 1", "cvr", "served", scenario, metrics(2, signal, -4)});
      if (base) results.push_back({task, "rows where click = 1", "cvr", "base", scenario, metrics(2, signal - 0.1, -4)});
      results.push_back({task, "all rows", "ctcvr", "served", scenario, metrics(3, signal, -5)});
    }
  }
  return run;
}

void add_history(ReportRun& run, int points) {
  for (int i = 1; i <= points; ++i) {
    HistoryPoint point;
    point.step = 100 * i;
    point.train_loss["total"] = 1.0 / i;
    point.valid_auc["click"] = 0.7 - 0.1 / i;
    point.selection = 0.6 + 0.001 * i;
    run.history.push_back(point);
  }
}

TEST(Report, IsWellFormedAndShowsEveryTaskAndModel) {
  std::vector<ReportRun> runs = {make_run("a", "single_task", 0.5, {"cart", "pay"}),
                                 make_run("b", "ektm(mmoe)", 0.9, {"cart", "pay"}, true)};
  add_history(runs[0], 1);
  add_history(runs[1], 30);
  runs[1].extra =
      nlohmann::json::parse(R"({"parameters": [{"part": "embedding", "count": 1234567}, {"part": "tower", "count": 1000}],
    "similarity": {"tasks": ["cart", "pay"], "matrix": [[0.75, 0.25], [0.5, 0.5]]},
    "mix": {"tasks": ["cart", "pay"], "columns": ["click", "cart", "pay"], "matrix": [[0.125, 0.875, 0], [-0.0625, 0.5, 0.5]]}, "gates": {"cart": 0.125, "pay": 0.875},
    "training": {"seconds": 61.5, "samples_per_s": 43210.4, "steps": 3000, "best_step": 300}})");
  const std::string html = render_report(runs, {"The title", "An introduction.", {{"rows", {{"train", 98765}}}}, "a day"});
  EXPECT_EQ(tag_imbalance(html), "");
  for (const char* part : {"The title", "An introduction.", "a day", "single_task", "ektm(mmoe)", ">click<", ">cart<", ">pay<",
                           "cart (whole path)", ">0.75<", ">0.125<", "1,234,567", "1,235,567", "43,210", "61.5 s", "98,765",
                           "rows / train", "feed", "What the transfer adds"})
    EXPECT_NE(html.find(part), std::string::npos) << part;
  // Self-contained: nothing is fetched and nothing runs.
  for (const char* part : {"<script", "<link", "<img", "src=", "href=", "@import", "url("})
    EXPECT_EQ(html.find(part), std::string::npos) << part;
  // The AUC that the table shows is the metric's.
  EXPECT_NE(html.find(fmt::format("{:.4f}", *runs[1].evaluation.results[0].metrics.auc)), std::string::npos);
  // Sections without data are left out.
  const std::string bare = render_report({make_run("a", "single_task", 0.5, {"cart"})}, {});
  EXPECT_EQ(tag_imbalance(bare), "");
  for (const char* part : {"Learning curves", "Who teaches whom", "What the transfer adds", "Size and cost", "Data set"})
    EXPECT_EQ(bare.find(part), std::string::npos) << part;
}

TEST(Report, EscapesEveryName) {
  const std::string evil = "<b a='x'>&\"";
  auto run = make_run(evil, evil, 0.8, {evil, "pay"}, true);
  for (auto& result : run.evaluation.results)
    if (result.scenario == "feed") result.scenario = evil;
  run.evaluation.split = evil;
  run.extra["similarity"] = {{"tasks", {evil, "pay"}}, {"matrix", {{0.5, 0.5}, {0.5, 0.5}}}};
  run.extra["gates"][evil] = 0.5;
  run.extra["training"]["seconds"] = 5;
  add_history(run, 3);
  const std::string html = render_report({run, run}, {evil, evil, {{evil, evil}}, evil});
  EXPECT_EQ(tag_imbalance(html), "");
  EXPECT_EQ(html.find("<b a="), std::string::npos);
  EXPECT_GT(occurrences(html, "&lt;b a=&#39;x&#39;&gt;&amp;&quot;"), 20);
}

TEST(Report, HoldsFromOneRunToManyAndWithMetricsAbsent) {
  std::vector<ReportRun> runs;
  std::vector<std::string> tasks;
  for (int i = 0; i < 9; ++i) tasks.push_back(fmt::format("conversion_number_{}", i));
  for (int i = 0; i < 10; ++i) runs.push_back(make_run(fmt::format("run-{}", i), "mmoe", 0.1 * i, tasks));
  EXPECT_EQ(tag_imbalance(render_report(runs, {})), "");
  for (auto& run : runs)
    for (auto& result : run.evaluation.results) result.metrics = BinaryAccumulator().compute(true);
  const std::string html = render_report(runs, {});
  EXPECT_EQ(tag_imbalance(html), "");
  EXPECT_EQ(html.find("nan"), std::string::npos);
  EXPECT_EQ(html.find("inf\""), std::string::npos);
  EXPECT_NE(html.find("not defined on these rows"), std::string::npos);
}

TEST(ComparisonTable, MarksTheBestAucOfEachTask) {
  const std::vector<ReportRun> runs = {make_run("a", "single_task", 0.5, {"pay"}),
                                       make_run("b", "ektm(mmoe)", 0.95, {"pay"}, true)};
  const std::string table = comparison_table(runs);
  std::vector<std::string> lines;
  for (size_t begin = 0, end; (end = table.find('\n', begin)) != std::string::npos; begin = end + 1)
    lines.push_back(table.substr(begin, end - begin));
  ASSERT_EQ(lines.size(), 8u);  // header, 3 measures of 2 runs, legend
  for (int measure = 0; measure < 3; ++measure) {
    EXPECT_NE(lines[1 + 2 * measure].find("single_task"), std::string::npos);
    EXPECT_EQ(lines[1 + 2 * measure].find('*'), std::string::npos);
    EXPECT_NE(lines[2 + 2 * measure].find("ektm(mmoe)"), std::string::npos);
    EXPECT_NE(lines[2 + 2 * measure].find('*'), std::string::npos);
    EXPECT_EQ(lines[2 + 2 * measure].size(), lines[0].size());  // right-aligned to the end
  }
  EXPECT_EQ(lines[5].rfind("pay, whole path", 0), 0u);
  const auto& m = runs[1].evaluation.results[0].metrics;
  for (const auto& number : {fmt::format("{:.4f}", *m.auc), fmt::format("{:.4f}", *m.gauc), fmt::format("{:.4f}", *m.logloss),
                             fmt::format("{:.3f}", *m.pcoc)})
    EXPECT_NE(lines[2].find(number), std::string::npos) << number;
}

TEST(ComparisonTable, TellsRunsOfOneModelApartAndSaysWhatCannotBeCompared) {
  auto a = make_run("seed-1", "mmoe", 0.5, {"pay"}), b = make_run("seed-2", "mmoe", 0.6, {"pay", "like"});
  b.evaluation.split = "valid";
  b.evaluation.results[0].metrics.rows += 1;
  const std::string table = comparison_table({a, b});
  for (const char* part : {"seed-1", "seed-2", "different splits: test, valid",
                           "click (ctr): the runs were measured on different rows", "like (cvr): only 1 of 2 runs"})
    EXPECT_NE(table.find(part), std::string::npos) << part;
  EXPECT_EQ(table.find("pay (cvr)"), std::string::npos);
  EXPECT_NE(render_report({a, b}, {}).find("class=\"warning\""), std::string::npos);
  // One run alone is not the best of anything.
  EXPECT_EQ(comparison_table({a}).find('*'), std::string::npos);
  // Even the same folder twice has two names.
  EXPECT_NE(comparison_table({a, a}).find("seed-1 #2"), std::string::npos);
}

class RunFolderTest : public ::testing::Test {
 protected:
  RunFolderTest() : folder_(fs::path(::testing::TempDir()) / ("ektm-report-" + std::to_string(getpid()))) {
    fs::remove_all(folder_);
    make_directories(folder_ / "first");
  }
  ~RunFolderTest() override { fs::remove_all(folder_); }
  void write(const char* name, const std::string& text) { write_file_atomic(folder_ / "first" / name, text); }
  std::string error_of_loading() {
    try {
      load_report_run(folder_ / "first");
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  fs::path folder_;
};

TEST_F(RunFolderTest, ReadsMetricsHistoryAndInspection) {
  write("metrics.json", make_run("", "mmoe", 0.7, {"pay"}).evaluation.to_json().dump());
  auto run = load_report_run(folder_ / "first/");
  EXPECT_EQ(run.name, "first");
  EXPECT_EQ(run.evaluation.model, "mmoe");
  EXPECT_TRUE(run.history.empty());
  EXPECT_TRUE(run.extra.is_null());
  write("history.jsonl",
        "{\"step\":10,\"epoch\":0.5,\"seconds\":2.5,\"train_loss\":{\"total\":0.75,\"click\":null},"
        "\"valid\":{\"auc\":{\"click\":0.625},\"logloss\":{\"click\":0.5},\"selection\":0.25},\"samples_per_s\":1000}\n{\"step\":"
        "20}\n");
  write("inspect.json", "{\"gates\":{\"pay\":0.5}}");
  run = load_report_run(folder_ / "first");
  ASSERT_EQ(run.history.size(), 2u);
  const auto& point = run.history[0];
  EXPECT_EQ(point.step, 10);
  EXPECT_EQ(point.epoch, 0.5);
  EXPECT_EQ(point.seconds, 2.5);
  EXPECT_EQ(point.samples_per_s, 1000);
  EXPECT_EQ(point.train_loss, (std::map<std::string, double>{{"total", 0.75}}));
  EXPECT_EQ(point.valid_auc.at("click"), 0.625);
  EXPECT_EQ(point.valid_logloss.at("click"), 0.5);
  EXPECT_EQ(point.selection, 0.25);
  EXPECT_FALSE(run.history[1].epoch || run.history[1].selection);
  EXPECT_EQ(run.extra["gates"]["pay"], 0.5);
}

TEST_F(RunFolderTest, ErrorsNameTheFileAndTheRemedy) {
  const std::string first = (folder_ / "first").string();
  EXPECT_NE(error_of_loading().find("ektm evaluate " + first), std::string::npos);
  EXPECT_THROW(load_report_run(folder_ / "no such run"), Error);

  write("metrics.json", "{\"model\": \"mmoe\"");
  EXPECT_NE(error_of_loading().find("metrics.json"), std::string::npos);
  write("metrics.json", "{\"model\": \"mmoe\"}");
  EXPECT_NE(error_of_loading().find("field split"), std::string::npos) << error_of_loading();

  write("metrics.json", make_run("", "mmoe", 0.7, {"pay"}).evaluation.to_json().dump());
  write("history.jsonl", "{\"step\":10}\n{\"epoch\":1}\n");
  EXPECT_NE(error_of_loading().find("history.jsonl, line 2"), std::string::npos) << error_of_loading();
  write("history.jsonl", "{\"step\":10}\n");
  for (const char* bad :
       {"{\"similarity\":{\"tasks\":[\"a\",\"b\"],\"matrix\":[[1,0]]}}",
        "{\"similarity\":{\"tasks\":[\"a\"],\"matrix\":[[1,0]]}}", "{\"mix\":{\"tasks\":[\"a\"],\"columns\":[\"a\"],\"matrix\":[[1,0]]}}", "{\"gates\":[1]}", "{\"parameters\":[{\"part\":\"x\"}]}"}) {
    write("inspect.json", bad);
    EXPECT_NE(error_of_loading().find("inspect.json"), std::string::npos) << bad << ": " << error_of_loading();
  }
}

TEST(Ticks, LinearOnesAreRoundAndFew) {
  EXPECT_EQ(signed_number(-0.00126), "-0.0013");
  EXPECT_EQ(signed_number(0.00004), "+0.00004");
  EXPECT_EQ(signed_number(-0.000003), "0.0000");
  EXPECT_EQ(tick_labels(linear_ticks(0.68, 0.76, 5)), (std::vector<std::string>{"0.68", "0.70", "0.72", "0.74", "0.76"}));
  EXPECT_EQ(tick_labels(linear_ticks(0, 6500, 6)), (std::vector<std::string>{"0", "2000", "4000", "6000"}));
  EXPECT_EQ(tick_labels(linear_ticks(0, 52000, 6)), (std::vector<std::string>{"0", "10k", "20k", "30k", "40k", "50k"}));
  EXPECT_EQ(tick_labels(linear_ticks(-1, 1, 5)), (std::vector<std::string>{"-1.0", "-0.5", "0", "0.5", "1.0"}));
  Rng rng(3);
  for (int i = 0; i < 2000; ++i) {
    const double low = rng.normal() * std::pow(10, rng.normal()), high = low + std::pow(10, 2 * rng.normal() - 1);
    const auto ticks = linear_ticks(low, high, 5);
    ASSERT_TRUE(ticks.size() >= 2 && ticks.size() <= 5) << low << " .. " << high;
    const double slack = 1e-6 * (high - low);
    ASSERT_TRUE(ticks.front() >= low - slack && ticks.back() <= high + slack);
  }
}

TEST(Ticks, LogarithmicOnesAreRoundAndFew) {
  EXPECT_EQ(log_ticks(0.004, 0.3, 6), (std::vector<double>{0.005, 0.01, 0.02, 0.05, 0.1, 0.2}));
  EXPECT_EQ(log_ticks(0.004, 0.9, 5), (std::vector<double>{0.01, 0.03, 0.1, 0.3}));
  EXPECT_EQ(log_ticks(0.0008, 1, 5), (std::vector<double>{0.001, 0.01, 0.1, 1}));
  EXPECT_EQ(log_ticks(1e-6, 1, 5), (std::vector<double>{1e-6, 1e-4, 1e-2, 1}));
  EXPECT_EQ(percent_label(0.002), "0.2 %");
  EXPECT_EQ(percent_label(1), "100 %");
}

TEST(Shorten, KeepsBothEndsOfWholeCodePoints) {
  EXPECT_EQ(shorten("short", 100, 10), "short");
  const std::string cut = shorten("käufe-äußerst-lang-seed-7ä", 66, 10);
  EXPECT_EQ(cut, "käufe…ed-7ä");
  EXPECT_LE(text_width_px(cut, 10), 66);
}

}  // namespace
}  // namespace ektm
