#include "data/dataset_writer.h"

#include <arrow/io/file.h>
#include <arrow/ipc/api.h>

#include <algorithm>

#include "base/error.h"
#include "base/files.h"
#include "data/arrow_check.h"
#include "data/dataset.h"
#include "data/dataset_info.h"

namespace ektm {
namespace fs = std::filesystem;

std::shared_ptr<arrow::Schema> part_schema(const DatasetInfo& info) {
  arrow::FieldVector fields;
  auto add = [&](const std::string& name, std::shared_ptr<arrow::DataType> type) {
    fields.push_back(arrow::field(name, std::move(type), false));
  };
  auto add_list = [&](const std::string& name, const std::shared_ptr<arrow::DataType>& type, size_t width) {
    if (width > 0) add(name, arrow::fixed_size_list(arrow::field("item", type, false), static_cast<int32_t>(width)));
  };
  add_list("ids", arrow::int32(), info.fields.size());
  for (const auto& bag : info.bags) add("bag." + bag.name, arrow::list(arrow::field("item", arrow::int32(), false)));
  add_list("numbers", arrow::float32(), info.numbers.size());
  add_list("labels", arrow::uint8(), info.tasks.size());
  add_list("observed", arrow::uint8(), info.tasks.size());
  if (info.has_weight) add("weight", arrow::float32());
  if (info.has_group) add("group", arrow::uint64());
  if (!info.scenarios.empty()) add("scenario", arrow::int32());
  return arrow::schema(fields);
}

struct DatasetWriter::State {
  State(fs::path folder_in, const DatasetInfo& info_in, int64_t part_bytes_in)
      : folder(std::move(folder_in)), info(info_in), part_bytes(part_bytes_in), schema(part_schema(info)) {
    make_directories(folder);
    const int64_t row_bytes = static_cast<int64_t>(4 * (info.fields.size() + info.numbers.size()) + 2 * info.tasks.size()) + 16;
    constexpr int64_t kBatchBytes = 64 << 20;
    batch_rows = std::clamp<int64_t>(kBatchBytes / row_bytes, 1024, kMaxBatchRows);
    pending.bags.resize(info.bags.size());
    clear();
  }

  void clear() {
    pending.rows = 0;
    pending.ids.clear();
    pending.numbers.clear();
    pending.labels.clear();
    pending.observed.clear();
    pending.weights.clear();
    pending.groups.clear();
    pending.scenarios.clear();
    for (auto& bag : pending.bags) {
      bag.offsets.assign(1, 0);
      bag.values.clear();
    }
  }

  template <class T>
  static void append_rows(std::vector<T>& to, const std::vector<T>& from, int64_t start, int64_t count, size_t width) {
    to.insert(to.end(), from.begin() + start * width, from.begin() + (start + count) * width);
  }

  void append(const Batch& batch) {
    for (int64_t start = 0; start < batch.rows;) {
      const int64_t count = std::min(batch.rows - start, batch_rows - pending.rows);
      append_rows(pending.ids, batch.ids, start, count, info.fields.size());
      append_rows(pending.numbers, batch.numbers, start, count, info.numbers.size());
      append_rows(pending.labels, batch.labels, start, count, info.tasks.size());
      append_rows(pending.observed, batch.observed, start, count, info.tasks.size());
      append_rows(pending.weights, batch.weights, start, count, info.has_weight ? 1 : 0);
      append_rows(pending.groups, batch.groups, start, count, info.has_group ? 1 : 0);
      append_rows(pending.scenarios, batch.scenarios, start, count, info.scenarios.empty() ? 0 : 1);
      for (size_t k = 0; k < pending.bags.size(); ++k) {
        const Bag& from = batch.bags[k];
        Bag& to = pending.bags[k];
        const int64_t shift = static_cast<int64_t>(to.values.size()) - from.offsets[start];
        if (from.offsets[start + count] + shift > INT32_MAX)
          fail(ErrorKind::Data, "feature " + info.bags[k].name,
               "the lists of {} rows hold more than 2 billion values. Lower max_length.", batch_rows);
        to.values.insert(to.values.end(), from.values.begin() + from.offsets[start],
                         from.values.begin() + from.offsets[start + count]);
        for (int64_t i = start + 1; i <= start + count; ++i) to.offsets.push_back(static_cast<int32_t>(from.offsets[i] + shift));
      }
      pending.rows += count;
      start += count;
      if (pending.rows == batch_rows) flush();
    }
  }

