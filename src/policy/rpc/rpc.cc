#include "policy/rpc/rpc.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "policy/attention_sweep.h"
#include "policy/query_window.h"
#include "policy/rpc/rounds.h"

namespace kvasir {

namespace {
constexpr Option kOptions[] = {
    Option{.name = "every",
           .type = OptionType::kCount,
           .min = 1,
           .max = 1 << 24,
           .value = "4096",
           .help = "P: generated tokens between two rounds."},
    Option{.name = "window",
           .type = OptionType::kCount,
           .min = 1,
           .max = 4096,
           .value = "32",
           .help = "R: last tokens whose queries judge the others and whose entries stay."},
    Option{.name = "ratio",
           .type = OptionType::kReal,
           .min = 1,
           .max = 1e6,
           .value = "4",
           .help = "c: of every P generated tokens floor(P / c) stay."},
    Option{.name = "kernel",
           .type = OptionType::kCount,
           .min = 1,
           .max = 255,
           .value = "7",
           .help = "Entries that a score is averaged over, odd."},
    Option{.name = "heads",
           .type = OptionType::kChoice,
           .value = "all",
           .choices = "all|group",
           .help = "One list per layer, or one per KV head."},
    Option{.name = "compat",
           .type = OptionType::kChoice,
           .value = "paper",
           .choices = "paper|repo",
           .help = "R different queries, or the newest one twice as in the authors' code."},
    Option{.name = "turn",
           .type = OptionType::kChoice,
           .value = "freeze",
           .choices = "freeze|continue",
           .help = "In later turns of a conversation: what is there stays, or what was generated "
                   "goes on to be compressed."},
};
}  // namespace

constinit const Traits kRpcTraits = {
    .name = "rpc",
    .summary = "compresses what the model has generated, every so many tokens; the prompt stays",
    .options = kOptions,
    .sharing = Sharing::kPrivate,
    .needs = {.keys = true, .queries = true},
};

std::unique_ptr<Policy> MakeRpc(const OptionValues& values, const PolicyContext& context) {
  const RpcParams rounds = {.every = static_cast<uint32_t>(values.Count("every")),
                            .window = static_cast<uint32_t>(values.Count("window")),
                            .ratio = values.Real("ratio"),
                            .goes_on = values.Text("turn") == "continue"};
  if (rounds.kept() == 0) {
    Fail(Code::kUsage, "{}: ratio={} keeps none of every={} tokens; the most is ratio={}",
         values.where(), rounds.ratio, rounds.every, rounds.every);
  }
  RpcScorer::Params params = {.n_heads = context.facts.n_heads,
                              .window = rounds.window,
                              .kernel = ReadKernel(values),
                              .all_heads = values.Text("heads") == "all",
                              .newest_twice = values.Text("compat") == "repo"};
  return std::make_unique<RetentionPolicy>(
      kRpcTraits, context,
      RetentionParts{
          .schedule = std::make_unique<RoundSchedule>(rounds),
          .scorer = std::make_unique<RpcScorer>(params),
          .suffix = fmt::format(",kernel={},heads={},compat={},turn={}", params.kernel,
                                values.Text("heads"), values.Text("compat"), values.Text("turn"))});
}

std::unique_ptr<Evidence> RpcScorer::NewEvidence(const LaneShape& shape) const {
  return std::make_unique<QueryWindow>(shape, params_.n_heads, params_.window);
}

uint64_t RpcScorer::EvidenceBytes(const LaneShape& shape, const Growth& growth) const {
  return QueryWindow::Bytes(shape, params_.n_heads, params_.window);
}

float RpcScorer::Score(const ScoredLane& lane, ScorerScratch* scratch,
                       std::span<float> scores) const {
  const auto& window = static_cast<const QueryWindow&>(*lane.evidence);
  std::vector<uint8_t> candidates(lane.is_protected.size());
  std::transform(lane.is_protected.begin(), lane.is_protected.end(), candidates.begin(),
                 [](uint8_t is_protected) { return static_cast<uint8_t>(is_protected == 0); });
  AttentionSweep sweep(lane.view, *lane.kernels, candidates, scratch);
  const uint32_t n = window.n_rows(lane.layer), group = window.group();
  const size_t stride = ReadScaledQueries(window, lane.layer, lane.head, n, *lane.kernels, scratch);
  float* const rows = scratch->dots.data();
  if (params_.newest_twice && n > 1) {
    std::copy_n(rows + size_t{n - 1} * group * stride, size_t{group} * stride, rows);
  }
  std::fill(scores.begin(), scores.end(), 0.0f);
  sweep.AddProbabilities(rows, stride, size_t{n} * group, group, 0, /*causal=*/false, scores);
  for (float& score : scores) score /= static_cast<float>(group);
  return 1;
}

// Candidates are neighbours in view order, whatever prompts of later turns lie between them.
void RpcScorer::Shape(const ScoredLane& lane, ScorerScratch* scratch,
                      std::span<float> scores) const {
  std::vector<float>& candidates = scratch->weights;
  candidates.clear();
  for (size_t i = 0; i < scores.size(); ++i) {
    if (!lane.is_protected[i]) candidates.push_back(scores[i]);
  }
  AveragePool(candidates, params_.kernel, &scratch->sums);
  auto pooled = candidates.begin();
  for (size_t i = 0; i < scores.size(); ++i) {
    if (!lane.is_protected[i]) scores[i] = *pooled++;
  }
}

}  // namespace kvasir
