// PyramidKV's spread over layers (arXiv 2406.02069): an arithmetic sequence, the lowest layer most.
#pragma once

#include "policy/allocation.h"

namespace kvasir {

class PyramidAllocation final : public Allocation {
 public:
  // `window`: entries of every lane that stay anyway.
  PyramidAllocation(uint32_t window, double beta) : window_(window), beta_(beta) {}
  // With b = N - window: the highest layer gets min = b / beta, the lowest max = 2 b - min, within
  // what there is; all heads of a layer the same. Real shares, rounded so that they add up.
  void OverLayers(std::span<LaneShare> lanes, uint32_t heads, uint64_t target) const override;
  bool uneven() const override { return true; }

 private:
  uint32_t window_;
  double beta_;
};

}  // namespace kvasir
