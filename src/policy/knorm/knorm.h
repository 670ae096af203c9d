// Knorm (arXiv 2406.11430): keep the keys with the smallest L2 norm.
//
// s_i = -|k_i| of the cached keys. RoPE does not change norms. On models that normalise keys per
// head (Qwen3) norms are nearly equal and say little. invert=on keeps the largest: a control.
//
// Cost     One sweep over the lane's K planes per selection.
#pragma once

#include <memory>

#include "policy/retention.h"

namespace kvasir {

extern const Traits kKnormTraits;
std::unique_ptr<Policy> MakeKnorm(const OptionValues& values, const PolicyContext& context);

class KnormScorer final : public Scorer {
 public:
  explicit KnormScorer(bool invert) : invert_(invert) {}
  float Score(const ScoredLane& lane, ScorerScratch* scratch,
              std::span<float> scores) const override;

 private:
  bool invert_;
};

}  // namespace kvasir
