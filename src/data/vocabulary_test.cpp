#include "data/vocabulary.h"

#include <unordered_map>

#include "base/random.h"
#include "data/prepare_testing.h"

namespace ektm {
namespace {

using testing::expect_error;
using testing::Folder;

TEST(Vocabulary, NumbersTextsInOrderOfInsertion) {
  Vocabulary vocabulary;
  EXPECT_EQ(vocabulary.find("a"), -1);
  EXPECT_EQ(vocabulary.insert("a"), 0);
  EXPECT_EQ(vocabulary.insert(""), 1);
  EXPECT_EQ(vocabulary.insert("a"), 0);
  EXPECT_EQ(vocabulary.insert(std::string_view("a\0b", 3)), 2);
  EXPECT_EQ(vocabulary.find(""), 1);
  EXPECT_EQ(vocabulary.find("a"), 0);
  EXPECT_EQ(vocabulary.find("b"), -1);
  EXPECT_EQ(vocabulary.text(2), std::string_view("a\0b", 3));
  EXPECT_EQ(vocabulary.size(), 3);
}

TEST(Vocabulary, EqualsAStandardMap) {
  Vocabulary vocabulary;
  std::unordered_map<std::string, int32_t> expected;
  Rng rng(1);
  for (int i = 0; i < 100000; ++i) {
    const std::string text(rng.below(4), static_cast<char>('a' + rng.below(26)));
    const std::string value = text + std::to_string(rng.below(20000));
    const int32_t next = static_cast<int32_t>(expected.size());
    const int32_t index = expected.emplace(value, next).first->second;
    ASSERT_EQ(vocabulary.insert(value), index);
  }
  ASSERT_EQ(vocabulary.size(), static_cast<int64_t>(expected.size()));
  for (const auto& [text, index] : expected) {
    ASSERT_EQ(vocabulary.find(text), index);
    ASSERT_EQ(vocabulary.text(index), text);
  }
}

// Texts of every length that differ in one byte only, wherever it is.
TEST(Vocabulary, EveryByteTells) {
  Vocabulary vocabulary;
  int32_t expected = 0;
  std::vector<std::string> texts;
  for (size_t size = 0; size <= 70; ++size) {
    texts.push_back(std::string(size, 'a'));
    for (size_t at = 0; at < size; ++at) {
      texts.push_back(std::string(size, 'a'));
      texts.back()[at] = 'b';
    }
  }
  for (const auto& text : texts) ASSERT_EQ(vocabulary.insert(text), expected++) << text;
  for (size_t i = 0; i < texts.size(); ++i) ASSERT_EQ(vocabulary.find(texts[i]), static_cast<int32_t>(i));
}

TEST(Vocabulary, SurvivesTheDisk) {
  Folder folder;
  Vocabulary vocabulary;
  for (int i = 0; i < 70000; ++i) vocabulary.insert("value " + std::to_string(i));  // more than one record batch
  write_vocabulary(vocabulary, folder / "v.arrow");
  const Vocabulary read = read_vocabulary(folder / "v.arrow");
  ASSERT_EQ(read.size(), vocabulary.size());
  for (int i = 0; i < read.size(); ++i) ASSERT_EQ(read.text(i), vocabulary.text(i));
  write_vocabulary(Vocabulary(), folder / "empty.arrow");
  EXPECT_EQ(read_vocabulary(folder / "empty.arrow").size(), 0);
}

TEST(Vocabulary, DamageIsFound) {
  Folder folder;
  Vocabulary vocabulary;
  vocabulary.insert("a");
  write_vocabulary(vocabulary, folder / "v.arrow");
  const std::string whole = read_file(folder / "v.arrow");
  folder.write("cut.arrow", whole.substr(0, whole.size() / 2));
  expect_error(ErrorKind::Data, {"cut.arrow", "damaged", "ektm prepare"}, [&] { read_vocabulary(folder / "cut.arrow"); });
  expect_error(ErrorKind::Io, {"absent.arrow"}, [&] { read_vocabulary(folder / "absent.arrow"); });
}

}  // namespace
}  // namespace ektm
