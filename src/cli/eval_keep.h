// `eval keep`: which entries a policy leaves after a prompt.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kvasir {

// `spec` of a policy with its key `block` set to `block`: a number, or "whole" for all of `tokens`,
// so that the policy chooses once. A policy without that key chooses at the prompt's end anyway:
// "whole" leaves it alone, and a number is refused with what the policy says to an unknown key.
// Errors: kUsage for another word, SplitSpec's. What the block may be, the policy decides.
std::string WithBlock(std::string_view spec, std::string_view block, size_t tokens);

}  // namespace kvasir
