#include "policy/tova/tova.h"

#include <fmt/format.h>

#include <algorithm>

#include "policy/attention_sweep.h"
#include "policy/query_window.h"

namespace kvasir {

namespace {
constexpr Option kOptions[] = {
    kBudgetOption, kKeepOption, kBlockOption, SinkOption("0"),
    kRecentOption, kPinOption,  kSkipOption,  SlackOption(""),
};
}  // namespace

constinit const Traits kTovaTraits = {
    .name = "tova",
    .summary = "keeps the tokens that the newest one attends to, one list per layer",
    .options = kOptions,
    .sharing = Sharing::kGrid,
    .needs = {.keys = true, .queries = true},
};

std::unique_ptr<Policy> MakeTova(const OptionValues& values, const PolicyContext& context) {
  return MakeGridPolicy(kTovaTraits, values, context,
                        std::make_unique<TovaScorer>(context.facts.n_heads),
                        fmt::format(",recent={}", values.Count("recent")));
}

std::unique_ptr<Evidence> TovaScorer::NewEvidence(const LaneShape& shape) const {
  return std::make_unique<QueryWindow>(shape, n_heads_, 1);
}

uint64_t TovaScorer::EvidenceBytes(const LaneShape& shape, const Growth& growth) const {
  return QueryWindow::Bytes(shape, n_heads_, 1);
}

float TovaScorer::Score(const ScoredLane& lane, ScorerScratch* scratch,
                        std::span<float> scores) const {
  const auto& window = static_cast<const QueryWindow&>(*lane.evidence);
  SumProbabilities(lane, window, scratch, scores);
  return 1.0f / static_cast<float>(window.group());
}

}  // namespace kvasir
