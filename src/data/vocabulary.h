#pragma once
// Texts numbered from 0 in the order of their insertion: an open-addressing hash table over one buffer of bytes.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"

namespace ektm {

class Vocabulary {
 public:
  int64_t size() const { return static_cast<int64_t>(ends_.size()); }
  // Valid until the next insertion.
  std::string_view text(int64_t index) const {
    const uint64_t start = index == 0 ? 0 : ends_[index - 1];
    return {bytes_.data() + start, ends_[index] - start};
  }
  // -1 when absent.
  int32_t find(std::string_view text) const { return find(text, hash64(text)); }
  int32_t find(std::string_view text, uint64_t hash) const { return slots_.empty() ? -1 : slots_[probe(text, hash)].index; }
  // The text's index; a new text is added. Error Data beyond 2 billion texts, or for one of more than 16 MB.
  int32_t insert(std::string_view text) { return insert(text, hash64(text)); }
  int32_t insert(std::string_view text, uint64_t hash);

  // For look-ups of many texts whose hashes (hash64) are known: a look-up misses the cache twice, at its slot and at its text.
  // Asking for all slots, then for all texts, lets the misses overlap.
  void prefetch_slot(uint64_t hash) const {
    if (!slots_.empty()) __builtin_prefetch(&slots_[hash & (slots_.size() - 1)]);
  }
  void prefetch_text(uint64_t hash) const {
    if (!slots_.empty()) __builtin_prefetch(bytes_.data() + slots_[hash & (slots_.size() - 1)].start);
  }

 private:
  // All that a probe needs beside the text, which is the second and last miss of the cache.
  struct Slot {
    uint32_t tag = 0;                          // upper half of the hash: most probes end without a look at the text
    int32_t index = -1;                        // -1: empty
    uint64_t start : 40 = 0, length : 24 = 0;  // of the text in bytes_
  };
  // The slot that holds the text, or the empty one where it belongs.
  size_t probe(std::string_view text, uint64_t hash) const;
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
