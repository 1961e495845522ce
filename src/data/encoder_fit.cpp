#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "data/cell_decode.h"
#include "data/encoder_set.h"

namespace ektm {
namespace {

constexpr int64_t kMaxScenarios = 1000;

// Values with at least `min_count` occurrences, the most frequent first; equally frequent ones by text, so that the order of the
// rows has no influence.
Vocabulary select_values(const Vocabulary& seen, const std::vector<int64_t>& counts, int64_t min_count) {
  std::vector<int32_t> kept;
  for (int32_t i = 0; i < seen.size(); ++i)
    if (counts[i] >= min_count) kept.push_back(i);
  std::sort(kept.begin(), kept.end(),
            [&](int32_t a, int32_t b) { return counts[a] != counts[b] ? counts[a] > counts[b] : seen.text(a) < seen.text(b); });
  Vocabulary vocabulary;
  for (int32_t i : kept) vocabulary.insert(seen.text(i));
  return vocabulary;
}

}  // namespace

struct EncoderFitter::State {
  // The values of a table, over all features that share it.
  struct TableCounts {
    Vocabulary seen;
    std::vector<int64_t> counts;
    int64_t min_count = 1;

    int32_t index(std::string_view text, const CellPlace& place) { return index(text, hash64(text), place); }
    int32_t index(std::string_view text, uint64_t hash, const CellPlace& place) {
      const int32_t index = seen.insert(text, hash);
      if (index == static_cast<int32_t>(counts.size())) {
        check_id_text(text, place);
        counts.push_back(0);
      }
      return index;
    }
  };
  struct FeatureState {
    CellMemo<int32_t> id;  // index into TableCounts, -1 = missing
    CellMemo<std::vector<int32_t>> list;
    CellMemo<double> number;  // NaN = missing
    std::unique_ptr<ScalingFitter> scaling;
    std::unique_ptr<QuantileSample> quantiles;
  };

  explicit State(Schema schema)
      : set(std::make_unique<EncoderSet>(std::move(schema))),
        tables(set->tables.size()),
        features(set->schema().features.size()) {
    for (size_t f = 0; f < features.size(); ++f) {
      const Feature& feature = set->schema().features[f];
      if (feature.kind != FeatureKind::Number) {
        tables[set->slots[f].table].min_count = feature.min_count;
      } else if (feature.bins > 0) {
        features[f].quantiles = std::make_unique<QuantileSample>(f);
      } else {
        features[f].scaling = std::make_unique<ScalingFitter>(feature.normalize);
      }
    }
  }

  void add(const RawChunk& chunk, std::span<const int64_t> rows) {
    for (size_t f = 0; f < features.size(); ++f) {
      const Feature& feature = set->schema().features[f];
      switch (feature.kind) {
        case FeatureKind::Id:
          add_ids(chunk, rows, f);
          break;
        case FeatureKind::Ids:
        case FeatureKind::Sequence:
          add_lists(chunk, rows, f);
          break;
        case FeatureKind::Number:
          add_numbers(chunk, rows, f);
          break;
      }
    }
    if (!set->schema().scenario.empty()) add_scenarios(chunk, rows);
  }

  template <class Value>
  void begin(CellMemo<Value>& memo, const RawChunk& chunk, const std::string& column) {
    memo.begin(chunk, chunk.columns->schema()->GetFieldIndex(column), set->schema());
  }

  void add_ids(const RawChunk& chunk, std::span<const int64_t> rows, size_t f) {
    const Feature& feature = set->schema().features[f];
    begin(features[f].id, chunk, feature.column);
    check_id_column(features[f].id.reader(), chunk, feature.column);
    if (feature.hash_buckets > 0) return;
    TableCounts& table = tables[set->slots[f].table];
    if (!features[f].id.joined()) {
      for (size_t start = 0; start < rows.size(); start += TextBlock::kMaxRows) {
        const auto block = rows.subspan(start, std::min(TextBlock::kMaxRows, rows.size() - start));
        texts.read(features[f].id.reader(), block, table.seen);
        for (size_t i = 0; i < block.size(); ++i)
          if (!texts.missing(i)) ++table.counts[table.index(texts.text(i), texts.hash(i), {chunk, feature.column, block[i]})];
      }
      return;
    }
    for (int64_t row : rows) {
      const int32_t index = features[f].id.get(row, -1, [&](CellReader& reader, int64_t number, int32_t& value) {
        const Cell cell = reader.cell(number);
        value = cell.missing ? -1 : table.index(cell.text, {chunk, feature.column, row});
      });
      if (index >= 0) ++table.counts[index];
    }
  }

