#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/hash.h"
#include "data/cell_decode.h"
#include "data/encoder_set.h"

namespace ektm {
namespace {

constexpr int64_t kBlockRows = 1024;  // columns write into rows of the batch: a block of them stays in the cache

// The labels and masks of the tasks, from the raw columns that they read.
class LabelReader {
 public:
  explicit LabelReader(const Schema& schema) : schema_(schema), parents_(schema.parents()) {
    for (const auto& task : schema.tasks) {
      labels_.push_back(plan(task.label, "task " + task.name));
      observed_.push_back(task.observed.empty() ? Plan{} : plan(task.observed, "task " + task.name));
    }
  }

  void begin(const RawChunk& chunk) {
    chunk_ = &chunk;
    readers_.clear();
    for (const auto& column : columns_) readers_.emplace_back(chunk, chunk.columns->schema()->GetFieldIndex(column), schema_);
    cells_.resize(columns_.size());
  }

  // label, observed: [K].
  void read(int64_t row, uint8_t* label, uint8_t* observed, std::vector<EncodeCounts::Task>& counts) {
    for (size_t c = 0; c < columns_.size(); ++c) cells_[c] = readers_[c].cell(row);
    for (size_t t = 0; t < labels_.size(); ++t) {
      const int parent = parents_[t];
      const bool reached = parent < 0 || (observed[parent] && label[parent]);
      const Truth truth = evaluate(labels_[t], row);
      const bool known = truth != Truth::Unknown && (!observed_[t].expression || evaluate(observed_[t], row) == Truth::True);
      observed[t] = reached && known;
      label[t] = observed[t] && truth == Truth::True;
      counts[t].observed += observed[t];
      counts[t].positives += label[t];
      counts[t].orphans += !reached && truth == Truth::True;
    }
  }

 private:
  struct Plan {
    std::optional<Expression> expression;
    std::vector<size_t> columns;  // into columns_
    std::vector<Cell> cells;
  };

  Plan plan(const std::string& text, const std::string& where) {
    Plan plan;
    plan.expression = Expression::parse(text, where);
    for (const auto& column : plan.expression->columns()) {
      const size_t index = std::find(columns_.begin(), columns_.end(), column) - columns_.begin();
      if (index == columns_.size()) columns_.push_back(column);
      plan.columns.push_back(index);
    }
    plan.cells.resize(plan.columns.size());
    return plan;
  }

  Truth evaluate(Plan& plan, int64_t row) {
    for (size_t c = 0; c < plan.columns.size(); ++c) plan.cells[c] = cells_[plan.columns[c]];
    try {
      return plan.expression->evaluate(plan.cells);
    } catch (const Error& error) {
      throw Error(error.kind(), chunk_->where(row, error.where()), error.message());
    }
  }

  const Schema& schema_;
  std::vector<int> parents_;
  std::vector<std::string> columns_;
  std::vector<Plan> labels_, observed_;
  const RawChunk* chunk_ = nullptr;
  std::vector<CellReader> readers_;
  std::vector<Cell> cells_;
};

}  // namespace

struct RowEncoder::State {
  struct FeatureState {
    CellMemo<int32_t> id;
    CellMemo<std::vector<int32_t>> list;
    CellMemo<float> number;  // NaN = missing
  };

  State(const EncoderSet& set_in, bool for_prediction_in)
      : set(set_in),
        schema(set_in.schema()),
        for_prediction(for_prediction_in),
        features(schema.features.size()),
        labels(schema) {}

  template <class Value>
  void begin(CellMemo<Value>& memo, const RawChunk& chunk, const std::string& column) {
    memo.begin(chunk, chunk.columns->schema()->GetFieldIndex(column), schema);
  }

  void encode(const RawChunk& chunk, std::span<const int64_t> rows, Batch& batch, EncodeCounts& counts) {
    const DatasetInfo& info = set.info();
    const size_t count = rows.size();
    const bool has_scenario = !info.scenarios.empty();
    counts.rows += static_cast<int64_t>(count);
    counts.fields.resize(features.size());
    counts.tasks.resize(info.tasks.size());
    batch.rows = static_cast<int64_t>(count);
    batch.ids.resize(count * info.fields.size());
    batch.numbers.resize(count * info.numbers.size());
    batch.bags.resize(info.bags.size());
    for (auto& bag : batch.bags) {
      bag.offsets.assign(1, 0);
      bag.values.clear();
    }
    batch.labels.resize(count * info.tasks.size());
    batch.observed.resize(count * info.tasks.size());
    batch.weights.resize(info.has_weight ? count : 0);
    batch.groups.resize(info.has_group ? count : 0);
    batch.scenarios.resize(has_scenario ? count : 0);

    for (size_t f = 0; f < features.size(); ++f) begin_feature(chunk, f);
    labels.begin(chunk);
    if (info.has_weight) begin(weight, chunk, schema.weight);
    if (info.has_group) begin(group, chunk, schema.group);
    if (has_scenario) begin(scenario, chunk, schema.scenario);
    for (size_t start = 0; start < count; start += kBlockRows) {
      const auto block = rows.subspan(start, std::min<size_t>(kBlockRows, count - start));
      for (size_t f = 0; f < features.size(); ++f) {
        switch (set.slots[f].kind) {
          case FeatureSlot::Kind::Field:
            encode_field(chunk, block, f, &batch.ids[start * info.fields.size()], counts.fields[f]);
            break;
          case FeatureSlot::Kind::Bag:
            encode_bag(chunk, block, f, batch.bags[set.slots[f].index], counts.fields[f]);
            break;
          case FeatureSlot::Kind::Number:
            encode_number(chunk, block, f, &batch.numbers[start * info.numbers.size()], counts.fields[f]);
            break;
        }
      }
      for (size_t i = 0; i < block.size(); ++i) {
        const size_t first = (start + i) * info.tasks.size();
        labels.read(block[i], &batch.labels[first], &batch.observed[first], counts.tasks);
        if (info.has_weight) batch.weights[start + i] = read_weight(chunk, block[i]);
        if (info.has_group) batch.groups[start + i] = read_group(block[i]);
        if (has_scenario) batch.scenarios[start + i] = read_scenario(block[i]);
      }
    }
  }

