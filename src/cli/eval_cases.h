// The cases of `eval`: from --case, --sweep and plain flags to plain data.
#pragma once

#include <vector>

#include "cli/options.h"
#include "eval/case.h"

namespace kvasir {

// `dense` first, then the one that plain --kv-memory, --kv-policy and codec flags make, then those
// of --case. Errors: kUsage opening with the case's label.
std::vector<EvalCase> EvalCases(const Arguments& args);

}  // namespace kvasir
