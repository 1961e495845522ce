#pragma once
// DatasetInfo as JSON, as manifests and encoders keep it.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "data/batch.h"

namespace ektm {

nlohmann::json to_json(const DatasetInfo& info);
DatasetInfo dataset_info_from_json(const nlohmann::json& json);  // throws nlohmann::json::exception

// A JSON file that knows its own format version and checksum: {"content": ..., "checksum": ..., "format_version": N}.
void write_checked_json(const std::filesystem::path& file, const nlohmann::json& content, int format_version);
// Error Io when absent; Error Data when damaged or of another version. `remedy`: what to do about it, as a sentence.
nlohmann::json read_checked_json(const std::filesystem::path& file, int format_version, const std::string& remedy);

// The files below `folder` (relative paths, sorted) with bytes and checksum.
nlohmann::json list_checked_files(const std::filesystem::path& folder);
// Compares one entry of such a list with the file: Error Data "damaged" when absent, of another size or (with `verify`) of
// another checksum.
void check_file(const std::filesystem::path& folder, const nlohmann::json& entry, bool verify, const std::string& remedy);

}  // namespace ektm
