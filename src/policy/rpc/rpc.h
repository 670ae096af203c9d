// RPC, Reasoning Path Compression (arXiv 2505.13866): compress what a model has written itself,
// again and again, while it writes.
//
// The prompt is never touched. In round n (rounds.h) the last R queries judge the candidates j:
// probabilities among the candidates alone (no causal mask: all are older), summed over the R rows,
// mean over all query heads of the layer (heads=all) or of a KV head (heads=group), smoothed by an
// average over `kernel` neighbours in view order (eq. 2; zeros beyond the ends count). The n T best
// stay, in ascending order, between the prompt and the last R entries.
//
// compat=repo counts the newest query twice instead of R different ones, as the authors' code does.
//
// Evidence  The last R query rows.
// Cost      A round reads the candidates' K once; between rounds nothing but copies of query rows.
#pragma once

#include <memory>

#include "policy/retention.h"

namespace kvasir {

extern const Traits kRpcTraits;
std::unique_ptr<Policy> MakeRpc(const OptionValues& values, const PolicyContext& context);

class RpcScorer final : public Scorer {
 public:
  struct Params {
    uint32_t n_heads = 0, window = 32, kernel = 7;
    bool all_heads = true;
    bool newest_twice = false;
  };
  explicit RpcScorer(const Params& params) : params_(params) {}
  float Score(const ScoredLane& lane, ScorerScratch* scratch,
              std::span<float> scores) const override;
  void Shape(const ScoredLane& lane, ScorerScratch* scratch,
             std::span<float> scores) const override;
  Grain grain() const override { return params_.all_heads ? Grain::kLayer : Grain::kLane; }
  std::unique_ptr<Evidence> NewEvidence(const LaneShape& shape) const override;
  uint64_t EvidenceBytes(const LaneShape& shape, const Growth& growth) const override;
  std::optional<uint32_t> rows_to_see() const override { return 1; }  // the prompt says nothing

 private:
  Params params_;
};

}  // namespace kvasir
