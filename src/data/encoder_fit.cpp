#include "data/encoder_fit.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace ektm {
namespace {

constexpr int64_t kMaxScenarios = 1000;

// Values with at least `min_count` occurrences, the most frequent first; equally frequent ones by text, so that the order of the
// rows has no influence. Their indices in `seen`.
std::vector<int32_t> select_values(const Vocabulary& seen, const std::vector<int64_t>& counts, int64_t min_count) {
  std::vector<int32_t> kept;
  for (int32_t i = 0; i < seen.size(); ++i)
    if (counts[i] >= min_count) kept.push_back(i);
  std::sort(kept.begin(), kept.end(),
            [&](int32_t a, int32_t b) { return counts[a] != counts[b] ? counts[a] > counts[b] : seen.text(a) < seen.text(b); });
  return kept;
}

// Fills `vocabulary` with those values; map[i]: the place of value i among them plus `first`, `other` of one that is not kept.
std::vector<int32_t> keep_values(const Vocabulary& seen, const std::vector<int32_t>& kept, int32_t first, int32_t other,
                                 Vocabulary& vocabulary) {
  std::vector<int32_t> map(static_cast<size_t>(seen.size()), other);
  for (int32_t i : kept) map[i] = first + vocabulary.insert(seen.text(i));
  return map;
}

}  // namespace

struct EncoderFitter::State {
  struct NumberState {
    std::unique_ptr<ScalingFitter> scaling;
    std::unique_ptr<QuantileSample> quantiles;
  };

  explicit State(Schema schema)
      : set(std::make_unique<EncoderSet>(std::move(schema))),
        coder(*set, CellCoder::Mode::Learn),
        counts(set->tables.size()),
        min_counts(set->tables.size(), 1),
        numbers(set->schema().features.size()) {
    for (size_t f = 0; f < numbers.size(); ++f) {
      const Feature& feature = set->schema().features[f];
      if (feature.kind != FeatureKind::Number) {
        min_counts[set->slots[f].table] = feature.min_count;
      } else if (feature.bins > 0) {
        numbers[f].quantiles = std::make_unique<QuantileSample>(f);
      } else {
        numbers[f].scaling = std::make_unique<ScalingFitter>(feature.normalize);
      }
    }
  }

  void add(size_t part, const RawChunk& chunk, std::span<const int64_t> fitted, CodedChunk& coded) {
    coder.code(part, chunk, coded);
    for (size_t f : coder.features_of(part)) {
      const CodedColumn& column = coded.features[f];
      const FeatureSlot& slot = set->slots[f];
      if (set->schema().features[f].kind == FeatureKind::Number)
        add_numbers(column, fitted, numbers[f]);
      else if (set->tables[slot.table].kind == TableEncoder::Kind::Vocabulary)
        add_values(column, fitted, coder.seen(slot.table).size(), counts[slot.table]);
    }
    if (part + 1 == coder.parts()) add_scenarios(chunk, fitted, coded);
  }

  static void add_values(const CodedColumn& column, std::span<const int64_t> fitted, int64_t values,
                         std::vector<int64_t>& counts) {
    counts.resize(static_cast<size_t>(kFirstValueRow + values), 0);
    if (column.offsets.empty()) {
      for (int64_t row : fitted) ++counts[column.codes[row]];
    } else {
      for (int64_t row : fitted)
        for (int32_t i = column.offsets[row]; i < column.offsets[row + 1]; ++i) ++counts[column.codes[i]];
    }
  }

  static void add_numbers(const CodedColumn& column, std::span<const int64_t> fitted, NumberState& state) {
    for (int64_t row : fitted) {
      const double value = column.numbers[row];
      if (std::isnan(value)) continue;
      if (state.scaling)
        state.scaling->add(value);
      else
        state.quantiles->add(value);
    }
  }

  void add_scenarios(const RawChunk& chunk, std::span<const int64_t> fitted, const CodedChunk& coded) {
    if (coded.scenarios.empty()) return;
    scenario_counts.resize(static_cast<size_t>(coder.seen_scenarios().size()), 0);
    for (int64_t row : fitted) {
      const int32_t code = coded.scenarios[row];
      if (code < 0) continue;
      fitted_scenarios += scenario_counts[code]++ == 0;
      if (fitted_scenarios > kMaxScenarios)
        fail(ErrorKind::Data, chunk.where(row, set->schema().scenario),
             "found more than {} different scenarios; expected few, since metrics are given for each. Name "
             "a coarser column as `scenario` in the schema.",
             kMaxScenarios);
    }
  }

  FittedEncoders finish() {
    RowMaps maps;
    maps.tables.resize(set->tables.size());
    for (size_t t = 0; t < set->tables.size(); ++t) {
      TableEncoder& table = set->tables[t];
      if (table.kind != TableEncoder::Kind::Vocabulary) continue;
      counts[t].erase(counts[t].begin(), counts[t].begin() + std::min<size_t>(counts[t].size(), kFirstValueRow));
      const Vocabulary& seen = coder.seen(t);
      maps.tables[t] =
          keep_values(seen, select_values(seen, counts[t], min_counts[t]), kFirstValueRow, kOovRow, table.vocabulary);
      maps.tables[t].insert(maps.tables[t].begin(), {kMissingRow, kOovRow});
    }
    for (size_t f = 0; f < numbers.size(); ++f) {
      const Feature& feature = set->schema().features[f];
      const FeatureSlot& slot = set->slots[f];
      if (numbers[f].quantiles) set->tables[slot.table].edges = numbers[f].quantiles->edges(feature.bins);
      if (numbers[f].scaling) {
        const NumberScaling scaling = numbers[f].scaling->finish();
        if (!std::isfinite(scaling.shift) || !std::isfinite(scaling.scale))
          fail(ErrorKind::Data, "column " + feature.column,
               "the numbers are so large that their spread overflows. Use normalize: log_standard or bins.");
        set->scalings[slot.index] = scaling;
      }
    }
    const Vocabulary& scenarios = coder.seen_scenarios();
    maps.scenarios = keep_values(scenarios, select_values(scenarios, scenario_counts, 1), 0, -1, set->scenarios);
    set->update_info();
    return {std::move(set), std::move(maps)};
  }

  std::unique_ptr<EncoderSet> set;
  CellCoder coder;
  std::vector<std::vector<int64_t>> counts;  // aligned with set->tables; by provisional row
  std::vector<int64_t> min_counts;           // likewise
  std::vector<NumberState> numbers;          // aligned with features
  std::vector<int64_t> scenario_counts;      // by code
  int64_t fitted_scenarios = 0;
};

EncoderFitter::EncoderFitter(Schema schema) : state_(std::make_unique<State>(std::move(schema))) {}
EncoderFitter::~EncoderFitter() = default;
size_t EncoderFitter::parts() const { return state_->coder.parts(); }
void EncoderFitter::add(size_t part, const RawChunk& chunk, std::span<const int64_t> fitted, CodedChunk& coded) {
  state_->add(part, chunk, fitted, coded);
}
FittedEncoders EncoderFitter::finish() { return state_->finish(); }

}  // namespace ektm
