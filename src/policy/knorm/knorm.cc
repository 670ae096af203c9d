#include "policy/knorm/knorm.h"

#include <fmt/format.h>

#include <bit>

#include "base/error.h"

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
    Option{.name = "invert",
           .type = OptionType::kSwitch,
           .value = "off",
           .help = "Keep the keys with the largest norms instead; a control."},
};
}  // namespace

constinit const Traits kKnormTraits = {
    .name = "knorm",
    .summary = "keeps the keys with the smallest norms",
    .options = kOptions,
    .sharing = Sharing::kGrid,
    .needs = {.keys = true},
};

std::unique_ptr<Policy> MakeKnorm(const OptionValues& values, const PolicyContext& context) {
  const bool invert = values.On("invert");
  return MakeGridPolicy(
      kKnormTraits, values, context, std::make_unique<KnormScorer>(invert),
      fmt::format(",recent={},invert={}", values.Count("recent"), invert ? "on" : "off"));
}

float KnormScorer::Score(const ScoredLane& lane, ScorerScratch* scratch,
                         std::span<float> scores) const {
  const PlaneKernels& kernels = lane.kernels->planes;
  const size_t dim = lane.view.head_dim;
  scratch->plane.resize(dim * kPageEntries);
  scratch->inverse.resize(kPageEntries);
  size_t i = 0;
  for (uint32_t p = 0; p < lane.view.n_pages; ++p) {
    const PageView& page = lane.view.pages[p];
    if (page.live == 0) continue;
    CHECK(page.k != nullptr);
    kernels.expand_k[page.k_form.index()](page.k, page.k_form.Shape(dim), scratch->plane.data());
    kernels.key_inverse_norms(scratch->plane.data(), dim, page.live, scratch->inverse.data());
    for (uint64_t live = page.live; live != 0; live &= live - 1) {
      const float inverse = scratch->inverse[static_cast<size_t>(std::countr_zero(live))];
      const float norm = inverse == 0 ? 0 : 1 / inverse;
      scores[i++] = invert_ ? norm : -norm;
    }
  }
  CHECK(i == scores.size());
  return 1;
}

}  // namespace kvasir
