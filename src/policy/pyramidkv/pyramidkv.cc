#include "policy/pyramidkv/pyramidkv.h"

#include "policy/snapkv/snapkv.h"

namespace kvasir {

namespace {
constexpr Option kOptions[] = {
    kBudgetOption, kKeepOption, kWindowOption, kKernelOption,    kPoolOption,     SinkOption("0"),
    kPinOption,    kSkipOption, kEveryOption,  kSnapBlockOption, SlackOption(""), kBetaOption,
};
}  // namespace

constinit const Traits kPyramidKvTraits = {
    .name = "pyramidkv",
    .summary = "snapkv with a budget that falls from layer to layer",
    .options = kOptions,
    .sharing = Sharing::kPrivate,
    .needs = {.keys = true, .queries = true},
};

std::unique_ptr<Policy> MakePyramidKv(const OptionValues& values, const PolicyContext& context) {
  return MakeSnapKvWith(kPyramidKvTraits, values, context, "pyramid");
}

}  // namespace kvasir
