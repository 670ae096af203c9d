#include "policy/rkv/rkv.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/checked.h"
#include "base/error.h"
#include "policy/attention_sweep.h"
#include "policy/query_window.h"

namespace kvasir {

namespace {
constexpr Option kOptions[] = {
    kBudgetOption,
    kKeepOption,
    Option{.name = "window",
           .type = OptionType::kCount,
           .min = 1,
           .max = 64,
           .value = "8",
           .help = "Last tokens whose queries judge the others and whose entries stay."},
    Option{.name = "buffer",
           .type = OptionType::kCount,
           .min = 1,
           .max = 1 << 20,
           .value = "128",
           .help = "Entries beyond the budget that start a selection."},
    Option{.name = "kernel",
           .type = OptionType::kCount,
           .min = 1,
           .max = 255,
           .value = "7",
           .help = "Entries that importance is pooled over (maximum), odd."},
    Option{.name = "lambda",
           .type = OptionType::kReal,
           .min = 0,
           .max = 1,
           .value = "0.1",
           .help = "Weight of importance; the rest is redundancy."},
    Option{.name = "threshold",
           .type = OptionType::kReal,
           .min = -1,
           .max = 1,
           .value = "0.5",
           .help = "Cosine above which two keys say the same."},
    SinkOption("0"),
    kPinOption,
    kSkipOption,
};
}  // namespace

constinit const Traits kRkvTraits = {
    .name = "rkv",
    .summary = "keeps what recent queries attend to and no other key repeats; for long reasoning",
    .options = kOptions,
    .sharing = Sharing::kPrivate,
    .needs = {.keys = true, .queries = true},
};

std::unique_ptr<Policy> MakeRkv(const OptionValues& values, const PolicyContext& context) {
  RkvScorer::Params params = {.n_heads = context.facts.n_heads,
                              .window = static_cast<uint32_t>(values.Count("window")),
                              .kernel = ReadKernel(values),
                              .lambda = static_cast<float>(values.Real("lambda")),
                              .threshold = static_cast<float>(values.Real("threshold"))};
  GridParams budget = ReadCommonKeys(values, context);
  budget.recent = params.window;
  auto scorer = std::make_unique<RkvScorer>(params);
  ReadBudget(values, context, &budget, EvidenceOf(*scorer, context));
  CheckBudget(values, budget);
  return std::make_unique<RetentionPolicy>(
      kRkvTraits, context,
      RetentionParts{
          .schedule = std::make_unique<PromptEndSchedule>(budget),
          .scorer = std::move(scorer),
          .suffix = fmt::format(",window={},kernel={},lambda={},threshold={}", params.window,
                                params.kernel, values.Real("lambda"), values.Real("threshold"))});
}

std::unique_ptr<Evidence> RkvScorer::NewEvidence(const LaneShape& shape) const {
  return std::make_unique<QueryWindow>(shape, params_.n_heads, params_.window);
}

uint64_t RkvScorer::EvidenceBytes(const LaneShape& shape, const Growth& growth) const {
  return QueryWindow::Bytes(shape, params_.n_heads, params_.window);
}

// Of the first `before` entries; the others get 0.
void RkvScorer::Importance(const ScoredLane& lane, size_t before, ScorerScratch* scratch,
                           std::span<float> importance) const {
  const auto& window = static_cast<const QueryWindow&>(*lane.evidence);
  const uint32_t n = window.n_rows(lane.layer), group = window.group();
  std::vector<uint8_t> counted(importance.size(), 0);
  std::fill_n(counted.begin(), before, uint8_t{1});
  AttentionSweep sweep(lane.view, *lane.kernels, counted, scratch);
  const size_t stride = ReadScaledQueries(window, lane.layer, lane.head, n, *lane.kernels, scratch);
  std::fill(importance.begin(), importance.end(), 0.0f);
  std::vector<float> of_row(importance.size());
  const uint32_t everything = UINT32_MAX;
  for (uint32_t r = 0; r < n; ++r) {
    sweep.Scores(scratch->dots.data() + size_t{r} * group * stride, stride, group);
    float* const most = sweep.row(0);
    for (uint32_t g = 1; g < group; ++g) {
      const float* const other = sweep.row(g);
      for (size_t c = 0; c < sweep.columns(); ++c) most[c] = std::max(most[c], other[c]);
    }
    float inverse = 0;
    sweep.Softmax(1, {&everything, 1}, &inverse);
    sweep.Gather(most, of_row);
    for (size_t i = 0; i < before; ++i) importance[i] += of_row[i] * inverse;
  }
  for (float& value : importance) value /= static_cast<float>(std::max(n, 1u));
  MaxPool(importance.first(before), params_.kernel, &scratch->sums);
}

// Softmax of the mean cosine of each key to all others, twins aside.
void RkvScorer::Redundancy(const ScoredLane& lane, ScorerScratch* scratch,
                           std::span<float> redundancy) const {
  const size_t n = redundancy.size(), dim = lane.view.head_dim;
  const size_t stride = RoundUp<size_t>(dim, 16);
  // Unit keys as rows, against keys as they lie in the planes: the norms of those are divided out
  // afterwards.
  std::vector<float> key_inverse(n), row(n), mean(n, 0.0f);
  scratch->dots.assign(n * stride, 0.0f);
  scratch->plane.resize(dim * kPageEntries);
  scratch->inverse.resize(kPageEntries);
  size_t i = 0;
  for (uint32_t p = 0; p < lane.view.n_pages; ++p) {
    const PageView& page = lane.view.pages[p];
    if (page.live == 0) continue;
    lane.kernels->planes.expand_k[page.k_form.index()](page.k, page.k_form.Shape(dim),
                                                       scratch->plane.data());
    lane.kernels->planes.key_inverse_norms(scratch->plane.data(), dim, page.live,
                                           scratch->inverse.data());
    for (uint64_t live = page.live; live != 0; live &= live - 1, ++i) {
      const auto slot = static_cast<size_t>(std::countr_zero(live));
      key_inverse[i] = scratch->inverse[slot];
      for (size_t c = 0; c < dim; ++c) {
        scratch->dots[i * stride + c] = scratch->plane[c * kPageEntries + slot] * key_inverse[i];
      }
    }
  }
  AttentionSweep sweep(lane.view, *lane.kernels, {}, scratch);
  for (size_t begin = 0; begin < n; begin += AttentionSweep::kTileRows) {
    const size_t m = std::min(AttentionSweep::kTileRows, n - begin);
    sweep.Scores(scratch->dots.data() + begin * stride, stride, m);
    for (size_t r = 0; r < m; ++r) {
      sweep.Gather(sweep.row(r), row);
      for (size_t j = 0; j < n; ++j) row[j] *= key_inverse[j];
      row[begin + r] = 0;
      for (size_t j = n; j-- > 0;) {
        if (row[j] <= params_.threshold) continue;
        row[j] = 0;
        break;
      }
      for (size_t j = 0; j < n; ++j) mean[j] += row[j];
    }
  }
  float sum = 0;
  for (size_t j = 0; j < n; ++j) {
    redundancy[j] = std::exp(mean[j] / static_cast<float>(n));  // means are at most 1
    sum += redundancy[j];
  }
  for (float& value : redundancy) value /= sum;
}

float RkvScorer::Score(const ScoredLane& lane, ScorerScratch* scratch,
                       std::span<float> scores) const {
  std::vector<float> redundancy(scores.size());
  Importance(lane, EntriesBefore(lane, params_.window), scratch, scores);
  Redundancy(lane, scratch, redundancy);
  for (size_t i = 0; i < scores.size(); ++i) {
    scores[i] = params_.lambda * scores[i] - (1 - params_.lambda) * redundancy[i];
  }
  return 1;
}

}  // namespace kvasir