  template <class ArrowType, class T>
  static std::shared_ptr<arrow::Array> primitive(const std::vector<T>& values) {
    return std::make_shared<arrow::NumericArray<ArrowType>>(static_cast<int64_t>(values.size()), arrow::Buffer::Wrap(values));
  }

  std::shared_ptr<arrow::Array> column(const arrow::Field& field, size_t& bag) const {
    const std::string& name = field.name();
    auto list = [&](std::shared_ptr<arrow::Array> values) {
      return std::make_shared<arrow::FixedSizeListArray>(field.type(), pending.rows, values);
    };
    if (name == "ids") return list(primitive<arrow::Int32Type>(pending.ids));
    if (name == "numbers") return list(primitive<arrow::FloatType>(pending.numbers));
    if (name == "labels") return list(primitive<arrow::UInt8Type>(pending.labels));
    if (name == "observed") return list(primitive<arrow::UInt8Type>(pending.observed));
    if (name == "weight") return primitive<arrow::FloatType>(pending.weights);
    if (name == "group") return primitive<arrow::UInt64Type>(pending.groups);
    if (name == "scenario") return primitive<arrow::Int32Type>(pending.scenarios);
    const Bag& from = pending.bags[bag++];
    return std::make_shared<arrow::ListArray>(field.type(), pending.rows, arrow::Buffer::Wrap(from.offsets),
                                              primitive<arrow::Int32Type>(from.values));
  }

  void flush() {
    if (pending.rows == 0) return;
    if (!writer) {
      where = (folder / fmt::format("part-{:05}.arrow", parts++)).string();
      sink = checked_io(arrow::io::FileOutputStream::Open(where), where);
      writer = checked_io(arrow::ipc::MakeFileWriter(sink, schema), where);
    }
    arrow::ArrayVector columns;
    size_t bag = 0;
    for (const auto& field : schema->fields()) columns.push_back(column(*field, bag));
    checked_io(writer->WriteRecordBatch(*arrow::RecordBatch::Make(schema, pending.rows, columns)), where);
    rows += pending.rows;
    clear();
    if (checked_io(sink->Tell(), where) >= part_bytes) close_part();
  }

  void close_part() {
    if (!writer) return;
    checked_io(writer->Close(), where);
    checked_io(sink->Close(), where);
    writer.reset();
  }

  fs::path folder;
  const DatasetInfo info;
  int64_t part_bytes;
  std::shared_ptr<arrow::Schema> schema;
  int64_t batch_rows = 0, rows = 0;
  int parts = 0;
  Batch pending;
  std::string where;  // the current part
  std::shared_ptr<arrow::io::FileOutputStream> sink;
  std::shared_ptr<arrow::ipc::RecordBatchWriter> writer;
};

DatasetWriter::DatasetWriter(fs::path folder, const DatasetInfo& info, int64_t part_bytes)
    : state_(std::make_unique<State>(std::move(folder), info, part_bytes)) {}
DatasetWriter::~DatasetWriter() = default;
void DatasetWriter::append(const Batch& batch) {
  state_->append(batch);
}
void DatasetWriter::finish() {
  state_->flush();
  state_->close_part();
}
int64_t DatasetWriter::rows() const {
  return state_->rows + state_->pending.rows;
}

void write_manifest(const fs::path& dir, const DatasetInfo& info,
                    const std::vector<std::pair<std::string, int64_t>>& split_rows) {
  nlohmann::json splits = nlohmann::json::object(), files = nlohmann::json::array();
  for (const auto& [name, rows] : split_rows) splits[name] = {{"rows", rows}, {"files", nlohmann::json::array()}};
  for (const auto& entry : list_checked_files(dir)) {
    const std::string folder = fs::path(entry["file"].get<std::string>()).begin()->string();
    (splits.contains(folder) ? splits[folder]["files"] : files).push_back(entry);
  }
  write_checked_json(dir / "manifest.json", {{"dataset", to_json(info)}, {"splits", splits}, {"files", files}},
                     kDatasetFormatVersion);
}

}  // namespace ektm
