// StreamingLLM (arXiv 2309.17453): keep the first s and the last w tokens.
//
// Positions stay true; the authors rotate keys anew by their index in the cache, we do not. They
// make room before a token is appended, so that its query sees s + w entries, itself included. Here
// s + w - 1 entries stay after each commit, which gives that query the same set:
// budget = sink + recent - 1.
//
// Cost     No reads of K or V; one list serves all lanes.
#pragma once

#include <memory>

#include "policy/retention.h"

namespace kvasir {

extern const Traits kStreamingTraits;
std::unique_ptr<Policy> MakeStreaming(const OptionValues& values, const PolicyContext& context);

// The later, the higher. Sinks stay because they are protected.
class StreamingScorer final : public Scorer {
 public:
  float Score(const ScoredLane& lane, ScorerScratch* scratch,
              std::span<float> scores) const override;
  Grain grain() const override { return Grain::kModel; }
};

}  // namespace kvasir
