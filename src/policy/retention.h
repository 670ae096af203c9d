// A retention policy is put together from parts: a schedule says when and down to how many,
// evidence says what is recorded meanwhile, a scorer gives one float per entry, an allocation
// spreads the budget over lanes. Protection and selection are the same for all. [contract:
// policy.parts]
//
// A method is a scorer with a table of options; most need nothing else.
//
// Cost     A pass that drops nothing costs a count of the lanes' entries. A selection costs one
//          call of the scorer per lane and one nth_element per list, in parallel over lanes (over
//          layers, where lanes of a layer are judged together); scratch is that of the lanes at
//          hand per worker, freed when the plan is made.
// Threads  Engine thread; scoring uses the workers. Plans are the same for any number of them.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "policy/allocation.h"
#include "policy/evidence.h"
#include "policy/policy.h"
#include "policy/schedule.h"

namespace kvasir {

// One lane as a scorer sees it.
struct ScoredLane {
  LaneView view;
  std::span<const uint32_t> positions;  // of the live entries, ascending
  std::span<const uint8_t> is_protected;
  uint32_t layer = 0, head = 0;
  Progress at;
  const Kernels* kernels = nullptr;
  const Evidence* evidence = nullptr;  // what the scorer's NewEvidence made
};

// Memory of one worker, kept from lane to lane.
struct ScorerScratch {
  std::vector<float> plane, inverse, weights, anchor, dots, rows, sums;
};

// For which entries one list is made.
enum class Grain : uint8_t {
  kLane,   // every lane is ranked by itself
  kLayer,  // one list for the lanes of a layer, by the mean of their scores
  kModel,  // one list for all lanes; they hold the same positions and only the first is scored
};

class Scorer {
 public:
  virtual ~Scorer() = default;
  // One float per entry in view order: the highest stay. Returns the factor (not negative) that
  // turns them into the scores of the method's paper; the order needs none.
  virtual float Score(const ScoredLane& lane, ScorerScratch* scratch,
                      std::span<float> scores) const = 0;
  // What remains to be done after the mean over the lanes of a list: a pool.
  virtual void Shape(const ScoredLane& lane, ScorerScratch* scratch,
                     std::span<float> scores) const {}
  virtual Grain grain() const { return Grain::kLane; }
  virtual std::unique_ptr<Evidence> NewEvidence(const LaneShape& shape) const { return nullptr; }
  virtual uint64_t EvidenceBytes(const LaneShape& shape, const Growth& growth) const { return 0; }
  // As Policy::rows_to_see.
  virtual std::optional<uint32_t> rows_to_see() const { return 1; }
};

// The scores of one lane, scaled as in the method's paper. For tests and tools: allocates.
std::vector<float> Scores(const Scorer& scorer, const Kernels& kernels, const LaneView& lane,
                          uint32_t layer = 0, uint32_t head = 0);

struct RetentionParts {
  std::unique_ptr<Schedule> schedule;
  std::unique_ptr<Scorer> scorer;
  std::unique_ptr<Allocation> allocation;  // none: uniform
  std::string suffix;                      // the method's own parameters in Spec(): ",anchor=unit"
};

class RetentionPolicy final : public Policy {
 public:
  RetentionPolicy(const Traits& traits, const PolicyContext& context, RetentionParts parts);

  const Traits& traits() const override { return traits_; }
  std::string Spec() const override;
  Growth MaxGrowth(uint64_t prompt, uint64_t tokens, uint64_t protected_entries) const override;
  uint64_t EvidenceBytes(const Growth& growth) const override;
  std::unique_ptr<PolicyState> Begin(const SequenceInfo& info) const override;
  uint32_t block() const override { return parts_.schedule->block(); }
  bool pins() const override { return parts_.schedule->pins(); }
  bool AtPromptEndOnly(uint32_t prompt) const override {
    return parts_.schedule->AtPromptEndOnly(prompt);
  }
  std::optional<uint32_t> rows_to_see() const override;

  const Schedule& schedule() const { return *parts_.schedule; }
  const Scorer& scorer() const { return *parts_.scorer; }
  const Allocation& allocation() const { return *parts_.allocation; }

 private:
  const Traits& traits_;
  const LaneShape shape_;  // without layers when the policy was made without a model
  RetentionParts parts_;
};

// What a scorer records, for ReadBudget. The scorer must outlive it.
EvidenceBytesOf EvidenceOf(const Scorer& scorer, const PolicyContext& context);
// The usual way to put one together: common keys and a budget read from `values`.
std::unique_ptr<Policy> MakeGridPolicy(const Traits& traits, const OptionValues& values,
                                       const PolicyContext& context, std::unique_ptr<Scorer> scorer,
                                       std::string suffix);

}  // namespace kvasir
