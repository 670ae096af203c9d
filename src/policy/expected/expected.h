// ExpectedAttention (arXiv 2510.00636): keep what queries to come are expected to attend to.
//
// Queries before RoPE are taken as normal with the mean m and covariance S of those seen; R is the
// mean rotation over the next `future` positions, m' = R m, S' = R S R^T. The expected logarithm of
// the weight of key k is z = k.m' / sqrt(d) + k^T S' k / (2 d); softmax over the entries behind the
// sinks, mean over the query heads of a KV head, plus epsilon, times |v|. After the prompt; then
// every `every` tokens with the moments of the last `window` queries. cov=off leaves S out.
//
// Evidence  Mean and covariance per query head (head_dim^2 floats), and the last `window` rows.
// Cost      head_dim^2 multiply-adds per query row and head while the prompt is read, and per key
//           and query head at a selection.
#pragma once

#include <memory>

#include "policy/expected/query_moments.h"
#include "policy/retention.h"

namespace kvasir {

extern const Traits kExpectedTraits;
std::unique_ptr<Policy> MakeExpected(const OptionValues& values, const PolicyContext& context);

class ExpectedScorer final : public Scorer {
 public:
  struct Params {
    uint32_t sink = 4, window = 128, future = 512;
    float epsilon = 0;
    bool covariance = true;
    bool again = true;  // there are selections in generation
  };
  ExpectedScorer(const ModelFacts& facts, const Params& params) : facts_(facts), params_(params) {}
  float Score(const ScoredLane& lane, ScorerScratch* scratch,
              std::span<float> scores) const override;
  std::unique_ptr<Evidence> NewEvidence(const LaneShape& shape) const override;
  uint64_t EvidenceBytes(const LaneShape& shape, const Growth& growth) const override;
  std::optional<uint32_t> rows_to_see() const override { return std::nullopt; }

 private:
  // Moments of the queries of positions [position, position + future), after RoPE.
  Moments Turned(const Moments& moments, uint32_t position) const;
  // z of all live entries, in view order.
  void Exponents(const ScoredLane& lane, const Moments& turned, ScorerScratch* scratch,
                 std::span<float> z) const;
  ModelFacts facts_;
  Params params_;
};

}  // namespace kvasir
