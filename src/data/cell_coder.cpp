#include "data/cell_coder.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/hash.h"
#include "data/cell_decode.h"
#include "data/cell_memo.h"
#include "data/label_coder.h"

namespace ektm {
namespace {

constexpr size_t kBlockRows = 256;

// The rows of a table's values; learns new ones or not.
class TableRows {
 public:
  TableRows(const TableEncoder& table, bool learns) : table_(table), learns_(learns) {}
  const Vocabulary& seen() const { return seen_; }

  // The rows of `texts`. place(i): where text i stands.
  template <class Place>
  void find(std::span<const std::string_view> texts, int32_t* rows, const Place& place) {
    if (table_.kind == TableEncoder::Kind::Hash) {
      for (size_t i = 0; i < texts.size(); ++i) {
        check_id_text(texts[i], place(i));
        rows[i] = kFirstValueRow + static_cast<int32_t>(hash64(texts[i]) % static_cast<uint64_t>(table_.hash_buckets));
      }
      return;
    }
    const Vocabulary& vocabulary = learns_ ? seen_ : table_.vocabulary;
    hashes_.resize(texts.size());
    for (size_t i = 0; i < texts.size(); ++i) hashes_[i] = Vocabulary::hash(texts[i]);
    if (vocabulary.is_large()) {
      for (uint32_t hash : hashes_) vocabulary.prefetch_slot(hash);
      for (uint32_t hash : hashes_) vocabulary.prefetch_text(hash);
    }
    for (size_t i = 0; i < texts.size(); ++i) {
      int32_t index;
      if (learns_) {
        const int64_t size = seen_.size();
        index = seen_.insert(texts[i], hashes_[i]);
        if (index < size) {
          rows[i] = kFirstValueRow + index;
          continue;
        }
      } else {
        index = table_.vocabulary.find(texts[i], hashes_[i]);
      }
      rows[i] = index >= 0 ? kFirstValueRow + index : kOovRow;
      if (learns_ || index < 0) check_id_text(texts[i], place(i));
    }
  }

 private:
  const TableEncoder& table_;
  bool learns_;
  Vocabulary seen_;  // by provisional rows
  std::vector<uint32_t> hashes_;
};

template <class Value>
void begin_column(CellMemo<Value>& memo, const RawChunk& chunk, const std::string& column, const Schema& schema) {
  memo.begin(chunk, chunk.columns->schema()->GetFieldIndex(column), schema);
}

// values[row] for all rows of the chunk. decode(cell, row) gives the value of a cell; each cell of a joined column is decoded
// once, for the first row that has it. `missing`: the value of a row without a match.
template <class Value, class Decode>
void decode_column(CellMemo<Value>& memo, size_t rows, const Value& missing, Value* values, const Decode& decode) {
  if (memo.joined()) {
    for (size_t r = 0; r < rows; ++r) {
      const int64_t row = static_cast<int64_t>(r);
      values[r] = memo.get(row, missing, [&](int64_t cell, Value& value) { value = decode(memo.reader().cell(cell), row); });
    }
    return;
  }
  std::array<Cell, kBlockRows> cells;
  for (size_t start = 0; start < rows; start += kBlockRows) {
    const size_t count = std::min(kBlockRows, rows - start);
    memo.reader().cells(static_cast<int64_t>(start), count, cells.data());
    for (size_t i = 0; i < count; ++i) values[start + i] = decode(cells[i], static_cast<int64_t>(start + i));
  }
}

}  // namespace

struct CellCoder::State {
  // One feature; with its own scratch, so that features can be coded side by side.
  struct FeatureState {
    CellMemo<int32_t> id;
    CellMemo<std::vector<int32_t>> list;
    CellMemo<double> number;
    std::vector<std::string_view> elements;
  };

  State(const EncoderSet& set_in, Mode mode_in)
      : set(set_in), schema(set_in.schema()), mode(mode_in), features(schema.features.size()), labels(schema) {
    for (const auto& table : set.tables) tables.emplace_back(table, mode == Mode::Learn);
    parts.resize(set.tables.size());
    for (size_t f = 0; f < features.size(); ++f) {
      if (schema.features[f].kind == FeatureKind::Number)
        parts.push_back({f});
      else
        parts[set.slots[f].table].push_back(f);
    }
    std::erase_if(parts, [](const auto& part) { return part.empty(); });
    std::sort(parts.begin(), parts.end());
  }

  bool absent(const RawChunk& chunk, const std::string& column) const {
    return mode == Mode::Predict && chunk.columns->GetColumnByName(column)->type_id() == arrow::Type::NA;
  }

