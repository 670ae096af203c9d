#include "policy/adakv/adakv.h"

#include "policy/adakv/ada_allocation.h"
#include "policy/snapkv/snapkv.h"

namespace kvasir {

namespace {
constexpr Option kOptions[] = {
    kBudgetOption,   kKeepOption,  kWindowOption, kKernelOption, kPoolOption,
    SinkOption("0"), kPinOption,   kSkipOption,   kEveryOption,  kSnapBlockOption,
    SlackOption(""), kFloorOption, kCompatOption,
};
}  // namespace

constinit const Traits kAdaKvTraits = {
    .name = "adakv",
    .summary = "snapkv with a budget per layer that its heads compete for",
    .options = kOptions,
    .sharing = Sharing::kPrivate,
    .needs = {.keys = true, .queries = true},
};

std::unique_ptr<Policy> MakeAdaKv(const OptionValues& values, const PolicyContext& context) {
  return MakeSnapKvWith(kAdaKvTraits, values, context, "ada");
}

}  // namespace kvasir
