// The state of one sequence under a retention policy. Tools and tests may watch its scores.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "policy/retention.h"

namespace kvasir {

class RetentionState final : public PolicyState {
 public:
  // Called for every list of a selection, in order, before it is made; head -1: one list for all.
  using ScoreSink =
      std::function<void(uint32_t layer, int32_t head, std::span<const float> scores)>;

  RetentionState(const RetentionPolicy& policy, const SequenceInfo& info);
  RetentionState(const RetentionState& other);

  uint32_t MaxRows(const Progress& before) const override;
  uint32_t QueryRows(uint32_t rows) const override;
  void TakeQueries(const LayerQueries& queries) override;
  void Observe(const Progress& after, const KvView& view, Workers* workers, Plan* plan) override;
  std::unique_ptr<PolicyState> Fork() const override {
    return std::make_unique<RetentionState>(*this);
  }
  uint64_t nonfinite_scores() const override { return nonfinite_scores_; }

  void WatchScores(ScoreSink sink) { on_scores_ = std::move(sink); }

 private:
  struct Scratch;
  class Selection;
  // Drops are planned until `target` entries are held.
  void PlanTo(uint64_t target, const Progress& after, const KvView& view, Workers* workers,
              Plan* plan);
  void FollowTurn(const Progress& after);

  const RetentionPolicy& policy_;
  const std::vector<PositionSpan> pinned_;
  const bool one_turn_;
  Held held_;  // after the last plan
  const std::unique_ptr<Evidence> evidence_;
  std::vector<PositionSpan> prompts_;  // of all turns so far
  uint32_t position_ = 0;              // after the last pass
  bool pins_announced_ = false;
  uint64_t nonfinite_scores_ = 0;
  ScoreSink on_scores_;  // forks have none
};

}  // namespace kvasir
