// PyramidKV (arXiv 2406.02069): SnapKV's scores, with a budget that falls from layer to layer.
#pragma once

#include <memory>

#include "policy/policy.h"

namespace kvasir {

extern const Traits kPyramidKvTraits;
std::unique_ptr<Policy> MakePyramidKv(const OptionValues& values, const PolicyContext& context);

}  // namespace kvasir
