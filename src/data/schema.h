#pragma once
// What a data set means: features, tasks, roles. Read from schema.yaml; the same object serves prepare, train and predict.
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "config/fields.h"

namespace ektm {

enum class FeatureKind {
  Id,        // one categorical value a row
  Ids,       // several values a row in no order (tags): pooled
  Sequence,  // several values a row, oldest first (history): the newest `max_length` are kept, pooled
  Number,    // a real value: `bins` > 0 turns it into an Id by training quantiles; otherwise it is normalised and fed as it is
};
const char* to_string(FeatureKind kind);  // "id", "ids", "sequence", "number"

struct Feature {
  std::string name;
  std::string column;  // default: name
  FeatureKind kind = FeatureKind::Id;
  std::string table;          // embedding table; features that name the same table share it. Default: name
  int64_t min_count = 1;      // a value seen fewer times in the training split shares the OOV row
  int64_t hash_buckets = 0;   // > 0: hashing instead of a vocabulary
  int64_t max_length = 50;    // Ids, Sequence
  std::string separator = ",";  // Ids, Sequence as text (Arrow lists need none)
  std::string pooling = "mean";  // mean | sum
  int64_t bins = 0;              // Number
  std::string normalize = "standard";  // Number: standard | log_standard (log1p of the absolute value, sign kept) | minmax | none

  void fields(FieldVisitor& v);
};

struct Task {
  std::string name;
  std::string label;  // a column ("is_click") or an expression ("marital_stat == \"Never married\"")
  std::string after;  // the event that must have happened for this label to be observed; "" = a root
  std::string observed;  // optional expression; the label counts only where it is true (missing labels)

  void fields(FieldVisitor& v);
};

struct Join {  // a side table: its columns are added to every row by key (a left join; no match = missing values)
  std::string file;  // relative to the schema's folder, or to the folder of --train when not found there
  std::string key;   // column in both
  bool many = false;   // several rows a key: each column becomes, by key, the list of its values in the order of the file
  std::string where;   // an expression over the side table's columns: only rows where it is true count; "" = all
  std::string prefix;  // stands before the names of the side table's columns, but for the key

  void fields(FieldVisitor& v);
};

struct Schema {
  std::vector<Feature> features;
  std::vector<Task> tasks;     // parents before children (sorted so on load)
  std::vector<Join> joins;
  std::string group;           // column for GAUC, usually the user; "" = none
  std::string scenario;        // column; "" = none
  std::string weight;          // numeric column, sample weight; "" = none
  std::vector<std::string> missing = {"", "NA", "NaN", "null", "NULL"};  // texts that mean "missing"
  bool allow_leak = false;
  int64_t max_bad_rows = 0;    // rows that may be skipped (counted in the summary) before prepare stops
  // Where the raw data has no validation file: a share of the rows of --train or --test, by a seeded hash of the row's number.
  std::string valid_from;      // "" | "train" | "test"
  double valid_fraction = 0.5;
  int64_t valid_seed = 1;

  std::filesystem::path folder;  // of the schema file: relative paths of joins start here
  std::string text;              // the file's text; copied into prepared data and run folders

  int task_index(const std::string& name) const;  // -1 when absent
  // Index of the task that `after` names, -1 for a root; aligned with `tasks`.
  std::vector<int> parents() const;
  // XXH3 of the parts that decide the encoding (features, tasks, roles, missing), 16 hex digits.
  std::string hash() const;

  void fields(FieldVisitor& v);  // the keys beside `features`, `tasks` and `join`
};

// Error Config with file and line for every problem at once: unknown key, duplicate feature or task, `after` that names no task
// or makes a cycle, a feature whose column gives a label, bad label expression, ...
Schema load_schema(const std::filesystem::path& file);
Schema parse_schema(const std::string& text, const std::string& name, const std::filesystem::path& folder);

// Every key of a schema file with type, default, range and meaning, by section: "", "features[]", "tasks[]", "join[]".
std::vector<std::pair<std::string, std::vector<FieldHelp>>> schema_reference();

}  // namespace ektm
