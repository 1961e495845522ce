#include "data/batch_assembler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace ektm {
namespace {

constexpr size_t kBlockRows = 1024;  // columns write into rows of the batch: a block of them stays in the cache

}  // namespace

void BatchAssembler::assemble(const CodedChunk& coded, const RawChunk& place, std::span<const int64_t> rows, Batch& batch,
                              EncodeCounts& counts) const {
  const DatasetInfo& info = set_.info();
  const size_t count = rows.size(), features = set_.slots.size(), tasks = info.tasks.size();
  counts.rows += static_cast<int64_t>(count);
  counts.fields.resize(features);
  counts.tasks.resize(tasks);
  batch.rows = static_cast<int64_t>(count);
  batch.ids.resize(count * info.fields.size());
  batch.numbers.resize(count * info.numbers.size());
  batch.bags.resize(info.bags.size());
  batch.labels.resize(count * tasks);
  batch.observed.resize(count * tasks);
  batch.weights.resize(info.has_weight ? count : 0);
  batch.groups.resize(info.has_group ? count : 0);
  batch.scenarios.resize(info.scenarios.empty() ? 0 : count);

  for (size_t start = 0; start < count; start += kBlockRows) {
    const auto block = rows.subspan(start, std::min(kBlockRows, count - start));
    for (size_t f = 0; f < features; ++f) {
      const FeatureSlot& slot = set_.slots[f];
      if (slot.kind == FeatureSlot::Kind::Field)
        put_field(coded.features[f], f, block, &batch.ids[start * info.fields.size() + slot.index], counts.fields[f]);
      if (slot.kind == FeatureSlot::Kind::Number)
        put_number(coded.features[f], place, f, block, &batch.numbers[start * info.numbers.size() + slot.index],
                   counts.fields[f]);
    }
    for (size_t i = 0; i < block.size(); ++i) {
      const uint8_t* bits = &coded.labels[static_cast<size_t>(block[i]) * tasks];
      for (size_t t = 0; t < tasks; ++t) {
        const bool label = bits[t] & kLabelBit, observed = bits[t] & kObservedBit;
        batch.labels[(start + i) * tasks + t] = label;
        batch.observed[(start + i) * tasks + t] = observed;
        counts.tasks[t].observed += observed;
        counts.tasks[t].positives += label;
        counts.tasks[t].orphans += (bits[t] & kOrphanBit) != 0;
      }
    }
  }
  for (size_t f = 0; f < features; ++f)
    if (set_.slots[f].kind == FeatureSlot::Kind::Bag)
      put_bag(coded.features[f], f, rows, batch.bags[set_.slots[f].index], counts.fields[f]);
  for (size_t i = 0; i < batch.weights.size(); ++i) batch.weights[i] = coded.weights[rows[i]];
  for (size_t i = 0; i < batch.groups.size(); ++i) batch.groups[i] = coded.groups[rows[i]];
  for (size_t i = 0; i < batch.scenarios.size(); ++i) {
    const int32_t code = coded.scenarios[rows[i]];
    batch.scenarios[i] = maps_ && code >= 0 ? maps_->scenarios[code] : code;
  }
}

void BatchAssembler::put_field(const CodedColumn& column, size_t f, std::span<const int64_t> rows, int32_t* ids,
                               EncodeCounts::Field& counts) const {
  const size_t width = set_.info().fields.size();
  const TableEncoder& table = set_.tables[set_.slots[f].table];
  int64_t missing = 0, unseen = 0;
  auto put = [&](const auto& id_of) {
    for (size_t i = 0; i < rows.size(); ++i) {
      const int32_t id = id_of(rows[i]);
      ids[i * width] = id;
      missing += id == kMissingRow;
      unseen += id == kOovRow;
    }
  };
  if (table.kind == TableEncoder::Kind::Bins) {
    put([&](int64_t row) {
      const double x = column.numbers[row];
      return std::isnan(x) ? kMissingRow : kFirstValueRow + bin_of(table.edges, x);
    });
  } else if (const int32_t* map = map_of(set_.slots[f].table)) {
    put([&, codes = column.codes.data()](int64_t row) { return map[codes[row]]; });
  } else {
    put([&](int64_t row) { return column.codes[row]; });
  }
  counts.values += static_cast<int64_t>(rows.size());
  counts.missing += missing;
  counts.unseen += unseen;
}

void BatchAssembler::put_number(const CodedColumn& column, const RawChunk& place, size_t f, std::span<const int64_t> rows,
                                float* numbers, EncodeCounts::Field& counts) const {
  const size_t width = set_.info().numbers.size();
  const NumberScaling& scaling = set_.scalings[set_.slots[f].index];
  for (size_t i = 0; i < rows.size(); ++i) {
    const double raw = column.numbers[rows[i]];
    const bool missing = std::isnan(raw);
    const float value = missing ? 0 : static_cast<float>(scaling.apply(raw));
    if (!std::isfinite(value))
      fail(ErrorKind::Data, place.where(rows[i], set_.schema().features[f].column),
           "found {}, which is {} after normalisation; expected a number that a 32-bit float can hold. Use "
           "normalize: log_standard or bins, or correct the data.",
           raw, scaling.apply(raw));
    numbers[i * width] = value;
    counts.missing += missing;
  }
  counts.values += static_cast<int64_t>(rows.size());
}

void BatchAssembler::put_bag(const CodedColumn& column, size_t f, std::span<const int64_t> rows, Bag& bag,
                             EncodeCounts::Field& counts) const {
  const int32_t* map = map_of(set_.slots[f].table);
  bag.offsets.resize(rows.size() + 1);
  bag.offsets[0] = 0;
  bag.values.resize(column.codes.size());
  int32_t* const values = bag.values.data();
  int32_t* out = values;
  int64_t missing = 0, unseen = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const int32_t first = column.offsets[rows[i]], last = column.offsets[rows[i] + 1];
    missing += column.codes[first] == kMissingRow;
    for (int32_t k = first; k < last; ++k) {
      const int32_t id = map ? map[column.codes[k]] : column.codes[k];
      unseen += id == kOovRow;
      *out++ = id;
    }
    bag.offsets[i + 1] = static_cast<int32_t>(out - values);
  }
  bag.values.resize(static_cast<size_t>(out - values));
  counts.values += static_cast<int64_t>(bag.values.size()) - missing;
  counts.missing += missing;
  counts.unseen += unseen;
}

}  // namespace ektm
