#include "policy/allocation.h"

#include "policy/budget.h"

namespace kvasir {

void Allocation::OverLayers(std::span<LaneShare> lanes, uint32_t heads, uint64_t target) const {
  const std::vector<double> weights(lanes.size(), 1.0);
  std::vector<uint64_t> capacities;
  for (const LaneShare& lane : lanes) capacities.push_back(lane.entries);
  const std::vector<uint64_t> keep = Spread(weights, capacities, target);
  for (size_t i = 0; i < lanes.size(); ++i) lanes[i].keep = keep[i];
}

}  // namespace kvasir
