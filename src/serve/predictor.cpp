#include "serve/predictor.h"

#include <arrow/io/api.h>
#include <fmt/ranges.h>
#include <parquet/arrow/writer.h>

#include "base/error.h"
#include "base/files.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "checkpoint/safetensors.h"
#include "data/arrow_check.h"

namespace ektm {
namespace fs = std::filesystem;
namespace {

std::shared_ptr<arrow::Array> float_column(const at::Tensor& scores, int64_t task, const std::string& where) {
  arrow::FloatBuilder builder;
  checked_io(builder.AppendValues(scores[task].contiguous().const_data_ptr<float>(), scores.size(1)), where);
  return checked_io(builder.Finish(), where);
}

}  // namespace

Predictor::Predictor(const fs::path& run) {
  for (const char* part : {"config.yaml", "schema.yaml", "encoders", "model.safetensors"})
    if (!fs::exists(run / part))
      fail(ErrorKind::Io, run.string(), "no {} was found; expected a run folder that `ektm train` finished. Check the path, or train first.", part);
  config_ = load_run_config(run / "config.yaml", {});
  encoders_ = load_encoders(run);
  network_ = std::make_unique<Network>(config_, encoders_->info());
  const fs::path file = run / "model.safetensors";
  TensorFile weights = load_tensors(file);
  if (weights.metadata["schema_hash"] != info().schema_hash)
    fail(ErrorKind::Model, file.string(), "the weights were trained with schema hash {}, but the run's schema has {}. The folder's files do not "
         "belong together: train again.", weights.metadata["schema_hash"], info().schema_hash);
  load_into(weights, network_->state(false), file);
}

void Predictor::check_dataset(const DatasetInfo& other, const std::string& where) const {
  if (other.schema_hash != info().schema_hash)
    fail(ErrorKind::Data, where, "the data was prepared with schema hash {}, the run with {}. Prepare the data with the run's schema.yaml.",
         other.schema_hash, info().schema_hash);
  for (size_t t = 0; t < info().tables.size(); ++t)
    if (other.tables[t].rows != info().tables[t].rows)
      fail(ErrorKind::Data, where, "table {} has {} rows, in the run it has {}: the encoders were fitted on other training data. Evaluate on the "
           "data set that the run was trained on, or use `ektm predict` on the raw files.", other.tables[t].name, other.tables[t].rows,
           info().tables[t].rows);
}

int64_t predict_files(const Predictor& predictor, const RawInput& input, const std::vector<std::string>& keep, const fs::path& output) {
  const auto& tasks = predictor.info().tasks;
  const std::string where = output.string();
  AtomicFile file(output);
  auto sink = checked_io(arrow::io::FileOutputStream::Open(file.partial_path().string()), where);
  std::unique_ptr<parquet::arrow::FileWriter> writer;
  int64_t rows = 0;
  Progress progress("predict", 0, "rows");
  encode_raw(predictor.encoders(), input, [&](const Batch& batch, const std::shared_ptr<arrow::RecordBatch>& raw) {
    Network::Scores scores = predictor.network().score(batch);
    arrow::FieldVector fields;
    arrow::ArrayVector columns;
    for (const auto& name : keep) {
      auto column = raw->GetColumnByName(name);
      if (!column) {
        std::vector<std::string> names = raw->schema()->field_names();
        fail(ErrorKind::Config, "--keep " + name, "the input has no such column. It has: {}.", fmt::join(names, ", "));
      }
      fields.push_back(arrow::field(name, column->type()));
      columns.push_back(column);
    }
    for (size_t t = 0; t < tasks.size(); ++t) {
      fields.push_back(arrow::field("p_" + tasks[t].name, arrow::float32()));
      columns.push_back(float_column(scores.served, static_cast<int64_t>(t), where));
    }
    for (size_t t = 0; t < tasks.size(); ++t) {
      if (tasks[t].parent < 0) continue;
      fields.push_back(arrow::field("path_" + tasks[t].name, arrow::float32()));
      columns.push_back(float_column(scores.path, static_cast<int64_t>(t), where));
    }
    auto part = arrow::RecordBatch::Make(arrow::schema(fields), batch.rows, columns);
    if (!writer) writer = checked_io(parquet::arrow::FileWriter::Open(*part->schema(), arrow::default_memory_pool(), sink), where);
    checked_io(writer->WriteRecordBatch(*part), where);
    stop_if_interrupted();
    progress.update(rows += batch.rows);
  });
  if (!writer) fail(ErrorKind::Data, fmt::format("{}", fmt::join(input.files, ", ")), "found no rows; nothing was scored.");
  checked_io(writer->Close(), where);
  checked_io(sink->Close(), where);
  file.commit();
  progress.finish();
  return rows;
}

}  // namespace ektm
