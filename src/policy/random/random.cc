#include "policy/random/random.h"

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
    Option{.name = "seed",
           .type = OptionType::kCount,
           .max = 9e15,
           .value = "0",
           .help = "Another seed keeps another sample."},
};

// A step of splitmix64: every bit of the result depends on every bit of `x`.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}
}  // namespace

constinit const Traits kRandomTraits = {
    .name = "random",
    .summary = "keeps a random sample of the tokens, another one in each lane; a control",
    .options = kOptions,
    .sharing = Sharing::kGrid,
};

std::unique_ptr<Policy> MakeRandom(const OptionValues& values, const PolicyContext& context) {
  const uint64_t seed = values.Count("seed");
  return MakeGridPolicy(kRandomTraits, values, context, std::make_unique<RandomScorer>(seed),
                        fmt::format(",recent={},seed={}", values.Count("recent"), seed));
}

float RandomScorer::Score(const ScoredLane& lane, ScorerScratch* scratch,
                          std::span<float> scores) const {
  const uint64_t of_lane = Mix(Mix(seed_) ^ (uint64_t{lane.layer} << 32 | lane.head));
  for (size_t i = 0; i < scores.size(); ++i) {
    scores[i] = static_cast<float>(Mix(of_lane ^ lane.positions[i]) >> 40) * 0x1p-24f;
  }
  return 1;
}

}  // namespace kvasir
