#include "policy/pyramidkv/pyramid_allocation.h"

#include <algorithm>

#include "policy/budget.h"

namespace kvasir {

void PyramidAllocation::OverLayers(std::span<LaneShare> lanes, uint32_t heads,
                                   uint64_t target) const {
  const size_t n_layers = lanes.size() / heads;
  uint64_t entries = 0, always = 0;  // of the fullest lane; of one lane of every layer
  std::vector<uint64_t> capacities;
  for (size_t l = 0; l < n_layers; ++l) {
    const LaneShare& lane = lanes[l * heads];  // the others of the layer hold as many
    entries = std::max(entries, lane.entries);
    always += lane.always;
    capacities.push_back(lane.entries - lane.always);
  }
  const uint64_t total = target / heads - std::min(target / heads, always);
  const double share = static_cast<double>(total) / static_cast<double>(n_layers);
  if (n_layers < 2 || static_cast<double>(entries) < 2 * share) {
    return Allocation::OverLayers(lanes, heads, target);
  }
  double least = share / beta_, most = 2 * share - least;
  const auto candidates =
      static_cast<double>(*std::max_element(capacities.begin(), capacities.end()));
  if (most >= candidates) {
    most = candidates;
    least = 2 * share - most;
  }
  std::vector<double> weights;
  for (size_t l = 0; l < n_layers; ++l) {
    weights.push_back(most -
                      static_cast<double>(l) * (most - least) / static_cast<double>(n_layers - 1));
  }
  const std::vector<uint64_t> spread = Spread(weights, capacities, total);
  for (size_t i = 0; i < lanes.size(); ++i) lanes[i].keep = spread[i / heads] + lanes[i].always;
}

}  // namespace kvasir
