// Kept prefixes: states of prompts and answers that later requests may begin with.
//
// A snapshot is a frozen lane set with the tokens that it has seen. One that dropped nothing serves
// at any cut that leaves a policy the rows it has to see, under a policy with a block at multiples
// of it; where pages are sealed, at cuts behind which nothing is (LaneSet::CanCutAt). One that
// dropped, or whose policy adds up all it sees, serves as a whole together with the policy's state,
// and only requests that pin the same spans. A hit is one because the tokens were compared; there
// is no digest to collide.
//
// Bytes    Snapshots lie in the one KV budget. They give way, least useful first, before anybody
//          waits or is parked: useful is what saves many tokens per byte, was used often and
//          lately.
// Cost     A search compares the prompt with each snapshot up to the first difference.
// Threads  The engine's.
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"

namespace kvasir {

struct Snapshot {
  SequenceState state;
  std::string salt;
  std::vector<PositionSpan> pinned;
  uint64_t uses = 0, last_use = 0;
};

// Whose prefix is looked for. The last token is always read: its logits are wanted.
struct PrefixQuery {
  std::span<const int32_t> tokens;
  std::string_view salt;
  std::span<const PositionSpan> pinned;
  // The most tokens of a state that dropped nothing: a policy's evidence begins anew behind them.
  uint32_t most_cut = UINT32_MAX;
};

// Leading tokens that two sequences have in common.
uint32_t CommonTokens(std::span<const int32_t> a, std::span<const int32_t> b);
// Those that a query can begin with; all but its last token.
uint32_t CommonTokens(std::span<const int32_t> tokens, const PrefixQuery& query);
// Tokens of a state that dropped nothing which the query can begin with.
uint32_t UsableCut(std::span<const int32_t> tokens, const PrefixQuery& query, uint32_t grain);

class PrefixIndex {
 public:
  static constexpr size_t kMostSnapshots = 1024;

  // `grain`: cuts are at multiples of it.
  explicit PrefixIndex(uint32_t grain) : grain_(grain) {}

  struct Hit {
    Snapshot* snapshot = nullptr;  // null: none
    uint32_t length = 0;
  };
  Hit Find(const PrefixQuery& query);
  // Says that a snapshot was of use.
  void Touch(Snapshot& snapshot);
  // Takes a snapshot, and lets go of those that it can stand for; drops it when another one can
  // stand for it.
  void Add(Snapshot snapshot);
  // Lets go of one; false when there is none but `keep`.
  bool DropLeastUseful(const Snapshot* keep);
  void Clear();

  size_t size() const { return snapshots_.size(); }
  uint64_t n_dropped() const { return n_dropped_; }  // to make room

 private:
  const uint32_t grain_;
  std::list<Snapshot> snapshots_;
  uint64_t clock_ = 0, n_dropped_ = 0;
};

}  // namespace kvasir
