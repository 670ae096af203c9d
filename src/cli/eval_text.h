// The text that `eval` verbs read: -f FILE, or token ids with --tokens FILE.
#pragma once

#include <cstdint>
#include <vector>

#include "cli/setup.h"

namespace kvasir {

// Errors: kUsage unless exactly one of the two is given; those of reading and of ids outside the
// vocabulary.
std::vector<int32_t> EvalTokens(const Arguments& args, OpenedModel& opened);

}  // namespace kvasir
