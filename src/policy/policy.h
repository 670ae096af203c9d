// Policies: which entries stay. A policy reads views and evidence and returns a plan; it never
// touches memory.
//
// A Policy is immutable, shared by sequences and made by the registry from a spec
// ("keydiff:budget=2048"). Each sequence has a PolicyState of its own that can be forked; the
// policy must outlive it. A new method is a folder here and one line in registry.cc.
//
// Events of a sequence, in order: Begin; then for every pass MaxRows before it (so that no pass
// straddles a point of the policy's schedule), TakeQueries in it, layer by layer, if QueryRows
// asked for rows, Select in it, before each layer's attention, if it Selects, and Observe after it,
// once, after the last layer. The plan takes effect after the attention of the pass that caused it:
// peak entries are cap + rows, never cap.
//
// Budgets, protection, ties [contract: policy.budget, policy.protect, policy.ties]
//   budget=N is the mean number of entries per lane after a commit; keep=r gives N = max(floor(r *
//   seen), protected + 1). Protection is a mask and counts inside the budget; it never raises
//   scores. Order is (score descending, position ascending); NaN counts as minus infinity.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/options.h"
#include "kernels/table.h"
#include "kv/plan.h"
#include "kv/store.h"
#include "policy/selection.h"

namespace kvasir {

// How far a state may be shared between sequences (prefix reuse).
enum class Sharing : uint8_t {
  kTransparent,  // entries as if dense
  kGrid,         // at multiples of the block, a function of (tokens, policy, parameters, grid)
  kPrivate,      // depends on where prompt and generation meet, or on the question
};

// What a policy reads beside positions. What it does not declare costs no byte and no branch in a
// kernel. Every score that depends on attention is made from query rows (recorded during the pass)
// and keys as they lie in the lanes at the moment of the decision.
struct Needs {
  bool keys = false;     // read views of K planes
  bool values = false;   // of V planes
  bool queries = false;  // query rows after RoPE
};

// What a policy may know of a model beside the shape of its lanes.
struct ModelFacts {
  uint32_t n_heads = 0;  // query heads, a multiple of the KV heads
  // RoPE: position p turns pair i of a head by the angle p * inverse_frequencies[i].
  std::vector<float> inverse_frequencies;
  bool interleaved = false;                  // pairs are (2i, 2i + 1), else (i, i + head_dim / 2)
  float rope_scale = 1;                      // that turned rows are multiplied by (YaRN)
  bool key_norm = false;                     // keys are normalised per head before RoPE
  std::vector<std::vector<float>> key_bias;  // by layer, [n_kv_heads * head_dim]; may be empty

  uint32_t Group(uint32_t n_kv_heads) const { return n_heads / n_kv_heads; }
};

struct Traits {
  std::string_view name;
  std::string_view summary;  // one line for --help
  std::span<const Option> options;
  Sharing sharing = Sharing::kGrid;
  Needs needs;
  bool hides = false;  // drops nothing, and chooses what is read (PolicyState::Select)
};

struct SequenceInfo {
  LaneShape shape;
  std::vector<PositionSpan> pinned;  // spans that must stay
  bool one_turn = false;             // no prompt follows behind what is generated
};

// Query rows of consecutive positions in one layer, [n_heads * head_dim] each, as attention uses
// them: after RoPE, not scaled. Valid during the call.
struct LayerQueries {
  uint32_t layer = 0;
  uint32_t first_position = 0;
  Rows rows;
  const Kernels* kernels = nullptr;
  Workers* workers = nullptr;  // may be null
};

// Where a sequence stands before (MaxRows) or after (Observe) a pass.
struct Progress {
  uint32_t position = 0;    // tokens in the cache
  uint32_t prompt_end = 0;  // positions below are prompt
  bool in_prompt() const { return position < prompt_end; }
};

// What attention read in a pass in which a state chose.
struct PassReads {
  uint64_t hidden = 0;  // entries it left out, of all lanes
  uint64_t bytes = 0;   // read, of planes and of what the choice was made from
};

// Read access to one sequence's lanes, for policies.
class KvView {
 public:
  KvView(const Store& store, const LaneSet& set, const Kernels& kernels)
      : store_(store), set_(set), kernels_(kernels) {}
  const LaneShape& shape() const { return set_.shape(); }
  LaneView lane(uint32_t layer, uint32_t head) const { return store_.View(set_, layer, head); }
  bool IsProtected(uint32_t position) const { return set_.IsProtected(position); }
  const Kernels& kernels() const { return kernels_; }

