#include "sim/log_table.h"

#include <arrow/csv/api.h>
#include <arrow/io/file.h>
#include <arrow/ipc/writer.h>
#include <fmt/format.h>
#include <parquet/arrow/writer.h>

#include "base/error.h"

namespace ektm {
namespace {

constexpr int64_t kFirstImpressionId = 7'000'000'000'000'000'000;

void check(const arrow::Status& status) {
  if (!status.ok()) fail(ErrorKind::Internal, "simulated logs", "{}", status.ToString());
}

void check_io(const arrow::Status& status, const std::filesystem::path& path) {
  if (!status.ok()) fail(ErrorKind::Io, path.string(), "cannot write: {}. Check the path and the free space.", status.ToString());
}

template <class T>
T checked_io(arrow::Result<T> result, const std::filesystem::path& path) {
  check_io(result.status(), path);
  return result.MoveValueUnsafe();
}

std::vector<std::string> names(const char* prefix, int count, int first = 0) {
  std::vector<std::string> names;
  int width = static_cast<int>(std::to_string(first + count - 1).size());
  for (int i = 0; i < count; ++i) names.push_back(fmt::format("{}{:0{}}", prefix, first + i, width));
  return names;
}

const std::vector<std::string> kAgeNames = {"25-34", "18-24", "35-44", "45-54", "under 18", "55-64", "65+"};
const std::vector<std::string> kGenderNames = {"female", "male", "other"};
const std::vector<std::string> kCityNames = names("tier_", kCityTiers, 1);
const std::vector<std::string> kDeviceNames = names("device_", kDevices);
const std::vector<std::string> kCategoryNames = names("category_", kCategories);
const std::vector<std::string> kBrandNames = names("brand_", kBrands);
const std::vector<std::string> kCreativeNames = {"image", "video", "text", "carousel", "interactive"};
const std::vector<std::string> kTagNames = names("tag_", kTags);
const std::vector<std::string> kScenarioNames = {"feed", "search"};

// A list column, or a text column with the elements joined by "|".
class ListColumn {
 public:
  explicit ListColumn(bool text) {
    if (text) {
      text_ = std::make_shared<arrow::StringBuilder>();
    } else {
      elements_ = std::make_shared<arrow::StringBuilder>();
      list_ = std::make_shared<arrow::ListBuilder>(arrow::default_memory_pool(), elements_);
    }
  }
  std::shared_ptr<arrow::DataType> type() const { return text_ ? text_->type() : list_->type(); }
  void begin() {
    if (text_)
      joined_.clear();
    else
      check(list_->Append());
  }
  void element(const std::string& value) {
    if (!text_) return check(elements_->Append(value));
    if (!joined_.empty()) joined_ += '|';
    joined_ += value;
  }
  void end() {
    if (text_) check(text_->Append(joined_));
  }
  std::shared_ptr<arrow::Array> finish() {
    std::shared_ptr<arrow::Array> array;
    check(text_ ? text_->Finish(&array) : list_->Finish(&array));
    return array;
  }

