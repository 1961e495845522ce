// Parquet by pages, so that the size of row groups does not matter.
#include <parquet/arrow/reader.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>

#include <algorithm>

#include "base/error.h"
#include "data/arrow_check.h"
#include "data/raw_source.h"

namespace ektm {
namespace {

class ParquetSource : public Source {
 public:
  ParquetSource(const InputFile& file, int64_t chunk_bytes) : where_(file.path.string()), bytes_(file.bytes) {
    guarded([&] {
      parquet::ReaderProperties properties;
      properties.enable_buffered_stream();  // pages as they are needed, not whole row groups
      properties.set_page_checksum_verification(true);
      parquet::arrow::FileReaderBuilder builder;
      check(builder.Open(open_file(file.path), properties));
      reader_ = checked_data(builder.Build(), where_, kDamaged);
      check(reader_->GetSchema(&schema_));
      auto metadata = reader_->parquet_reader()->metadata();
      int64_t data_bytes = 0;
      for (int g = 0; g < metadata->num_row_groups(); ++g) data_bytes += metadata->RowGroup(g)->total_byte_size();
      total_rows_ = metadata->num_rows();
      reader_->set_use_threads(false);
      reader_->set_batch_size(rows_for(chunk_bytes, data_bytes, total_rows_));
      names_ = schema_->field_names();
    });
  }

  void select(const std::vector<std::string>& columns) override {
    guarded([&] {
      const auto* descriptor = reader_->parquet_reader()->metadata()->schema();
      std::vector<int> leaves;
      for (int leaf = 0; leaf < descriptor->num_columns(); ++leaf) {
        std::string root = descriptor->GetColumnRoot(leaf)->name();
        if (std::find(columns.begin(), columns.end(), root) != columns.end()) leaves.push_back(leaf);
      }
      open(leaves);
    });
  }
  void select_all() override {
    guarded([&] {
      std::vector<int> leaves(reader_->parquet_reader()->metadata()->num_columns());
      for (size_t i = 0; i < leaves.size(); ++i) leaves[i] = static_cast<int>(i);
      open(leaves);
    });
  }

  std::shared_ptr<arrow::RecordBatch> next() override {
    std::shared_ptr<arrow::RecordBatch> batch;
    guarded([&] { check(batches_->ReadNext(&batch)); });
    if (batch) rows_read_ += batch->num_rows();
    if (!batch && rows_read_ != total_rows_)
      fail(ErrorKind::Data, where_, "found {} rows; the file's footer promises {}. {}.", rows_read_, total_rows_, kDamaged);
    return batch;
  }
  int64_t bytes_read() override {
    return total_rows_ == 0 ? bytes_ : static_cast<int64_t>(static_cast<double>(bytes_) * rows_read_ / total_rows_);
  }

 private:
  static constexpr const char* kDamaged = "the Parquet file is damaged or cut off: copy or write it again";

  void open(const std::vector<int>& leaves) {
    std::vector<int> groups(reader_->num_row_groups());
    for (size_t i = 0; i < groups.size(); ++i) groups[i] = static_cast<int>(i);
    batches_ = checked_data(reader_->GetRecordBatchReader(groups, leaves), where_, kDamaged);
  }
  void check(const arrow::Status& status) {
    checked_data(status, where_, status.IsNotImplemented() ? "uses a part of Parquet that Arrow cannot read" : kDamaged);
  }
  template <class Work>
  void guarded(const Work& work) {
    try {
      work();
    } catch (const parquet::ParquetException& error) {
      fail(ErrorKind::Data, where_, "{} ({}).", kDamaged, error.what());
    }
  }

  std::string where_;
  int64_t bytes_ = 0, total_rows_ = 0, rows_read_ = 0;
  std::shared_ptr<arrow::Schema> schema_;
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::unique_ptr<arrow::RecordBatchReader> batches_;
};

}  // namespace

std::unique_ptr<Source> open_parquet(const InputFile& file, int64_t chunk_bytes) {
  return std::make_unique<ParquetSource>(file, chunk_bytes);
}

}  // namespace ektm
