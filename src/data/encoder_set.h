#pragma once
// What `prepare` learns from the training split, and how it is kept on disk.
#include <memory>
#include <string>
#include <vector>

#include "data/encoder.h"
#include "data/number_encoding.h"
#include "data/vocabulary.h"

namespace ektm {

// One embedding table: text or number -> row.
struct TableEncoder {
  enum class Kind { Vocabulary, Hash, Bins } kind = Kind::Vocabulary;
  std::string name;
  Vocabulary vocabulary;  // in the order of rows; value i has row kFirstValueRow + i
  int64_t hash_buckets = 0;
  std::vector<double> edges;  // of bins

  int64_t rows() const;
};

// Where a feature's values go.
struct FeatureSlot {
  enum class Kind { Field, Bag, Number } kind;
  size_t index;  // into DatasetInfo::fields, bags or numbers
  size_t table;  // Field, Bag
};

class EncoderSet : public Encoders {
 public:
  // Not fitted yet: empty vocabularies, no bins.
  explicit EncoderSet(Schema schema);
  const DatasetInfo& info() const override { return info_; }
  const Schema& schema() const override { return schema_; }
  // Takes table rows and scenarios over into info(), once everything is fitted.
  void update_info();

  // Writes encoders.json and the vocabularies into `folder`, and copies `side_tables` (aligned with schema().joins, "" = none)
  // there.
  void save(const std::filesystem::path& folder, const std::vector<std::filesystem::path>& side_tables) const;
  // `dir` holds schema.yaml and encoders/. The joins then read the copied side tables.
  static std::unique_ptr<EncoderSet> load(const std::filesystem::path& dir);

  std::vector<TableEncoder> tables;     // aligned with info().tables
  std::vector<NumberScaling> scalings;  // aligned with info().numbers
  Vocabulary scenarios;
  std::vector<FeatureSlot> slots;  // aligned with schema().features

 private:
  Schema schema_;
  DatasetInfo info_;
};

// The raw columns that features read; those that labels and roles read besides; both.
std::vector<std::string> feature_columns(const Schema& schema);
std::vector<std::string> other_columns(const Schema& schema);
std::vector<std::string> needed_columns(const Schema& schema);

// What was encoded, for the summary.
struct EncodeCounts {
  struct Field {
    int64_t values = 0;   // cells, or elements of lists
    int64_t missing = 0;  // cells without a value
    int64_t unseen = 0;   // values in the OOV row: not in the training split, or rarer there than min_count
  };
  struct Task {
    int64_t observed = 0, positives = 0;
    int64_t orphans = 0;  // label true, though the `after` event is not known to have happened: unobserved
  };
  int64_t rows = 0;
  std::vector<Field> fields;  // aligned with schema.features
  std::vector<Task> tasks;
};

}  // namespace ektm
