#include "policy/snapkv/snapkv.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "policy/adakv/ada_allocation.h"
#include "policy/attention_sweep.h"
#include "policy/pyramidkv/pyramid_allocation.h"
#include "policy/query_window.h"

namespace kvasir {

namespace {
constexpr Option kOptions[] = {
    kBudgetOption,
    kKeepOption,
    kWindowOption,
    kKernelOption,
    kPoolOption,
    SinkOption("0"),
    kPinOption,
    kSkipOption,
    kEveryOption,
    kSnapBlockOption,
    SlackOption(""),
    Option{.name = "alloc",
           .type = OptionType::kChoice,
           .value = "uniform",
           .choices = "uniform|pyramid|ada",
           .help = "How the budget is spread over layers and heads."},
    kBetaOption,
    kFloorOption,
};
}  // namespace

constinit const Traits kSnapKvTraits = {
    .name = "snapkv",
    .summary = "keeps what the last queries of the prompt attend to, once it has been read",
    .options = kOptions,
    .sharing = Sharing::kPrivate,
    .needs = {.keys = true, .queries = true},
};

std::unique_ptr<Policy> MakeSnapKv(const OptionValues& values, const PolicyContext& context) {
  return MakeSnapKvWith(kSnapKvTraits, values, context, values.Text("alloc"));
}

std::unique_ptr<Policy> MakeSnapKvWith(const Traits& traits, const OptionValues& values,
                                       const PolicyContext& context, std::string_view allocation) {
  const auto window = static_cast<uint32_t>(values.Count("window"));
  const auto kernel = ReadKernel(values);
  GridParams params = ReadCommonKeys(values, context);
  params.recent = window;
  const std::string pool = values.Text("pool");
  RetentionParts parts;
  parts.scorer = std::make_unique<SnapKvScorer>(
      context.facts.n_heads, window, kernel,
      pool == "max" ? SnapKvScorer::Pool::kMax : SnapKvScorer::Pool::kAverage);
  ReadBudget(values, context, &params, EvidenceOf(*parts.scorer, context));
  CheckBudget(values, params);
  std::string suffix = fmt::format(",window={},kernel={},pool={}", window, kernel, pool);
  if (traits.name == kSnapKvTraits.name) suffix += fmt::format(",alloc={}", allocation);
  if (allocation == "pyramid") {
    const double beta = values.Real("beta");
    suffix += fmt::format(",beta={}", beta);
    parts.allocation = std::make_unique<PyramidAllocation>(beta);
  } else if (allocation == "ada") {
    parts.allocation = MakeAdaAllocation(values, &suffix);
  }
  if (values.Has("block") && params.every > 0) {
    Fail(Code::kUsage, "{}: block and every exclude each other", values.where());
  }
  if (values.Has("block")) {
    parts.schedule = std::make_unique<GridSchedule>(params);
  } else {
    parts.schedule = std::make_unique<PromptEndSchedule>(params);
  }
  parts.suffix = std::move(suffix);
  return std::make_unique<RetentionPolicy>(traits, context, std::move(parts));
}

std::unique_ptr<Evidence> SnapKvScorer::NewEvidence(const LaneShape& shape) const {
  return std::make_unique<QueryWindow>(shape, n_heads_, window_);
}

uint64_t SnapKvScorer::EvidenceBytes(const LaneShape& shape, const Growth& growth) const {
  return QueryWindow::Bytes(shape, n_heads_, window_);
}

float SnapKvScorer::Score(const ScoredLane& lane, ScorerScratch* scratch,
                          std::span<float> scores) const {
  const auto& window = static_cast<const QueryWindow&>(*lane.evidence);
  SumProbabilities(lane, window, scratch, scores);
  // The mean over the group: heads that compete with each other are judged by it.
  for (float& score : scores) score /= static_cast<float>(window.group());
  return 1;
}

void SnapKvScorer::Shape(const ScoredLane& lane, ScorerScratch* scratch,
                         std::span<float> scores) const {
  const std::span<float> before = scores.first(EntriesBefore(lane, window_));
  if (pool_ == Pool::kMax) {
    MaxPool(before, kernel_, &scratch->sums);
  } else {
    AveragePool(before, kernel_, &scratch->sums);
  }
}

}  // namespace kvasir
