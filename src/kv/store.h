// The store: the only place where KV memory changes.
//
// It has exactly two mutators, Commit(plan) and the append cursor; a view lives until either.
// Sequences hold lane sets through move-only handles. A fork shares pages by reference: planes are
// copied when one side writes to them, and liveness is a fact of each lane's reference.
//
// Memory   [contract: store.reserve] A lane set is created with a demand (see MaxDemand) that is
//          granted or not granted as a whole; within it, appends and commits cannot fail.
// Packing  [contract: store.commit] After a commit that dropped entries, a lane of n live entries
//          holds at most ceil(n / 64) + 1 body pages of its own. Aligned pages that are complete
//          enter the body then, entries move only when pages would be too many, and a page without
//          entries is free at once. The last, open page stays in the tail with its dead bits. A set
//          whose demand has no positions (nothing was to be dropped) is not packed.
// Sealing  [contract: seal.position] Pages that leave the window of recent entries take another
//          form (encoding.h), as an act of the append cursor, out of the grant. In lanes that seal,
//          pages enter the body when they are sealed, and only sealed pages are packed.
// Sharing  [contract: store.fork] Pages that other lane sets see too come before the lane's own and
//          stay as they are while half of their entries live. A run of them that ends where the
//          lane's own pages begin is copied out and released once less than half of it lives.
// Cost     A commit walks the lanes it names; a lane is packed about once per 64 entries dropped.
//          A view is O(1) unless its pages changed.
// Threads  Engine thread only; encoding and packing may use the workers. Views of different lanes
//          may be asked for at the same time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/workers.h"
#include "kernels/table.h"
#include "kv/lane_set.h"
#include "kv/plan.h"
#include "kv/pool.h"
#include "tensor/view.h"

namespace kvasir {

class Store;

// Ownership of a lane set; gives everything back when destroyed. Must not outlive the store.
class LaneSetHandle {
 public:
  LaneSetHandle() = default;
  LaneSetHandle(LaneSetHandle&& other) noexcept;
  LaneSetHandle& operator=(LaneSetHandle&& other) noexcept;
  ~LaneSetHandle();
  explicit operator bool() const { return set_ != nullptr; }
  const LaneSet& operator*() const { return *set_; }
  const LaneSet* operator->() const { return set_.get(); }
  void Reset();

 private:
  friend class Store;
  Store* store_ = nullptr;
  std::unique_ptr<LaneSet> set_;
};

// Rows of one pass on their way into one lane set: every layer appends the same rows, in any order
// of layers, then Finish advances the position. Without Finish the lane set can only be given back.
// A layer takes its rows in blocks: attention of a block comes before the pages that it fills up
// are sealed, so what a row sees never depends on how many others share its pass.
class AppendCursor {
 public:
  uint32_t n_rows() const { return n_rows_; }
  uint32_t first_position() const { return first_position_; }
  const LaneShape& shape() const;
  // Rows that a layer has so far, and how many it takes next: all that are left, unless its pages
  // are sealed.
  uint32_t n_appended(uint32_t layer) const;
  uint32_t BlockRows(uint32_t layer) const;
  // The next BlockRows(layer) rows. k, v: n_kv_heads * head_dim floats each, keys as they are to be
  // stored (after RoPE). q: the same rows' queries, of all heads, if the seal rule is by_query.
  void Append(uint32_t layer, Rows k, Rows v, Rows q = {});
  // The lane with the rows appended so far; valid until the store's next append or commit.
  LaneView View(uint32_t layer, uint32_t head) const;
  void Finish();  // CHECKs that every layer was appended

