#pragma once
// Arrow's statuses as Errors.
#include <arrow/api.h>

#include <string>
#include <utility>

#include "base/error.h"

namespace ektm {

// A failure to open or write the file `where` is an Error Io.
inline void checked_io(const arrow::Status& status, const std::string& where) {
  if (!status.ok())
    fail(ErrorKind::Io, where, "{}. Check the path, its permissions and the free space on the disk.", status.ToStringWithoutContextLines());
}
template <class T>
T checked_io(arrow::Result<T> result, const std::string& where) {
  checked_io(result.status(), where);
  return std::move(result).ValueUnsafe();
}

// A failure to understand the file's content is an Error Data that says `what`.
inline void checked_data(const arrow::Status& status, const std::string& where, const char* what) {
  if (!status.ok()) fail(ErrorKind::Data, where, "{} ({}).", what, status.message());
}
template <class T>
T checked_data(arrow::Result<T> result, const std::string& where, const char* what) {
  checked_data(result.status(), where, what);
  return std::move(result).ValueUnsafe();
}

}  // namespace ektm
