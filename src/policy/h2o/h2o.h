// H2O, heavy hitters (arXiv 2306.14048): keep the entries that queries so far attended to most, and
// the last ones.
//
// a_j = sum over all queries since j arrived of the probability they gave it, over all entries they
// saw, summed over the query heads of a KV head (the paper has one). Half of the budget are the
// last tokens unless `recent` says otherwise. norm=lifetime divides by the number of queries that
// could see j, which takes the advantage of age away.
//
// Evidence  One float per entry, and the query rows of a block: sums are made from them after a
//           prompt's block, and before a selection in generation (one sweep over K serves many
//           rows).
// Cost      A second product of queries and keys.
#pragma once

#include <memory>
#include <vector>

#include "policy/query_window.h"
#include "policy/retention.h"

namespace kvasir {

extern const Traits kH2oTraits;
std::unique_ptr<Policy> MakeH2o(const OptionValues& values, const PolicyContext& context);

// Column sums of attention by lane.
class MassEvidence final : public Evidence {
 public:
  MassEvidence(const LaneShape& shape, uint32_t n_heads, uint32_t rows);
  uint32_t QueryRows(uint32_t rows) const override { return rows; }
  uint32_t MaxRows() const override { return window_.capacity() - held_; }
  void Take(const LayerQueries& queries) override;
  void Settle(const KvView& view, bool due, Workers* workers) override;
  void Drop(uint32_t layer, uint32_t head, std::span<const uint32_t> indices) override;
  std::unique_ptr<Evidence> Fork() const override { return std::make_unique<MassEvidence>(*this); }

  // By entry in view order, when settled.
  std::span<const float> sums(uint32_t layer, uint32_t head) const {
    return sums_[Lane(layer, head)];
  }

 private:
  size_t Lane(uint32_t layer, uint32_t head) const {
    return size_t{layer - shape_.first_layer} * shape_.n_kv_heads + head;
  }
  LaneShape shape_;
  QueryWindow window_;  // rows since the last Settle that used them
  uint32_t held_ = 0;
  std::vector<std::vector<float>> sums_;
};

class H2oScorer final : public Scorer {
 public:
  enum class Norm : uint8_t { kSum, kLifetime };
  H2oScorer(uint32_t n_heads, uint32_t rows, Norm norm)
      : n_heads_(n_heads), rows_(rows), norm_(norm) {}
  float Score(const ScoredLane& lane, ScorerScratch* scratch,
              std::span<float> scores) const override;
  std::unique_ptr<Evidence> NewEvidence(const LaneShape& shape) const override;
  uint64_t EvidenceBytes(const LaneShape& shape, const Growth& growth) const override;
  std::optional<uint32_t> rows_to_see() const override { return std::nullopt; }

 private:
  uint32_t n_heads_, rows_;
  Norm norm_;
};

}  // namespace kvasir
