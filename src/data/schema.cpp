#include "data/schema.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/did_you_mean.h"
#include "base/error.h"
#include "base/files.h"
#include "base/hash.h"
#include "config/yaml.h"
#include "data/expression.h"

namespace ektm {
namespace {

constexpr int64_t kMaxTableRows = 2'000'000'000;  // rows of a table are int32
constexpr FeatureKind kKinds[] = {FeatureKind::Id, FeatureKind::Ids, FeatureKind::Sequence, FeatureKind::Number};

// An item of `features:`: one feature, or several of one kind.
struct FeatureItem {
  std::vector<std::string> names;
  Feature feature;

  void fields(FieldVisitor& v) {
    v.field("names", names, "instead of name: several features of the same form, each reading the column of its name");
    feature.fields(v);
  }
};

template <class T>
std::vector<std::string> names_of(const std::vector<T>& items) {
  std::vector<std::string> names;
  for (const auto& item : items) names.push_back(item.name);
  return names;
}

// " Did you mean 'x'?" or " Known here: a, b."
std::string suggestion(const std::string& word, const std::vector<std::string>& known) {
  const std::string near = did_you_mean(word, known);
  return near.empty() ? fmt::format(" Known here: {}.", fmt::join(known, ", ")) : near;
}

class SchemaParser {
 public:
  SchemaParser(const std::string& text, const std::string& name, const std::filesystem::path& folder)
      : root_(parse_yaml(text, name)), errors_(name) {
    schema_.folder = folder;
    schema_.text = text;
  }

  Schema parse() {
    read_config(root_, schema_, errors_, "", {"features", "tasks", "join"});
    if (!(schema_.valid_fraction > 0 && schema_.valid_fraction < 1) && root_["split"].IsMap())
      errors_.add(root_["split"]["valid_fraction"], "split.valid_fraction",
                  fmt::format("found {}; expected a share above 0 and below 1.", schema_.valid_fraction));
    read_list("features", "e.g. features: [{name: user_id, kind: id}]", true,
              [&](const YAML::Node& node, size_t i) { read_feature(node, i); });
    read_list("tasks", "e.g. tasks: [{name: click, label: is_click}]", true,
              [&](const YAML::Node& node, size_t i) { read_task(node, i); });
    read_list("join", "e.g. join: [{file: users.csv, key: user_id}]", false,
              [&](const YAML::Node& node, size_t i) { read_join(node, i); });
    check_tables();
    check_leaks();
    check_parents();
    errors_.throw_if_any();
    sort_tasks();
    return std::move(schema_);
  }

 private:
  template <class Read>
  void read_list(const std::string& key, const std::string& example, bool required, const Read& read) {
    const YAML::Node list = root_[key];
    if (!list || list.IsNull()) {
      if (required) errors_.add(list, key, fmt::format("the schema names none; expected at least one, {}.", example));
      return;
    }
    if (!list.IsSequence() || (required && list.size() == 0)) {
      errors_.add(list, key, fmt::format("expected a list{}, {}.", required ? " of at least one" : "", example));
      return;
    }
    for (size_t i = 0; i < list.size(); ++i) {
      if (list[i].IsMap())
        read(list[i], i);
      else
        errors_.add(list[i], fmt::format("{}[{}]", key, i), fmt::format("expected a map, {}.", example));
    }
  }

  // "features.tag." where the item has a name, "features[3]." where not.
  static std::string prefix_of(const std::string& list, const YAML::Node& node, const char* name_key, size_t i) {
    const YAML::Node name = node[name_key];
    return name && name.IsScalar() && !name.Scalar().empty() ? fmt::format("{}.{}.", list, name.Scalar())
                                                             : fmt::format("{}[{}].", list, i);
  }

  void require(const YAML::Node& node, const std::string& prefix, const char* key, const std::string& value) {
    if (!node[key])
      errors_.add(node, prefix + key, "is missing; expected a text.");
    else if (node[key].IsScalar() && value.empty())
      errors_.add(node[key], prefix + key, "is empty; expected a text.");
  }

