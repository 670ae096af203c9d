#include "kv/store.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace kvasir {

LaneSetHandle::LaneSetHandle(LaneSetHandle&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)), set_(std::move(other.set_)) {}

LaneSetHandle& LaneSetHandle::operator=(LaneSetHandle&& other) noexcept {
  if (this == &other) return *this;
  Reset();
  store_ = std::exchange(other.store_, nullptr);
  set_ = std::move(other.set_);
  return *this;
}

LaneSetHandle::~LaneSetHandle() { Reset(); }

void LaneSetHandle::Reset() {
  if (set_ != nullptr) store_->Release(*set_);
  set_.reset();
  store_ = nullptr;
}

Store::Store(uint64_t budget_bytes, const Kernels& kernels, Workers* workers)
    : kernels_(kernels), workers_(workers), pool_(budget_bytes) {}

Store::~Store() { CHECK(sets_.empty()); }

LaneSetHandle Store::Adopt(std::unique_ptr<LaneSet> set) {
  sets_.push_back(set.get());
  LaneSetHandle handle;
  handle.store_ = this;
  handle.set_ = std::move(set);
  return handle;
}

LaneSetHandle Store::Create(const LaneShape& shape, LaneRole role, const Demand& demand) {
  CHECK(shape.lanes() > 0 && shape.head_dim > 0 && shape.head_dim <= kMaxHeadDim);
  const ReservationId reservation = pool_.Grant(demand);
  if (reservation == kNoReservation) return {};
  auto set = std::make_unique<LaneSet>();
  set->shape_ = shape;
  set->role_ = role;
  set->reservation_ = reservation;
  set->side_bytes_ = demand.side_bytes();
  set->packs_ = demand.positions() > 0;
  set->sealing_ = shape.seals.recent > 0 && !shape.seals.at_prompt_end;
  if (shape.seals.by_query) set->query_sums_.assign(shape.lanes() * 2 * shape.head_dim, 0.0f);
  set->lanes_.resize(shape.lanes());
  set->views_.resize(shape.lanes());
  return Adopt(std::move(set));
}

// An empty lane set with the parent's geometry and a grant of its own; null when there is no room.
// What a live parent has taken becomes shared; `whole`: its grant stays whole beside that, for
// copies of what it shares. A frozen one has no grant.
std::unique_ptr<LaneSet> Store::BeginFork(LaneSet& parent, const Demand& own, bool whole) {
  CHECK(!parent.appending_);
  const bool beside = whole && !parent.frozen_;
  if (!pool_.Fits(ForkRoom(parent, own, !whole))) return nullptr;
  auto set = std::make_unique<LaneSet>();
  set->reservation_ = pool_.Grant(own);
  CHECK(set->reservation_ != kNoReservation);
  set->side_bytes_ = own.side_bytes();
  if (beside) {
    CHECK_MSG(!parent.lent_, "the lane set has no room for copies");
    CHECK(pool_.Share(parent.reservation_));
    parent.fork_position_ = parent.next_position_;
  } else if (!parent.frozen_) {
    LendPages(parent);
  }
  set->shape_ = parent.shape_;
  set->role_ = parent.role_;
  set->packs_ = own.positions() > 0;
  set->sealing_ = parent.sealing_;
  set->query_sums_ = parent.query_sums_;
  set->lanes_.resize(parent.lanes_.size());
  set->views_.resize(parent.lanes_.size());
  return set;
}

// Pages become shared together with their places in the grant. Those that will be sealed keep
// theirs: their planes go back and are taken again.
void Store::LendPages(LaneSet& parent) {
  parent.lent_ = true;
  if (!parent.sealing_) return pool_.ShareInPlace(parent.reservation_);
  for (size_t lane = 0; lane < parent.lanes_.size(); ++lane) {
    for (const PageRef& page : parent.lanes_[lane].tail) {
      if (WillBeSealed(parent, lane, page)) break;
      page.ForEachPlane([&](PlaneId id) { pool_.ShareInPlace(id); });
    }
  }
}

bool Store::WillBeSealed(const LaneSet& set, size_t lane, const PageRef& page) {
  return !page.sealed && set.sealing_ && set.FormsOf(lane).seals();
}

