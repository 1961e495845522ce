#include "data/raw_reader.h"

#include <arrow/util/utf8.h>

#include <algorithm>
#include <optional>

#include "base/did_you_mean.h"
#include "base/error.h"
#include "data/arrow_check.h"
#include "data/cell_texts.h"
#include "data/raw_file.h"
#include "data/raw_source.h"
#include "data/side_table.h"

namespace ektm {
namespace {

constexpr const char* kSideTableKey = "ektm.side_table";  // metadata of a joined field: the side table's file

}  // namespace

int64_t RawChunk::file_row(int64_t row) const {
  int64_t number = first_row + row;
  if (skipped_rows)
    for (int64_t skipped : *skipped_rows)
      if (skipped >= first_row && skipped <= number) ++number;
  return number;
}

std::string RawChunk::where(int64_t row, const std::string& column) const {
  int64_t number = file_row(row);
  InputFile scanned;
  scanned.path = file;
  recognize(scanned);
  std::string text = csv ? csv_row(scanned, number) : fmt::format("{}, row {}", file, number);
  if (column.empty()) return text;
  text += ", column " + column;
  auto field = columns ? columns->schema()->GetFieldByName(column) : nullptr;
  if (field && field->metadata()) {
    auto side = field->metadata()->Get(kSideTableKey);
    if (side.ok()) text += " of " + *side;
  }
  return text;
}

struct CellReader::State {
  State(const RawChunk& chunk_in, int column_index, const Schema& schema, bool is_dictionary)
      : chunk(chunk_in),
        name(chunk.columns->column_name(column_index)),
        texts(chunk.columns->column(column_index), chunk.file + ", column " + name),
        missing(schema.missing),
        is_list(texts.is_list()) {
    if (is_dictionary || chunk.columns->column(column_index)->type_id() == arrow::Type::DICTIONARY) return;
    if (int64_t bad = texts.find_invalid(); bad >= 0) throw Error(ErrorKind::Data, chunk.where(bad, name), kNotUtf8);
  }

  void refuse_list(int64_t row) const {
    if (is_list)
      fail(ErrorKind::Data, chunk.where(row, name),
           "found a list; expected one value. Give the feature the kind ids or sequence.");
  }

  const RawChunk& chunk;
  std::string name;
  CellTexts texts;
  MissingTexts missing;
  bool is_list;
  std::vector<std::string_view> views;
  std::string bytes;  // of numbers
};

CellReader::CellReader(const RawChunk& chunk, int column_index, const Schema& schema, bool is_dictionary)
    : state_(std::make_shared<State>(chunk, column_index, schema, is_dictionary)) {}

Cell CellReader::cell(int64_t row) {
  state_->refuse_list(row);
  Cell cell;
  cell.missing = !state_->texts.get(row, cell.text) || state_->missing.contains(cell.text);
  return cell;
}

void CellReader::texts(int64_t first, size_t count, std::string_view* out) {
  state_->refuse_list(first);
  state_->texts.get_block(first, count, state_->missing, out, state_->bytes);
}

void CellReader::cells(int64_t first, size_t count, Cell* out) {
  auto& views = state_->views;
  views.resize(count);
  texts(first, count, views.data());
  for (size_t i = 0; i < count; ++i) out[i] = {views[i], views[i].data() == nullptr};
}

bool CellReader::numbers(int64_t first, size_t count, double* out) {
  return !state_->is_list && !state_->missing.has_numbers() && state_->texts.get_numbers(first, count, out);
}

bool CellReader::whole_numbers(int64_t first, size_t count, uint64_t* out, bool* known) {
  return !state_->is_list && !state_->missing.has_numbers() && state_->texts.get_whole_numbers(first, count, out, known);
}

bool CellReader::is_float() const { return state_->texts.is_float(); }
bool CellReader::is_list() const { return state_->is_list; }

std::pair<int64_t, int64_t> CellReader::list_range(int64_t row) const { return state_->texts.list_range(row); }
const std::shared_ptr<arrow::Array>& CellReader::list_elements() const { return state_->texts.list_elements(); }

void CellReader::elements(int64_t first, size_t count, const std::string& separator, std::vector<std::string_view>& out,
                          std::vector<size_t>& ends) {
  State& state = *state_;
  if (state.is_list) return state.texts.get_elements(first, count, state.missing, out, ends, state.bytes);
  out.clear();
  ends.clear();
  state.views.resize(count);
  texts(first, count, state.views.data());
  auto add = [&](std::string_view text) {
    if (!text.empty() && !state.missing.contains(text)) out.push_back(text);
  };
  const bool is_char = separator.size() == 1;
  for (std::string_view rest : state.views) {
    auto find = [&] { return is_char ? rest.find(separator[0]) : rest.find(separator); };
    for (size_t end; (end = find()) != std::string_view::npos; rest.remove_prefix(end + separator.size()))
      add(rest.substr(0, end));
    add(rest);
    ends.push_back(out.size());
  }
}

struct RawReader::State {
  // Where a needed column of the current file comes from.
  struct Origin {
    enum class Kind { Own, Partition, Side, Absent } kind = Kind::Absent;
    size_t index = 0;  // of the partition or the side table
  };