  void read_feature(const YAML::Node& node, size_t i) {
    std::string prefix = prefix_of("features", node, "name", i);
    FeatureItem item;
    read_config(node, item, errors_, prefix);
    Feature& feature = item.feature;
    if (node["names"]) {
      for (const char* key : {"name", "column"})
        if (node[key])
          errors_.add(node[key], prefix + key, "cannot stand beside 'names': each feature there reads the column of its name.");
      if (node["names"].IsSequence() && node["names"].size() == 0)
        errors_.add(node["names"], prefix + "names", "is empty; expected a list of names.");
    } else {
      require(node, prefix, "name", feature.name);
      item.names = {feature.name};
    }
    for (const char* key : {"column", "table"})
      if (node[key] && node[key].IsScalar() && node[key].Scalar().empty())
        errors_.add(node[key], prefix + key, "is empty; expected a name.");
    check_fitting_keys(node, prefix, feature);
    for (const auto& name : item.names) {
      if (name.empty()) {
        if (node["names"]) errors_.add(node["names"], prefix + "names", "holds an empty name.");
        continue;
      }
      Feature one = feature;
      one.name = name;
      if (one.column.empty()) one.column = name;
      if (one.table.empty()) one.table = name;
      auto [first, is_new] = feature_lines_.emplace(name, node.Mark().line + 1);
      if (!is_new) {
        errors_.add(node, "features." + name,
                    fmt::format("is named twice (first in line {}); each name once. Remove or rename one.", first->second));
        continue;
      }
      schema_.features.push_back(std::move(one));
      feature_nodes_.push_back(node);
    }
  }

  // A key that has no effect on a feature of this kind is an error: its author expects an effect.
  void check_fitting_keys(const YAML::Node& node, const std::string& prefix, const Feature& feature) {
    bool number = feature.kind == FeatureKind::Number,
         list = feature.kind == FeatureKind::Ids || feature.kind == FeatureKind::Sequence;
    auto refuse = [&](const char* key, const std::string& reason) {
      if (node[key]) errors_.add(node[key], prefix + key, fmt::format("has no effect {}. Remove it.", reason));
    };
    std::string of_kind = fmt::format("on a feature of kind '{}'", to_string(feature.kind));
    if (number)
      for (const char* key : {"table", "min_count", "hash_buckets"}) refuse(key, of_kind);
    else
      for (const char* key : {"bins", "normalize"}) refuse(key, of_kind);
    if (!list)
      for (const char* key : {"max_length", "separator", "pooling"}) refuse(key, of_kind);
    if (number && feature.bins > 0) refuse("normalize", "beside 'bins'");
    if (!number && feature.hash_buckets > 0) refuse("min_count", "beside 'hash_buckets'");
    if (list && feature.separator.empty())
      errors_.add(node["separator"], prefix + "separator", "is empty; expected e.g. \",\" or \"|\".");
    if (number && feature.bins == 1) errors_.add(node["bins"], prefix + "bins", "found 1; expected 0 (no bins) or at least 2.");
  }

  void read_task(const YAML::Node& node, size_t i) {
    std::string prefix = prefix_of("tasks", node, "name", i);
    Task task;
    read_config(node, task, errors_, prefix);
    require(node, prefix, "name", task.name);
    require(node, prefix, "label", task.label);
    for (const char* key : {"after", "observed"})
      if (node[key] && node[key].IsScalar() && node[key].Scalar().empty())
        errors_.add(node[key], prefix + key, "is empty. Remove the key, or give it a value.");
    std::vector<std::string> columns;
    for (auto [key, text] : {std::pair{"label", &task.label}, std::pair{"observed", &task.observed}}) {
      if (text->empty()) continue;
      try {
        Expression expression = Expression::parse(*text, prefix + key);
        columns.insert(columns.end(), expression.columns().begin(), expression.columns().end());
      } catch (const Error& error) {
        errors_.add(node[key], prefix + key, error.message());
      }
    }
    if (task.name.empty()) return;
    auto [first, is_new] = task_lines_.emplace(task.name, node.Mark().line + 1);
    if (!is_new) {
      errors_.add(node, "tasks." + task.name,
                  fmt::format("is named twice (first in line {}); each name once. Remove or rename one.", first->second));
      return;
    }
    schema_.tasks.push_back(std::move(task));
    task_nodes_.push_back(node);
    label_columns_.push_back(std::move(columns));
  }

