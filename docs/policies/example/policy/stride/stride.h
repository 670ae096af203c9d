// Stride: keep the last tokens, and of older ones every so many.
//
// A token whose position is a multiple of `step` ages `step` times slower than the others, and the
// youngest stay. The example of docs/policies/write-your-own.md; no program contains it.
//
// Cost     No reads of K or V; one list serves all lanes.
#pragma once

#include <memory>

#include "policy/retention.h"

namespace kvasir {

extern const Traits kStrideTraits;
std::unique_ptr<Policy> MakeStride(const OptionValues& values, const PolicyContext& context);

class StrideScorer final : public Scorer {
 public:
  explicit StrideScorer(uint32_t step) : step_(step) {}
  float Score(const ScoredLane& lane, ScorerScratch* scratch,
              std::span<float> scores) const override;
  Grain grain() const override { return Grain::kModel; }

 private:
  uint32_t step_;
};

}  // namespace kvasir
