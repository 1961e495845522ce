#pragma once
// The frame of every HTML page that ektm writes.
#include <string>

namespace ektm {

// A whole page, self-contained and well-formed as XML too: the style sheet, then `body` (HTML).
std::string html_page(const std::string& title, const std::string& body);

}  // namespace ektm
