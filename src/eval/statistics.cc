#include "eval/statistics.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "base/error.h"

namespace kvasir {

namespace {

constexpr double kZ95 = 1.959963984540054;  // 97.5 % of a normal distribution lie below
constexpr uint64_t kBootstrapSeed = 0x6b766173;

}  // namespace

Interval Wilson(double hits, uint64_t n) {
  CHECK(n > 0 && hits >= 0 && hits <= static_cast<double>(n));
  const auto count = static_cast<double>(n);
  const double p = hits / count, z2 = kZ95 * kZ95;
  const double scale = 1 / (1 + z2 / count);
  const double middle = scale * (p + z2 / (2 * count));
  const double half = scale * kZ95 * std::sqrt(p * (1 - p) / count + z2 / (4 * count * count));
  return {std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

double McNemar(uint64_t lost, uint64_t gained) {
  const uint64_t n = lost + gained, fewer = std::min(lost, gained);
  if (n == 0) return 1;
  // Terms of the binomial distribution as logarithms: 2^-n alone is 0 in double from n = 1075 on.
  double tail = 0, term = -static_cast<double>(n) * std::log(2.0);
  for (uint64_t k = 0; k <= fewer; ++k) {
    tail += std::exp(term);
    term += std::log(static_cast<double>(n - k)) - std::log(static_cast<double>(k + 1));
  }
  return std::min(1.0, 2 * tail);
}

Estimate BootstrapMean(std::span<const Group> groups) {
  Group all;
  for (const Group& group : groups) {
    all.sum += group.sum;
    all.count += group.count;
  }
  CHECK(all.count > 0);
  Estimate estimate{all.sum / all.count, std::nullopt};
  if (groups.size() < 2) return estimate;
  std::mt19937_64 random(kBootstrapSeed);
  std::vector<double> means(kResamples);
  for (double& mean : means) {
    Group drawn;
    while (drawn.count <= 0) {  // groups may be empty, all of those drawn with them
      drawn = {};
      for (size_t i = 0; i < groups.size(); ++i) {
        // The high half of a 32 x 32 bit product: even to within 2^-32 of a group.
        const uint64_t draw = (random() >> 32) * groups.size() >> 32;
        drawn.sum += groups[draw].sum;
        drawn.count += groups[draw].count;
      }
    }
    mean = drawn.sum / drawn.count;
  }
  std::sort(means.begin(), means.end());
  estimate.interval = Interval{Quantile(means, 0.025), Quantile(means, 0.975)};
  return estimate;
}

Estimate PairedBootstrap(std::span<const double> differences) {
  std::vector<Group> groups;
  groups.reserve(differences.size());
  for (const double difference : differences) groups.push_back({difference, 1});
  return BootstrapMean(groups);
}

double Quantile(std::span<const double> sorted, double q) {
  if (sorted.empty()) return 0;
  const double place = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  if (below + 1 >= sorted.size()) return sorted.back();
  return std::lerp(sorted[below], sorted[below + 1], place - static_cast<double>(below));
}

}  // namespace kvasir