  void code_feature(size_t f, const RawChunk& chunk, CodedColumn& out) {
    switch (schema.features[f].kind) {
      case FeatureKind::Id: return code_ids(f, chunk, out);
      case FeatureKind::Ids:
      case FeatureKind::Sequence: return code_lists(f, chunk, out);
      case FeatureKind::Number: return code_numbers(f, chunk, out);
    }
  }

  void code_ids(size_t f, const RawChunk& chunk, CodedColumn& out) {
    const std::string& column = schema.features[f].column;
    CellMemo<int32_t>& memo = features[f].id;
    TableRows& table = tables[set.slots[f].table];
    begin_column(memo, chunk, column, schema);
    check_id_column(memo.reader(), chunk, column);
    const size_t rows = static_cast<size_t>(chunk.rows());
    out.codes.resize(rows);
    if (memo.joined()) {
      for (size_t r = 0; r < rows; ++r) {
        const int64_t row = static_cast<int64_t>(r);
        out.codes[r] = memo.get(row, kMissingRow, [&](int64_t number, int32_t& value) {
          const Cell cell = memo.reader().cell(number);
          value = kMissingRow;
          if (!cell.missing) table.find({&cell.text, 1}, &value, [&](size_t) { return CellPlace{chunk, column, row}; });
        });
      }
      return;
    }
    std::array<std::string_view, kBlockRows> texts;
    std::array<int32_t, kBlockRows> found;
    std::array<uint32_t, kBlockRows> places;  // of each known text in the block
    for (size_t start = 0; start < rows; start += kBlockRows) {
      const size_t count = std::min(kBlockRows, rows - start);
      memo.reader().texts(static_cast<int64_t>(start), count, texts.data());
      int32_t* codes = &out.codes[start];
      auto is_missing = [](std::string_view text) { return text.data() == nullptr; };
      if (std::none_of(texts.begin(), texts.begin() + count, is_missing)) {
        table.find({texts.data(), count}, codes,
                   [&](size_t i) { return CellPlace{chunk, column, static_cast<int64_t>(start + i)}; });
        continue;
      }
      size_t known = 0;
      for (size_t i = 0; i < count; ++i) {
        const std::string_view text = texts[i];
        texts[known] = text;
        places[known] = static_cast<uint32_t>(i);
        known += !is_missing(text);
      }
      table.find({texts.data(), known}, found.data(),
                 [&](size_t k) { return CellPlace{chunk, column, static_cast<int64_t>(start + places[k])}; });
      std::fill(codes, codes + count, kMissingRow);
      for (size_t k = 0; k < known; ++k) codes[places[k]] = found[k];
    }
  }

  void code_lists(size_t f, const RawChunk& chunk, CodedColumn& out) {
    const Feature& feature = schema.features[f];
    FeatureState& state = features[f];
    TableRows& table = tables[set.slots[f].table];
    begin_column(state.list, chunk, feature.column, schema);
    check_id_column(state.list.reader(), chunk, feature.column);
    out.codes.clear();
    out.offsets.assign(1, 0);
    // Appends the codes of a cell to `to`.
    auto append = [&](int64_t cell, int64_t row, std::vector<int32_t>& to) {
      state.list.reader().elements(cell, feature.separator, state.elements);
      const auto kept = kept_elements(state.elements, feature);
      const size_t start = to.size();
      to.resize(start + std::max<size_t>(kept.size(), 1));
      if (kept.empty())
        to[start] = kMissingRow;
      else
        table.find(kept, &to[start], [&](size_t) { return CellPlace{chunk, feature.column, row}; });
    };
    static const std::vector<int32_t> missing = {kMissingRow};
    for (int64_t row = 0; row < chunk.rows(); ++row) {
      if (state.list.joined()) {
        const auto& codes =
            state.list.get(row, missing, [&](int64_t cell, std::vector<int32_t>& value) { append(cell, row, value); });
        out.codes.insert(out.codes.end(), codes.begin(), codes.end());
      } else {
        append(row, row, out.codes);
      }
      out.offsets.push_back(static_cast<int32_t>(out.codes.size()));
    }
  }

  void code_numbers(size_t f, const RawChunk& chunk, CodedColumn& out) {
    const std::string& column = schema.features[f].column;
    CellMemo<double>& memo = features[f].number;
    begin_column(memo, chunk, column, schema);
    const size_t rows = static_cast<size_t>(chunk.rows());
    out.numbers.resize(rows);
    if (!memo.joined() && memo.reader().numbers(0, rows, out.numbers.data())) return;
    decode_column(memo, rows, std::numeric_limits<double>::quiet_NaN(), out.numbers.data(),
                  [&](const Cell& cell, int64_t row) { return decode_number(cell, {chunk, column, row}); });
  }

