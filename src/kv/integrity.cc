// The full walk over a store: everything that is counted is counted again.
#include <map>

#include "base/checked.h"
#include "base/error.h"
#include "kv/store.h"

namespace kvasir {

void Store::CheckIntegrity() const {
  pool_.CheckIntegrity();
  std::map<uint32_t, uint32_t> references;  // plane index -> found in lanes
  std::map<uint32_t, bool> live;            // plane index -> found in a set that is not frozen
  for (const LaneSet* set : sets_) {
    CHECK(!set->appending_);
    CHECK(set->frozen_ == (set->reservation_ == kNoReservation));
    CHECK(set->n_entries() + set->dropped_ == set->shape_.lanes() * set->next_position_);
    for (size_t i = 1; i < set->protected_.size(); ++i) {
      CHECK(set->protected_[i - 1].second < set->protected_[i].first);
    }
    for (size_t i = 0; i < set->lanes_.size(); ++i) {
      CheckLane(*set, i);
      CheckViews(*set, i);
    }
    set->ForEachPlane([&](PlaneId id) {
      ++references[id.index];
      live[id.index] |= !set->frozen_;
    });
  }
  CHECK(references.size() == pool_.n_planes());
  for (const LaneSet* set : sets_) {
    set->ForEachPlane([&](PlaneId id) { CHECK(pool_.References(id) == references[id.index]); });
  }
  uint64_t n_resting = 0;
  const Demand resting = pool_.resting();
  for (const auto& [bytes, n] : resting.planes()) n_resting += n;
  for (const auto& [index, is_live] : live) n_resting -= !is_live;
  CHECK(n_resting == 0);
}

void Store::CheckPage(const LaneSet& set, size_t lane, const PageRef& page) const {
  const LaneShape& shape = set.shape_;
  const uint64_t filled = page.filled == 64 ? ~uint64_t{0} : (uint64_t{1} << page.filled) - 1;
  CHECK(page.live != 0 && (page.live & ~filled) == 0 && page.filled <= kPageEntries);
  const LayerForms forms = set.FormsOf(lane);
  CHECK(page.k_form == (page.sealed ? forms.k.sealed : forms.k.open) && !page.side.valid());
  CHECK(page.v_form == (page.sealed ? forms.v.sealed : forms.v.open));
  CHECK(pool_.Bytes(page.k) == PlaneBytes(page.k_form, shape.head_dim));
  CHECK(pool_.Bytes(page.v) == PlaneBytes(page.v_form, shape.head_dim));
  CHECK(pool_.Use(page.k) == UseOf(page.k_form.codec));
  CHECK(pool_.Use(page.v) == UseOf(page.v_form.codec));
  if (page.positions.valid()) {
    CHECK(pool_.Bytes(page.positions) == kPositionBytes);
    CHECK(pool_.Use(page.positions) == PlaneUse::kPositions);
  } else {
    CHECK(page.base % kPageEntries == 0);
  }
  page.ForEachPlane([&](PlaneId id) {
    // Whoever shares a page shares all of it, and what is shared is nobody's own.
    CHECK(pool_.References(id) == pool_.References(page.k));
    const ReservationId owner = pool_.Owner(id);
    CHECK(owner == kNoReservation || (owner == set.reservation_ && pool_.References(id) == 1));
  });
}

void Store::CheckLane(const LaneSet& set, size_t index) const {
  const Lane& lane = set.lanes_[index];
  uint64_t n = 0, own_in_body = 0;
  const bool seals = set.FormsOf(index).seals();
  for (const PageRef& page : lane.body) {
    CheckPage(set, index, page);
    CHECK(page.sealed == seals);
    CHECK(page.positions.valid() || uint64_t{page.base} + kPageEntries <= set.next_position_);
    own_in_body += set.reservation_ != kNoReservation && pool_.Owner(page.k) == set.reservation_;
    n += page.n_live();
  }
  for (const PageRef& page : lane.tail) {
    CheckPage(set, index, page);
    CHECK(page.sealed == (seals && page.base < set.sealed_end()));
    CHECK(!page.positions.valid());
    const bool last = &page == &lane.tail.back();
    CHECK(last || page.filled == kPageEntries);
    CHECK(last || page.base < (&page + 1)->base);
    n += page.n_live();
  }
  if (!lane.tail.empty()) {
    const uint32_t end = lane.tail.back().base + lane.tail.back().filled;
    CHECK(seals ? end <= set.next_position_ : end == set.next_position_);
  }
  CHECK(n == lane.n_entries);
  if (set.packs_) {
    CHECK(own_in_body <= DivideUp<uint64_t>(lane.n_entries, kPageEntries) + 1);
  }
  const std::vector<uint32_t> positions = Positions(lane);
  for (size_t i = 1; i < positions.size(); ++i) CHECK(positions[i - 1] < positions[i]);
  CHECK(positions.empty() || positions.back() < set.next_position_);
}

// What a view says without looking at the pages again.
void Store::CheckViews(const LaneSet& set, size_t index) const {
  const LaneSet::ViewCache& cache = set.views_[index];
  if (cache.epoch != pool_.epoch()) return;
  const Lane& lane = set.lanes_[index];
  CHECK(cache.valid <= cache.pages.size() && cache.valid <= lane.body.size() + lane.tail.size());
  for (size_t i = 0; i < cache.valid; ++i) {
    const PageView& seen = cache.pages[i];
    const PageView is =
        ViewOf(i < lane.body.size() ? lane.body[i] : lane.tail[i - lane.body.size()]);
    CHECK(seen.k == is.k && seen.v == is.v && seen.positions == is.positions);
    CHECK(seen.live == is.live && seen.mark == is.mark && seen.base == is.base);
    CHECK(seen.filled == is.filled && seen.k_form == is.k_form && seen.v_form == is.v_form);
  }
}

}  // namespace kvasir
