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

int32_t Vocabulary::insert(const TextKey& key, std::string_view text) {
  // While the table stays in the cache, room is cheap, and a look-up that goes beyond one slot costs a mispredicted branch.
  const size_t room = slots_.size() <= kSlotsInCache ? slots_.size() / 8 : slots_.size() / 2;
  if (ends_.size() >= room) grow();
  const size_t at = probe(key, text);
  return slots_[at].index >= 0 ? slots_[at].index : add(at, key, text);
}

int32_t Vocabulary::add(size_t at, const TextKey& key, std::string_view text) {
    if (size() >= kMaxTexts)
    fail(ErrorKind::Data, "vocabulary", "found more than {} different values; use hash_buckets for this feature.", kMaxTexts);
  if (text.size() >= kMaxTextBytes)
    fail(ErrorKind::Data, "vocabulary", "found a value of {} bytes; expected less than {}. Use hash_buckets for this feature.",
         text.size(), kMaxTextBytes);
  Slot& slot = slots_[at];
  slot = {key.first, key.is_exact() ? key.last : bytes_.size(), key.size, static_cast<int32_t>(size())};
  if (key.is_exact())
    bytes_ += key.text();
  else
    bytes_ += text;
  ends_.push_back(bytes_.size());
  return slot.index;
}

void Vocabulary::grow() {
  std::vector<Slot> old(std::max<size_t>(256, 2 * slots_.size()));
  old.swap(slots_);
  const size_t mask = slots_.size() - 1;
  for (const Slot& slot : old) {
    if (slot.index < 0) continue;
    TextKey key;
    key.first = slot.first;
    key.last = TextKey::is_exact(slot.size) ? slot.last : 0;
    key.size = slot.size;
    key.set_hash();
    size_t at = key.hash & mask;
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
