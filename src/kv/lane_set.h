// Lane sets: the lanes of one sequence under one role, as page references.
//
// Invariants  [contract: lane.order, lane.positions, lane.live]
//   A position occurs at most once in a lane and is stored, never derived from an index or a count.
//   An entry is alive iff its bit is set in *this lane's* reference; the planes do not know.
//   A page is aligned (slot i holds position base + i, base a multiple of 64) or packed (positions
//   in a plane of their own). Tail pages are aligned, the last one may be open (filled < 64); body
//   pages stay aligned until entries have to move.
//   A lane whose layer seals has all its sealed pages in front of those that are not, and only
//   sealed ones in its body.
//
// Threads     Engine thread only; kernels receive LaneView, valid until the store's next commit or
//             append.
// Not here    Choosing what to drop (policy/), changing anything (store.h).
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "kernels/plane.h"
#include "kv/encoding.h"
#include "kv/pool.h"

namespace kvasir {

enum class LaneRole : uint8_t { kMain, kScout, kCompanion, kAdapter, kShare };

// Geometry of a lane set; equal for all its lanes, but for the forms of planes, which are a fact of
// the layer.
struct LaneShape {
  uint32_t first_layer = 0;  // layers [first_layer, first_layer + n_layers)
  uint32_t n_layers = 0;
  uint32_t n_kv_heads = 0;
  uint32_t head_dim = 0;
  PlaneForm k_form, v_form;
  bool raw_keys = false;  // keys stored before RoPE; the order index is then the rank
  // By layer, where they differ or change; empty: all layers have k_form and v_form for good.
  std::vector<LayerForms> layers = {};
  SealRule seals = {};

  uint64_t lanes() const { return uint64_t{n_layers} * n_kv_heads; }
  LayerForms Forms(uint32_t layer) const {
    if (layers.empty()) return {.k = {k_form, k_form}, .v = {v_form, v_form}};
    return layers[layer - first_layer];
  }
  // K and V of one entry in one lane once its page is sealed, page granularity apart; the mean over
  // layers.
  uint64_t EntryBytes() const;
  bool operator==(const LaneShape&) const = default;
};

// A page as a lane refers to it. K and V planes are apart, either may be absent.
struct PageRef {
  PlaneId k, v;
  PlaneId positions;  // absent: aligned page, slot i is position base + i
  PlaneId side;       // optional columns per entry that move with the rows
  uint32_t base = 0;
  uint8_t filled = 0;
  PlaneForm k_form, v_form;
  bool sealed = false;
  uint64_t live = 0;
  uint64_t mark = 0;  // a flag per entry

  uint32_t n_live() const { return static_cast<uint32_t>(std::popcount(live)); }
  // Calls f for each of its planes.
  template <typename F>
  void ForEachPlane(F&& f) const {
    for (const PlaneId id : {k, v, positions, side}) {
      if (id.valid()) f(id);
    }
  }
};

struct Lane {
  std::vector<PageRef> body, tail;
  uint32_t n_entries = 0;  // live
};

// A run of positions whose entries were computed by one owner (the base model or an adapter
// digest).
struct OwnerRun {
  uint32_t begin = 0;
  uint64_t owner = 0;
};

class LaneSet {
 public:
  const LaneShape& shape() const { return shape_; }
  LaneRole role() const { return role_; }
  const Lane& lane(uint32_t layer, uint32_t head) const { return lanes_[LaneIndex(layer, head)]; }
  // Position the next appended row gets: the number of tokens seen, whatever was dropped.
  uint32_t next_position() const { return next_position_; }
  uint64_t n_entries() const;  // live, over all lanes
  // What these need in the forms they have, without the rest of their pages.
  uint64_t live_bytes() const;
  uint32_t max_entries_per_lane() const;
  uint64_t dropped() const { return dropped_; }
  bool frozen() const { return frozen_; }
  // Whether pages are sealed as they leave the window; not before a prompt's end, if the shape says
  // so.
  bool sealing() const { return sealing_; }
  // Positions below are sealed.
  uint32_t sealed_end() const { return sealing_ ? shape_.seals.End(next_position_) : 0; }
  // Whether a lane set with the first `position` positions can be made of this one: it has dropped
  // nothing, what is sealed of it would be of the other, and neither are queries behind counted nor
  // rows pruned for them.
  bool CanCutAt(uint32_t position) const {
    const bool as_it_is = shape_.seals.by_query || (sealing_ && shape_.seals.by_row);
    if (as_it_is && position != next_position_) return false;
    return dropped_ == 0 && position <= next_position_ &&
           (!sealing_ || shape_.seals.End(position) == sealed_end());
  }
  uint64_t side_bytes() const {
    return side_bytes_;
  }  // that count against the budget beside planes
  bool IsProtected(uint32_t position) const;
  // Calls f for every plane that its lanes refer to.
  template <typename F>
  void ForEachPlane(F&& f) const {
    for (const Lane& lane : lanes_) {
      for (const PageRef& page : lane.body) page.ForEachPlane(f);
      for (const PageRef& page : lane.tail) page.ForEachPlane(f);
    }
  }

 private:
  friend class Store;
  friend class AppendCursor;

  // Views of a lane's pages as kernels read them, body then tail.
  struct ViewCache {
    std::vector<PageView> pages;
    size_t valid = 0;    // leading pages whose view is right
    uint64_t epoch = 0;  // of the pool, when their addresses were taken
  };

  size_t LaneIndex(uint32_t layer, uint32_t head) const {
    return size_t{layer - shape_.first_layer} * shape_.n_kv_heads + head;
  }
  LayerForms FormsOf(size_t lane) const {
    return shape_.Forms(shape_.first_layer + static_cast<uint32_t>(lane / shape_.n_kv_heads));
  }
  // Sums of |q| of a lane by channel, over the query heads that read it and the positions of the
  // last full block of 32 (complete), and of the block that is being read (open).
  std::span<float> QuerySums(size_t lane, bool complete) {
    const size_t dim = shape_.head_dim;
    return std::span(query_sums_).subspan((2 * lane + complete) * dim, dim);
  }
  bool HasLayer(uint32_t layer) const {
    return layer >= shape_.first_layer && layer - shape_.first_layer < shape_.n_layers;
  }
  void Protect(uint32_t begin, uint32_t end);
  // Pages of the lane from this one on (body then tail) have changed.
  void Touch(size_t lane, size_t page) { views_[lane].valid = std::min(views_[lane].valid, page); }
  uint64_t table_bytes() const;

  LaneShape shape_;
  LaneRole role_ = LaneRole::kMain;
  ReservationId reservation_ = kNoReservation;  // none once frozen
  uint64_t side_bytes_ = 0;                     // granted beside planes, until it is released
  std::vector<Lane> lanes_;
  std::vector<OwnerRun> owners_;
  std::vector<std::pair<uint32_t, uint32_t>>
      protected_;  // [begin, end) positions, ascending, disjoint
  uint32_t next_position_ = 0;
  uint32_t fork_position_ = 0;  // positions below were appended before the pages became shared
  uint64_t dropped_ = 0;
  bool packs_ = false;  // the grant has position planes
  bool frozen_ = false;
  bool lent_ = false;       // its pages are shared together with their places in the grant
  bool appending_ = false;  // a cursor is open
  bool sealing_ = false;
  std::vector<float> query_sums_;  // none unless the seal rule asks for them
  mutable std::vector<ViewCache> views_;
};

}  // namespace kvasir
