#include "policy/streaming/streaming.h"

#include "base/error.h"

namespace kvasir {

namespace {
constexpr Option kOptions[] = {
    kBudgetOption,
    kKeepOption,
    kBlockOption,
    SinkOption("4"),
    Option{.name = "recent",
           .type = OptionType::kCount,
           .min = 1,
           .max = 1 << 24,
           .help = "Window: the last tokens that a query sees, itself included; the same as "
                   "budget = sink + recent - 1."},
    kPinOption,
    kSkipOption,
    SlackOption("0"),
};
}  // namespace

constinit const Traits kStreamingTraits = {
    .name = "streaming",
    .summary = "keeps the first tokens (sinks) and the last ones",
    .options = kOptions,
    .sharing = Sharing::kGrid,
};

std::unique_ptr<Policy> MakeStreaming(const OptionValues& values, const PolicyContext& context) {
  GridParams params = ReadCommonKeys(values, context);
  if (values.Has("recent")) {
    params.budget = params.sink + values.Count("recent") - 1;
    // The window is what the budget leaves; nothing else needs protection.
    const bool same =
        values.Has("budget") && !values.IsSize("budget") && values.Count("budget") == params.budget;
    if (values.Has("keep") || (values.Has("budget") && !same)) {
      Fail(Code::kUsage, "{}: sink={},recent={} mean budget={}; leave out the other one",
           values.where(), params.sink, values.Count("recent"), params.budget);
    }
  } else {
    ReadBudget(values, context, &params);
  }
  params.recent = 0;
  CheckBudget(values, params);
  return std::make_unique<RetentionPolicy>(
      kStreamingTraits, context,
      RetentionParts{.schedule = std::make_unique<GridSchedule>(params),
                     .scorer = std::make_unique<StreamingScorer>()});
}

float StreamingScorer::Score(const ScoredLane& lane, ScorerScratch* scratch,
                             std::span<float> scores) const {
  for (size_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<float>(i);
  return 1;
}

}  // namespace kvasir
