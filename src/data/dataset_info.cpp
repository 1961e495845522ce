#include "data/dataset_info.h"

#include <algorithm>

#include "base/error.h"
#include "base/files.h"

namespace ektm {
namespace fs = std::filesystem;
using Json = nlohmann::json;
namespace {

Json fields_to_json(const std::vector<FieldInfo>& fields) {
  Json list = Json::array();
  for (const auto& field : fields)
    list.push_back({{"name", field.name}, {"table", field.table}, {"sum_pooling", field.sum_pooling}});
  return list;
}

std::vector<FieldInfo> fields_from_json(const Json& list) {
  std::vector<FieldInfo> fields;
  for (const auto& json : list) fields.push_back({json.at("name"), json.at("table"), json.at("sum_pooling")});
  return fields;
}

}  // namespace

Json to_json(const DatasetInfo& info) {
  Json tables = Json::array(), tasks = Json::array();
  for (const auto& table : info.tables) tables.push_back({{"name", table.name}, {"rows", table.rows}});
  for (const auto& task : info.tasks) tasks.push_back({{"name", task.name}, {"parent", task.parent}});
  return {{"tables", tables},
          {"fields", fields_to_json(info.fields)},
          {"bags", fields_to_json(info.bags)},
          {"numbers", info.numbers},
          {"tasks", tasks},
          {"scenarios", info.scenarios},
          {"has_group", info.has_group},
          {"has_weight", info.has_weight},
          {"schema_hash", info.schema_hash}};
}

DatasetInfo dataset_info_from_json(const Json& json) {
  DatasetInfo info;
  for (const auto& table : json.at("tables")) info.tables.push_back({table.at("name"), table.at("rows")});
  info.fields = fields_from_json(json.at("fields"));
  info.bags = fields_from_json(json.at("bags"));
  json.at("numbers").get_to(info.numbers);
  for (const auto& task : json.at("tasks")) info.tasks.push_back({task.at("name"), task.at("parent")});
  json.at("scenarios").get_to(info.scenarios);
  json.at("has_group").get_to(info.has_group);
  json.at("has_weight").get_to(info.has_weight);
  json.at("schema_hash").get_to(info.schema_hash);
  return info;
}

void write_checked_json(const fs::path& file, const Json& content, int format_version) {
  Json whole = {{"content", content}, {"checksum", checksum(content.dump())}, {"format_version", format_version}};
  write_file_atomic(file, whole.dump(1) + "\n");
}

Json read_checked_json(const fs::path& file, int format_version, const std::string& remedy) {
  const std::string text = read_file(file);
  Json whole = Json::parse(text, nullptr, false);
  if (!whole.is_object() || !whole.contains("format_version") || !whole["format_version"].is_number_integer())
    fail(ErrorKind::Data, file.string(), "damaged: no JSON with a format_version. {}", remedy);
  if (whole["format_version"] != format_version)
    fail(ErrorKind::Data, file.string(), "found format version {}; this ektm reads version {}. {}",
         whole["format_version"].dump(), format_version, remedy);
  if (!whole.contains("content") || !whole.contains("checksum") || whole["checksum"] != checksum(whole["content"].dump()))
    fail(ErrorKind::Data, file.string(), "damaged: checksum mismatch. {}", remedy);
  return std::move(whole["content"]);
}

Json list_checked_files(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  Json list = Json::array();
  for (const auto& file : files)
    list.push_back({{"file", fs::relative(file, folder).generic_string()},
                    {"bytes", fs::file_size(file)},
                    {"checksum", checksum_file(file)}});
  return list;
}

void check_file(const fs::path& folder, const Json& entry, bool verify, const std::string& remedy) {
  const fs::path file = folder / entry.at("file").get<std::string>();
  const auto expected_bytes = entry.at("bytes").get<uintmax_t>();
  std::error_code code;
  if (!fs::is_regular_file(file, code)) fail(ErrorKind::Data, file.string(), "damaged: the file is missing. {}", remedy);
  const uintmax_t bytes = fs::file_size(file, code);
  if (code || bytes != expected_bytes)
    fail(ErrorKind::Data, file.string(), "damaged: found {} bytes; expected {}. {}", code ? 0 : bytes, expected_bytes, remedy);
  if (!verify) return;
  const std::string found = checksum_file(file), expected = entry.at("checksum").get<std::string>();
  if (found != expected) fail(ErrorKind::Data, file.string(), "damaged: checksum {}; expected {}. {}", found, expected, remedy);
}

}  // namespace ektm
