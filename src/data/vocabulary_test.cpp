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

// A number finds what its text has found, and nothing else does.
TEST(Vocabulary, NumbersAreTheirTexts) {
  std::vector<uint64_t> numbers = {0, 1, 9, UINT64_MAX, UINT64_MAX - 1};
  for (uint64_t power = 10; power <= UINT64_MAX / 10; power *= 10)
    for (uint64_t number : {power - 1, power, power + 1, 3 * power + 7}) numbers.push_back(number);
  Rng rng(3);
  for (int i = 0; i < 20000; ++i) numbers.push_back(rng.next() >> rng.below(64));
  Vocabulary by_text, by_number;
  for (uint64_t number : numbers) {
    const std::string text = std::to_string(number);
    const int32_t index = by_text.insert(text);
    ASSERT_EQ(by_number.insert(TextKey(number), ""), index) << number;
    ASSERT_EQ(by_text.find(TextKey(number), ""), index) << number;
    ASSERT_EQ(by_number.find(text), index) << number;
    ASSERT_EQ(by_number.text(index), text);
    for (const std::string& other : {"0" + text, "-" + text, "+" + text, text + ".", text + " ", std::string("0000000000") + text})
      ASSERT_EQ(by_text.find(other), -1) << other;
  }
  for (const char* text : {"18446744073709551616", "99999999999999999999", "1844674407370955161x", "x8446744073709551615"}) {
    EXPECT_EQ(by_number.find(text), -1) << text;
    const int32_t index = by_number.insert(text);
    EXPECT_EQ(by_number.text(index), text);
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