  void add_lists(const RawChunk& chunk, std::span<const int64_t> rows, size_t f) {
    const Feature& feature = set->schema().features[f];
    begin(features[f].list, chunk, feature.column);
    check_id_column(features[f].list.reader(), chunk, feature.column);
    if (feature.hash_buckets > 0) return;
    TableCounts& table = tables[set->slots[f].table];
    for (int64_t row : rows) {
      const auto& indices =
          features[f].list.get(row, no_values, [&](CellReader& reader, int64_t number, std::vector<int32_t>& value) {
            reader.elements(number, feature.separator, elements);
            value.clear();
            for (const auto& text : kept_elements(elements, feature))
              value.push_back(table.index(text, {chunk, feature.column, row}));
          });
      for (int32_t index : indices) ++table.counts[index];
    }
  }

  void add_numbers(const RawChunk& chunk, std::span<const int64_t> rows, size_t f) {
    const std::string& column = set->schema().features[f].column;
    FeatureState& state = features[f];
    begin(state.number, chunk, column);
    for (int64_t row : rows) {
      const double value = state.number.get(
          row, std::numeric_limits<double>::quiet_NaN(),
          [&](CellReader& reader, int64_t number, double& out) { out = decode_number(reader, number, {chunk, column, row}); });
      if (std::isnan(value)) continue;
      if (state.scaling)
        state.scaling->add(value);
      else
        state.quantiles->add(value);
    }
  }

  void add_scenarios(const RawChunk& chunk, std::span<const int64_t> rows) {
    const std::string& column = set->schema().scenario;
    begin(scenario, chunk, column);
    check_id_column(scenario.reader(), chunk, column);
    for (int64_t row : rows) {
      const int32_t index = scenario.get(row, -1, [&](CellReader& reader, int64_t number, int32_t& value) {
        const Cell cell = reader.cell(number);
        value = cell.missing ? -1 : scenarios.index(cell.text, {chunk, column, row});
      });
      if (index >= 0) ++scenarios.counts[index];
      if (scenarios.seen.size() > kMaxScenarios)
        fail(ErrorKind::Data, chunk.where(row, column),
             "found more than {} different scenarios; expected few, since metrics are given for each. Name "
             "a coarser column as `scenario` in the schema.",
             kMaxScenarios);
    }
  }

  std::unique_ptr<EncoderSet> finish() {
    for (size_t t = 0; t < tables.size(); ++t)
      if (set->tables[t].kind == TableEncoder::Kind::Vocabulary) {
        set->tables[t].vocabulary = select_values(tables[t].seen, tables[t].counts, tables[t].min_count);
        tables[t] = TableCounts{};
      }
    for (size_t f = 0; f < features.size(); ++f) {
      const Feature& feature = set->schema().features[f];
      const FeatureSlot& slot = set->slots[f];
      if (features[f].quantiles) set->tables[slot.table].edges = features[f].quantiles->edges(feature.bins);
      if (features[f].scaling) {
        const NumberScaling scaling = features[f].scaling->finish();
        if (!std::isfinite(scaling.shift) || !std::isfinite(scaling.scale))
          fail(ErrorKind::Data, "column " + feature.column,
               "the numbers are so large that their spread overflows. Use normalize: log_standard or bins.");
        set->scalings[slot.index] = scaling;
      }
    }
    set->scenarios = select_values(scenarios.seen, scenarios.counts, 1);
    set->update_info();
    return std::move(set);
  }

  std::unique_ptr<EncoderSet> set;
  std::vector<TableCounts> tables;
  std::vector<FeatureState> features;
  CellMemo<int32_t> scenario;
  TableCounts scenarios;
  TextBlock texts;
  std::vector<std::string> elements;
  const std::vector<int32_t> no_values;
};

EncoderFitter::EncoderFitter(Schema schema) : state_(std::make_unique<State>(std::move(schema))) {}
EncoderFitter::~EncoderFitter() = default;
void EncoderFitter::add(const RawChunk& chunk, std::span<const int64_t> rows) {
  state_->add(chunk, rows);
}
std::unique_ptr<EncoderSet> EncoderFitter::finish() {
  return state_->finish();
}

}  // namespace ektm