 private:
  std::shared_ptr<arrow::StringBuilder> text_, elements_;
  std::shared_ptr<arrow::ListBuilder> list_;
  std::string joined_;
};

template <class Builder>
std::shared_ptr<arrow::Array> finish_builder(Builder& builder) {
  std::shared_ptr<arrow::Array> array;
  check(builder.Finish(&array));
  return array;
}

}  // namespace

struct LogBatchBuilder::State {
  State(const Platform& platform, bool text_lists) : platform(platform), tags(text_lists), clicked(text_lists) {}
  const Platform& platform;
  std::shared_ptr<arrow::Schema> schema;
  arrow::Int64Builder impression_id, ts, user_id, item_id, advertiser_id;
  arrow::StringBuilder age, gender, city, device, interest, scenario, category, brand, creative;
  arrow::FloatBuilder activity, price, bid;
  arrow::Int32Builder hour, position;
  ListColumn tags, clicked;
  std::vector<std::unique_ptr<arrow::Int8Builder>> labels;
};

LogBatchBuilder::LogBatchBuilder(const Platform& platform, bool text_lists)
    : state_(std::make_unique<State>(platform, text_lists)) {
  using namespace arrow;
  FieldVector fields = {field("impression_id", int64(), false),
                        field("ts", int64(), false),
                        field("user_id", int64(), false),
                        field("item_id", int64(), false),
                        field("advertiser_id", int64(), false),
                        field("age_group", utf8(), false),
                        field("gender", utf8()),
                        field("city_tier", utf8()),
                        field("device", utf8(), false),
                        field("interest", utf8(), false),
                        field("user_activity", float32()),
                        field("scenario", utf8(), false),
                        field("hour", int32(), false),
                        field("position", int32(), false),
                        field("category", utf8(), false),
                        field("brand", utf8()),
                        field("creative_type", utf8(), false),
                        field("price", float32()),
                        field("tags", state_->tags.type(), false),
                        field("clicked_categories", state_->clicked.type(), false),
                        field("bid", float32(), false)};
  for (const auto& task : platform.tasks()) {
    fields.push_back(field(task.name, int8(), task.parent >= 0));
    state_->labels.push_back(std::make_unique<Int8Builder>());
  }
  state_->schema = arrow::schema(fields);
}

LogBatchBuilder::~LogBatchBuilder() = default;

const std::shared_ptr<arrow::Schema>& LogBatchBuilder::schema() const {
  return state_->schema;
}

void LogBatchBuilder::add(const Impression& impression, const ClickHistories& histories,
                          const std::array<uint8_t, kMaxTasks>& labels) {
  State& s = *state_;
  const SimulatedUser& user = s.platform.user(impression.user);
  const SimulatedItem& item = s.platform.item(impression.item);
  auto put = [](auto& builder, const auto& value) { check(builder.Append(value)); };
  auto put_unless = [](bool missing, auto& builder, const auto& value) {
    check(missing ? builder.AppendNull() : builder.Append(value));
  };
  put(s.impression_id, kFirstImpressionId + impression.row);
  put(s.ts, impression.ts);
  put(s.user_id, Platform::user_id(impression.user));
  put(s.item_id, Platform::item_id(impression.item));
  put(s.advertiser_id, int64_t{item.advertiser} + 1);
  put(s.age, kAgeNames[user.age_group]);
  put_unless(user.missing & kMissingGender, s.gender, kGenderNames[user.gender]);
  put_unless(user.missing & kMissingCityTier, s.city, kCityNames[user.city_tier]);
  put(s.device, kDeviceNames[user.device]);
  put(s.interest, kCategoryNames[user.interest]);
  put_unless(user.missing & kMissingActivity, s.activity, user.activity);
  put(s.scenario, kScenarioNames[impression.scenario]);
  put(s.hour, impression.hour);
  put(s.position, impression.position + 1);
  put(s.category, kCategoryNames[item.category]);
  put_unless(item.missing & kMissingBrand, s.brand, kBrandNames[item.brand]);
  put(s.creative, kCreativeNames[item.creative_type]);
  put_unless(item.missing & kMissingPrice, s.price, item.price);
  s.tags.begin();
  for (int i = 0; i < item.tag_count; ++i) s.tags.element(kTagNames[item.tags[i]]);
  s.tags.end();
  s.clicked.begin();
  for (int64_t i = 0; i < histories.count(impression.user); ++i)
    s.clicked.element(kCategoryNames[histories.at(impression.user, i)]);
  s.clicked.end();
  put(s.bid, impression.bid);
  for (size_t t = 0; t < s.labels.size(); ++t)
    put_unless(labels[t] == kNotReported, *s.labels[t], static_cast<int8_t>(labels[t]));
}

std::shared_ptr<arrow::RecordBatch> LogBatchBuilder::finish() {
  State& s = *state_;
  arrow::ArrayVector arrays;
  auto take = [&](auto&... builders) { (arrays.push_back(finish_builder(builders)), ...); };
  take(s.impression_id, s.ts, s.user_id, s.item_id, s.advertiser_id, s.age, s.gender, s.city, s.device, s.interest, s.activity,
       s.scenario, s.hour, s.position, s.category, s.brand, s.creative, s.price);
  arrays.push_back(s.tags.finish());
  arrays.push_back(s.clicked.finish());
  take(s.bid);
  for (auto& label : s.labels) take(*label);
  int64_t rows = arrays[0]->length();
  return arrow::RecordBatch::Make(s.schema, rows, std::move(arrays));
}

struct TruthBatchBuilder::State {
  std::shared_ptr<arrow::Schema> schema;
  arrow::Int64Builder impression_id;
  std::vector<std::unique_ptr<arrow::FloatBuilder>> probabilities;
};

TruthBatchBuilder::TruthBatchBuilder(const Platform& platform) : state_(std::make_unique<State>()) {
  arrow::FieldVector fields = {arrow::field("impression_id", arrow::int64(), false)};
  for (const auto& task : platform.tasks()) {
    fields.push_back(arrow::field("p_" + task.name, arrow::float32(), false));
    state_->probabilities.push_back(std::make_unique<arrow::FloatBuilder>());
  }
  state_->schema = arrow::schema(fields);
}

TruthBatchBuilder::~TruthBatchBuilder() = default;

const std::shared_ptr<arrow::Schema>& TruthBatchBuilder::schema() const {
  return state_->schema;
}

void TruthBatchBuilder::add(const Impression& impression, const Probabilities& probabilities) {
  check(state_->impression_id.Append(kFirstImpressionId + impression.row));
  for (size_t t = 0; t < state_->probabilities.size(); ++t) check(state_->probabilities[t]->Append(probabilities[t]));
}

std::shared_ptr<arrow::RecordBatch> TruthBatchBuilder::finish() {
  arrow::ArrayVector arrays = {finish_builder(state_->impression_id)};
  for (auto& builder : state_->probabilities) arrays.push_back(finish_builder(*builder));
  int64_t rows = arrays[0]->length();
  return arrow::RecordBatch::Make(state_->schema, rows, std::move(arrays));
}

struct TableWriter::State {
  std::filesystem::path path;
  std::shared_ptr<arrow::io::FileOutputStream> file;
  std::unique_ptr<parquet::arrow::FileWriter> parquet;
  std::shared_ptr<arrow::ipc::RecordBatchWriter> csv;
};

TableWriter::TableWriter(std::filesystem::path path, std::shared_ptr<arrow::Schema> schema, bool csv)
    : state_(std::make_unique<State>()) {
  state_->path = path;
  state_->file = checked_io(arrow::io::FileOutputStream::Open(path.string()), path);
  if (csv) {
    auto options = arrow::csv::WriteOptions::Defaults();
    options.quoting_style = arrow::csv::QuotingStyle::Needed;
    options.quoting_header = arrow::csv::QuotingStyle::Needed;
    state_->csv = checked_io(arrow::csv::MakeCSVWriter(state_->file, schema, options), path);
  } else {
    parquet::WriterProperties::Builder properties;
    properties.compression(parquet::Compression::SNAPPY)->created_by("ektm simulate");
    for (const auto& name : schema->field_names())  // hardly a value comes twice
      if (name == "impression_id" || name.starts_with("p_")) properties.disable_dictionary(name);
    state_->parquet = checked_io(
        parquet::arrow::FileWriter::Open(*schema, arrow::default_memory_pool(), state_->file, properties.build()), path);
  }
}

TableWriter::~TableWriter() = default;

void TableWriter::write(const std::shared_ptr<arrow::RecordBatch>& batch) {
  if (state_->csv) return check_io(state_->csv->WriteRecordBatch(*batch), state_->path);
  auto table = checked_io(arrow::Table::FromRecordBatches({batch}), state_->path);
  check_io(state_->parquet->WriteTable(*table, batch->num_rows()), state_->path);  // one row group
}

void TableWriter::close() {
  if (state_->csv) check_io(state_->csv->Close(), state_->path);
  if (state_->parquet) check_io(state_->parquet->Close(), state_->path);
  check_io(state_->file->Close(), state_->path);
}

}  // namespace ektm