  void read_join(const YAML::Node& node, size_t i) {
    std::string prefix = prefix_of("join", node, "file", i);
    Join join;
    read_config(node, join, errors_, prefix);
    require(node, prefix, "file", join.file);
    require(node, prefix, "key", join.key);
    try {
      if (!join.where.empty()) Expression::parse(join.where, prefix + "where");
    } catch (const Error& error) {
      errors_.add(node["where"], prefix + "where", error.message());
    }
    for (const auto& other : schema_.joins)
      if (!join.file.empty() && other.file == join.file && other.key == join.key && other.prefix == join.prefix)
        errors_.add(node, prefix.substr(0, prefix.size() - 1), "is joined twice by the same key and prefix. Remove one, or give one another prefix.");
    schema_.joins.push_back(std::move(join));
  }

  // Features that share a table share its vocabulary, so they must agree on how it is built.
  void check_tables() {
    std::map<std::string, size_t> first_of;
    for (size_t i = 0; i < schema_.features.size(); ++i) {
      const Feature& feature = schema_.features[i];
      if (feature.kind == FeatureKind::Number && feature.bins == 0) continue;
      auto [found, is_new] = first_of.emplace(feature.table, i);
      if (is_new) continue;
      const Feature& first = schema_.features[found->second];
      std::string key = "features." + feature.name;
      if ((first.kind == FeatureKind::Number) || (feature.kind == FeatureKind::Number)) {
        errors_.add(feature_nodes_[i], key,
                    fmt::format("shares the table '{}' with the feature '{}', but bins of a number have a table of their own. "
                                "Rename one.",
                                feature.table, first.name));
      } else if (first.hash_buckets != feature.hash_buckets) {
        errors_.add(feature_nodes_[i], key,
                    fmt::format("found hash_buckets {}, but the feature '{}' in line {}, which shares the table '{}', has {}. "
                                "Give both the same.",
                                feature.hash_buckets, first.name, line(feature_nodes_[found->second]), feature.table,
                                first.hash_buckets));
      } else if (first.min_count != feature.min_count) {
        errors_.add(
            feature_nodes_[i], key,
            fmt::format("found min_count {}, but the feature '{}' in line {}, which shares the table '{}', has {}. "
                        "Give both the same.",
                        feature.min_count, first.name, line(feature_nodes_[found->second]), feature.table, first.min_count));
      }
    }
  }

  void check_leaks() {
    if (schema_.allow_leak) return;
    for (size_t i = 0; i < schema_.features.size(); ++i) {
      const Feature& feature = schema_.features[i];
      std::string key = "features." + feature.name;
      for (size_t t = 0; t < schema_.tasks.size(); ++t)
        if (std::count(label_columns_[t].begin(), label_columns_[t].end(), feature.column))
          errors_.add(
              feature_nodes_[i], key,
              fmt::format("reads the column '{}', which decides the label of the task '{}': the model would be given the answer. "
                          "Remove the feature, or set allow_leak: true.",
                          feature.column, schema_.tasks[t].name));
      if (!schema_.weight.empty() && feature.column == schema_.weight)
        errors_.add(feature_nodes_[i], key,
                    fmt::format("reads the column '{}', which is the sample weight. Remove the feature, or set allow_leak: true.",
                                feature.column));
    }
    for (size_t t = 0; t < schema_.tasks.size(); ++t)
      if (!schema_.scenario.empty() && std::count(label_columns_[t].begin(), label_columns_[t].end(), schema_.scenario))
        errors_.add(root_["scenario"], "scenario",
                    fmt::format("is the column '{}', which decides the label of the task '{}'. Name another column, "
                                "or set allow_leak: true.",
                                schema_.scenario, schema_.tasks[t].name));
  }

