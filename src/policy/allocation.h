// Allocation: how one budget is spread over lanes. Uniform unless a method brings its own.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kvasir {

// A lane that may lose entries.
struct LaneShare {
  uint64_t entries = 0;
  uint64_t always = 0;  // of these, protected ones
  uint64_t keep = 0;
};

// One lane's scores and marks, in view order.
struct LaneScores {
  std::span<const float> scores;
  std::span<const uint8_t> is_protected;
};

class Allocation {
 public:
  virtual ~Allocation() = default;
  // Fills `keep` of lanes (layers ascending, `heads` lanes each) so that they add up to `target`,
  // or to all entries when those are fewer. `always` is known when uneven().
  virtual void OverLayers(std::span<LaneShare> lanes, uint32_t heads, uint64_t target) const;
  // Whether lanes may get different counts beyond rounding.
  virtual bool uneven() const { return false; }
  // Whether the lanes of a layer share what they got according to their scores.
  virtual bool by_score() const { return false; }
  virtual void OverHeads(std::span<const LaneScores> scores, std::span<LaneShare> lanes) const {}
};

}  // namespace kvasir
