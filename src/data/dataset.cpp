#include "data/dataset.h"

#include <arrow/io/file.h>
#include <arrow/ipc/reader.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/arrow_check.h"
#include "data/dataset_info.h"
#include "data/dataset_writer.h"

namespace ektm {
namespace fs = std::filesystem;
using Json = nlohmann::json;
namespace {

constexpr const char* kRemedy = "Run `ektm prepare` again, or take the folder from a backup.";
constexpr const char* kDamaged =
    "damaged: no part of an encoded data set. Run `ektm prepare` again, or take the folder from a backup";

Json read_manifest(const fs::path& dir) {
  const fs::path file = dir / "manifest.json";
  std::error_code code;
  if (!fs::exists(file, code))
    fail(ErrorKind::Io, dir.string(),
         "found no manifest.json; expected a folder that `ektm prepare` wrote. Check the path, or run it first.");
  return read_checked_json(file, kDatasetFormatVersion, kRemedy);
}

// The columns of one record batch; those that the data set lacks are nullptr.
struct Segment {
  const int32_t* ids = nullptr;
  const float* numbers = nullptr;
  const uint8_t* labels = nullptr;
  const uint8_t* observed = nullptr;
  const float* weights = nullptr;
  const uint64_t* groups = nullptr;
  const int32_t* scenarios = nullptr;
  std::vector<std::pair<const int32_t*, const int32_t*>> bags;  // offsets and values
  std::shared_ptr<arrow::RecordBatch> batch;                    // keeps the map alive
};

class MappedDataset : public Dataset {
 public:
  MappedDataset(const fs::path& dir, const Json& manifest, const std::string& split, bool verify)
      : info_(dataset_info_from_json(manifest.at("dataset"))), schema_(part_schema(info_)) {
    const Json& entry = manifest.at("splits").at(split);
    for (const auto& part : entry.at("files")) {
      check_file(dir, part, verify, kRemedy);
      open_part((dir / part.at("file").get<std::string>()).string());
    }
    const int64_t expected = entry.at("rows");
    if (rows_ != expected)
      fail(ErrorKind::Data, (dir / split).string(), "damaged: found {} rows; the manifest promises {}. {}", rows_, expected,
           kRemedy);
  }

  int64_t rows() const override { return rows_; }
  const DatasetInfo& info() const override { return info_; }

  void gather(const int64_t* row_numbers, int64_t count, Batch& batch) const override {
    batch.rows = count;
    copy(row_numbers, count, info_.fields.size(), &Segment::ids, batch.ids);
    copy(row_numbers, count, info_.numbers.size(), &Segment::numbers, batch.numbers);
    copy(row_numbers, count, info_.tasks.size(), &Segment::labels, batch.labels);
    copy(row_numbers, count, info_.tasks.size(), &Segment::observed, batch.observed);
    copy(row_numbers, count, info_.has_weight ? 1 : 0, &Segment::weights, batch.weights);
    copy(row_numbers, count, info_.has_group ? 1 : 0, &Segment::groups, batch.groups);
    copy(row_numbers, count, info_.scenarios.empty() ? 0 : 1, &Segment::scenarios, batch.scenarios);
    batch.bags.resize(info_.bags.size());
    for (size_t k = 0; k < batch.bags.size(); ++k) {
      Bag& bag = batch.bags[k];
      bag.offsets.resize(count + 1);
      bag.offsets[0] = 0;
      bag.values.clear();
      for (int64_t i = 0; i < count; ++i) {
        const auto [segment, row] = locate(row_numbers[i]);
        const auto [offsets, values] = segment->bags[k];
        bag.values.insert(bag.values.end(), values + offsets[row], values + offsets[row + 1]);
        bag.offsets[i + 1] = static_cast<int32_t>(bag.values.size());
      }
    }
  }

 private:
  static constexpr int64_t kPrefetchRows = 8;

  std::pair<const Segment*, int64_t> locate(int64_t row) const {
    const int64_t segment = row / segment_rows_;
    return {&segments_[segment], row - segment * segment_rows_};
  }

  template <class T>
  void copy(const int64_t* row_numbers, int64_t count, size_t width, const T* Segment::* column, std::vector<T>& out) const {
    out.resize(count * width);
    if (width == 0) return;
    T* to = out.data();
    for (int64_t i = 0; i < count; ++i, to += width) {
      if (i + kPrefetchRows < count) {
        const auto [ahead, ahead_row] = locate(row_numbers[i + kPrefetchRows]);
        __builtin_prefetch(ahead->*column + ahead_row * width);
      }
      const auto [segment, row] = locate(row_numbers[i]);
      std::memcpy(to, segment->*column + row * width, width * sizeof(T));
    }
  }

