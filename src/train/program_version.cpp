#include "train/program_version.h"

#include "ektm_sources.h"
#include "ektm_version.h"

namespace ektm {

const char* program_version() { return EKTM_VERSION "+" EKTM_SOURCES; }

}  // namespace ektm
