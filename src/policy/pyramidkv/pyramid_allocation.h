// PyramidKV's spread over layers (arXiv 2406.02069): an arithmetic sequence, the lowest layer most.
#pragma once

#include "policy/allocation.h"

namespace kvasir {

class PyramidAllocation final : public Allocation {
 public:
  explicit PyramidAllocation(double beta) : beta_(beta) {}
  // With b = N less what stays anyway (the window, sinks, pins): the highest layer gets
  // min = b / beta beside that, the lowest max = 2 b - min, within what there is; all heads of a
  // layer the same. Real shares, rounded so that they add up. Where less than 2 b is there, the
  // spread is even.
  void OverLayers(std::span<LaneShare> lanes, uint32_t heads, uint64_t target) const override;
  bool uneven() const override { return true; }

 private:
  double beta_;
};

}  // namespace kvasir