  void check_parents() {
    std::vector<std::string> names = names_of(schema_.tasks);
    for (size_t t = 0; t < schema_.tasks.size(); ++t) {
      const Task& task = schema_.tasks[t];
      if (task.after.empty()) continue;
      std::string key = fmt::format("tasks.{}.after", task.name);
      const YAML::Node node = task_nodes_[t]["after"];
      if (task.after == task.name) {
        errors_.add(node, key, "a task cannot come after itself. Name the event before it, or remove the key.");
      } else if (schema_.task_index(task.after) < 0) {
        std::vector<std::string> others = names;
        std::erase(others, task.name);
        errors_.add(node, key,
                    others.empty() ? fmt::format("'{}' is no task, and there is no other task. Remove the key.", task.after)
                                   : fmt::format("'{}' is no task.{}", task.after, suggestion(task.after, others)));
      }
    }
    std::vector<int> parents = schema_.parents();
    std::set<size_t> reported;  // one error a cycle
    for (size_t t = 0; t < parents.size(); ++t) {
      std::vector<std::string> path = {names[t]};
      std::vector<size_t> members = {t};
      int at = parents[t];
      while (at >= 0 && at != static_cast<int>(t) && members.size() <= parents.size()) {
        path.push_back(names[at]);
        members.push_back(at);
        at = parents[at];
      }
      if (at != static_cast<int>(t) || members.size() < 2 || reported.count(t)) continue;
      reported.insert(members.begin(), members.end());
      path.push_back(names[t]);
      errors_.add(task_nodes_[t]["after"], fmt::format("tasks.{}.after", names[t]),
                  fmt::format("the tasks come after each other in a circle ({}). One of them must be a root, without 'after'.",
                              fmt::join(path, " after ")));
    }
  }

  // Parents before children; otherwise in the order of the file.
  void sort_tasks() {
    std::vector<Task> sorted;
    std::vector<Task>& rest = schema_.tasks;
    while (!rest.empty()) {
      auto next = std::find_if(rest.begin(), rest.end(), [&](const Task& task) {
        return task.after.empty() ||
               std::any_of(sorted.begin(), sorted.end(), [&](const Task& done) { return done.name == task.after; });
      });
      EKTM_CHECK(next != rest.end());
      sorted.push_back(std::move(*next));
      rest.erase(next);
    }
    rest = std::move(sorted);
  }

  static int line(const YAML::Node& node) { return node.Mark().line + 1; }

