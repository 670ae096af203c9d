// Ada-KV (arXiv 2407.11550): SnapKV's scores, with a budget per layer that its heads compete for.
#pragma once

#include <memory>

#include "policy/policy.h"

namespace kvasir {

extern const Traits kAdaKvTraits;
std::unique_ptr<Policy> MakeAdaKv(const OptionValues& values, const PolicyContext& context);

}  // namespace kvasir
