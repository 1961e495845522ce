#pragma once
// Command lines that a message offers to be copied.
#include <algorithm>
#include <cctype>
#include <cstring>
#include <string>

namespace ektm {

// `text` as one word of a shell.
inline std::string shell_word(const std::string& text) {
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isalnum(c) || std::strchr("/._-+=,:@%", c); });
  if (plain) return text;
  std::string word = "'";
  for (char c : text) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return word + "'";
}

}  // namespace ektm
