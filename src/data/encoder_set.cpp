#include "data/encoder_set.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "data/dataset_info.h"

namespace ektm {
namespace fs = std::filesystem;
using Json = nlohmann::json;
namespace {

constexpr int kEncodersFormatVersion = 1;
constexpr const char* kEncodersFile = "encoders.json";
constexpr const char* kRemedy = "Run `ektm prepare` again, or take the folder from a backup.";

std::string vocabulary_file(size_t table) {
  return fmt::format("vocabulary_{:03}.arrow", table);
}

void add_once(std::vector<std::string>& names, const std::string& name) {
  if (!name.empty() && std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
}

}  // namespace

int64_t TableEncoder::rows() const {
  switch (kind) {
    case Kind::Vocabulary:
      return kFirstValueRow + vocabulary.size();
    case Kind::Hash:
      return kFirstValueRow + hash_buckets;
    case Kind::Bins:
      return kFirstValueRow + static_cast<int64_t>(edges.size()) + 1;
  }
  return 0;
}

EncoderSet::EncoderSet(Schema schema) : schema_(std::move(schema)) {
  for (const auto& feature : schema_.features) {
    const bool number = feature.kind == FeatureKind::Number;
    if (number && feature.bins == 0) {
      slots.push_back({FeatureSlot::Kind::Number, info_.numbers.size(), 0});
      info_.numbers.push_back(feature.name);
      scalings.emplace_back();
      continue;
    }
    size_t table = 0;
    while (table < tables.size() && tables[table].name != feature.table) ++table;
    if (table == tables.size()) {
      TableEncoder& added = tables.emplace_back();
      added.name = feature.table;
      added.hash_buckets = feature.hash_buckets;
      added.kind = number                     ? TableEncoder::Kind::Bins
                   : feature.hash_buckets > 0 ? TableEncoder::Kind::Hash
                                              : TableEncoder::Kind::Vocabulary;
    }
    const bool bag = feature.kind == FeatureKind::Ids || feature.kind == FeatureKind::Sequence;
    auto& fields = bag ? info_.bags : info_.fields;
    slots.push_back({bag ? FeatureSlot::Kind::Bag : FeatureSlot::Kind::Field, fields.size(), table});
    fields.push_back({feature.name, static_cast<int32_t>(table), bag && feature.pooling == "sum"});
  }
  const std::vector<int> parents = schema_.parents();
  for (size_t t = 0; t < schema_.tasks.size(); ++t) info_.tasks.push_back({schema_.tasks[t].name, parents[t]});
  info_.has_group = !schema_.group.empty();
  info_.has_weight = !schema_.weight.empty();
  info_.schema_hash = schema_.hash();
  update_info();
}

void EncoderSet::update_info() {
  info_.tables.clear();
  for (const auto& table : tables) info_.tables.push_back({table.name, table.rows()});
  info_.scenarios.clear();
  for (int64_t i = 0; i < scenarios.size(); ++i) info_.scenarios.emplace_back(scenarios.text(i));
}

void EncoderSet::save(const fs::path& folder, const std::vector<fs::path>& side_tables) const {
  make_directories(folder);
  Json json_tables = Json::array(), json_scalings = Json::array(), json_joins = Json::array();
  for (size_t t = 0; t < tables.size(); ++t) {
    Json json = {{"name", tables[t].name}};
    switch (tables[t].kind) {
      case TableEncoder::Kind::Vocabulary:
        json["vocabulary"] = vocabulary_file(t);
        write_vocabulary(tables[t].vocabulary, folder / vocabulary_file(t));
        break;
      case TableEncoder::Kind::Hash:
        json["hash_buckets"] = tables[t].hash_buckets;
        break;
      case TableEncoder::Kind::Bins:
        json["edges"] = tables[t].edges;
        break;
    }
    json_tables.push_back(json);
  }
  for (const auto& scaling : scalings)
    json_scalings.push_back({{"log", scaling.log}, {"shift", scaling.shift}, {"scale", scaling.scale}});
  for (size_t j = 0; j < side_tables.size(); ++j) {
    if (side_tables[j].empty()) {
      json_joins.push_back("");
      continue;
    }
    const std::string name = fmt::format("side_{}_{}", j, side_tables[j].filename().string());
    std::error_code code;
    fs::copy_file(side_tables[j], folder / name, code);
    if (code)
      fail(ErrorKind::Io, (folder / name).string(), "cannot copy the side table {}: {}. Check the disk.", side_tables[j].string(),
           code.message());
    json_joins.push_back(name);
  }
  Json files = list_checked_files(folder);
  write_checked_json(folder / kEncodersFile,
                     {{"schema_hash", info_.schema_hash},
                      {"tables", json_tables},
                      {"scalings", json_scalings},
                      {"scenarios", info_.scenarios},
                      {"side_tables", json_joins},
                      {"files", files}},
                     kEncodersFormatVersion);
}

std::unique_ptr<EncoderSet> EncoderSet::load(const fs::path& dir) {
  const fs::path folder = dir / "encoders", file = folder / kEncodersFile;
  Schema schema = load_schema(dir / "schema.yaml");
  const Json json = read_checked_json(file, kEncodersFormatVersion, kRemedy);
  try {
    for (const auto& entry : json.at("files")) check_file(folder, entry, true, kRemedy);
    if (json.at("schema_hash") != schema.hash())
      fail(ErrorKind::Data, dir.string(),
           "encoders/ was made for the schema {}, but schema.yaml is {}: it was changed afterwards. {}",
           json.at("schema_hash").get<std::string>(), schema.hash(), kRemedy);
    const Json& side_tables = json.at("side_tables");
    for (size_t j = 0; j < schema.joins.size(); ++j)
      if (const std::string name = side_tables.at(j); !name.empty()) schema.joins[j].file = "encoders/" + name;
    auto set = std::make_unique<EncoderSet>(std::move(schema));
    for (size_t t = 0; t < set->tables.size(); ++t) {
      TableEncoder& table = set->tables[t];
      const Json& entry = json.at("tables").at(t);
      if (table.kind == TableEncoder::Kind::Vocabulary)
        table.vocabulary = read_vocabulary(folder / entry.at("vocabulary").get<std::string>());
      if (table.kind == TableEncoder::Kind::Bins) entry.at("edges").get_to(table.edges);
    }
    for (size_t n = 0; n < set->scalings.size(); ++n) {
      const Json& entry = json.at("scalings").at(n);
      set->scalings[n] = {entry.at("log"), entry.at("shift"), entry.at("scale")};
    }
    for (const auto& name : json.at("scenarios")) set->scenarios.insert(name.get<std::string>());
    set->update_info();
    return set;
  } catch (const Json::exception& error) {
    fail(ErrorKind::Data, file.string(), "damaged: {}. {}", error.what(), kRemedy);
  }
}

std::vector<std::string> feature_columns(const Schema& schema) {
  std::vector<std::string> columns;
  for (const auto& feature : schema.features) add_once(columns, feature.column);
  return columns;
}

std::vector<std::string> other_columns(const Schema& schema) {
  const std::vector<std::string> features = feature_columns(schema);
  std::vector<std::string> columns;
  auto add = [&](const std::string& name) {
    if (std::find(features.begin(), features.end(), name) == features.end()) add_once(columns, name);
  };
  for (const auto& task : schema.tasks) {
    const Expression label = Expression::parse(task.label, "task " + task.name);
    for (const auto& name : label.columns()) add(name);
    if (task.observed.empty()) continue;
    const Expression observed = Expression::parse(task.observed, "task " + task.name);
    for (const auto& name : observed.columns()) add(name);
  }
  for (const auto& name : {schema.group, schema.scenario, schema.weight}) add(name);
  return columns;
}

std::vector<std::string> needed_columns(const Schema& schema) {
  std::vector<std::string> columns = feature_columns(schema);
  const std::vector<std::string> others = other_columns(schema);
  columns.insert(columns.end(), others.begin(), others.end());
  return columns;
}

std::unique_ptr<Encoders> load_encoders(const fs::path& dir) {
  return EncoderSet::load(dir);
}

}  // namespace ektm