  void begin_feature(const RawChunk& chunk, size_t f) {
    const Feature& feature = schema.features[f];
    switch (feature.kind) {
      case FeatureKind::Id:
        begin(features[f].id, chunk, feature.column);
        check_id_column(features[f].id.reader(), chunk, feature.column);
        break;
      case FeatureKind::Ids:
      case FeatureKind::Sequence:
        begin(features[f].list, chunk, feature.column);
        check_id_column(features[f].list.reader(), chunk, feature.column);
        break;
      case FeatureKind::Number:
        if (feature.bins > 0)
          begin(features[f].id, chunk, feature.column);
        else
          begin(features[f].number, chunk, feature.column);
        break;
    }
  }

  static int32_t row_of_text(const TableEncoder& table, std::string_view text, uint64_t hash, const CellPlace& place) {
    if (table.kind == TableEncoder::Kind::Hash) {
      check_id_text(text, place);
      return kFirstValueRow + static_cast<int32_t>(hash % static_cast<uint64_t>(table.hash_buckets));
    }
    const int32_t index = table.vocabulary.find(text, hash);
    if (index >= 0) return kFirstValueRow + index;
    check_id_text(text, place);
    return kOovRow;
  }

  // ids: [rows of the block, F].
  void encode_field(const RawChunk& chunk, std::span<const int64_t> block, size_t f, int32_t* ids, EncodeCounts::Field& counted) {
    const Feature& feature = schema.features[f];
    const FeatureSlot& slot = set.slots[f];
    const TableEncoder& table = set.tables[slot.table];
    const size_t width = set.info().fields.size();
    ids += slot.index;
    auto put = [&](size_t i, int32_t id) {
      ids[i * width] = id;
      counted.missing += id == kMissingRow;
      counted.unseen += id == kOovRow;
    };
    counted.values += static_cast<int64_t>(block.size());
    if (table.kind != TableEncoder::Kind::Bins && !features[f].id.joined()) {
      for (size_t start = 0; start < block.size(); start += TextBlock::kMaxRows) {
        const auto part = block.subspan(start, std::min(TextBlock::kMaxRows, block.size() - start));
        texts.read(features[f].id.reader(), part, table.vocabulary);
        for (size_t i = 0; i < part.size(); ++i)
          put(start + i, texts.missing(i) ? kMissingRow
                                          : row_of_text(table, texts.text(i), texts.hash(i), {chunk, feature.column, part[i]}));
      }
      return;
    }
    for (size_t i = 0; i < block.size(); ++i) {
      const int64_t row = block[i];
      const int32_t id = features[f].id.get(row, kMissingRow, [&](CellReader& reader, int64_t number, int32_t& value) {
        const CellPlace place{chunk, feature.column, row};
        if (table.kind == TableEncoder::Kind::Bins) {
          const double x = decode_number(reader, number, place);
          value = std::isnan(x) ? kMissingRow : kFirstValueRow + bin_of(table.edges, x);
        } else {
          const Cell cell = reader.cell(number);
          value = cell.missing ? kMissingRow : row_of_text(table, cell.text, hash64(cell.text), place);
        }
      });
      put(i, id);
    }
  }

  void encode_bag(const RawChunk& chunk, std::span<const int64_t> block, size_t f, Bag& bag, EncodeCounts::Field& counted) {
    const Feature& feature = schema.features[f];
    const TableEncoder& table = set.tables[set.slots[f].table];
    for (int64_t row : block) {
      const auto& ids =
          features[f].list.get(row, no_values, [&](CellReader& reader, int64_t number, std::vector<int32_t>& value) {
            reader.elements(number, feature.separator, elements);
            value.clear();
            for (const auto& text : kept_elements(elements, feature))
              value.push_back(row_of_text(table, text, hash64(text), {chunk, feature.column, row}));
          });
      if (ids.empty()) {
        bag.values.push_back(kMissingRow);
        ++counted.missing;
      } else {
        bag.values.insert(bag.values.end(), ids.begin(), ids.end());
        counted.values += static_cast<int64_t>(ids.size());
        counted.unseen += std::count(ids.begin(), ids.end(), kOovRow);
      }
      bag.offsets.push_back(static_cast<int32_t>(bag.values.size()));
    }
  }

