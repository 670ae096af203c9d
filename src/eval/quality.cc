#include "eval/quality.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"

namespace kvasir {

namespace {

struct Sums {
  double n = 0, nll = 0, nll_dense = 0, kl = 0, dp2 = 0, same = 0;

  void Add(const Divergence& d) {
    ++n;
    nll += d.nll;
    nll_dense += d.nll_dense;
    kl += d.kl;
    dp2 += d.dp * d.dp;
    same += d.same_top1 ? 1 : 0;
  }
};

KlFigures KlOf(std::vector<double> values, std::span<const Group> groups) {
  std::sort(values.begin(), values.end());
  const Estimate mean = BootstrapMean(groups);
  return {mean.v,        Quantile(values, .5), Quantile(values, .9), Quantile(values, .99),
          values.back(), mean.interval};
}

}  // namespace

QualityFigures Summarize(std::span<const TokenFigures> tokens, bool only_scored) {
  Sums sums;
  std::vector<double> kl;
  std::vector<Group> kl_groups, loss_groups;
  uint32_t group = 0;
  for (const TokenFigures& token : tokens) {
    if (only_scored && !token.scored) continue;
    const Divergence& d = token.divergence;
    sums.Add(d);
    kl.push_back(d.kl);
    if (loss_groups.empty() || token.group != group) {
      group = token.group;
      kl_groups.emplace_back();
      loss_groups.emplace_back();
    }
    kl_groups.back().sum += d.kl;
    loss_groups.back().sum += d.nll - d.nll_dense;
    kl_groups.back().count = ++loss_groups.back().count;
  }
  CHECK(sums.n > 0);
  QualityFigures figures;
  figures.scored = kl.size();
  figures.ppl = std::exp(sums.nll / sums.n);
  figures.ppl_dense = std::exp(sums.nll_dense / sums.n);
  figures.ratio = figures.ppl / figures.ppl_dense;
  figures.dppl.v = figures.ppl - figures.ppl_dense;
  if (const auto interval = BootstrapMean(loss_groups).interval) {
    figures.dppl.interval = Interval{figures.ppl_dense * std::expm1(interval->lo),
                                     figures.ppl_dense * std::expm1(interval->hi)};
  }
  figures.kl = KlOf(std::move(kl), kl_groups);
  figures.top1 = sums.same / sums.n;
  figures.rms_dp = std::sqrt(sums.dp2 / sums.n);
  return figures;
}

std::vector<QualityBucket> Buckets(std::span<const TokenFigures> tokens) {
  std::vector<Sums> sums(33);
  for (const TokenFigures& token : tokens) {
    sums[static_cast<size_t>(std::bit_width(token.position))].Add(token.divergence);
  }
  std::vector<QualityBucket> buckets;
  for (size_t width = 1; width < sums.size(); ++width) {
    const Sums& s = sums[width];
    if (s.n == 0) continue;
    buckets.push_back({.begin = uint64_t{1} << (width - 1),
                       .end = uint64_t{1} << width,
                       .scored = static_cast<uint64_t>(s.n),
                       .ppl = std::exp(s.nll / s.n),
                       .ppl_dense = std::exp(s.nll_dense / s.n),
                       .kl = s.kl / s.n,
                       .top1 = s.same / s.n});
  }
  return buckets;
}

}  // namespace kvasir
