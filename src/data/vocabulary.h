#pragma once
// Texts numbered from 0 in the order of their insertion: an open-addressing hash table of their keys.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "data/text_key.h"

namespace ektm {

class Vocabulary {
 public:
  int64_t size() const { return static_cast<int64_t>(ends_.size()); }
  // Valid until the next insertion.
  std::string_view text(int64_t index) const {
    const uint64_t start = index == 0 ? 0 : ends_[index - 1];
    return {bytes_.data() + start, ends_[index] - start};
  }
  // -1 when absent. `text`, that of the key, is only looked at where the key is not exact.
  int32_t find(std::string_view text) const { return find(TextKey(text), text); }
  int32_t find(const TextKey& key, std::string_view text) const {
    return slots_.empty() ? -1 : slots_[probe(key, text)].index;
  }
  // The text's index; a new text is added. Error Data beyond 2 billion texts, or for one of more than 16 MB.
  int32_t insert(std::string_view text) { return insert(TextKey(text), text); }
  int32_t insert(const TextKey& key, std::string_view text) {
    if (2 * ends_.size() >= slots_.size()) grow();
    const size_t at = probe(key, text);
    return slots_[at].index >= 0 ? slots_[at].index : add(at, key, text);
  }

  // For look-ups of many keys: asked for first, their misses of the cache overlap.
  bool is_large() const { return slots_.size() > kSlotsInCache; }
  void prefetch(const TextKey& key) const { __builtin_prefetch(&slots_[key.hash & (slots_.size() - 1)]); }

 private:
  static constexpr size_t kSlotsInCache = 1 << 11;
  static constexpr int kStartBits = 40;
  struct Slot {
    uint64_t word = 0;   // of an exact key; of others the text's start in bytes_, under the upper bits of the key's word
    uint32_t size = 0;   // of the key
    int32_t index = -1;  // -1: empty
  };
  // The slot that holds the text, or the empty one where it belongs.
  size_t probe(const TextKey& key, std::string_view text) const {
    const size_t mask = slots_.size() - 1;
    const bool is_exact = key.is_exact();
    const int compared = is_exact ? 0 : kStartBits;  // bits of the word from here on
    for (size_t at = key.hash & mask;; at = (at + 1) & mask) {
      const Slot& slot = slots_[at];
      if (slot.index < 0) return at;
      if (slot.size == key.size && (slot.word ^ key.word) >> compared == 0 &&
          (is_exact || detail::long_equal(bytes_.data() + start_of(slot), text.data(), text.size())))
        return at;
    }
  }
  static uint64_t start_of(const Slot& slot) { return slot.word & ((uint64_t{1} << kStartBits) - 1); }
  int32_t add(size_t at, const TextKey& key, std::string_view text);
  void grow();

  std::vector<Slot> slots_;  // a power of two, at most half full
  std::string bytes_;
  std::vector<uint64_t> ends_;  // of each text in bytes_
};

// An Arrow IPC file with one column `value`.
void write_vocabulary(const Vocabulary& vocabulary, const std::filesystem::path& file);
// Error Data when the file is damaged.
Vocabulary read_vocabulary(const std::filesystem::path& file);

}  // namespace ektm