Demand Store::ForkRoom(const LaneSet& parent, const Demand& own, bool cut) const {
  Demand room = own;
  const bool beside = !parent.frozen_ && (!cut || parent.packs_);
  if (beside) room.Add(pool_.Taken(parent.reservation_));
  return room;
}

LaneSetHandle Store::Fork(LaneSetHandle& parent_handle, const Demand& own) {
  CHECK(parent_handle && parent_handle.store_ == this);
  LaneSet& parent = *parent_handle.set_;
  std::unique_ptr<LaneSet> set = BeginFork(parent, own, /*whole=*/true);
  if (!set) return {};
  set->lanes_ = parent.lanes_;
  set->owners_ = parent.owners_;
  set->protected_ = parent.protected_;
  set->next_position_ = set->fork_position_ = parent.next_position_;
  set->dropped_ = parent.dropped_;
  set->ForEachPlane([&](PlaneId id) { pool_.AddReference(id); });
  return Adopt(std::move(set));
}

LaneSetHandle Store::ForkAt(LaneSetHandle& parent_handle, uint32_t position, const Demand& own) {
  CHECK(parent_handle && parent_handle.store_ == this);
  LaneSet& parent = *parent_handle.set_;
  CHECK(position > 0 && parent.CanCutAt(position));
  // A parent that never packs copies nothing: full pages are never written, and nobody else gets
  // to see its open page.
  const bool lends = !parent.frozen_ && !parent.packs_;
  std::unique_ptr<LaneSet> set = BeginFork(parent, own, /*whole=*/parent.packs_);
  if (!set) return {};
  const uint32_t full = position / kPageEntries, rest = position % kPageEntries;
  for (size_t i = 0; i < set->lanes_.size(); ++i) {
    // Nothing was dropped: page n of the tail holds positions 64 n and up.
    const std::vector<PageRef>& from = parent.lanes_[i].tail;
    Lane& lane = set->lanes_[i];
    CHECK(parent.lanes_[i].body.empty());
    lane.tail.assign(from.begin(), from.begin() + full);
    for (PageRef& page : lane.tail) {
      page.ForEachPlane([&](PlaneId id) { pool_.AddReference(id); });
      if (lends && WillBeSealed(parent, i, page)) CopyOpenPage(*set, i, page);
    }
    if (rest > 0) {
      PageRef page = from[full];
      page.ForEachPlane([&](PlaneId id) { pool_.AddReference(id); });
      CopyOpenPage(*set, i, page);
      page.filled = static_cast<uint8_t>(rest);
      page.live = (uint64_t{1} << rest) - 1;
      lane.tail.push_back(page);
    }
    lane.n_entries = position;
  }
  for (const OwnerRun& run : parent.owners_) {
    if (run.begin < position) set->owners_.push_back(run);
  }
  set->next_position_ = set->fork_position_ = position;
  return Adopt(std::move(set));
}

bool Store::Extend(LaneSetHandle& handle, const Demand& more) {
  LaneSet& set = Changeable(handle);
  CHECK_MSG(!set.lent_ || more.positions() == 0, "the lane set has no room for copies");
  if (!pool_.Extend(set.reservation_, more)) return false;
  set.packs_ = set.packs_ || more.positions() > 0;
  set.side_bytes_ += more.side_bytes();
  return true;
}

void Store::Shrink(LaneSetHandle& handle, const Demand& demand) {
  const LaneSet& set = Changeable(handle);
  if (!set.lent_) pool_.Shrink(set.reservation_, demand);
}

void Store::Freeze(LaneSetHandle& handle) {
  LaneSet& set = Changeable(handle);
  set.ForEachPlane([&](PlaneId id) { pool_.Rest(id); });
  // The planes stay, as shared ones: forks need no room for them.
  pool_.End(std::exchange(set.reservation_, kNoReservation));
  set.frozen_ = true;
}

void Store::ReturnSide(LaneSetHandle& handle) {
  CHECK(handle && handle.store_ == this);
  pool_.ReturnSide(std::exchange(handle.set_->side_bytes_, 0));
}