 private:
  const Store& store_;
  const LaneSet& set_;
  const Kernels& kernels_;
};

class PolicyState {
 public:
  virtual ~PolicyState() = default;
  // Most rows of the next pass.
  virtual uint32_t MaxRows(const Progress& before) const = 0;
  // How many query rows it wants to see of a pass of `rows` rows: the last ones.
  virtual uint32_t QueryRows(uint32_t rows) const { return 0; }
  virtual void TakeQueries(const LayerQueries& queries) {}
  // Visibility: whether it chooses what the next pass reads, which then has one row.
  virtual bool Selects(const Progress& before) const { return false; }
  // Before the attention of a layer in such a pass, where no window is: puts views of what is to be
  // read in place of `lanes`, one per KV head. They stay valid until the next layer's.
  virtual void Select(const LayerQueries& query, std::span<LaneView> lanes) {}
  // Leading positions whose entries are those that reading them as a prompt would leave: rows that
  // did not read all there is have others. What was dropped counts apart.
  virtual uint32_t shareable_rows() const { return std::numeric_limits<uint32_t>::max(); }
  // Of the last pass observed; none if it chose nothing.
  virtual std::optional<PassReads> reads() const { return std::nullopt; }
  // Adds to `plan`; a function of its arguments and this state. `workers` may be null.
  virtual void Observe(const Progress& after, const KvView& view, Workers* workers, Plan* plan) = 0;
  virtual std::unique_ptr<PolicyState> Fork() const = 0;
  // Scores that were NaN so far; they counted as minus infinity.
  virtual uint64_t nonfinite_scores() const { return 0; }
};

class Policy {
 public:
  virtual ~Policy() = default;
  virtual const Traits& traits() const = 0;
  // Canonical spec with all parameters: part of the key of anything cached.
  // "keydiff:budget=2048,block=128,..."
  virtual std::string Spec() const = 0;
  // Bound on entries for a sequence that comes to `tokens` positions, `prompt` of which are prompt.
  // Errors: kInvalid when the protected entries alone exceed the budget, naming both counts.
  virtual Growth MaxGrowth(uint64_t prompt, uint64_t tokens, uint64_t protected_entries) const = 0;
  // Bytes of what a state records of such a sequence; they count against the KV budget.
  virtual uint64_t EvidenceBytes(const Growth& growth) const { return 0; }
  virtual std::unique_ptr<PolicyState> Begin(const SequenceInfo& info) const = 0;
  // Prompt positions at which a state may be taken over by others are multiples of this.
  virtual uint32_t block() const = 0;
  // Whether it drops nothing of a prompt of so many tokens before its end.
  virtual bool AtPromptEndOnly(uint32_t prompt) const { return false; }
  // Where nothing was dropped yet, a state that begins in the middle of a prompt works like one
  // that saw it all, if it sees this many tokens of it. None: it must have seen everything.
  virtual std::optional<uint32_t> rows_to_see() const { return 1; }
  // Spans pinned by default (system text) are pinned unless pin=none.
  virtual bool pins() const = 0;
};

// All registered policies, by name.
std::span<const Traits* const> AllPolicies();
const Traits* FindPolicy(std::string_view name);  // null when there is none

// What a policy is made for.
struct PolicyContext {
  uint64_t memory_bytes = 0;  // explicit --kv-memory that a budget may follow from, or 0
  LaneShape shape;
  ModelFacts facts;
};
// Parses "NAME:k=v,...". "none" and the empty spec give nullptr. Errors: kUsage (unknown name or
// key, with the nearest one; limits; sink + recent >= budget; neither budget, keep nor an explicit
// memory size).
std::unique_ptr<Policy> MakePolicy(std::string_view spec, const PolicyContext& context);

}  // namespace kvasir
