#include "data/vocabulary.h"

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <arrow/ipc/api.h>

#include <algorithm>

#include "base/error.h"
#include "data/arrow_check.h"

namespace ektm {
namespace {

constexpr int64_t kMaxTexts = 2'000'000'000;                                // rows of a table are int32
constexpr uint64_t kMaxTextBytes = 1 << 24;
constexpr int64_t kTextsPerBatch = 1 << 16;
constexpr const char* kDamaged = "the vocabulary is damaged: run `ektm prepare` again, or take the folder from a backup";

}  // namespace

int32_t Vocabulary::add(size_t at, const TextKey& key, std::string_view text) {
  constexpr uint64_t kMaxBytes = uint64_t{1} << kStartBits;
  if (size() >= kMaxTexts)
    fail(ErrorKind::Data, "vocabulary", "found more than {} different values; use hash_buckets for this feature.", kMaxTexts);
  if (text.size() >= kMaxTextBytes || bytes_.size() + text.size() >= kMaxBytes)
    fail(ErrorKind::Data, "vocabulary",
         "found a value of {} bytes among {} bytes in all; expected less than {} and {}. Use hash_buckets for this "
         "feature.",
         text.size(), bytes_.size(), kMaxTextBytes, kMaxBytes);
  Slot& slot = slots_[at];
  slot = {key.word, key.size, static_cast<int32_t>(size())};
  if (key.is_exact()) {
    bytes_ += key.text();
  } else {
    slot.word = key.word >> kStartBits << kStartBits | bytes_.size();
    bytes_ += text;
  }
  ends_.push_back(bytes_.size());
  return slot.index;
}

void Vocabulary::grow() {
  std::vector<Slot> old(std::max<size_t>(64, 2 * slots_.size()));
  old.swap(slots_);
  const size_t mask = slots_.size() - 1;
  for (const Slot& slot : old) {
    if (slot.index < 0) continue;
    const bool is_exact = TextKey::is_exact(slot.size);
    size_t at = (is_exact ? TextKey::hash_of(slot.word, slot.size) : TextKey(text(slot.index)).hash) & mask;
    while (slots_[at].index >= 0) at = (at + 1) & mask;
    slots_[at] = slot;
  }
}

void write_vocabulary(const Vocabulary& vocabulary, const std::filesystem::path& file) {
  const std::string where = file.string();
  auto schema = arrow::schema({arrow::field("value", arrow::utf8(), false)});
  auto sink = checked_io(arrow::io::FileOutputStream::Open(where), where);
  auto writer = checked_io(arrow::ipc::MakeFileWriter(sink, schema), where);
  for (int64_t start = 0; start < vocabulary.size(); start += kTextsPerBatch) {
    arrow::StringBuilder values;
    const int64_t end = std::min(start + kTextsPerBatch, vocabulary.size());
    for (int64_t i = start; i < end; ++i) checked_io(values.Append(vocabulary.text(i)), where);
    checked_io(writer->WriteRecordBatch(*arrow::RecordBatch::Make(schema, end - start, {checked_io(values.Finish(), where)})),
               where);
  }
  checked_io(writer->Close(), where);
  checked_io(sink->Close(), where);
}

Vocabulary read_vocabulary(const std::filesystem::path& file) {
  const std::string where = file.string();
  auto source = checked_io(arrow::io::ReadableFile::Open(where), where);
  auto reader = checked_data(arrow::ipc::RecordBatchFileReader::Open(source), where, kDamaged);
  Vocabulary vocabulary;
  for (int b = 0; b < reader->num_record_batches(); ++b) {
    auto batch = checked_data(reader->ReadRecordBatch(b), where, kDamaged);
    if (batch->num_columns() != 1 || batch->column(0)->type_id() != arrow::Type::STRING)
      fail(ErrorKind::Data, where, "{}.", kDamaged);
    checked_data(batch->column(0)->ValidateFull(), where, kDamaged);
    const auto& values = static_cast<const arrow::StringArray&>(*batch->column(0));
    for (int64_t i = 0; i < values.length(); ++i)
      if (vocabulary.insert(values.GetView(i)) != vocabulary.size() - 1)
        fail(ErrorKind::Data, where, "{} (a value stands there twice).", kDamaged);
  }
  return vocabulary;
}

}  // namespace ektm