Demand Store::HeldByFrozen() const {
  Demand held = pool_.resting();
  for (const LaneSet* set : sets_) {
    if (set->frozen_) held.AddSide(set->side_bytes_);
  }
  return held;
}

LaneSet& Store::Changeable(LaneSetHandle& handle) const {
  CHECK(handle && handle.store_ == this);
  CHECK_MSG(!handle.set_->frozen_, "the lane set is frozen");
  CHECK_MSG(!handle.set_->appending_, "an append cursor is open");
  return *handle.set_;
}

void Store::Release(LaneSet& set) {
  set.ForEachPlane([&](PlaneId id) { pool_.Drop(id, set.reservation_); });
  if (set.reservation_ != kNoReservation) pool_.End(set.reservation_);
  pool_.ReturnSide(set.side_bytes_);
  sets_.erase(std::find(sets_.begin(), sets_.end(), &set));
}

PageView Store::ViewOf(const PageRef& page) const {
  PageView view;
  view.k = page.k.valid() ? pool_.Address(page.k) : nullptr;
  view.v = page.v.valid() ? pool_.Address(page.v) : nullptr;
  if (page.positions.valid()) {
    view.positions = reinterpret_cast<const uint32_t*>(pool_.Address(page.positions));
  }
  view.live = page.live;
  view.mark = page.mark;
  view.base = page.base;
  view.filled = page.filled;
  view.k_form = page.k_form;
  view.v_form = page.v_form;
  return view;
}

LaneView Store::View(const LaneSet& set, uint32_t layer, uint32_t head) const {
  CHECK(set.HasLayer(layer) && head < set.shape_.n_kv_heads);
  const size_t index = set.LaneIndex(layer, head);
  const Lane& lane = set.lanes_[index];
  LaneSet::ViewCache& cache = set.views_[index];
  if (cache.epoch != pool_.epoch()) {
    cache.valid = 0;
    cache.epoch = pool_.epoch();
  }
  const size_t n_pages = lane.body.size() + lane.tail.size();
  if (cache.valid < n_pages || cache.pages.size() != n_pages) {
    cache.pages.resize(n_pages);
    for (size_t i = cache.valid; i < n_pages; ++i) {
      const size_t in_tail = i - lane.body.size();
      cache.pages[i] = ViewOf(i < lane.body.size() ? lane.body[i] : lane.tail[in_tail]);
    }
    cache.valid = n_pages;
  }
  return {cache.pages.data(), static_cast<uint32_t>(n_pages), lane.n_entries, set.shape_.head_dim};
}

uint64_t Store::Bytes(const LaneSet& set) const {
  uint64_t bytes = set.side_bytes_;
  set.ForEachPlane([&](PlaneId id) { bytes += pool_.Bytes(id); });
  return bytes;
}

Ledger Store::ledger() const {
  Ledger ledger;
  ledger.budget_bytes = pool_.budget_bytes();
  ledger.bytes = pool_.bytes();
  ledger.bytes_peak = pool_.bytes_peak();
  ledger.bytes_side = pool_.side_bytes();
  ledger.bytes_reserved = pool_.granted_bytes();
  ledger.bytes_reserved_peak = pool_.granted_bytes_peak();
  ledger.bytes_committed = pool_.committed_bytes();
  ledger.bytes_tables = pool_.table_bytes();
  for (int use = 0; use < kPlaneUses; ++use) {
    ledger.bytes_by_use[use] = pool_.bytes(static_cast<PlaneUse>(use));
  }
  for (const LaneSet* set : sets_) {
    ledger.bytes_tables += set->table_bytes();
    ledger.entries += set->n_entries();
  }
  ledger.entries_dropped = dropped_total_;
  ledger.rows_nonfinite = rows_nonfinite_;
  ledger.entries_peak_per_lane = entries_peak_per_lane_;
  return ledger;
}

void Store::ResetPeaks() {
  pool_.ResetPeaks();
  entries_peak_per_lane_ = 0;
  for (const LaneSet* set : sets_) {
    entries_peak_per_lane_ = std::max(entries_peak_per_lane_, set->max_entries_per_lane());
  }
}

}  // namespace kvasir
