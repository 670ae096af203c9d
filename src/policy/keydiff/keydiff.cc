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
    Option{.name = "bias",
           .type = OptionType::kSwitch,
           .value = "on",
           .help =
               "off: compare keys without the bias of the key projection (Qwen2), which is most of "
               "their direction."},
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
  if (!values.On("bias")) scorer->LeaveBiasOut(context.facts);
  return MakeGridPolicy(
      kKeyDiffTraits, values, context, std::move(scorer),
      fmt::format(",recent={},anchor={},invert={},bias={}", values.Count("recent"), anchor,
                  invert ? "on" : "off", values.Text("bias")));
}

void KeyDiffScorer::SubtractBias(const ScoredLane& lane, const PageView& page, float* plane) const {
  const size_t dim = lane.view.head_dim, pairs = dim / 2;
  if (lane.layer >= without_bias_.key_bias.size() || without_bias_.key_bias[lane.layer].empty()) {
    return;
  }
  const float* const bias = without_bias_.key_bias[lane.layer].data() + lane.head * dim;
  for (uint64_t live = page.live; live != 0; live &= live - 1) {
    const auto slot = static_cast<uint32_t>(std::countr_zero(live));
    const auto position = static_cast<float>(page.position(slot));
    for (size_t i = 0; i < pairs; ++i) {
      const size_t x = without_bias_.interleaved ? 2 * i : i;
      const size_t y = without_bias_.interleaved ? 2 * i + 1 : i + pairs;
      const float angle = position * without_bias_.inverse_frequencies[i];
      const float cos = std::cos(angle) * without_bias_.rope_scale;
      const float sin = std::sin(angle) * without_bias_.rope_scale;
      plane[x * kPageEntries + slot] -= bias[x] * cos - bias[y] * sin;
      plane[y * kPageEntries + slot] -= bias[y] * cos + bias[x] * sin;
    }
  }
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
    kernels.expand_k[page.k_form.index()](page.k, page.k_form.Shape(dim), plane);
    if (without_bias_.n_heads > 0) SubtractBias(lane, page, plane);
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