 private:
  friend class Store;
  Store* store_ = nullptr;
  LaneSet* set_ = nullptr;
  uint32_t n_rows_ = 0, first_position_ = 0;
  std::vector<uint32_t> appended_;  // rows by layer
};

// Upper bound of what a lane set may come to hold.
struct Growth {
  uint64_t tokens = 0;  // most positions ever appended
  uint64_t cap = 0;     // most live entries per lane after a commit; 0: nothing is ever dropped
  uint64_t rows = 0;    // most rows appended between two commits (with a cap)
  uint64_t prompt = 0;  // tokens before anything is sealed, where that waits for a prompt's end
};
// Planes that a lane set of this shape needs at most.
Demand MaxDemand(const LaneShape& shape, const Growth& growth);
// Planes of its own that a fork made at `position` needs at most to append `rows` more positions.
Demand ForkDemand(const LaneShape& shape, uint32_t position, uint64_t rows, const Growth& growth);
// Pages of its own per lane that a fork made at `position` keeps within, `rows` positions later:
// those that the rows touch, and what may be copied out of shared pages meanwhile. With a rule: of
// sealed pages, of which events make new ones.
uint64_t ForkPages(const SealRule* rule, uint32_t position, uint64_t rows);

struct Ledger {
  uint64_t budget_bytes = 0;
  uint64_t bytes = 0, bytes_peak = 0;                    // planes, positions, side bytes
  uint64_t bytes_side = 0;                               // of bytes: what policies record
  uint64_t bytes_reserved = 0, bytes_reserved_peak = 0;  // granted, taken or not
  uint64_t bytes_committed = 0;                          // slabs backed by memory
  uint64_t bytes_tables = 0;                             // page references and plane tables
  uint64_t bytes_by_use[kPlaneUses] = {};
  uint64_t entries = 0, entries_dropped = 0;  // live now; dropped since the start
  uint64_t rows_nonfinite = 0;  // sealed as 8-bit integers without a finite scale, since the start
  uint32_t entries_peak_per_lane = 0;
};

class Store {
 public:
  // `workers` may be null (everything on the calling thread).
  Store(uint64_t budget_bytes, const Kernels& kernels, Workers* workers);
  ~Store();  // CHECKs that all lane sets were given back

  // An empty handle when the demand does not fit now.
  LaneSetHandle Create(const LaneShape& shape, LaneRole role, const Demand& demand);
  // A lane set that begins with the pages of `parent`; `own` is what it may take itself. An empty
  // handle when that does not fit now. A parent that is not frozen keeps its reservation whole
  // beside what it shares.
  LaneSetHandle Fork(LaneSetHandle& parent, const Demand& own);
  // The same with the parent's first `position` positions alone. CHECKs LaneSet::CanCutAt. The page
  // that the cut falls into is copied; nothing that a plan protected is taken over. A live parent
  // that never packs needs no room beside what it shares (what it will seal is copied); from then
  // on it can be cut again, but neither lose entries nor be forked whole until it is frozen.
  LaneSetHandle ForkAt(LaneSetHandle& parent, uint32_t position, const Demand& own);
  // More planes for a lane set; false when they do not fit now.
  bool Extend(LaneSetHandle& set, const Demand& more);
  // Copies what lives in pages that other lane sets see too into pages of its own, packed: from
  // then on its bytes are those of a set that had them for itself. CHECKs that the grant holds
  // that.
  void Detach(LaneSetHandle& set);
  // Grants less from now on, `demand` at most: what is taken stays. Side bytes are not touched.
  void Shrink(LaneSetHandle& set, const Demand& demand);
  // What was recorded beside a lane set is no more.
  void ReturnSide(LaneSetHandle& set);
  // The prompt's end, where sealing waits for it: seals what is due, and packs what was dropped
  // from. From now on pages are sealed as they leave the window.
  void StartSealing(LaneSetHandle& set);
  // No more appends or commits: the unused reservation is given back.
  void Freeze(LaneSetHandle& set);

  AppendCursor Append(LaneSetHandle& set, uint32_t n_rows);
  // CHECKs that indices are strictly ascending, in range and not protected.
  void Commit(LaneSetHandle& set, const Plan& plan);
  LaneView View(const LaneSet& set, uint32_t layer, uint32_t head) const;

