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
  int32_t insert(const TextKey& key, std::string_view text);

  // For look-ups of many keys: asked for first, their misses of the cache overlap.
  bool is_large() const { return slots_.size() > kSlotsInCache; }
  void prefetch(const TextKey& key) const {
    const Slot* slot = &slots_[key.hash & (slots_.size() - 1)];
    __builtin_prefetch(slot);
    __builtin_prefetch(&slot->size);  // it may begin in one line of the cache and end in the next
  }

 private:
  static constexpr size_t kSlotsInCache = 1 << 13;
  struct Slot {
    uint64_t first = 0, last = 0;    // of the key; where it is not exact, `last` is the text's start in bytes_
    uint32_t size = TextKey::kNone;  // of the key
    int32_t index = -1;              // -1: empty
  };
  // The slot that holds the text, or the empty one where it belongs.
  size_t probe(const TextKey& key, std::string_view text) const {
    const size_t mask = slots_.size() - 1;
    for (size_t at = key.hash & mask;; at = (at + 1) & mask) {
      const Slot& slot = slots_[at];
      if (slot.first == key.first && slot.size == key.size &&
          (key.is_exact() ? slot.last == key.last : detail::long_equal(bytes_.data() + slot.last, text.data(), text.size())))
        return at;
      if (slot.index < 0) return at;
    }
  }
  int32_t add(size_t at, const TextKey& key, std::string_view text);
  void grow();

  std::vector<Slot> slots_;  // a power of two
  std::string bytes_;
  std::vector<uint64_t> ends_;  // of each text in bytes_
};

// An Arrow IPC file with one column `value`.
void write_vocabulary(const Vocabulary& vocabulary, const std::filesystem::path& file);
// Error Data when the file is damaged.
Vocabulary read_vocabulary(const std::filesystem::path& file);

}  // namespace ektm
