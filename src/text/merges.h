// The one algorithm behind all vocabularies here: of all neighbours that a merge joins, the pair
// with the lowest rank is joined first, the leftmost of equals, until no pair has a merge.
//
// Cost     n symbols take O(n log n), prose some ten million symbols a second. A table has two to
//          four slots of 16 bytes for each merge; merging needs about 40 bytes for each symbol.
// Threads  A table is immutable once filled; a SymbolMerger belongs to one thread.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "text/tokenizer.h"

namespace kvasir {

// Which merge joins two neighbouring symbols. Open addressing with linear probing, filled once.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank = kNone;
    TokenId merged = kNoToken;
    bool exists() const { return rank != kNone; }
  };

  explicit MergeTable(size_t n_merges);
  // Of two merges of one pair the first one counts. No more than `n_merges` may be added.
  void Add(TokenId left, TokenId right, Merge merge);
  Merge Find(TokenId left, TokenId right) const;
  uint32_t n_ranks() const { return n_ranks_; }  // all ranks are below

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Slot {
    TokenId left = kNoToken, right = kNoToken;
    Merge merge;
  };
  size_t SlotOf(TokenId left, TokenId right) const;

  std::vector<Slot> slots_;
  // Most pairs have no merge: a bit for each slot says so without reading the slot.
  std::vector<bool> taken_;
  int shift_;
  uint32_t n_ranks_ = 0;
};

// Merges one sequence of symbols after another; keeps its buffers between them.
class SymbolMerger {
 public:
  explicit SymbolMerger(const MergeTable& merges) : merges_(merges) {}

  // The next sequence: Add each symbol in order, then Merge. The result lives until the next one.
  void Add(TokenId symbol) { symbols_.push_back(symbol); }
  size_t size() const { return symbols_.size(); }
  const std::vector<TokenId>& Merge();
  void Clear() { symbols_.clear(); }

 private:
  static constexpr uint32_t kEnd = UINT32_MAX;
  // The survivors are a linked list: a merge keeps the left symbol's place.
  struct Node {
    TokenId symbol;  // kNoToken once merged into its left neighbour
    uint32_t previous, next;
  };
  // A pair, by its left symbol's place, that had a merge of this rank. The lowest rank first, then
  // the leftmost.
  struct Candidate {
    uint32_t rank, at;
    auto operator<=>(const Candidate&) const = default;
  };
  // A part of the list of a rank: places in the order they came.
  struct Waiting {
    uint32_t next = kEnd;  // the part before it, an index into waiting_
    uint32_t size = 0;
    std::array<uint32_t, 6> places;
  };

  void MergeFew();
  void MergeMany();
  void LookAt(uint32_t at);  // finds the candidate at a place
  void Apply(const Candidate& candidate);
  bool TakeNext(Candidate* candidate);
  bool OpenNextRank();

  const MergeTable& merges_;
  std::vector<TokenId> symbols_;
  std::vector<MergeTable::Merge> pairs_;  // MergeFew: what joins symbol i and i + 1

  // MergeMany. Merges rarely make pairs of a lower rank than their own, so a long sequence is swept
  // rank by rank from left to right, which is kind to caches; candidates of higher ranks wait in a
  // list for each rank, and those of lower ones in a heap. Short sequences use the heap alone.
  std::vector<Node> nodes_;
  int64_t rank_ = -1;            // of the sweep: what is above it waits
  std::vector<uint32_t> sweep_;  // places, ascending
  size_t swept_ = 0;
  std::vector<Candidate> early_;  // heap
  std::vector<uint32_t> first_;   // by rank, the latest part of its list
  std::vector<Waiting> waiting_;  // lists by rank, the latest first
  std::vector<uint32_t> ranks_;   // heap of ranks whose lists are not empty
};

}  // namespace kvasir
