#pragma once
// The one exception of ektm. Thrown when a command or request cannot go on; caught in `main`, at thread joins, in request handlers.
#include <fmt/format.h>

#include <exception>
#include <string>
#include <utility>
#include <vector>

namespace ektm {

enum class ErrorKind {
  Config,    // a configuration file, schema or command line
  Data,      // the content of input data
  Io,        // files, folders, disks
  Model,     // shapes, numerics (NaN), a checkpoint that does not fit
  Comm,      // other processes or machines
  Internal,  // a bug of ours
};

const char* to_string(ErrorKind kind);

// `where`: the place in the user's terms (file, line, column, field). `message`: what was found, what was expected, what to do.
class Error : public std::exception {
 public:
  Error(ErrorKind kind, std::string where, std::string message);
  const char* what() const noexcept override { return text_.c_str(); }  // "Data error in a.csv, row 3, column x: ..."
  ErrorKind kind() const { return kind_; }
  const std::string& where() const { return where_; }
  const std::string& message() const { return message_; }
  // 1: the user's input or environment; 2: a defect of ektm.
  int exit_code() const { return kind_ == ErrorKind::Internal || kind_ == ErrorKind::Comm ? 2 : 1; }

 private:
  ErrorKind kind_;
  std::string where_, message_, text_;
};

// fail(ErrorKind::Data, "a.csv, row 3, column price", "found '{}'; expected a number. ...", text);
template <class... Args>
[[noreturn]] void fail(ErrorKind kind, std::string where, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, std::move(where), fmt::format(format, std::forward<Args>(args)...));
}

// An invariant of our own code.
#define EKTM_CHECK(condition)                                                                                   \
  do {                                                                                                          \
    if (!(condition)) ::ektm::fail(::ektm::ErrorKind::Internal, fmt::format("{}:{}", __FILE__, __LINE__),       \
                                   "the invariant ({}) does not hold. Please report this as a bug.", #condition); \
  } while (false)

// The candidate nearest to `word` by edit distance, or "" when none is near (distance > max(2, length / 3)).
std::string nearest_name(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace ektm