  State(const RawInput& input, const Schema& schema_in, std::vector<std::string> columns_in, Options options_in)
      : schema(schema_in), columns(std::move(columns_in)), options(std::move(options_in)), files(list_input(input.files)) {
    arrow::util::InitializeUTF8();
    if (files.empty()) fail(ErrorKind::Config, "input files", "none was given; expected at least one file or folder.");
    bad_rows.limit = schema.max_bad_rows;
    for (const auto& file : files) total_bytes += file.bytes;
  }

  const InputFile& file() const { return files[file_index]; }

  bool is_optional(const std::string& column) const {
    return std::find(options.optional_columns.begin(), options.optional_columns.end(), column) != options.optional_columns.end();
  }

  std::optional<Origin> find_own(const std::string& column) const {
    int64_t count = std::count(source->names().begin(), source->names().end(), column);
    if (count > 1)
      fail(ErrorKind::Data, file().path.string(),
           "the column '{}' stands in the header {} times; expected once. Rename or remove one.", column, count);
    if (count == 1) return Origin{Origin::Kind::Own, 0};
    for (size_t i = 0; i < file().partitions.size(); ++i)
      if (file().partitions[i].first == column) return Origin{Origin::Kind::Partition, i};
    return std::nullopt;
  }

  // Among the first `count` side tables.
  std::optional<Origin> find_side(const std::string& column, size_t count) const {
    std::optional<Origin> found;
    for (size_t j = 0; j < count; ++j) {
      if (!sides[j]->provides(column)) continue;
      if (found)
        fail(ErrorKind::Data, file().path.string(),
             "the column '{}' stands in two side tables, {} and {}; expected one. Rename or remove one.", column,
             sides[found->index]->shown_path(), sides[j]->shown_path());
      found = Origin{Origin::Kind::Side, j};
    }
    return found;
  }

  [[noreturn]] void fail_lacking(const std::string& column, const std::string& purpose) const {
    std::vector<std::string> known = source->names();
    for (const auto& [name, value] : file().partitions) known.push_back(name);
    std::string place = "the file";
    if (!sides.empty()) place = "neither the file nor a side table";
    for (const auto& side : sides) known.insert(known.end(), side->names().begin(), side->names().end());
    const std::string near = did_you_mean(column, known);
    fail(ErrorKind::Data, file().path.string(), "{} {} the column '{}'{}.{} Correct the schema or the data.", place, sides.empty() ? "lacks" : "has",
         column, purpose, near.empty() ? fmt::format(" Its columns are: {}.", fmt::join(source->names(), ", ")) : near);
  }