  void code_weights(const RawChunk& chunk, CodedChunk& coded) {
    coded.weights.assign(static_cast<size_t>(chunk.rows()), 1);
    if (absent(chunk, schema.weight)) return;
    begin_column(weight, chunk, schema.weight, schema);
    constexpr float kMissing = std::numeric_limits<float>::quiet_NaN();
    decode_column(weight, coded.weights.size(), kMissing, coded.weights.data(), [&](const Cell& cell, int64_t row) {
      const std::optional<double> x = cell.missing ? std::nullopt : parse_finite(cell.text);
      const float value = x && *x >= 0 ? static_cast<float>(*x) : kMissing;
      if (!cell.missing && !std::isfinite(value))
        fail(ErrorKind::Data, CellPlace{chunk, schema.weight, row}.where(),
             "found the weight '{}'; expected a finite number of at least 0. Correct the data.", cell.text);
      return value;
    });
    for (size_t r = 0; r < coded.weights.size(); ++r)
      if (std::isnan(coded.weights[r]))
        fail(ErrorKind::Data, CellPlace{chunk, schema.weight, static_cast<int64_t>(r)}.where(),
             "the weight is missing; expected a number of at least 0. Correct the data.");
  }

  void code_groups(const RawChunk& chunk, CodedChunk& coded) {
    static const uint64_t missing = hash64("");
    coded.groups.resize(static_cast<size_t>(chunk.rows()));
    begin_column(group, chunk, schema.group, schema);
    decode_column(group, coded.groups.size(), missing, coded.groups.data(),
                  [&](const Cell& cell, int64_t) { return cell.missing ? missing : hash64(cell.text); });
  }

  void code_scenarios(const RawChunk& chunk, CodedChunk& coded) {
    coded.scenarios.resize(static_cast<size_t>(chunk.rows()));
    begin_column(scenario, chunk, schema.scenario, schema);
    if (mode == Mode::Learn) check_id_column(scenario.reader(), chunk, schema.scenario);
    decode_column(scenario, coded.scenarios.size(), -1, coded.scenarios.data(), [&](const Cell& cell, int64_t row) {
      if (cell.missing) return -1;
      if (mode != Mode::Learn) return set.scenarios.find(cell.text);
      const int64_t size = seen_scenarios.size();
      const int32_t index = seen_scenarios.insert(cell.text);
      if (index == size) check_id_text(cell.text, {chunk, schema.scenario, row});
      return index;
    });
  }

  const EncoderSet& set;
  const Schema& schema;
  Mode mode;
  std::vector<FeatureState> features;
  std::vector<TableRows> tables;           // aligned with set.tables
  std::vector<std::vector<size_t>> parts;  // features that share a table, in order; ordered by their first feature
  LabelCoder labels;
  CellMemo<float> weight;
  CellMemo<uint64_t> group;
  CellMemo<int32_t> scenario;
  Vocabulary seen_scenarios;
};

CellCoder::CellCoder(const EncoderSet& set, Mode mode) : state_(std::make_unique<State>(set, mode)) {}
CellCoder::~CellCoder() = default;

// After the features: labels and roles, which are one part each.
size_t CellCoder::parts() const { return state_->parts.size() + 4; }

std::span<const size_t> CellCoder::features_of(size_t part) const {
  return part < state_->parts.size() ? state_->parts[part] : std::span<const size_t>();
}

void CellCoder::code(size_t part, const RawChunk& chunk, CodedChunk& coded) {
  State& state = *state_;
  if (part < state.parts.size()) {
    for (size_t f : state.parts[part]) state.code_feature(f, chunk, coded.features[f]);
    return;
  }
  switch (part - state.parts.size()) {
    case 0: return state.labels.code(chunk, coded.labels);
    case 1:
      if (!state.schema.weight.empty()) state.code_weights(chunk, coded);
      return;
    case 2:
      if (!state.schema.group.empty()) state.code_groups(chunk, coded);
      return;
    default:
      // Learning, it is not known yet whether there is one at all.
      if (state.mode == Mode::Learn ? !state.schema.scenario.empty() : !state.set.info().scenarios.empty())
        state.code_scenarios(chunk, coded);
  }
}

const Vocabulary& CellCoder::seen(size_t table) const { return state_->tables[table].seen(); }
const Vocabulary& CellCoder::seen_scenarios() const { return state_->seen_scenarios; }

}  // namespace ektm
