// R-KV (arXiv 2505.24133): keep what the last queries attend to and what is not said twice.
//
// When N + buffer entries are reached (and at the prompt's end, if there are more than N), for each
// KV head with w window queries and keys k_j:
//   I_j  logits of the window's queries, maximum over the query heads of the KV head *before* the
//        softmax, softmax over the entries before the window, mean over rows, maximum over `kernel`
//        neighbours
//   D_j  cosines of all keys with zero diagonal; in row i the entry of the latest j above
//        `threshold` is set to zero (the newest twin is not blamed); mean over rows, softmax over j
//   Z_j = lambda I_j - (1 - lambda) D_j
// The best N - w entries before the window stay, and the window.
//
// Evidence  The last w query rows.
// Cost      (N + buffer)^2 head_dim multiply-adds per lane and selection.
#pragma once

#include <memory>

#include "policy/retention.h"

namespace kvasir {

extern const Traits kRkvTraits;
std::unique_ptr<Policy> MakeRkv(const OptionValues& values, const PolicyContext& context);

class RkvScorer final : public Scorer {
 public:
  struct Params {
    uint32_t n_heads = 0, window = 8, kernel = 7;
    float lambda = 0.1f, threshold = 0.5f;
  };
  explicit RkvScorer(const Params& params) : params_(params) {}
  float Score(const ScoredLane& lane, ScorerScratch* scratch,
              std::span<float> scores) const override;
  std::unique_ptr<Evidence> NewEvidence(const LaneShape& shape) const override;
  uint64_t EvidenceBytes(const LaneShape& shape, const Growth& growth) const override;
  std::optional<uint32_t> rows_to_see() const override { return params_.window; }

 private:
  void Importance(const ScoredLane& lane, size_t before, ScorerScratch* scratch,
                  std::span<float> importance) const;
  void Redundancy(const ScoredLane& lane, ScorerScratch* scratch,
                  std::span<float> redundancy) const;
  Params params_;
};

}  // namespace kvasir
