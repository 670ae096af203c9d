// Random retention: the control that every method must beat.
//
// An entry's score is a hash of (seed, layer, head, position), drawn once and for all: every lane
// keeps a uniform sample of all positions it has seen, lanes differ, and sequences with equal
// tokens on one grid keep equal entries.
//
// Cost     No reads of K or V.
#pragma once

#include <cstdint>
#include <memory>

#include "policy/retention.h"

namespace kvasir {

extern const Traits kRandomTraits;
std::unique_ptr<Policy> MakeRandom(const OptionValues& values, const PolicyContext& context);

class RandomScorer final : public Scorer {
 public:
  explicit RandomScorer(uint64_t seed) : seed_(seed) {}
  // Multiples of 2^-24 in [0, 1).
  float Score(const ScoredLane& lane, ScorerScratch* scratch,
              std::span<float> scores) const override;

 private:
  uint64_t seed_;
};

}  // namespace kvasir
