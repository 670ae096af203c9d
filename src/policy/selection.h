// Selection: which entries of a lane stay, given one score for each.
//
// Order is (score descending, index ascending): on a tie the lower position stays. Protected
// entries stay whatever their score; a NaN counts as minus infinity. [contract: policy.protect,
// policy.ties]
//
// Cost     O(n), by nth_element on the unprotected entries.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "kernels/plane.h"

namespace kvasir {

using PositionSpan = std::pair<uint32_t, uint32_t>;  // [begin, end)

// Replaces NaN by minus infinity; returns how many there were.
uint32_t ReplaceNaN(std::span<float> scores);

// Indices to drop so that `keep` entries stay (all protected ones, if those are more), ascending.
// `is_protected` has one byte per entry; `candidates` is scratch.
void SelectDrops(std::span<const float> scores, std::span<const uint8_t> is_protected, size_t keep,
                 std::vector<uint32_t>* candidates, std::vector<uint32_t>* drops);

// Positions of a lane's live entries, in view order.
void GatherPositions(const LaneView& lane, std::vector<uint32_t>* positions);

// Ascending, disjoint spans that cover the same positions; empty ones are left out.
std::vector<PositionSpan> MergeSpans(std::vector<PositionSpan> spans);
// One byte per position (ascending): whether a span (ascending, disjoint) covers it.
void MarkCovered(std::span<const uint32_t> positions, std::span<const PositionSpan> spans,
                 std::vector<uint8_t>* covered);

}  // namespace kvasir