  // numbers: [rows of the block, N].
  void encode_number(const RawChunk& chunk, std::span<const int64_t> block, size_t f, float* numbers,
                     EncodeCounts::Field& counted) {
    const Feature& feature = schema.features[f];
    const FeatureSlot& slot = set.slots[f];
    const NumberScaling& scaling = set.scalings[slot.index];
    const size_t width = set.info().numbers.size();
    numbers += slot.index;
    constexpr float kMissing = std::numeric_limits<float>::quiet_NaN();
    for (size_t i = 0; i < block.size(); ++i) {
      const int64_t row = block[i];
      const float x = features[f].number.get(row, kMissing, [&](CellReader& reader, int64_t number, float& value) {
        const CellPlace place{chunk, feature.column, row};
        const double raw = decode_number(reader, number, place);
        value = static_cast<float>(scaling.apply(raw));
        if (std::isnan(raw))
          value = kMissing;
        else if (!std::isfinite(value))
          fail(ErrorKind::Data, place.where(),
               "found {}, which is {} after normalisation; expected a number that a 32-bit float can hold. Use "
               "normalize: log_standard or bins, or correct the data.",
               raw, scaling.apply(raw));
      });
      numbers[i * width] = std::isnan(x) ? 0 : x;
      counted.missing += std::isnan(x);
    }
    counted.values += static_cast<int64_t>(block.size());
  }

  bool absent(const RawChunk& chunk, const std::string& column) const {
    return for_prediction && chunk.columns->GetColumnByName(column)->type_id() == arrow::Type::NA;
  }

  float read_weight(const RawChunk& chunk, int64_t row) {
    if (absent(chunk, schema.weight)) return 1;
    constexpr float kMissing = std::numeric_limits<float>::quiet_NaN();
    const CellPlace place{chunk, schema.weight, row};
    const float value = weight.get(row, kMissing, [&](CellReader& reader, int64_t number, float& out) {
      const Cell cell = reader.cell(number);
      const std::optional<double> x = cell.missing ? std::nullopt : parse_finite(cell.text);
      out = x && *x >= 0 ? static_cast<float>(*x) : kMissing;
      if (!cell.missing && !std::isfinite(out))
        fail(ErrorKind::Data, place.where(), "found the weight '{}'; expected a finite number of at least 0. Correct the data.",
             cell.text);
    });
    if (std::isnan(value))
      fail(ErrorKind::Data, place.where(), "the weight is missing; expected a number of at least 0. Correct the data.");
    return value;
  }

  uint64_t read_group(int64_t row) {
    static const uint64_t missing = hash64("");
    return group.get(row, missing, [&](CellReader& reader, int64_t number, uint64_t& value) {
      const Cell cell = reader.cell(number);
      value = cell.missing ? missing : hash64(cell.text);
    });
  }

  // -1: missing, or not in the training split.
  int32_t read_scenario(int64_t row) {
    return scenario.get(row, -1, [&](CellReader& reader, int64_t number, int32_t& value) {
      const Cell cell = reader.cell(number);
      value = cell.missing ? -1 : set.scenarios.find(cell.text);
    });
  }

  const EncoderSet& set;
  const Schema& schema;
  bool for_prediction;
  std::vector<FeatureState> features;
  LabelReader labels;
  CellMemo<float> weight;
  CellMemo<uint64_t> group;
  CellMemo<int32_t> scenario;
  TextBlock texts;
  std::vector<std::string> elements;
  const std::vector<int32_t> no_values;
};

RowEncoder::RowEncoder(const EncoderSet& encoders, bool for_prediction)
    : state_(std::make_unique<State>(encoders, for_prediction)) {}
RowEncoder::~RowEncoder() = default;
void RowEncoder::encode(const RawChunk& chunk, std::span<const int64_t> rows, Batch& batch, EncodeCounts& counts) {
  state_->encode(chunk, rows, batch, counts);
}

void encode_raw(const Encoders& encoders, const RawInput& input,
                const std::function<void(const Batch& batch, const std::shared_ptr<arrow::RecordBatch>& raw)>& consume) {
  const auto* set = dynamic_cast<const EncoderSet*>(&encoders);
  EKTM_CHECK(set);
  RawReader::Options options;
  options.keep_own_columns = true;
  options.optional_columns = other_columns(set->schema());
  std::vector<std::string> columns = feature_columns(set->schema());
  columns.insert(columns.end(), options.optional_columns.begin(), options.optional_columns.end());
  RawReader reader(input, set->schema(), columns, options);
  RowEncoder encoder(*set, true);
  RawChunk chunk;
  Batch batch;
  EncodeCounts counts;
  std::vector<int64_t> rows;
  while (reader.next(chunk)) {
    rows.resize(chunk.rows());
    std::iota(rows.begin(), rows.end(), 0);
    encoder.encode(chunk, rows, batch, counts);
    consume(batch, chunk.own);
  }
}

}  // namespace ektm
