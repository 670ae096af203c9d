#include "policy/expected/expected.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"

namespace kvasir {

namespace {
constexpr Option kOptions[] = {
    kBudgetOption,
    kKeepOption,
    SinkOption("4"),
    kRecentOption,
    kPinOption,
    kSkipOption,
    Option{.name = "every",
           .type = OptionType::kCount,
           .max = 1 << 24,
           .value = "512",
           .help = "Generated tokens between two further selections; 0: none."},
    Option{.name = "window",
           .type = OptionType::kCount,
           .min = 1,
           .max = 4096,
           .value = "128",
           .help = "Last queries whose moments count in generation."},
    Option{.name = "future",
           .type = OptionType::kCount,
           .min = 1,
           .max = 65536,
           .value = "512",
           .help = "Positions to come that queries are expected at."},
    Option{.name = "epsilon",
           .type = OptionType::kReal,
           .min = 0,
           .max = 1,
           .value = "0",
           .help = "Added to the expected weight before it is multiplied by the value's norm."},
    Option{.name = "cov",
           .type = OptionType::kSwitch,
           .value = "on",
           .help = "Use the covariance of queries, not their mean alone."},
};
}  // namespace

constinit const Traits kExpectedTraits = {
    .name = "expected",
    .summary = "keeps what queries to come are expected to attend to",
    .options = kOptions,
    .sharing = Sharing::kPrivate,
    .needs = {.keys = true, .values = true, .queries = true},
};

std::unique_ptr<Policy> MakeExpected(const OptionValues& values, const PolicyContext& context) {
  GridParams params = ReadCommonKeys(values, context);
  const ExpectedScorer::Params own = {.sink = params.sink,
                                      .window = static_cast<uint32_t>(values.Count("window")),
                                      .future = static_cast<uint32_t>(values.Count("future")),
                                      .epsilon = static_cast<float>(values.Real("epsilon")),
                                      .covariance = values.On("cov"),
                                      .again = params.every > 0};
  auto scorer = std::make_unique<ExpectedScorer>(context.facts, own);
  ReadBudget(values, context, &params, EvidenceOf(*scorer, context));
  CheckBudget(values, params);
  return std::make_unique<RetentionPolicy>(
      kExpectedTraits, context,
      RetentionParts{.schedule = std::make_unique<PromptEndSchedule>(params),
                     .scorer = std::move(scorer),
                     .suffix = fmt::format(",recent={},window={},future={},epsilon={},cov={}",
                                           params.recent, own.window, own.future,
                                           values.Real("epsilon"), own.covariance ? "on" : "off")});
}

std::unique_ptr<Evidence> ExpectedScorer::NewEvidence(const LaneShape& shape) const {
  return std::make_unique<QueryMoments>(shape, facts_, params_.sink, params_.window, params_.again);
}

uint64_t ExpectedScorer::EvidenceBytes(const LaneShape& shape, const Growth& growth) const {
  return QueryMoments::Bytes(shape, facts_.n_heads, params_.window);
}

// Pair i turns by the mean of the rotations: [[a, -b], [b, a]] with a, b the mean cosine and sine.
Moments ExpectedScorer::Turned(const Moments& moments, uint32_t position) const {
  const size_t dim = moments.mean.size(), pairs = dim / 2;
  std::vector<float> a(pairs), b(pairs);
  for (size_t i = 0; i < pairs; ++i) {
    double cos = 0, sin = 0;
    for (uint32_t f = 0; f < params_.future; ++f) {
      const float angle = static_cast<float>(position + f) * facts_.inverse_frequencies[i];
      cos += std::cos(angle);
      sin += std::sin(angle);
    }
    a[i] = static_cast<float>(cos / params_.future);
    b[i] = static_cast<float>(sin / params_.future);
  }
  // out = R in, along `step` floats.
  const auto turn = [&](const float* in, size_t step, float* out) {
    for (size_t i = 0; i < pairs; ++i) {
      const size_t x = (facts_.interleaved ? 2 * i : i) * step;
      const size_t y = (facts_.interleaved ? 2 * i + 1 : i + pairs) * step;
      const float u = in[x], v = in[y];
      out[x] = a[i] * u - b[i] * v;
      out[y] = b[i] * u + a[i] * v;
    }
  };
  Moments turned = moments;
  turn(moments.mean.data(), 1, turned.mean.data());
  float* const s = turned.covariance.data();
  for (size_t row = 0; row < dim; ++row) turn(s + row * dim, 1, s + row * dim);
  for (size_t column = 0; column < dim; ++column) turn(s + column, dim, s + column);
  return turned;
}

void ExpectedScorer::Exponents(const ScoredLane& lane, const Moments& turned,
                               ScorerScratch* scratch, std::span<float> z) const {
  const PlaneKernels& kernels = lane.kernels->planes;
  const size_t dim = lane.view.head_dim;
  const float d = static_cast<float>(dim), root = std::sqrt(d);
  scratch->plane.resize(dim * kPageEntries);
  scratch->dots.resize(kPageEntries);
  scratch->rows.resize(dim * kPageEntries);
  size_t i = 0;
  for (uint32_t p = 0; p < lane.view.n_pages; ++p) {
    const PageView& page = lane.view.pages[p];
    if (page.live == 0) continue;
    const float* const k = scratch->plane.data();
    kernels.expand_k[page.k_form.index()](page.k, page.k_form.Shape(dim), scratch->plane.data());
    kernels.key_dots(k, dim, turned.mean.data(), scratch->dots.data());
    if (params_.covariance) {
      // Row a of the product: sum over channels c of S'[a][c] k[c].
      kernels.scores[static_cast<size_t>(Codec::kF32)](turned.covariance.data(), dim, dim,
                                                       reinterpret_cast<const uint8_t*>(k), dim,
                                                       nullptr, scratch->rows.data(), kPageEntries);
    }
    for (uint64_t live = page.live; live != 0; live &= live - 1) {
      const auto slot = static_cast<size_t>(std::countr_zero(live));
      float form = 0;
      if (params_.covariance) {
        for (size_t c = 0; c < dim; ++c) {
          form += k[c * kPageEntries + slot] * scratch->rows[c * kPageEntries + slot];
        }
      }
      z[i++] = scratch->dots[slot] / root + form / (2 * d);
    }
  }
  CHECK(i == z.size());
}

float ExpectedScorer::Score(const ScoredLane& lane, ScorerScratch* scratch,
                            std::span<float> scores) const {
  const auto& moments = static_cast<const QueryMoments&>(*lane.evidence);
  const bool at_prompt_end = lane.at.position <= lane.at.prompt_end;
  const auto behind_sinks = static_cast<size_t>(
      std::lower_bound(lane.positions.begin(), lane.positions.end(), params_.sink) -
      lane.positions.begin());
  std::vector<float> z(scores.size());
  std::fill(scores.begin(), scores.end(), 0.0f);
  for (uint32_t g = 0; g < moments.group(); ++g) {
    const Moments of_head = at_prompt_end
                                ? moments.OfAll(lane.layer, lane.head, g)
                                : moments.OfRecent(lane.layer, lane.head, g, *lane.kernels);
    Exponents(lane, Turned(of_head, lane.at.position), scratch, z);
    float most = -std::numeric_limits<float>::infinity();
    for (size_t i = behind_sinks; i < z.size(); ++i) most = std::max(most, z[i]);
    float sum = 0;
    for (size_t i = behind_sinks; i < z.size(); ++i) {
      z[i] = std::exp(z[i] - most);
      sum += z[i];
    }
    const float share = 1 / (sum * static_cast<float>(moments.group()));
    for (size_t i = behind_sinks; i < z.size(); ++i) scores[i] += z[i] * share;
  }
  const size_t dim = lane.view.head_dim;
  size_t i = 0;
  for (uint32_t p = 0; p < lane.view.n_pages; ++p) {
    const PageView& page = lane.view.pages[p];
    if (page.live == 0) continue;
    CHECK(page.v != nullptr);
    lane.kernels->planes.expand_v[page.v_form.index()](page.v, page.v_form.Shape(dim),
                                                       scratch->plane.data());
    for (uint64_t live = page.live; live != 0; live &= live - 1, ++i) {
      const float* const v =
          scratch->plane.data() + static_cast<size_t>(std::countr_zero(live)) * dim;
      float squares = 0;
      for (size_t c = 0; c < dim; ++c) squares += v[c] * v[c];
      scores[i] = (scores[i] + params_.epsilon) * std::sqrt(squares);
    }
  }
  return 1;
}

}  // namespace kvasir
