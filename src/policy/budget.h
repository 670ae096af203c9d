// Budget arithmetic: from bytes to entries, and from one number to many lanes without losing any.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/store.h"

namespace kvasir {

// Bytes of one entry in one lane once it is packed: K, V, and its position.
uint64_t PackedEntryBytes(const LaneShape& shape);

// Splits `total` by weight into whole numbers that add up exactly: real shares, floors, and what is
// left by largest remainder, ties to the lower index. No lane gets more than its capacity; what it
// cannot take goes back into the round. The sum is `total`, or all capacities when those are fewer.
// Where only weightless lanes have room left, they count as equal.
std::vector<uint64_t> Spread(std::span<const double> lane_weights,
                             std::span<const uint64_t> capacities, uint64_t total);

}  // namespace kvasir
