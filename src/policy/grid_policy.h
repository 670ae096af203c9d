// A grid policy: schedule, protection, budget and selection are shared, a method adds a scorer.
//
// At multiples of the block inside one prompt the state of a sequence is a function of its tokens
// and of Spec(): snapshots taken there may be shared. [contract: policy.grid]
//
// Cost     A pass that drops nothing costs a count of the lanes' entries. A selection costs one
// call
//          of the scorer and one nth_element per lane, in parallel over lanes; scratch is one
//          lane's scores and marks per worker, freed when the plan is made.
// Threads  Engine thread; scoring uses the workers. Plans are the same for any number of them.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "policy/policy.h"
#include "policy/schedule.h"

namespace kvasir {

// One lane as a scorer sees it.
struct ScoredLane {
  LaneView view;
  std::span<const uint32_t> positions;  // of the live entries, ascending
  uint32_t layer = 0, head = 0;
  const Kernels* kernels = nullptr;
};

// Memory of one worker, kept from lane to lane.
struct ScorerScratch {
  std::vector<float> plane, inverse, weights, anchor, dots;
};

class Scorer {
 public:
  virtual ~Scorer() = default;
  // One float per entry in view order: the highest stay. Returns the factor (not negative) that
  // turns them into the scores of the method's paper; the order needs none.
  virtual float Score(const ScoredLane& lane, ScorerScratch* scratch,
                      std::span<float> scores) const = 0;
  // All lanes hold the same positions and get the same list: it is made once.
  virtual bool lockstep() const { return false; }
};

// The scores of one lane, scaled as in the method's paper. For tests and tools: allocates.
std::vector<float> Scores(const Scorer& scorer, const Kernels& kernels, const LaneView& lane,
                          uint32_t layer = 0, uint32_t head = 0);

class GridPolicy final : public Policy {
 public:
  // `suffix`: the method's own parameters in Spec(), ",anchor=unit".
  GridPolicy(const Traits& traits, const GridParams& params, uint32_t n_layers,
             std::unique_ptr<Scorer> scorer, std::string suffix);

  const Traits& traits() const override { return traits_; }
  std::string Spec() const override;
  Growth MaxGrowth(uint64_t tokens, uint64_t protected_entries) const override;
  std::unique_ptr<PolicyState> Begin(const SequenceInfo& info) const override;
  uint32_t block() const override { return params_.block; }
  bool pins() const override { return params_.pins; }

  const GridParams& params() const { return params_; }
  const Scorer& scorer() const { return *scorer_; }

 private:
  const Traits& traits_;
  const GridParams params_;
  const uint32_t n_layers_;  // 0 when the policy was made without a model
  const std::unique_ptr<Scorer> scorer_;
  const std::string suffix_;
};

}  // namespace kvasir
