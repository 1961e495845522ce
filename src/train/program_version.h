#pragma once

namespace ektm {

// Version of the program and a hash of the sources that decide what numbers a run comes to ("0.1.0+3f2a91c04d21"). Runs of one config and
// data set that differ in it need not agree.
const char* program_version();

}  // namespace ektm