  // Of all planes it refers to, shared ones too, and its side bytes.
  uint64_t Bytes(const LaneSet& set) const;
  // What a fork of `parent` with this demand needs room for.
  Demand ForkRoom(const LaneSet& parent, const Demand& own, bool cut) const;
  // Planes that nobody but frozen lane sets refers to, and side bytes of those.
  Demand HeldByFrozen() const;
  // Whether `demand` fits now; when `less` of what is taken were given back.
  bool Fits(const Demand& demand, const Demand& less = {}) const {
    return pool_.Fits(demand, less);
  }
  bool FitsEmpty(const Demand& demand) const { return pool_.FitsEmpty(demand); }
  uint64_t InWholeSlabs(const Demand& demand) const { return pool_.InWholeSlabs(demand); }
  Ledger ledger() const;
  void ResetPeaks();
  // Every page, reference, mask, position and byte; aborts on the first contradiction. For tests.
  void CheckIntegrity() const;

 private:
  friend class LaneSetHandle;
  friend class AppendCursor;
  struct Packing;
  struct Sealing;

  LaneSetHandle Adopt(std::unique_ptr<LaneSet> set);
  std::unique_ptr<LaneSet> BeginFork(LaneSet& parent, const Demand& own, bool whole);
  void LendPages(LaneSet& parent);
  static bool WillBeSealed(const LaneSet& set, size_t lane, const PageRef& page);
  void Release(LaneSet& set);
  LaneSet& Changeable(LaneSetHandle& handle) const;

  // append.cc
  void AppendRows(LaneSet& set, uint32_t layer, uint32_t first, Rows k, Rows v);
  static void CountQueries(LaneSet& set, uint32_t layer, uint32_t first, Rows q);
  void GrowTail(LaneSet& set, size_t lane, uint32_t first, uint32_t n_rows);
  void CopyOpenPage(LaneSet& set, size_t lane, PageRef& page);
  PlaneId TakePlane(LaneSet& set, PlaneForm form);
  PageRef TakePage(LaneSet& set, size_t lane, bool sealed);
  bool IsShared(const PageRef& page) const { return pool_.References(page.k) > 1; }

  // seal.cc
  void SealBehind(LaneSet& set, size_t first_lane, size_t n_lanes, uint32_t n_seen);
  void SealLanes(LaneSet& set, size_t first_lane, size_t n_lanes, uint32_t n_seen);
  PageRef TakeSealed(LaneSet& set, size_t lane, const PageRef& page);
  size_t SealPlane(const PlaneLife& life, uint32_t head_dim, bool keys, const float* weights,
                   uint64_t live, PlaneId from, PlaneId to);
  static std::vector<float> QueryWeights(LaneSet& set, size_t lane, uint32_t n_seen);
  void PruneRows(LaneSet& set, size_t first_lane, size_t n_lanes, uint32_t begin, uint32_t end);

  // commit.cc
  void CheckPlan(const LaneSet& set, const Plan& plan) const;
  void CheckEqualPositions(const LaneSet& set, uint32_t layer) const;
  std::vector<uint32_t> Positions(const Lane& lane) const;
  void DropEntries(LaneSet& set, size_t lane, const std::vector<uint32_t>& indices);
  void Tidy(LaneSet& set, size_t lane);
  void Pack(LaneSet& set, const std::vector<size_t>& lanes);
  size_t SharedPages(const Lane& lane) const;
  static uint64_t OpenPages(const LaneSet& set, size_t lane);
  size_t CopyFrom(const LaneSet& set, size_t lane, size_t shared) const;
  void PackInPlace(LaneSet& set, const std::vector<size_t>& lanes);
  void CopyOut(LaneSet& set, const std::vector<size_t>& lanes);
  bool Prepare(LaneSet& set, size_t lane, size_t first, size_t own, uint64_t fresh,
               Packing* packing);
  void Run(LaneSet& set, std::vector<Packing>& packings);

  // integrity.cc
  void CheckLane(const LaneSet& set, size_t lane) const;
  void CheckPage(const LaneSet& set, size_t lane, const PageRef& page) const;
  void CheckViews(const LaneSet& set, size_t lane) const;

  PageView ViewOf(const PageRef& page) const;

  const Kernels& kernels_;
  Workers* workers_;
  Pool pool_;
  std::vector<LaneSet*> sets_;  // all alive
  uint64_t dropped_total_ = 0, rows_nonfinite_ = 0;
  uint32_t entries_peak_per_lane_ = 0;
};

}  // namespace kvasir