  const YAML::Node root_;
  ConfigErrors errors_;
  Schema schema_;
  std::vector<YAML::Node> feature_nodes_, task_nodes_;
  std::vector<std::vector<std::string>> label_columns_;  // of label and observed, aligned with tasks
  std::map<std::string, int> feature_lines_, task_lines_;
};

}  // namespace

const char* to_string(FeatureKind kind) {
  switch (kind) {
    case FeatureKind::Id: return "id";
    case FeatureKind::Ids: return "ids";
    case FeatureKind::Sequence: return "sequence";
    case FeatureKind::Number: return "number";
  }
  return "unknown";
}

void Feature::fields(FieldVisitor& v) {
  v.field("name", name, "the feature's name, unique in the schema");
  v.field("column", column, "the column it reads, of the file or of a joined side table (default: name)");
  std::string kind_text = to_string(kind);
  v.field("kind", kind_text, {"id", "ids", "sequence", "number"},
          "id: one categorical value; ids: several in no order; sequence: several, oldest first; number: a real value");
  for (FeatureKind candidate : kKinds)
    if (kind_text == to_string(candidate)) kind = candidate;
  v.field("table", table, "the embedding table; features that name the same one share it (default: name)");
  v.field("min_count", min_count, IntRange{1}, "a value seen fewer times in the training split shares the row of unseen values");
  v.field("hash_buckets", hash_buckets, IntRange{0, kMaxTableRows}, "above 0: rows by hash instead of a vocabulary");
  v.field("max_length", max_length, IntRange{1, 1'000'000}, "ids, sequence: values kept a row (of a sequence the newest)");
  v.field("separator", separator, "ids, sequence: what stands between the values of a text cell; Arrow lists need none");
  v.field("pooling", pooling, {"mean", "sum"}, "ids, sequence: how the embeddings of a row's values become one");
  v.field("bins", bins, IntRange{0, 1'000'000}, "number: above 0 turns it into an id by quantiles of the training split");
  v.field("normalize", normalize, {"standard", "log_standard", "minmax", "none"}, "number without bins: how it is scaled");
}

void Task::fields(FieldVisitor& v) {
  v.field("name", name, "the task's name, unique in the schema");
  v.field("label", label, "a column of 0 and 1, or an expression such as income == \"1\" or play_time_ms > 3000");
  v.field("after", after, "the task whose event must have happened for this label to be observed; none: a root");
  v.field("observed", observed, "an expression; the label counts only where it is true");
}

void Join::fields(FieldVisitor& v) {
  v.field("file", file, "the side table, relative to the schema's folder, or else to the folder of the training file");
  v.field("key", key, "the column, in both, by which its columns are added to every row; each key once in the side table, unless `many`");
  v.field("many", many,
          "several rows a key, such as a user's history: each column becomes the list of its values, in the order of the file, for a feature of "
          "kind sequence or ids");
  v.field("where", where, "an expression over the side table's columns, such as long_view == 1: its other rows are left out");
  v.field("prefix", prefix, "put before the names of the side table's columns, as in history_ for history_video_id");
}

void Schema::fields(FieldVisitor& v) {
  v.field("group", group, "the column that GAUC groups by, usually the user");
  v.field("scenario", scenario, "the column that tells where the item was shown; metrics are given for each value");
  v.field("weight", weight, "a numeric column: the row's weight in the loss");
  v.field("missing", missing, "texts that mean a missing value");
  v.group_fields(
      "split",
      [this](FieldVisitor& split) {
        std::string from = valid_from.empty() ? "none" : valid_from;
        split.field("valid_from", from, {"none", "train", "test"},
                    "where validation rows come from when there is no validation file");
        valid_from = from == "none" ? "" : from;
        split.field("valid_fraction", valid_fraction, RealRange{0, 1}, "the share of the rows that become validation");
        split.field("valid_seed", valid_seed, IntRange{}, "chooses the rows");
      },
      "validation rows without a validation file");
  v.field("allow_leak", allow_leak, "permits features that give a label away");
  v.field("max_bad_rows", max_bad_rows, IntRange{0}, "rows with a wrong number of columns that may be skipped (and are counted)");
}

int Schema::task_index(const std::string& name) const {
  for (size_t t = 0; t < tasks.size(); ++t)
    if (tasks[t].name == name) return static_cast<int>(t);
  return -1;
}

std::vector<int> Schema::parents() const {
  std::vector<int> parents;
  for (const auto& task : tasks) parents.push_back(task.after.empty() ? -1 : task_index(task.after));
  return parents;
}

std::string Schema::hash() const {
  std::string canonical;  // every text after its length, so that no two schemas share one canonical form
  auto add = [&](const std::string& text) { canonical += fmt::format("{}:{};", text.size(), text); };
  for (const auto& f : features) {
    add("feature");
    for (const auto& text : {f.name, f.column, std::string(to_string(f.kind)), f.table, f.separator, f.pooling, f.normalize})
      add(text);
    for (int64_t number : {f.min_count, f.hash_buckets, f.max_length, f.bins}) add(std::to_string(number));
  }
  for (const auto& t : tasks) {
    add("task");
    for (const auto& text : {t.name, t.label, t.after, t.observed}) add(text);
  }
  // Of joins, what decides the values: not the file, which has no text here.
  for (const auto& join : joins) {
    if (!join.many && join.where.empty() && join.prefix.empty()) continue;
    add("join");
    for (const auto& text : {join.key, join.where, join.prefix, std::string(join.many ? "many" : "")}) add(text);
  }
  add("roles");
  for (const auto& text : {group, scenario, weight}) add(text);
  std::vector<std::string> sorted_missing = missing;
  std::sort(sorted_missing.begin(), sorted_missing.end());
  for (const auto& text : sorted_missing) add(text);
  return fmt::format("{:016x}", hash64(canonical));
}

Schema parse_schema(const std::string& text, const std::string& name, const std::filesystem::path& folder) {
  return SchemaParser(text, name, folder).parse();
}

Schema load_schema(const std::filesystem::path& file) {
  return parse_schema(read_file(file), file.string(), file.has_parent_path() ? file.parent_path() : std::filesystem::path("."));
}

std::vector<std::pair<std::string, std::vector<FieldHelp>>> schema_reference() {
  return {{"", describe(Schema{})},
          {"features[]", describe(FeatureItem{})},
          {"tasks[]", describe(Task{})},
          {"join[]", describe(Join{})}};
}

}  // namespace ektm
