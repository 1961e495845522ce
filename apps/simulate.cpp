// ektm simulate logs --output DIR
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/log.h"
#include "commands.h"
#include "config/yaml.h"
#include "sim/logs.h"

namespace ektm {
namespace {

struct Arguments {
  std::string output;
  bool quick = false, overwrite = false, quiet = false;
  std::map<std::string, std::string> given;  // config key -> text of the option
};

// "pay=0.5,share=0", or bare numbers for the pattern's conversions in their order: "0.9,0.6,0.3,0".
YAML::Node parse_by_task(const std::string& text, const std::string& option, const std::string& pattern) {
  const std::vector<std::string> names = conversion_names(pattern);
  YAML::Node map(YAML::NodeType::Map);
  size_t index = 0;
  for (const std::string& item : CLI::detail::split(text, ',')) {
    size_t equals = item.find('=');
    if (equals != std::string::npos) {
      map[item.substr(0, equals)] = item.substr(equals + 1);
    } else if (index < names.size()) {
      map[names[index]] = item;
    } else {
      fail(ErrorKind::Config, option, "found more than {} values in '{}'; expected one for each of {}, or NAME=VALUE.",
           names.size(), text, fmt::join(names, ", "));
    }
    ++index;
  }
  return map;
}

std::string option_name(std::string key) {
  std::replace(key.begin(), key.end(), '_', '-');
  return "--" + key;
}

SimulationConfig parse_config(const Arguments& arguments) {
  SimulationConfig config = arguments.quick ? SimulationConfig::quick() : SimulationConfig{};
  auto pattern = arguments.given.find("pattern");
  YAML::Node root(YAML::NodeType::Map);
  for (const auto& [key, text] : arguments.given) {
    if (key == "rates" || key == "relatedness") {
      root[key] = parse_by_task(text, option_name(key), pattern == arguments.given.end() ? config.pattern : pattern->second);
    } else {
      root[key] = text;
    }
  }
  ConfigErrors errors("options of ektm simulate logs");
  read_config(root, config, errors);
  errors.throw_if_any();
  return config;
}

void run(const Arguments& arguments) {
  set_quiet(arguments.quiet);
  SimulationConfig config = parse_config(arguments);
  nlohmann::ordered_json summary = write_logs(config, arguments.output, arguments.overwrite);
  std::printf("%-12s %-12s %12s %12s %10s %15s\n", "split", "task", "observed", "positives", "rate", "attainable AUC");
  for (const auto& [split, content] : summary["splits"].items()) {
    for (const auto& [task, numbers] : content["tasks"].items()) {
      const auto& auc = numbers["attainable_auc"].front();  // CTR of the click, CVR of a conversion
      const auto& rate = numbers["rate_where_observed"];
      std::printf("%-12s %-12s %12s %12s %10s %15s\n", split.c_str(), task.c_str(), with_commas(numbers["observed_rows"]).c_str(),
                  with_commas(numbers["positives"]).c_str(),
                  rate.is_null() ? "-" : fmt::format("{:.4f}", rate.get<double>()).c_str(),
                  auc.is_null() ? "-" : fmt::format("{:.4f}", auc.get<double>()).c_str());
    }
  }
  const std::string extension = config.format == "csv" ? "csv" : "parquet";
  std::printf(
      "\nNext:\n  ektm prepare --schema %1$s/schema.yaml --train %1$s/train.%2$s --valid %1$s/valid.%2$s --test %1$s/test.%2$s "
      "--output DIR\n",
      arguments.output.c_str(), extension.c_str());
}

}  // namespace

void add_simulate_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* simulate = app.add_subcommand("simulate", "Logs of a simulated platform whose true probabilities are known");
  simulate->require_subcommand(1);
  CLI::App* logs = simulate->add_subcommand("logs", "Write impressions, clicks and conversions, split by time");
  logs->add_option("-o,--output", arguments->output, "folder to make")->required();
  const SimulationConfig quick = SimulationConfig::quick();
  logs->add_flag("--quick", arguments->quick,
                 fmt::format("smaller, with more clicks (rows {}, users {}, items {}, ctr {}); options given beside it win",
                             quick.rows, quick.users, quick.items, quick.ctr));
  logs->add_flag("--overwrite", arguments->overwrite, "replace earlier simulated logs in the output folder");
  logs->add_flag("-q,--quiet", arguments->quiet, "no progress");
  for (const FieldHelp& field : describe(SimulationConfig{})) {
    std::string names = option_name(field.key);
    if (field.key == "relatedness") names += ",--rho";
    std::string help = field.help;
    if (!field.range.empty()) help += " (" + field.range + ")";
    if (field.type == "map of real") help += ", as NAME=VALUE,... or one value a conversion in order";
    auto* option = logs->add_option_function<std::string>(
        names, [arguments, key = field.key](const std::string& text) { arguments->given[key] = text; }, help);
    option->type_name(field.type == "int" ? "INT" : field.type == "real" ? "REAL" : "TEXT");
    if (field.type != "map of real") option->default_str(field.default_value);
  }
  logs->footer(
      "Examples:\n"
      "  ektm simulate logs --output data/raw --quick\n"
      "  ektm simulate logs --output data/raw --pattern sequential --rows 5000000 --rho cart=0.9,repurchase=0\n"
      "The folder gets train, valid and test logs, schema.yaml for `ektm prepare`, summary.json with the attainable AUC,\n"
      "and truth/ with the true probabilities, which training never reads.");
  logs->callback([arguments] { run(*arguments); });
}

}  // namespace ektm
