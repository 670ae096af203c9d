#include "policy/pyramidkv/pyramid_allocation.h"

#include <algorithm>

#include "policy/budget.h"

namespace kvasir {

void PyramidAllocation::OverLayers(std::span<LaneShare> lanes, uint32_t heads,
                                   uint64_t target) const {
  const size_t n_layers = lanes.size() / heads;
  uint64_t fewest = UINT64_MAX;
  for (const LaneShare& lane : lanes) fewest = std::min(fewest, lane.entries);
  const uint64_t mean = target / lanes.size();
  const double candidates = static_cast<double>(fewest - std::min<uint64_t>(fewest, window_));
  const double share = static_cast<double>(mean - std::min<uint64_t>(mean, window_));
  if (n_layers < 2 || static_cast<double>(fewest) < 2 * share) {
    return Allocation::OverLayers(lanes, heads, target);
  }
  double least = share / beta_, most = 2 * share - least;
  if (most >= candidates) {
    most = candidates;
    least = 2 * share - most;
  }
  std::vector<double> weights;
  for (size_t l = 0; l < n_layers; ++l) {
    weights.push_back(most -
                      static_cast<double>(l) * (most - least) / static_cast<double>(n_layers - 1));
  }
  const std::vector<uint64_t> capacities(n_layers, static_cast<uint64_t>(candidates));
  const std::vector<uint64_t> spread =
      Spread(weights, capacities, static_cast<uint64_t>(share) * n_layers);
  for (size_t i = 0; i < lanes.size(); ++i) lanes[i].keep = spread[i / heads] + window_;
}

}  // namespace kvasir
