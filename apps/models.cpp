// ektm models [NAME] [--schema] [--plan] [--markdown]
#include <algorithm>
#include <cstdio>
#include <memory>

#include "base/error.h"
#include "commands.h"
#include "data/schema.h"
#include "experiment/plan.h"
#include "models/run_config.h"
#include "models/zoo.h"

namespace ektm {
namespace {

struct Arguments {
  std::string name;
  bool schema = false, plan = false, markdown = false;
};

void print_fields(const std::vector<FieldHelp>& fields, bool markdown) {
  if (markdown) {
    std::printf("| key | type | default | range | meaning |\n| --- | --- | --- | --- | --- |\n");
    for (const auto& f : fields) {
      std::string help = f.help;
      for (size_t at = 0; (at = help.find('|', at)) != std::string::npos; at += 2) help.replace(at, 1, "\\|");
      std::printf("| `%s` | %s | `%s` | %s | %s |\n", f.key.c_str(), f.type.c_str(), f.default_value.c_str(), f.range.c_str(),
                  help.c_str());
    }
    return;
  }
  size_t key = 3, type = 4, value = 7, range = 5;
  for (const auto& f : fields) {
    key = std::max(key, f.key.size());
    type = std::max(type, f.type.size());
    value = std::max(value, f.default_value.size());
    range = std::max(range, std::min<size_t>(f.range.size(), 34));
  }
  auto row = [&](const std::string& a, const std::string& b, const std::string& c, const std::string& d, const std::string& e) {
    std::printf("  %-*s  %-*s  %-*s  %-*s  %s\n", static_cast<int>(key), a.c_str(), static_cast<int>(type), b.c_str(),
                static_cast<int>(value), c.c_str(), static_cast<int>(range), d.c_str(), e.c_str());
  };
  row("key", "type", "default", "range", "meaning");
  for (const auto& f : fields) row(f.key, f.type, f.default_value, f.range, f.help);
}

void print_entry(const ModelEntry& entry, bool markdown) {
  if (markdown) {
    std::printf("## %s\n\n%s (%s)\n\nKeys below `model:`\n\n", entry.name.c_str(), entry.summary.c_str(), entry.source.c_str());
  } else {
    std::printf("%s: %s\n(%s)\n\nmodel:\n", entry.name.c_str(), entry.summary.c_str(), entry.source.c_str());
  }
  print_fields(entry.describe(), markdown);
  std::printf("\n");
}

void print_common(bool markdown) {
  std::printf(markdown ? "## Every run\n\nKeys beside `model:`\n\n" : "every run:\n");
  print_fields(describe(RunConfig{}), markdown);
}

// A file of sections: the keys of the whole, and of the items of its lists.
void print_sections(const std::vector<std::pair<std::string, std::vector<FieldHelp>>>& reference, const std::string& beside, bool markdown) {
  for (const auto& [section, fields] : reference) {
    const bool list = section.find('[') != std::string::npos;
    const std::string name = section.substr(0, section.find('['));
    if (section.empty())
      std::printf(markdown ? "\n## The whole file\n\nKeys beside %s\n\n" : "the whole file (beside %s):\n", beside.c_str());
    else if (markdown)
      std::printf(list ? "\n## %s\n\nKeys of an item of the list `%s:`\n\n" : "\n## %s\n\nKeys below `%s:`\n\n", name.c_str(), name.c_str());
    else
      std::printf(list ? "\n%s, keys of an item of %s:\n" : "\n%s, keys below %s:\n", name.c_str(), name.c_str());
    print_fields(fields, markdown);
  }
}

void print_schema(bool markdown) {
  if (markdown)
    std::printf("# Schema reference\n\nMade by `ektm models --schema --markdown`; do not edit. By example: "
                "[guide.md](guide.md).\n");
  print_sections(schema_reference(), markdown ? "`features`, `tasks` and `join`" : "features, tasks, join", markdown);
}

void print_plan(bool markdown) {
  if (markdown)
    std::printf("# Plan reference\n\nMade by `ektm models --plan --markdown`; do not edit. By example: "
                "[guide.md](guide.md#compare-models-with-a-plan).\n");
  print_sections(plan_reference(), markdown ? "`datasets`, `models` and `tune`" : "datasets, models, tune", markdown);
}

void run(const Arguments& arguments) {
  const auto& [name, schema, plan, markdown] = arguments;
  if (schema || plan) {
    (schema ? print_schema : print_plan)(markdown);
    return;
  }
  if (!name.empty()) {
    print_entry(find_model(name, "ektm models"), markdown);
    print_common(markdown);
    return;
  }
  if (markdown) {
    std::printf("# Configuration reference\n\nMade by `ektm models --markdown`; do not edit.\n\n");
    print_common(true);
    std::printf("\n");
    for (const auto& entry : zoo()) print_entry(entry, true);
    return;
  }
  for (const auto& entry : zoo()) std::printf("%-16s %s (%s)\n", entry.name.c_str(), entry.summary.c_str(), entry.source.c_str());
  std::printf("\n`ektm models NAME` shows every key of a model and of a run, with type, default, range and meaning.\n");
}

}  // namespace

void add_models_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      app.add_subcommand("models", "The zoo, and every config, schema and plan key with type, default, range and meaning");
  auto* name = command->add_option("name", arguments->name, "a model");
  auto* schema = command->add_flag("--schema", arguments->schema, "the keys of schema.yaml instead")->excludes(name);
  command->add_flag("--plan", arguments->plan, "the keys of plan.yaml (ektm bench) instead")->excludes(name)->excludes(schema);
  command->add_flag("--markdown", arguments->markdown, "as a reference page of the docs");
  command->footer("Examples:\n  ektm models ektm\n  ektm models --schema");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace ektm
