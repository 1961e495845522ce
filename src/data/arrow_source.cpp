// Arrow IPC, file and stream.
#include <arrow/ipc/reader.h>
#include <arrow/util/byte_size.h>

#include <cstring>

#include "base/error.h"
#include "data/arrow_check.h"
#include "data/raw_source.h"

namespace ektm {
namespace {

class ArrowSource : public Source {
 public:
  ArrowSource(const InputFile& file, int64_t chunk_bytes)
      : where_(file.path.string()), chunk_bytes_(chunk_bytes), raw_(open_file(file.path)) {
    bytes_ = checked_data(raw_->GetSize(), where_, kDamaged);
    std::string magic(6, '\0');
    int64_t count = checked_data(raw_->ReadAt(0, static_cast<int64_t>(magic.size()), magic.data()), where_, kDamaged);
    if (count == 0) fail(ErrorKind::Data, where_, "the file is empty; expected Arrow IPC data.");
    if (magic.starts_with("FEA1"))
      fail(ErrorKind::Data, where_, "found Feather version 1; expected Arrow IPC (Feather version 2). Write it again.");
    is_file_ = magic == "ARROW1";
    open(arrow::ipc::IpcReadOptions::Defaults());
    names_ = schema()->field_names();
  }

  void select(const std::vector<std::string>& columns) override {
    auto options = arrow::ipc::IpcReadOptions::Defaults();
    for (const auto& column : columns) options.included_fields.push_back(schema()->GetFieldIndex(column));
    // An empty list would mean all; a batch without columns could not tell its number of rows.
    if (columns.empty() && !names_.empty()) options.included_fields = {0};
    open(options);
  }
  void select_all() override {}

  std::shared_ptr<arrow::RecordBatch> next() override {
    while (!batch_ || offset_ >= batch_->num_rows()) {
      batch_ = read();
      if (!batch_) return nullptr;
      check_buffers(*batch_);
      offset_ = 0;
      slice_rows_ = rows_for(chunk_bytes_, arrow::util::TotalBufferSize(*batch_), batch_->num_rows());
    }
    auto slice = batch_->Slice(offset_, slice_rows_);
    offset_ += slice->num_rows();
    return slice;
  }
  int64_t bytes_read() override {
    if (is_file_)
      return file_reader_->num_record_batches() == 0 ? bytes_ : bytes_ * batches_read_ / file_reader_->num_record_batches();
    auto position = raw_->Tell();
    return position.ok() ? *position : 0;
  }

 private:
  static constexpr const char* kDamaged = "the Arrow file is damaged or cut off: copy or write it again";

  std::shared_ptr<arrow::Schema> schema() const { return is_file_ ? file_reader_->schema() : stream_reader_->schema(); }

  void open(arrow::ipc::IpcReadOptions options) {
    options.use_threads = false;
    if (is_file_) {
      file_reader_ = checked_data(arrow::ipc::RecordBatchFileReader::Open(raw_, options), where_, kDamaged);
    } else {
      checked_data(raw_->Seek(0), where_, kDamaged);
      stream_reader_ = checked_data(arrow::ipc::RecordBatchStreamReader::Open(raw_, options), where_, kDamaged);
    }
  }

  std::shared_ptr<arrow::RecordBatch> read() {
    if (is_file_) {
      if (batches_read_ == file_reader_->num_record_batches()) return nullptr;
      return checked_data(file_reader_->ReadRecordBatch(batches_read_++), where_, kDamaged);
    }
    std::shared_ptr<arrow::RecordBatch> batch;
    checked_data(stream_reader_->ReadNext(&batch), where_, kDamaged);
    if (!batch) check_end_of_stream();
    return batch;
  }

  // Arrow takes a stream that is cut off between two messages for a whole one; only the end mark tells them apart.
  void check_end_of_stream() {
    static constexpr unsigned char kEndMark[8] = {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0};
    unsigned char last[8] = {};
    auto count = bytes_ >= 8 ? raw_->ReadAt(bytes_ - 8, 8, last) : arrow::Result<int64_t>(0);
    if (!count.ok() || *count != 8 || std::memcmp(last, kEndMark, 8) != 0)
      fail(ErrorKind::Data, where_,
           "the Arrow stream has no end mark, so it was cut off: copy or write it again (and close the writer).");
  }

  // Offsets that point outside their buffers must not reach the readers of cells. Texts are checked as bytes: their UTF-8 is
  // CellReader's.
  void check_buffers(const arrow::RecordBatch& batch) {
    for (int i = 0; i < batch.num_columns(); ++i) {
      std::shared_ptr<arrow::Array> column = batch.column(i);
      checked_data(column->Validate(), where_ + ", column " + batch.column_name(i), kDamaged);
      auto status = arrow::MakeArray(texts_as_bytes(*column->data()))->ValidateFull();
      checked_data(status, where_ + ", column " + batch.column_name(i), kDamaged);
    }
  }

  static std::shared_ptr<arrow::ArrayData> texts_as_bytes(const arrow::ArrayData& data) {
    auto copy = data.Copy();
    if (!copy->child_data.empty()) copy->child_data[0] = texts_as_bytes(*data.child_data[0]);
    if (copy->dictionary) copy->dictionary = texts_as_bytes(*data.dictionary);
    switch (data.type->id()) {
      case arrow::Type::STRING: copy->type = arrow::binary(); break;
      case arrow::Type::LARGE_STRING: copy->type = arrow::large_binary(); break;
      case arrow::Type::LIST: copy->type = arrow::list(copy->child_data[0]->type); break;
      case arrow::Type::LARGE_LIST: copy->type = arrow::large_list(copy->child_data[0]->type); break;
      case arrow::Type::FIXED_SIZE_LIST:
        copy->type = arrow::fixed_size_list(copy->child_data[0]->type,
                                            static_cast<const arrow::FixedSizeListType&>(*data.type).list_size());
        break;
      case arrow::Type::DICTIONARY:
        copy->type =
            arrow::dictionary(static_cast<const arrow::DictionaryType&>(*data.type).index_type(), copy->dictionary->type);
        break;
      default: return data.Copy();  // kinds that CellReader refuses, or that hold no text
    }
    return copy;
  }

  std::string where_;
  int64_t bytes_ = 0, chunk_bytes_ = 0, offset_ = 0, slice_rows_ = 0;
  int batches_read_ = 0;
  bool is_file_ = false;
  std::shared_ptr<arrow::io::ReadableFile> raw_;
  std::shared_ptr<arrow::ipc::RecordBatchFileReader> file_reader_;
  std::shared_ptr<arrow::ipc::RecordBatchStreamReader> stream_reader_;
  std::shared_ptr<arrow::RecordBatch> batch_;
};

}  // namespace

std::unique_ptr<Source> open_arrow(const InputFile& file, int64_t chunk_bytes) {
  return std::make_unique<ArrowSource>(file, chunk_bytes);
}

}  // namespace ektm
