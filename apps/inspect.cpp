// ektm inspect RUN
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "commands.h"
#include "models/evaluation.h"
#include "serve/predictor.h"

namespace ektm {
namespace {

struct Arguments {
  std::string run, data, split = "valid";
  bool json = false;
};

void print_matrix(const char* title, const nlohmann::json& rows, const std::vector<std::string>& columns, const nlohmann::json& matrix) {
  size_t width = 8;
  for (const auto& name : rows) width = std::max(width, name.get<std::string>().size() + 1);
  for (const auto& name : columns) width = std::max(width, name.size() + 1);
  std::printf("\n%s\n%*s", title, static_cast<int>(width), "");
  for (const auto& name : columns) std::printf("%*s", static_cast<int>(width), name.c_str());
  std::printf("\n");
  for (size_t i = 0; i < rows.size(); ++i) {
    std::printf("%-*s", static_cast<int>(width), rows[i].get<std::string>().c_str());
    for (const auto& value : matrix[i]) std::printf("%*.3f", static_cast<int>(width), value.get<double>());
    std::printf("\n");
  }
}

void run(const Arguments& arguments) {
  set_quiet(true);
  Predictor predictor(arguments.run);
  nlohmann::json inspected;
  const std::string data = arguments.data.empty() ? predictor.config().data : arguments.data;
  const std::string saved = arguments.run + "/inspect.json";
  // The averages that training left are those of the run's own validation split.
  if (arguments.data.empty() && arguments.split == "valid" && std::filesystem::exists(saved)) {
    inspected = nlohmann::json::parse(read_file(saved));
  } else {
    auto dataset = open_dataset(data, arguments.split);
    predictor.check_dataset(dataset->info(), data);
    inspected = inspect_network(predictor.network(), *dataset, 100000);
  }
  if (arguments.json) {
    std::printf("%s\n", inspected.dump(2).c_str());
    return;
  }
  std::printf("model       %s\n", predictor.config().model_name().c_str());
  std::printf("schema      %s\n", predictor.info().schema_hash.c_str());
  std::printf("\nparameters\n");
  int64_t total = 0;
  for (const auto& part : inspected["parameters"]) total += part["count"].get<int64_t>();
  for (const auto& part : inspected["parameters"])
    std::printf("  %-14s %14s  %5.1f %%\n", part["part"].get<std::string>().c_str(), with_commas(part["count"].get<int64_t>()).c_str(),
                100.0 * part["count"].get<double>() / static_cast<double>(total));
  std::printf("  %-14s %14s\n", "total", with_commas(total).c_str());
  std::printf("\nembedding tables (width %ld)\n", predictor.network().embeddings().width());
  for (const auto& table : inspected["tables"])
    std::printf("  %-24s %12s rows\n", table["name"].get<std::string>().c_str(), with_commas(table["rows"].get<int64_t>()).c_str());
  if (inspected.contains("similarity")) {
    const auto& tasks = inspected["similarity"]["tasks"];
    print_matrix("router: mean s^ (row: the task that learns; column: the task that teaches)", tasks, tasks.get<std::vector<std::string>>(),
                 inspected["similarity"]["matrix"]);
  }
  if (inspected.contains("mix"))
    print_matrix("transmitter: weights of the logits (row: the task that learns; column: the task that teaches)", inspected["mix"]["tasks"],
                 inspected["mix"]["columns"].get<std::vector<std::string>>(), inspected["mix"]["matrix"]);
  auto print_tasks = [&](const char* key, const char* title) {
    if (!inspected.contains(key)) return;
    std::printf("\n%s\n", title);
    for (const auto& task : predictor.info().tasks)
      if (inspected[key].contains(task.name)) std::printf("  %-24s %6.3f\n", task.name.c_str(), inspected[key][task.name].get<double>());
  };
  print_tasks("gates", "transmitter gates: mean opening (0 = closed, 1 = open)");
  if (inspected.contains("heads")) {
    std::printf("\nhead that serves (serve: validated)\n");
    for (const auto& task : predictor.info().tasks)
      if (inspected["heads"].contains(task.name)) std::printf("  %-24s %s\n", task.name.c_str(), inspected["heads"][task.name].get<std::string>().c_str());
  }
  print_tasks("clipped_propensities", "share of rows whose propensity is clipped");
  if (inspected.contains("expert_gates")) {
    const auto& matrix = inspected["expert_gates"]["matrix"];
    std::vector<std::string> columns;
    for (size_t e = 0; e < matrix[0].size(); ++e) columns.push_back("e" + std::to_string(e));
    print_matrix("expert gates: mean weight", inspected["expert_gates"]["tasks"], columns, matrix);
  }
}

}  // namespace

void add_inspect_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("inspect", "Parameters, embedding tables, who teaches whom, gate openings");
  command->add_option("run", arguments->run, "run folder")->required();
  command->add_option("-d,--data", arguments->data, "encoded data set to average over; default: the run's own");
  command->add_option("-s,--split", arguments->split, "train | valid | test")->check(CLI::IsMember({"train", "valid", "test"}));
  command->add_flag("--json", arguments->json, "print JSON");
  command->footer("Example:\n  ektm inspect runs/ektm-7");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace ektm
