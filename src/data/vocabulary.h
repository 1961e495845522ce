#pragma once
// Texts numbered from 0 in the order of their insertion: an open-addressing hash table over one buffer of bytes.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "data/short_text.h"

namespace ektm {

class Vocabulary {
 public:
  int64_t size() const { return static_cast<int64_t>(ends_.size()); }
  // Valid until the next insertion.
  std::string_view text(int64_t index) const {
    const uint64_t start = index == 0 ? 0 : ends_[index - 1];
    return {bytes_.data() + start, ends_[index] - start};
  }
  // The hash of a text that find() and insert() take.
  static uint32_t hash(std::string_view text) { return static_cast<uint32_t>(short_text_hash(text) >> 32); }
  // -1 when absent.
  int32_t find(std::string_view text) const { return find(text, hash(text)); }
  int32_t find(std::string_view text, uint32_t hash) const { return slots_.empty() ? -1 : slots_[probe(text, hash)].index; }
  // The text's index; a new text is added. Error Data beyond 2 billion texts, or for one of more than 16 MB.
  int32_t insert(std::string_view text) { return insert(text, hash(text)); }
  int32_t insert(std::string_view text, uint32_t hash) {
    if (2 * ends_.size() >= slots_.size()) grow();
    const size_t at = probe(text, hash);
    return slots_[at].index >= 0 ? slots_[at].index : add(at, text, hash);
  }

  // For look-ups of many texts whose hashes are known: a look-up misses the cache twice, at its slot and at its text. Asking for
  // all slots, then for all texts, lets the misses overlap.
  bool is_large() const { return slots_.size() > kSlotsInCache; }
  void prefetch_slot(uint32_t hash) const { __builtin_prefetch(&slots_[hash & (slots_.size() - 1)]); }
  void prefetch_text(uint32_t hash) const { __builtin_prefetch(bytes_.data() + slots_[hash & (slots_.size() - 1)].start); }

 private:
  static constexpr size_t kSlotsInCache = 1 << 10;
  // All that a probe needs beside the text, which is the second and last miss of the cache.
  struct Slot {
    uint32_t hash = 0;                         // most probes end without a look at the text
    int32_t index = -1;                        // -1: empty
    uint64_t start : 40 = 0, length : 24 = 0;  // of the text in bytes_
  };
  // The slot that holds the text, or the empty one where it belongs.
  size_t probe(std::string_view text, uint32_t hash) const {
    const size_t mask = slots_.size() - 1;
    for (size_t at = hash & mask;; at = (at + 1) & mask) {
      const Slot& slot = slots_[at];
      if (slot.index < 0) return at;
      if (slot.hash == hash && slot.length == text.size() &&
          short_text_equal(bytes_.data() + slot.start, text.data(), text.size()))
        return at;
    }
  }
  int32_t add(size_t at, std::string_view text, uint32_t hash);
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