  // The columns that side tables must hold: the needed ones, and keys of later joins.
  void load_sides() {
    std::vector<std::string> wanted = columns;
    for (const auto& join : schema.joins) {
      sides.push_back(std::make_unique<SideTable>(join, find_side_file(join, schema, options.join_folders), schema,
                                                  options.chunk_bytes, bad_rows));
      wanted.push_back(join.key);
    }
    std::sort(wanted.begin(), wanted.end());
    wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
    for (auto& side : sides) side->load(wanted);
  }

  void open_file() {
    source = open_source(file(), options.chunk_bytes, bad_rows);
    rows_read = 0;
    origins.clear();
    std::vector<std::string> own_needed;
    bool needs_sides = false;
    for (const auto& column : columns) needs_sides |= !find_own(column) && !is_optional(column);
    if (needs_sides && sides.empty()) load_sides();
    std::vector<bool> used(sides.size(), false);
    auto resolve = [&](const std::string& column, size_t side_count) {
      auto origin = find_own(column);
      if (!origin) origin = find_side(column, side_count);
      if (!origin) return Origin{};
      if (origin->kind == Origin::Kind::Own) own_needed.push_back(column);
      if (origin->kind == Origin::Kind::Side) used[origin->index] = true;
      return *origin;
    };
    for (const auto& column : columns) {
      origins.push_back(resolve(column, sides.size()));
      if (origins.back().kind == Origin::Kind::Absent && !is_optional(column)) fail_lacking(column, "");
    }
    // Keys after columns and the last join first: a key may come from an earlier side table, which is then used too.
    key_origins.assign(sides.size(), Origin{});
    for (size_t j = sides.size(); j-- > 0;) {
      if (!used[j]) continue;
      key_origins[j] = resolve(sides[j]->key(), j);
      if (key_origins[j].kind == Origin::Kind::Absent)
        fail_lacking(sides[j]->key(), fmt::format(", the key of {}", sides[j]->shown_path()));
    }
    side_used = used;
    std::sort(own_needed.begin(), own_needed.end());
    own_needed.erase(std::unique(own_needed.begin(), own_needed.end()), own_needed.end());
    if (options.keep_own_columns)
      source->select_all();
    else
      source->select(own_needed);
  }

  std::shared_ptr<arrow::Array> partition_array(size_t index, int64_t rows) const {
    const auto& value = file().partitions[index].second;
    std::shared_ptr<arrow::Scalar> scalar =
        value ? std::make_shared<arrow::StringScalar>(*value) : arrow::MakeNullScalar(arrow::utf8());
    return checked_data(arrow::MakeArrayFromScalar(*scalar, rows), file().path.string(), "a folder's value cannot be read");
  }

  bool next(RawChunk& chunk) {
    for (; file_index < files.size(); ++file_index) {
      if (!source) open_file();
      while (auto batch = source->next()) {
        if (batch->num_rows() == 0) continue;
        fill(chunk, batch);
        return true;
      }
      source.reset();
      bytes_done += file().bytes;
    }
    return false;
  }

  void fill(RawChunk& chunk, const std::shared_ptr<arrow::RecordBatch>& batch) {
    int64_t rows = batch->num_rows();
    chunk = RawChunk{};
    chunk.file = file().path.string();
    chunk.csv = file().format == Format::Csv;
    chunk.skipped_rows = source->skipped_rows();
    RawChunk from_start = chunk;
    from_start.first_row = 1;
    chunk.first_row = from_start.file_row(rows_read);
    rows_read += rows;

    std::vector<std::shared_ptr<arrow::Array>> matches(sides.size());
    for (size_t j = 0; j < sides.size(); ++j)
      if (side_used[j])
        matches[j] = sides[j]->match(array_of(sides[j]->key(), key_origins[j], batch, matches),
                                     chunk.file + ", column " + sides[j]->key());
    arrow::FieldVector fields;
    arrow::ArrayVector arrays;
    for (size_t c = 0; c < columns.size(); ++c) {
      auto array = array_of(columns[c], origins[c], batch, matches);
      std::shared_ptr<const arrow::KeyValueMetadata> metadata;
      if (origins[c].kind == Origin::Kind::Side)
        metadata = arrow::key_value_metadata({kSideTableKey}, {sides[origins[c].index]->shown_path()});
      fields.push_back(arrow::field(columns[c], array->type(), true, metadata));
      arrays.push_back(std::move(array));
    }
    chunk.columns = arrow::RecordBatch::Make(arrow::schema(fields), rows, arrays);
    if (options.keep_own_columns) chunk.own = own_of(batch);
    check_dictionaries(chunk);
  }

