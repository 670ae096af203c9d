#include <algorithm>
#include <array>

#include "base/error.h"
#include "policy/adakv/adakv.h"
#include "policy/expected/expected.h"
#include "policy/h2o/h2o.h"
#include "policy/keydiff/keydiff.h"
#include "policy/knorm/knorm.h"
#include "policy/policy.h"
#include "policy/pyramidkv/pyramidkv.h"
#include "policy/quest/quest.h"
#include "policy/random/random.h"
#include "policy/rkv/rkv.h"
#include "policy/rpc/rpc.h"
#include "policy/schedule.h"
#include "policy/snapkv/snapkv.h"
#include "policy/streaming/streaming.h"
#include "policy/tova/tova.h"

namespace kvasir {

namespace {
struct Method {
  const Traits* traits;
  std::unique_ptr<Policy> (*make)(const OptionValues&, const PolicyContext&);
};
constexpr Method kMethods[] = {
    {&kKeyDiffTraits, &MakeKeyDiff}, {&kRpcTraits, &MakeRpc},
    {&kSnapKvTraits, &MakeSnapKv},   {&kPyramidKvTraits, &MakePyramidKv},
    {&kAdaKvTraits, &MakeAdaKv},     {&kExpectedTraits, &MakeExpected},
    {&kH2oTraits, &MakeH2o},         {&kTovaTraits, &MakeTova},
    {&kRkvTraits, &MakeRkv},         {&kKnormTraits, &MakeKnorm},
    {&kQuestTraits, &MakeQuest},     {&kStreamingTraits, &MakeStreaming},
    {&kRandomTraits, &MakeRandom},
};
constexpr std::string_view kWhere = "--kv-policy";
}  // namespace

std::span<const Traits* const> AllPolicies() {
  static const auto traits = [] {
    std::array<const Traits*, std::size(kMethods)> all{};
    std::transform(std::begin(kMethods), std::end(kMethods), all.begin(),
                   [](const Method& method) { return method.traits; });
    return all;
  }();
  return traits;
}

const Traits* FindPolicy(std::string_view name) {
  const auto all = AllPolicies();
  const auto found = std::find_if(all.begin(), all.end(),
                                  [&](const Traits* traits) { return traits->name == name; });
  return found == all.end() ? nullptr : *found;
}

std::unique_ptr<Policy> MakePolicy(std::string_view spec, const PolicyContext& context) {
  if (spec.empty() || spec == "none") return nullptr;
  const NamedSpec parts = SplitSpec(spec, kWhere);
  const auto* const method =
      std::find_if(std::begin(kMethods), std::end(kMethods),
                   [&](const Method& m) { return m.traits->name == parts.name; });
  if (method == std::end(kMethods)) {
    std::vector<std::string_view> names = {"none"};
    for (const Method& m : kMethods) names.push_back(m.traits->name);
    const std::string_view nearest = Nearest(parts.name, names);
    if (!nearest.empty()) {
      Fail(Code::kUsage, "{}: unknown policy \"{}\"; did you mean {}?", kWhere, parts.name,
           nearest);
    }
    Fail(Code::kUsage, "{}: unknown policy \"{}\"; known are {}", kWhere, parts.name,
         fmt::join(names, ", "));
  }
  OptionValues values(fmt::format("{} {}", kWhere, parts.name), method->traits->options);
  for (const auto& [key, value] : parts.values) {
    const bool whole = key == kBlockOption.name && value == "whole";
    values.Set(key, whole ? std::to_string(kWholePrompt) : value);
  }
  return method->make(values, context);
}

}  // namespace kvasir
