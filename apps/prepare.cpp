// ektm prepare --schema S.yaml --train FILES [--valid FILES] [--test FILES] --output DIR
#include "data/prepare.h"

#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "base/log.h"
#include "commands.h"
#include "metrics/text_table.h"

namespace ektm {
namespace {

struct Arguments {
  PrepareConfig config;
  bool quiet = false;
};

std::string percent(int64_t part, int64_t whole) {
  if (whole == 0) return "-";
  const double share = 100.0 * static_cast<double>(part) / static_cast<double>(whole);
  return part > 0 && share < 0.01 ? "<0.01" : fmt::format("{:.2f}", share);
}

constexpr auto kLeft = TextTable::Align::Left, kRight = TextTable::Align::Right;

std::string task_table(const PrepareSummary& summary) {
  TextTable table({kLeft, kLeft, kLeft, kRight, kRight, kRight, kRight, kRight});
  table.row({"split", "task", "after", "rows", "observed", "positives", "rate %", "positives without their event"});
  for (const auto& split : summary.splits) {
    table.line("");
    for (size_t t = 0; t < summary.schema.tasks.size(); ++t) {
      const auto& task = summary.schema.tasks[t];
      const auto& counts = split.counts.tasks[t];
      table.row({t == 0 ? split.name : "", task.name, task.after.empty() ? "-" : task.after,
                 t == 0 ? with_commas(split.counts.rows) : "", with_commas(counts.observed), with_commas(counts.positives),
                 percent(counts.positives, counts.observed), task.after.empty() ? "-" : with_commas(counts.orphans)});
    }
  }
  return table.to_string();
}

std::string feature_table(const PrepareSummary& summary) {
  std::vector<TextTable::Align> alignment = {kLeft, kLeft, kRight};
  std::vector<std::string> header = {"feature", "kind", "table rows"};
  for (const auto& split : summary.splits) {
    header.push_back(split.name + ": missing %");
    header.push_back(split.name == "train" ? "rare %" : "unseen %");
    alignment.insert(alignment.end(), {kRight, kRight});
  }
  TextTable table(alignment);
  table.row(header);
  for (size_t f = 0; f < summary.schema.features.size(); ++f) {
    const Feature& feature = summary.schema.features[f];
    const bool has_vocabulary = feature.kind != FeatureKind::Number && feature.hash_buckets == 0;
    std::string kind = to_string(feature.kind);
    if (feature.kind == FeatureKind::Number) kind += feature.bins > 0 ? ", bins" : ", " + feature.normalize;
    if (feature.hash_buckets > 0) kind += ", hashed";
    std::vector<std::string> cells = {feature.name, kind,
                                      summary.feature_rows[f] > 0 ? with_commas(summary.feature_rows[f]) : "-"};
    for (const auto& split : summary.splits) {
      const auto& counts = split.counts.fields[f];
      cells.push_back(percent(counts.missing, split.counts.rows));
      cells.push_back(has_vocabulary ? percent(counts.unseen, counts.values) : "-");
    }
    table.row(cells);
  }
  return table.to_string();
}

std::string input_table(const PrepareSummary& summary) {
  TextTable table({kLeft, kRight, kRight, kRight, kLeft, kRight, kRight});
  table.row({"input", "rows", "bad rows skipped", "left out by its where", "side table", "rows without a match", "%"});
  for (const auto& input : summary.inputs) {
    std::vector<std::string> first = {input.name, with_commas(input.rows), with_commas(input.bad_rows), with_commas(input.left_out)};
    if (input.unmatched.empty()) table.row({first[0], first[1], first[2], first[3], "-", "-", "-"});
    for (size_t j = 0; j < input.unmatched.size(); ++j) {
      table.row({first[0], first[1], first[2], first[3], summary.schema.joins[j].file, with_commas(input.unmatched[j]),
                 percent(input.unmatched[j], input.rows)});
      first = {"", "", "", ""};
    }
  }
  return table.to_string();
}

void run(const Arguments& arguments) {
  set_quiet(arguments.quiet);
  const PrepareSummary summary = prepare(arguments.config);
  if (arguments.quiet) return;
  std::printf("%s\n%s\n%s\nencoded data set: %s\n", input_table(summary).c_str(), task_table(summary).c_str(),
              feature_table(summary).c_str(), arguments.config.output.string().c_str());
}

}  // namespace

void add_prepare_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  PrepareConfig& config = arguments->config;
  CLI::App* command =
      app.add_subcommand("prepare", "Turn raw logs into an encoded data set, with encoders fitted on the training split");
  command->add_option("-s,--schema", config.schema, "what the columns mean (YAML)")->required();
  command->add_option("--train", config.train.files, "CSV (also .gz), Parquet, Arrow, or folders of them; may be repeated")
      ->required();
  command->add_option("--valid", config.valid.files, "validation rows, likewise (or split.valid_from in the schema)");
  command->add_option("--test", config.test.files, "test rows, likewise");
  command->add_option("--train-where", config.train.where, "an expression over the columns, as in the schema: only rows where it is true are training rows");
  command->add_option("--valid-where", config.valid.where, "likewise of the validation rows");
  command->add_option("--test-where", config.test.where, "likewise of the test rows; with a condition each, splits may share files");
  command->add_option("-o,--output", config.output, "folder of the encoded data set")->required();
  command->add_option("--threads", config.threads, "0 = one a core; without influence on the result")->default_str("0");
  command->add_flag("--force", config.force, "replace an encoded data set at --output");
  command->add_flag("-q,--quiet", arguments->quiet, "no progress, no summary");
  command->footer(
      "Prints rows, positives, missing and unseen values; DIR/summary.json keeps them. On an error nothing is left at --output.\n"
      "Example:\n"
      "  ektm prepare --schema configs/kuairand/schema.yaml --train impressions_train.csv.gz --valid impressions_valid.csv.gz "
      "\\\n"
      "               --test impressions_test.csv.gz --output data/kuairand\n"
      "  ektm prepare --schema schema.yaml --train log.parquet --train-where 'day < 8' --valid log.parquet --valid-where 'day == 8' \\\n"
      "               --test log.parquet --test-where 'day > 8' --output data/log");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace ektm
