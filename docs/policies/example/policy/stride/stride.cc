#include "policy/stride/stride.h"

#include <fmt/format.h>

namespace kvasir {

namespace {
constexpr Option kOptions[] = {
    kBudgetOption,
    kKeepOption,
    kBlockOption,
    SinkOption("0"),
    kRecentOption,
    kPinOption,
    kSkipOption,
    SlackOption(""),
    Option{.name = "step",
           .type = OptionType::kCount,
           .min = 1,
           .max = 65536,
           .value = "4",
           .help = "Of older tokens those at multiples of this stay."},
};
}  // namespace

constinit const Traits kStrideTraits = {
    .name = "stride",
    .summary = "keeps the last tokens, and of older ones every so many",
    .options = kOptions,
    .sharing = Sharing::kGrid,
};

std::unique_ptr<Policy> MakeStride(const OptionValues& values, const PolicyContext& context) {
  const auto step = static_cast<uint32_t>(values.Count("step"));
  return MakeGridPolicy(kStrideTraits, values, context, std::make_unique<StrideScorer>(step),
                        fmt::format(",recent={},step={}", values.Count("recent"), step));
}

float StrideScorer::Score(const ScoredLane& lane, ScorerScratch* scratch,
                          std::span<float> scores) const {
  for (size_t i = 0; i < scores.size(); ++i) {
    const auto age = static_cast<float>(lane.positions.back() - lane.positions[i]);
    scores[i] = lane.positions[i] % step_ == 0 ? -age / static_cast<float>(step_) : -age;
  }
  return 1;
}

}  // namespace kvasir