  void open_part(const std::string& where) {
    auto map = checked_io(arrow::io::MemoryMappedFile::Open(where, arrow::io::FileMode::READ), where);
    auto options = arrow::ipc::IpcReadOptions::Defaults();
    options.use_threads = false;
    auto reader = checked_data(arrow::ipc::RecordBatchFileReader::Open(map, options), where, kDamaged);
    if (!reader->schema()->Equals(*schema_, false))
      fail(ErrorKind::Data, where, "{} (other columns than the manifest promises).", kDamaged);
    for (int b = 0; b < reader->num_record_batches(); ++b) {
      auto batch = checked_data(reader->ReadRecordBatch(b), where, kDamaged);
      checked_data(batch->Validate(), where, kDamaged);
      // All record batches but the last are equally long, so that a division finds a row.
      if (!segments_.empty() && (segments_.back().batch->num_rows() != segment_rows_ || batch->num_rows() > segment_rows_))
        fail(ErrorKind::Data, where, "{} (record batches of unequal length).", kDamaged);
      if (segments_.empty()) segment_rows_ = std::max<int64_t>(1, batch->num_rows());
      rows_ += batch->num_rows();
      add_segment(std::move(batch));
    }
  }

  template <class T>
  static const T* raw(const arrow::Array& array) {
    return array.data()->GetValues<T>(1);
  }
  template <class T>
  static const T* raw_list(const arrow::Array& array) {
    const auto& list = static_cast<const arrow::FixedSizeListArray&>(array);
    return raw<T>(*list.values()) + list.value_offset(0);
  }

  void add_segment(std::shared_ptr<arrow::RecordBatch> batch) {
    Segment& segment = segments_.emplace_back();
    for (int c = 0; c < batch->num_columns(); ++c) {
      const arrow::Array& column = *batch->column(c);
      const std::string& name = batch->column_name(c);
      if (name == "ids")
        segment.ids = raw_list<int32_t>(column);
      else if (name == "numbers")
        segment.numbers = raw_list<float>(column);
      else if (name == "labels")
        segment.labels = raw_list<uint8_t>(column);
      else if (name == "observed")
        segment.observed = raw_list<uint8_t>(column);
      else if (name == "weight")
        segment.weights = raw<float>(column);
      else if (name == "group")
        segment.groups = raw<uint64_t>(column);
      else if (name == "scenario")
        segment.scenarios = raw<int32_t>(column);
      else {
        const auto& list = static_cast<const arrow::ListArray&>(column);
        segment.bags.emplace_back(list.raw_value_offsets(), raw<int32_t>(*list.values()));
      }
    }
    segment.batch = std::move(batch);
  }

  DatasetInfo info_;
  std::shared_ptr<arrow::Schema> schema_;
  std::vector<Segment> segments_;
  int64_t segment_rows_ = 1, rows_ = 0;
};

// Any field of a manifest that is absent or ill-typed means damage.
template <class Work>
auto reading_manifest(const fs::path& dir, const Work& work) {
  try {
    return work(read_manifest(dir));
  } catch (const Json::exception& error) {
    fail(ErrorKind::Data, (dir / "manifest.json").string(), "damaged: {}. {}", error.what(), kRemedy);
  }
}

}  // namespace

std::unique_ptr<Dataset> open_dataset(const fs::path& dir, const std::string& split, bool verify) {
  return reading_manifest(dir, [&](const Json& manifest) -> std::unique_ptr<Dataset> {
    const Json& splits = manifest.at("splits");
    if (!splits.contains(split)) {
      std::vector<std::string> names;
      for (const auto& [name, entry] : splits.items()) names.push_back(name);
      fail(ErrorKind::Io, dir.string(), "the data set has no split '{}'; it has: {}. Run `ektm prepare` with --{} FILES.", split,
           fmt::join(names, ", "), split);
    }
    return std::make_unique<MappedDataset>(dir, manifest, split, verify);
  });
}

DatasetInfo read_dataset_info(const fs::path& dir) {
  return reading_manifest(dir, [](const Json& manifest) { return dataset_info_from_json(manifest.at("dataset")); });
}

}  // namespace ektm
