#include "policy/budget.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace kvasir {

uint64_t PackedEntryBytes(const LaneShape& shape) { return shape.EntryBytes() + sizeof(uint32_t); }

namespace {

// Weights of the open lanes add up to this; where all are zero they become equal.
double SumOfWeights(const std::vector<size_t>& open, std::vector<double>* weights) {
  double sum = 0;
  for (const size_t i : open) sum += (*weights)[i];
  if (sum > 0) return sum;
  for (const size_t i : open) (*weights)[i] = 1;
  return static_cast<double>(open.size());
}

}  // namespace

std::vector<uint64_t> Spread(std::span<const double> lane_weights,
                             std::span<const uint64_t> capacities, uint64_t total) {
  CHECK(lane_weights.size() == capacities.size());
  std::vector<uint64_t> shares(capacities.begin(), capacities.end());
  if (std::accumulate(shares.begin(), shares.end(), uint64_t{0}) <= total) return shares;
  std::vector<double> weights(lane_weights.begin(), lane_weights.end());
  std::vector<size_t> open(shares.size());
  std::iota(open.begin(), open.end(), size_t{0});

  // Lanes whose share exceeds their capacity are filled and closed, until no share does.
  const auto share_of = [&](size_t i, double sum) {
    return static_cast<double>(total) * weights[i] / sum;
  };
  double sum = SumOfWeights(open, &weights);
  for (;;) {
    uint64_t taken = 0;
    const size_t closed = std::erase_if(open, [&](size_t i) {
      const bool full = share_of(i, sum) > static_cast<double>(capacities[i]);
      if (full) taken += capacities[i];
      return full;
    });
    if (closed == 0) break;
    total -= taken;
    sum = SumOfWeights(open, &weights);
  }

  std::vector<std::pair<double, size_t>> remainders;
  uint64_t given = 0;
  for (const size_t i : open) {
    const double share = share_of(i, sum);
    shares[i] = static_cast<uint64_t>(share);
    given += shares[i];
    remainders.emplace_back(share - std::floor(share), i);
  }
  CHECK(given <= total && total - given <= open.size());
  std::sort(remainders.begin(), remainders.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  for (size_t k = 0; given < total; ++k, ++given) ++shares[remainders[k].second];
  return shares;
}

}  // namespace kvasir
