#include "policy/keydiff/keydiff.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"

namespace kvasir {

namespace {
constexpr Option kOptions[] = {
    kBudgetOption,
    kKeepOption,
    kBlockOption,
    Option{.name = "anchor",
           .type = OptionType::kChoice,
           .value = "unit",
           .choices = "unit|raw",
           .help = "Mean of unit keys (the paper), or of the keys as they are."},
    SinkOption("0"),
    kRecentOption,
    kPinOption,
    kSkipOption,
    SlackOption(""),
    Option{.name = "invert",
           .type = OptionType::kSwitch,
           .value = "off",
           .help = "Keep the keys most similar to the anchor instead; a control."},
};
}  // namespace

constinit const Traits kKeyDiffTraits = {
    .name = "keydiff",
    .summary = "keeps the keys least similar to the mean direction of all cached keys",
    .options = kOptions,
    .sharing = Sharing::kGrid,
    .needs = {.keys = true},
};

std::unique_ptr<Policy> MakeKeyDiff(const OptionValues& values, const PolicyContext& context) {
  const std::string anchor = values.Text("anchor");
  const bool invert = values.On("invert");
  auto scorer = std::make_unique<KeyDiffScorer>(
      anchor == "raw" ? KeyDiffScorer::Anchor::kRaw : KeyDiffScorer::Anchor::kUnit, invert);
  return MakeGridPolicy(kKeyDiffTraits, values, context, std::move(scorer),
                        fmt::format(",recent={},anchor={},invert={}", values.Count("recent"),
                                    anchor, invert ? "on" : "off"));
}

float KeyDiffScorer::Score(const ScoredLane& lane, ScorerScratch* scratch,
                           std::span<float> scores) const {
  const PlaneKernels& kernels = lane.kernels->planes;
  const LaneView& view = lane.view;
  const size_t dim = view.head_dim;
  scratch->plane.resize(dim * kPageEntries);
  scratch->inverse.resize(size_t{view.n_pages} * kPageEntries);
  scratch->weights.assign(kPageEntries, 1.0f);
  scratch->anchor.assign((dim + 7) / 8 * 8, 0.0f);
  scratch->dots.resize(kPageEntries);
  float* const plane = scratch->plane.data();
  const auto expand = [&](const PageView& page) {
    CHECK(page.k != nullptr);
    kernels.expand_k[static_cast<size_t>(page.k_codec)](page.k, dim, plane);
  };

  // The anchor is summed entry by entry in ascending position, whatever page an entry lies in.
  for (uint32_t p = 0; p < view.n_pages; ++p) {
    const PageView& page = view.pages[p];
    if (page.live == 0) continue;
    float* const inverse = scratch->inverse.data() + size_t{p} * kPageEntries;
    expand(page);
    kernels.key_inverse_norms(plane, dim, page.live, inverse);
    const float* const weight = anchor_ == Anchor::kUnit ? inverse : scratch->weights.data();
    kernels.key_weighted_sum(plane, dim, weight, page.live, scratch->anchor.data());
  }
  size_t i = 0;
  for (uint32_t p = 0; p < view.n_pages; ++p) {
    const PageView& page = view.pages[p];
    if (page.live == 0) continue;
    const float* const inverse = scratch->inverse.data() + size_t{p} * kPageEntries;
    expand(page);
    kernels.key_dots(plane, dim, scratch->anchor.data(), scratch->dots.data());
    for (uint64_t live = page.live; live != 0; live &= live - 1) {
      const auto slot = static_cast<size_t>(std::countr_zero(live));
      const float cosine = scratch->dots[slot] * inverse[slot];
      scores[i++] = invert_ ? cosine : -cosine;
    }
  }
  CHECK(i == scores.size());

  double squares = 0;
  for (size_t c = 0; c < dim; ++c) {
    squares += double{scratch->anchor[c]} * double{scratch->anchor[c]};
  }
  return squares > 0 ? static_cast<float>(1 / std::sqrt(squares)) : 0.0f;
}

}  // namespace kvasir
