// Parquet by pages, so that the size of row groups does not matter.
#include <parquet/arrow/reader.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "data/arrow_check.h"
#include "data/raw_source.h"

namespace ektm {
namespace {

// Of a dictionary, or a list's elements; nullptr: neither.
const arrow::DictionaryArray* dictionary_of(const arrow::Array& column) {
  if (column.type_id() == arrow::Type::DICTIONARY) return static_cast<const arrow::DictionaryArray*>(&column);
  if (column.type_id() == arrow::Type::LIST) return dictionary_of(*static_cast<const arrow::ListArray&>(column).values());
  return nullptr;
}

bool is_text(const arrow::DataType& type) { return type.id() == arrow::Type::STRING; }
bool is_text_list(const arrow::DataType& type) {
  return type.id() == arrow::Type::LIST && is_text(*static_cast<const arrow::ListType&>(type).value_type());
}

class ParquetSource : public Source {
 public:
  ParquetSource(const InputFile& file, int64_t chunk_bytes) : path_(file.path), where_(file.path.string()), bytes_(file.bytes) {
    guarded([&] {
      open(parquet::ArrowReaderProperties(), nullptr);
      check(reader_->GetSchema(&schema_));
      metadata_ = reader_->parquet_reader()->metadata();
      int64_t data_bytes = 0;
      for (int g = 0; g < metadata_->num_row_groups(); ++g) data_bytes += metadata_->RowGroup(g)->total_byte_size();
      total_rows_ = metadata_->num_rows();
      batch_rows_ = rows_for(chunk_bytes, data_bytes, total_rows_);
      names_ = schema_->field_names();
    });
  }

  void select(const std::vector<std::string>& columns) override {
    guarded([&] {
      const auto* descriptor = metadata_->schema();
      parquet::ArrowReaderProperties properties;
      bool has_dictionaries = false;
      for (int leaf = 0; leaf < descriptor->num_columns(); ++leaf) {
        const std::string root = descriptor->GetColumnRoot(leaf)->name();
        if (std::find(columns.begin(), columns.end(), root) == columns.end()) continue;
        leaves_.push_back(leaf);
        const arrow::DataType& type = *schema_->GetFieldByName(root)->type();
        if (!(is_text(type) || is_text_list(type)) || !repeats_texts(leaf)) continue;
        properties.set_read_dictionary(leaf, true);
        has_dictionaries = true;
        by_group_ |= is_text_list(type);
      }
      if (has_dictionaries) open(properties, metadata_);
    });
  }
  void select_all() override {
    leaves_.resize(static_cast<size_t>(metadata_->num_columns()));
    std::iota(leaves_.begin(), leaves_.end(), 0);
  }

  std::shared_ptr<arrow::RecordBatch> next() override {
    std::shared_ptr<arrow::RecordBatch> batch;
    guarded([&] {
      while (!batch && (batches_ || start_groups())) {
        check(batches_->ReadNext(&batch));
        if (!batch) batches_.reset();
      }
      if (batch) check_dictionaries(*batch);
    });
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

  // `metadata`: the footer, where it was read already.
  void open(const parquet::ArrowReaderProperties& arrow_properties, std::shared_ptr<parquet::FileMetaData> metadata) {
    parquet::ReaderProperties properties;
    properties.enable_buffered_stream();  // pages as they are needed, not whole row groups
    properties.set_page_checksum_verification(true);
    parquet::arrow::FileReaderBuilder builder;
    check(builder.Open(open_file(path_), properties, std::move(metadata)));
    builder.properties(arrow_properties);
    reader_ = checked_data(builder.Build(), where_, kDamaged);
    reader_->set_use_threads(false);
  }

  // Whether all texts of a column stand in dictionaries, and these hold few of them: then the dictionary's values are decoded and
  // coded once each, instead of the cells.
  bool repeats_texts(int leaf) const {
    int64_t values = 0, dictionary_bytes = 0;
    for (int g = 0; g < metadata_->num_row_groups(); ++g) {
      const auto group = metadata_->RowGroup(g);
      const auto column = group->ColumnChunk(leaf);
      if (column->num_values() == 0) continue;
      if (!column->has_dictionary_page() || column->encoding_stats().empty()) return false;
      for (const auto& pages : column->encoding_stats()) {
        const bool is_data = pages.page_type == parquet::PageType::DATA_PAGE || pages.page_type == parquet::PageType::DATA_PAGE_V2;
        const bool is_dictionary =
            pages.encoding == parquet::Encoding::PLAIN_DICTIONARY || pages.encoding == parquet::Encoding::RLE_DICTIONARY;
        if (is_data && !is_dictionary && pages.count > 0) return false;
      }
      values += column->num_values();
      dictionary_bytes += column->data_page_offset() - column->dictionary_page_offset();
    }
    return values > 0 && dictionary_bytes < values;
  }

  // Arrow cannot read a batch of lists from two dictionaries: then no batch goes beyond its row group.
  bool start_groups() {
    if (next_group_ == metadata_->num_row_groups()) return false;
    std::vector<int> groups(by_group_ ? 1 : static_cast<size_t>(metadata_->num_row_groups()));
    std::iota(groups.begin(), groups.end(), next_group_);
    next_group_ += static_cast<int>(groups.size());
    reader_->set_batch_size(batch_rows_);
    batches_ = checked_data(reader_->GetRecordBatchReader(groups, leaves_), where_, kDamaged);
    return true;
  }

  // Arrow does not look whether an index lies within its dictionary.
  void check_dictionaries(const arrow::RecordBatch& batch) const {
    for (const auto& column : batch.columns()) {
      const arrow::DictionaryArray* array = dictionary_of(*column);
      if (!array || array->indices()->type_id() != arrow::Type::INT32) continue;
      const int32_t* const indices = static_cast<const arrow::Int32Array&>(*array->indices()).raw_values();
      const uint32_t size = static_cast<uint32_t>(array->dictionary()->length());
      uint32_t highest = 0;
      for (int64_t i = 0; i < array->length(); ++i) highest = std::max(highest, static_cast<uint32_t>(indices[i]));
      for (int64_t i = 0; highest >= size && i < array->length(); ++i)  // what a null holds does not matter
        if (static_cast<uint32_t>(indices[i]) >= size && array->IsValid(i))
          fail(ErrorKind::Data, where_, "{} (an index beyond the dictionary).", kDamaged);
    }
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

  std::filesystem::path path_;
  std::string where_;
  int64_t bytes_ = 0, total_rows_ = 0, rows_read_ = 0, batch_rows_ = 0;
  std::shared_ptr<arrow::Schema> schema_;
  std::shared_ptr<parquet::FileMetaData> metadata_;
  std::vector<int> leaves_;  // the columns that are read
  bool by_group_ = false;
  int next_group_ = 0;
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::unique_ptr<arrow::RecordBatchReader> batches_;
};

}  // namespace

std::unique_ptr<Source> open_parquet(const InputFile& file, int64_t chunk_bytes) {
  return std::make_unique<ParquetSource>(file, chunk_bytes);
}

}  // namespace ektm