  std::shared_ptr<arrow::Array> array_of(const std::string& column, const Origin& origin,
                                         const std::shared_ptr<arrow::RecordBatch>& batch,
                                         const std::vector<std::shared_ptr<arrow::Array>>& matches) const {
    switch (origin.kind) {
      case Origin::Kind::Own: return batch->GetColumnByName(column);
      case Origin::Kind::Partition: return partition_array(origin.index, batch->num_rows());
      case Origin::Kind::Side: {
        auto values = sides[origin.index]->column(column);
        return std::make_shared<arrow::DictionaryArray>(arrow::dictionary(arrow::int32(), values->type()), matches[origin.index],
                                                        values);
      }
      case Origin::Kind::Absent: return std::make_shared<arrow::NullArray>(batch->num_rows());
    }
    return nullptr;
  }

  std::shared_ptr<arrow::RecordBatch> own_of(const std::shared_ptr<arrow::RecordBatch>& batch) const {
    auto own = batch;
    for (size_t i = 0; i < file().partitions.size(); ++i) {
      const std::string& name = file().partitions[i].first;
      if (std::count(source->names().begin(), source->names().end(), name)) continue;
      own = checked_data(own->AddColumn(own->num_columns(), name, partition_array(i, batch->num_rows())), file().path.string(),
                         "a folder's value cannot be added");
    }
    return own;
  }

  // Dictionaries of the file itself; those of side tables were checked when they were loaded.
  void check_dictionaries(const RawChunk& chunk) const {
    for (size_t c = 0; c < columns.size(); ++c) {
      const auto& column = chunk.columns->column(static_cast<int>(c));
      if (origins[c].kind != Origin::Kind::Own || column->type_id() != arrow::Type::DICTIONARY) continue;
      if (int64_t bad = CellTexts(column, chunk.file + ", column " + columns[c]).find_invalid(); bad >= 0)
        throw Error(ErrorKind::Data, chunk.where(bad, columns[c]), kNotUtf8);
    }
  }

  const Schema& schema;
  std::vector<std::string> columns;
  Options options;
  std::vector<InputFile> files;
  size_t file_index = 0;
  BadRows bad_rows;
  int64_t total_bytes = 0, bytes_done = 0, rows_read = 0;
  std::unique_ptr<Source> source;   // of the current file
  std::vector<Origin> origins;      // of the current file, aligned with columns
  std::vector<Origin> key_origins;  // aligned with sides
  std::vector<bool> side_used;      // aligned with sides
  std::vector<std::unique_ptr<SideTable>> sides;
};

RawReader::RawReader(const RawInput& input, const Schema& schema, std::vector<std::string> columns, Options options)
    : state_(std::make_unique<State>(input, schema, std::move(columns), std::move(options))) {}
RawReader::~RawReader() = default;

bool RawReader::next(RawChunk& chunk) { return state_->next(chunk); }
int64_t RawReader::total_bytes() const { return state_->total_bytes; }
int64_t RawReader::read_bytes() const { return state_->bytes_done + (state_->source ? state_->source->bytes_read() : 0); }

std::vector<int64_t> RawReader::unmatched_rows() const {
  std::vector<int64_t> counts(state_->schema.joins.size(), 0);
  for (size_t j = 0; j < state_->sides.size(); ++j) counts[j] = state_->sides[j]->unmatched_rows();
  return counts;
}

int64_t RawReader::bad_rows() const { return state_->bad_rows.count; }

}  // namespace ektm
