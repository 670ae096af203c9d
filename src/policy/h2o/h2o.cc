#include "policy/h2o/h2o.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "policy/attention_sweep.h"

namespace kvasir {

namespace {
constexpr uint32_t kMostRows = 128;  // recorded between two sweeps

constexpr Option kOptions[] = {
    kBudgetOption,
    kKeepOption,
    kBlockOption,
    SinkOption("0"),
    Option{.name = "recent",
           .type = OptionType::kCount,
           .max = 1 << 24,
           .help = "Last tokens that always stay; half of the budget if absent."},
    kPinOption,
    kSkipOption,
    SlackOption(""),
    Option{.name = "norm",
           .type = OptionType::kChoice,
           .value = "sum",
           .choices = "sum|lifetime",
           .help = "The sum of probabilities, or their mean over the queries that saw the entry."},
    Option{.name = "when",
           .type = OptionType::kChoice,
           .value = "block",
           .choices = "block|prompt",
           .help = "Drop after every block of a prompt, or once after all of it."},
};
}  // namespace

constinit const Traits kH2oTraits = {
    .name = "h2o",
    .summary = "keeps the entries that all queries so far attended to most, and the last ones",
    .options = kOptions,
    .sharing = Sharing::kGrid,
    .needs = {.keys = true, .queries = true},
};

std::unique_ptr<Policy> MakeH2o(const OptionValues& values, const PolicyContext& context) {
  GridParams params = ReadCommonKeys(values, context);
  if (!values.Has("recent")) params.recent_share = 0.5;
  const bool by_block = values.Text("when") == "block";
  auto scorer = std::make_unique<H2oScorer>(
      context.facts.n_heads, by_block ? std::min(params.block, kMostRows) : kMostRows,
      values.Text("norm") == "lifetime" ? H2oScorer::Norm::kLifetime : H2oScorer::Norm::kSum);
  ReadBudget(values, context, &params, EvidenceOf(*scorer, context));
  CheckBudget(values, params);
  if (!by_block) params.block = kWholePrompt;
  std::string suffix;
  if (values.Has("recent")) suffix += fmt::format(",recent={}", params.recent);
  suffix += fmt::format(",norm={},when={}", values.Text("norm"), values.Text("when"));
  return std::make_unique<RetentionPolicy>(
      kH2oTraits, context,
      RetentionParts{.schedule = std::make_unique<GridSchedule>(params),
                     .scorer = std::move(scorer),
                     .suffix = std::move(suffix)});
}

MassEvidence::MassEvidence(const LaneShape& shape, uint32_t n_heads, uint32_t rows)
    : shape_(shape), window_(shape, n_heads, rows), sums_(shape.lanes()) {}

void MassEvidence::Take(const LayerQueries& queries) {
  window_.Take(queries);
  held_ = window_.n_rows(queries.layer);
}

// Sums wait while rows can still be recorded, so that a sweep over the keys serves many of them.
void MassEvidence::Settle(const KvView& view, bool due, Workers* workers) {
  if (held_ == 0 || (!due && held_ < window_.capacity())) return;
  std::vector<LaneView> lanes;
  for (uint32_t l = 0; l < shape_.n_layers; ++l) {
    for (uint32_t h = 0; h < shape_.n_kv_heads; ++h) {
      lanes.push_back(view.lane(shape_.first_layer + l, h));
    }
  }
  std::vector<ScorerScratch> scratch(workers == nullptr ? 1 : workers->size());
  const auto add = [&](size_t lane, size_t worker) {
    const uint32_t layer = shape_.first_layer + static_cast<uint32_t>(lane) / shape_.n_kv_heads;
    const uint32_t head = static_cast<uint32_t>(lane) % shape_.n_kv_heads;
    sums_[lane].resize(lanes[lane].n_entries, 0.0f);
    AttentionSweep sweep(lanes[lane], view.kernels(), {}, &scratch[worker]);
    const size_t stride =
        ReadScaledQueries(window_, layer, head, held_, view.kernels(), &scratch[worker]);
    sweep.AddProbabilities(scratch[worker].dots.data(), stride, size_t{held_} * window_.group(),
                           window_.group(), window_.end(layer) - held_, /*causal=*/true,
                           sums_[lane]);
  };
  if (workers == nullptr) {
    for (size_t i = 0; i < lanes.size(); ++i) add(i, 0);
  } else {
    workers->Run(lanes.size(), add);
  }
  window_.Clear();
  held_ = 0;
}

void MassEvidence::Drop(uint32_t layer, uint32_t head, std::span<const uint32_t> indices) {
  std::vector<float>& sums = sums_[Lane(layer, head)];
  size_t kept = 0, next = 0;
  for (size_t i = 0; i < sums.size(); ++i) {
    if (next < indices.size() && indices[next] == i) {
      ++next;
    } else {
      sums[kept++] = sums[i];
    }
  }
  sums.resize(kept);
}

std::unique_ptr<Evidence> H2oScorer::NewEvidence(const LaneShape& shape) const {
  return std::make_unique<MassEvidence>(shape, n_heads_, rows_);
}

uint64_t H2oScorer::EvidenceBytes(const LaneShape& shape, const Growth& growth) const {
  // Without a cap nothing is dropped: somebody only watches.
  const uint64_t entries =
      growth.cap == 0 ? growth.tokens : std::min(growth.tokens, growth.cap + growth.rows);
  return QueryWindow::Bytes(shape, n_heads_, rows_) + shape.lanes() * entries * sizeof(float);
}

float H2oScorer::Score(const ScoredLane& lane, ScorerScratch* scratch,
                       std::span<float> scores) const {
  const std::span<const float> sums =
      static_cast<const MassEvidence&>(*lane.evidence).sums(lane.layer, lane.head);
  CHECK(sums.size() == scores.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    const float queries = static_cast<float>(lane.at.position - lane.positions[i]);
    scores[i] = norm_ == Norm::kLifetime ? sums[i] / queries : sums[i];
  }
  return 1;
}

}  // namespace kvasir
