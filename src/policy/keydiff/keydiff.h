// KeyDiff (arXiv 2504.15364): keep the keys least similar to the mean direction of all cached keys.
//
// With unit keys u_i = k_i / |k_i| of one lane and the anchor A = sum of u_i, the score is
// s_i = -cos(A, k_i). No query, no probability and no value is needed. Keys are the cached ones,
// after RoPE, as the codec returns them; protected entries count in the anchor. A zero key has
// cosine 0; if A is zero all scores are equal.
//
// Cost     Two sweeps over the lane's K planes per selection, each page expanded once per sweep.
#pragma once

#include <memory>

#include "policy/retention.h"

namespace kvasir {

extern const Traits kKeyDiffTraits;
std::unique_ptr<Policy> MakeKeyDiff(const OptionValues& values, const PolicyContext& context);

class KeyDiffScorer final : public Scorer {
 public:
  enum class Anchor : uint8_t {
    kUnit,  // sum of unit keys: the paper's
    kRaw,   // sum of the keys as they are: long keys weigh more
  };
  // `invert` turns the score round: keys most similar to the anchor stay (a control).
  KeyDiffScorer(Anchor anchor, bool invert) : anchor_(anchor), invert_(invert) {}
  // Keys are compared without the bias of the key projection, turned as at their position.
  void LeaveBiasOut(ModelFacts facts) { without_bias_ = std::move(facts); }

  // The floats are -(k_i . A) / |k_i|; the factor is 1 / |A|.
  float Score(const ScoredLane& lane, ScorerScratch* scratch,
              std::span<float> scores) const override;

 private:
  void SubtractBias(const ScoredLane& lane, const PageView& page, float* plane) const;
  Anchor anchor_;
  bool invert_;
  ModelFacts without_bias_;  // no heads: the bias stays in
};

}  // namespace kvasir
