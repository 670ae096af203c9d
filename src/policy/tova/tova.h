// TOVA (arXiv 2401.06104): keep the tokens that the last query attends to.
//
// s_j is the probability that the newest row gives entry j, over all entries, mean over all query
// heads of a layer; one list per layer. The newest entry competes like all others (recent=1 keeps
// it).
//
// Evidence  One query row per layer.
#pragma once

#include <memory>

#include "policy/retention.h"

namespace kvasir {

extern const Traits kTovaTraits;
std::unique_ptr<Policy> MakeTova(const OptionValues& values, const PolicyContext& context);

class TovaScorer final : public Scorer {
 public:
  explicit TovaScorer(uint32_t n_heads) : n_heads_(n_heads) {}
  float Score(const ScoredLane& lane, ScorerScratch* scratch,
              std::span<float> scores) const override;
  Grain grain() const override { return Grain::kLayer; }
  std::unique_ptr<Evidence> NewEvidence(const LaneShape& shape) const override;
  uint64_t EvidenceBytes(const LaneShape& shape, const Growth& growth) const override;

 private:
  uint32_t n_heads_;
};

}  // namespace kvasir
