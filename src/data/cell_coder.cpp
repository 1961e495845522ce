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
  bool takes_numbers() const { return table_.kind != TableEncoder::Kind::Hash; }

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
    keys_.clear();
    for (std::string_view text : texts) keys_.emplace_back(text);
    find_keys(texts.data(), rows, place);
  }
  // Those of whole numbers, by their texts; where takes_numbers().
  void find(std::span<const uint64_t> numbers, int32_t* rows) {
    keys_.clear();
    for (uint64_t number : numbers) keys_.emplace_back(number);
    find_keys(nullptr, rows, [](size_t) -> CellPlace { fail(ErrorKind::Internal, "table", "a number is its own key."); });
  }

 private:
  // `texts` of keys_; nullptr when all are exact.
  template <class Place>
  void find_keys(const std::string_view* texts, int32_t* rows, const Place& place) {
    const Vocabulary& vocabulary = learns_ ? seen_ : table_.vocabulary;
    if (vocabulary.is_large())
      for (const TextKey& key : keys_) vocabulary.prefetch(key);
    for (size_t i = 0; i < keys_.size(); ++i) {
      const TextKey& key = keys_[i];
      const std::string_view text = texts ? texts[i] : std::string_view();
      int32_t index = vocabulary.find(key, text);
      if (index < 0) {
        if (!key.is_exact()) check_id_text(text, place(i));
        if (learns_) index = seen_.insert(key, text);
      }
      rows[i] = index >= 0 ? kFirstValueRow + index : kOovRow;
    }
  }

  const TableEncoder& table_;
  bool learns_;
  Vocabulary seen_;  // by provisional rows
  std::vector<TextKey> keys_;
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
    CellMemo<int32_t> id;  // of lists: their elements
    CellMemo<std::vector<int32_t>> list;
    CellMemo<double> number;
    // Of lists:
    std::vector<std::string_view> elements;
    std::vector<size_t> ends;
    std::vector<int32_t> rows;  // of the kept ones
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
    Block block;
    for (size_t start = 0; start < rows; start += kBlockRows) {
      const size_t count = std::min(kBlockRows, rows - start);
      int32_t* const codes = &out.codes[start];
      if (table.takes_numbers() && block.read_numbers(memo.reader(), start, count)) {
        table.find({block.numbers.data(), block.known}, block.known == count ? codes : block.rows.data());
      } else {
        block.read_texts(memo.reader(), start, count);
        table.find({block.texts.data(), block.known}, block.known == count ? codes : block.rows.data(),
                   [&](size_t k) { return CellPlace{chunk, column, static_cast<int64_t>(start + block.places[k])}; });
      }
      if (block.known == count) continue;
      std::fill(codes, codes + count, kMissingRow);
      for (size_t k = 0; k < block.known; ++k) codes[block.places[k]] = block.rows[k];
    }
  }

  // The known cells of some rows.
  struct Block {
    std::array<std::string_view, kBlockRows> texts;
    std::array<uint64_t, kBlockRows> numbers;
    std::array<bool, kBlockRows> has_number;
    std::array<uint32_t, kBlockRows> places;  // in the block
    std::array<int32_t, kBlockRows> rows;     // of the table
    size_t known = 0;

    void read_texts(CellReader& reader, size_t start, size_t count) {
      reader.texts(static_cast<int64_t>(start), count, texts.data());
      keep(count, texts, [&](size_t i) { return texts[i].data() != nullptr; });
    }
    bool read_numbers(CellReader& reader, size_t start, size_t count) {
      if (!reader.whole_numbers(static_cast<int64_t>(start), count, numbers.data(), has_number.data())) return false;
      keep(count, numbers, [&](size_t i) { return has_number[i]; });
      return true;
    }
    template <class Value, class IsKnown>
    void keep(size_t count, std::array<Value, kBlockRows>& values, const IsKnown& is_known) {
      known = 0;
      for (size_t i = 0; i < count; ++i) {
        const bool stays = is_known(i);
        values[known] = values[i];
        places[known] = static_cast<uint32_t>(i);
        known += stays;
      }
    }
  };

  void code_lists(size_t f, const RawChunk& chunk, CodedColumn& out) {
    const Feature& feature = schema.features[f];
    FeatureState& state = features[f];
    TableRows& table = tables[set.slots[f].table];
    begin_column(state.list, chunk, feature.column, schema);
    check_id_column(state.list.reader(), chunk, feature.column);
    out.codes.clear();
    out.offsets.assign(1, 0);
    if (state.list.joined()) return code_joined_lists(feature, state, table, chunk, out);
    if (state.list.reader().is_list()) {
      // Elements that are a dictionary's are coded as a joined column is.
      const auto& elements = state.list.reader().list_elements();
      RawChunk flat;
      flat.file = chunk.file;
      flat.columns = arrow::RecordBatch::Make(arrow::schema({arrow::field(feature.column, elements->type())}), elements->length(),
                                              {elements});
      state.id.begin(flat, 0, schema);
      if (state.id.joined()) return code_dictionary_lists(feature, state, table, chunk, out);
    }
    for (size_t start = 0, rows = static_cast<size_t>(chunk.rows()); start < rows; start += kBlockRows) {
      const size_t count = std::min(kBlockRows, rows - start);
      state.list.reader().elements(static_cast<int64_t>(start), count, feature.separator, state.elements, state.ends);
      append_lists(feature, state, table, out,
                   [&](size_t list) { return CellPlace{chunk, feature.column, static_cast<int64_t>(start + list)}; });
    }
  }

  // Appends the codes of the lists state.elements. place(list): where one of them stands.
  template <class Place>
  static void append_lists(const Feature& feature, FeatureState& state, TableRows& table, CodedColumn& out, const Place& place) {
    std::vector<std::string_view>& texts = state.elements;
    size_t begin = 0, kept_end = 0;
    for (size_t& end : state.ends) {  // the kept ones move together
      for (std::string_view text : kept_elements({texts.data() + begin, end - begin}, feature)) texts[kept_end++] = text;
      begin = end;
      end = kept_end;
    }
    state.rows.resize(kept_end);
    table.find({texts.data(), kept_end}, state.rows.data(), [&](size_t i) {
      return place(static_cast<size_t>(std::upper_bound(state.ends.begin(), state.ends.end(), i) - state.ends.begin()));
    });
    size_t at = out.codes.size();
    out.codes.resize(at + kept_end + state.ends.size());  // at most: an empty list has a code, too
    begin = 0;
    for (size_t end : state.ends) {
      if (begin == end) out.codes[at++] = kMissingRow;
      for (; begin < end; ++begin) out.codes[at++] = state.rows[begin];
      out.offsets.push_back(static_cast<int32_t>(at));
    }
    out.codes.resize(at);
  }

  static void code_joined_lists(const Feature& feature, FeatureState& state, TableRows& table, const RawChunk& chunk,
                                CodedColumn& out) {
    static const std::vector<int32_t> missing = {kMissingRow};
    CodedColumn one;
    for (int64_t row = 0; row < chunk.rows(); ++row) {
      const auto& codes = state.list.get(row, missing, [&](int64_t cell, std::vector<int32_t>& value) {
        state.list.reader().elements(cell, 1, feature.separator, state.elements, state.ends);
        one.codes.clear();
        append_lists(feature, state, table, one, [&](size_t) { return CellPlace{chunk, feature.column, row}; });
        value = one.codes;
      });
      out.codes.insert(out.codes.end(), codes.begin(), codes.end());
      out.offsets.push_back(static_cast<int32_t>(out.codes.size()));
    }
  }

  // Lists whose elements are those of state.id.
  static void code_dictionary_lists(const Feature& feature, FeatureState& state, TableRows& table, const RawChunk& chunk,
                                    CodedColumn& out) {
    const size_t limit = static_cast<size_t>(feature.max_length);
    for (int64_t row = 0; row < chunk.rows(); ++row) {
      const size_t start = out.codes.size();
      auto add = [&](int64_t element) {
        const int32_t code = state.id.get(element, kMissingRow, [&](int64_t number, int32_t& value) {
          const Cell cell = state.id.reader().cell(number);
          value = kMissingRow;
          if (!cell.missing && !cell.text.empty())
            table.find({&cell.text, 1}, &value, [&](size_t) { return CellPlace{chunk, feature.column, row}; });
        });
        if (code != kMissingRow) out.codes.push_back(code);
        return out.codes.size() < start + limit;
      };
      // As kept_elements().
      const auto [first, last] = state.list.reader().list_range(row);
      if (feature.kind == FeatureKind::Sequence) {
        for (int64_t k = last; k-- > first;)
          if (!add(k)) break;
        std::reverse(out.codes.begin() + static_cast<int64_t>(start), out.codes.end());
      } else {
        for (int64_t k = first; k < last; ++k)
          if (!add(k)) break;
      }
      if (out.codes.size() == start) out.codes.push_back(kMissingRow);
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
