// Commit: check the plan, clear live bits, then let pages go: empty ones at once, others by
// packing.
#include <algorithm>
#include <bit>
#include <span>

#include "base/checked.h"
#include "base/error.h"
#include "kv/move.h"
#include "kv/store.h"

namespace kvasir {

namespace {

constexpr uint64_t kHalfPage = kPageEntries / 2;

uint64_t LiveEntries(std::span<const PageRef> pages) {
  uint64_t n = 0;
  for (const PageRef& page : pages) n += page.n_live();
  return n;
}

uint64_t PagesFor(uint64_t entries) { return DivideUp<uint64_t>(entries, kPageEntries); }

std::span<const PageRef> From(const std::vector<PageRef>& pages, size_t first) {
  return std::span(pages).subspan(first);
}

}  // namespace

// Entries of one lane on their way: `from` are its body pages from `first` on, `to` what they
// become, `released` the planes that nobody needs afterwards.
struct Store::Packing {
  size_t lane = 0, first = 0;
  std::vector<PageRef> from, to;
  std::vector<PlaneId> released;
};

void Store::Commit(LaneSetHandle& handle, const Plan& plan) {
  LaneSet& set = Changeable(handle);
  for (const ProtectOp& op : plan.protects) set.Protect(op.begin, op.end);
  CheckPlan(set, plan);
  std::vector<size_t> lanes;
  for (const DropOp& op : plan.drops) {
    if (op.indices.empty()) continue;
    CHECK_MSG(!set.lent_, "the lane set gave its pages away and cannot lose entries");
    const bool all = op.head == kAllHeads;
    const uint32_t begin = all ? 0 : static_cast<uint32_t>(op.head);
    const uint32_t end = all ? set.shape_.n_kv_heads : begin + 1;
    for (uint32_t head = begin; head < end; ++head) {
      lanes.push_back(set.LaneIndex(op.layer, head));
      DropEntries(set, lanes.back(), op.indices);
    }
  }
  if (lanes.empty()) return;
  Pack(set, lanes);
}

// Lets go of pages that are empty, and moves entries together where that frees pages.
void Store::Pack(LaneSet& set, const std::vector<size_t>& lanes) {
  for (const size_t lane : lanes) Tidy(set, lane);
  if (set.packs_) {
    PackInPlace(set, lanes);
    CopyOut(set, lanes);
  }
  pool_.Compact();
}

// Everything about the plan that can be seen without walking entries.
void Store::CheckPlan(const LaneSet& set, const Plan& plan) const {
  std::vector<bool> named(set.lanes_.size(), false);
  for (const DropOp& op : plan.drops) {
    CHECK_MSG(set.HasLayer(op.layer), "layer {}", op.layer);
    CHECK_MSG(op.head == kAllHeads ||
                  (op.head >= 0 && static_cast<uint32_t>(op.head) < set.shape_.n_kv_heads),
              "head {}", op.head);
    CHECK_MSG(std::adjacent_find(op.indices.begin(), op.indices.end(), std::greater_equal<>()) ==
                  op.indices.end(),
              "indices must ascend");
    for (uint32_t head = 0; head < set.shape_.n_kv_heads; ++head) {
      if (op.head != kAllHeads && static_cast<uint32_t>(op.head) != head) continue;
      const size_t lane = set.LaneIndex(op.layer, head);
      CHECK_MSG(!named[lane], "layer {} head {} is named twice", op.layer, head);
      named[lane] = true;
      CHECK_MSG(op.indices.empty() || op.indices.back() < set.lanes_[lane].n_entries,
                "index {} of {} entries", op.indices.back(), set.lanes_[lane].n_entries);
    }
    if (op.head == kAllHeads && !op.indices.empty()) CheckEqualPositions(set, op.layer);
  }
}

std::vector<uint32_t> Store::Positions(const Lane& lane) const {
  std::vector<uint32_t> positions;
  positions.reserve(lane.n_entries);
  for (const std::vector<PageRef>* pages : {&lane.body, &lane.tail}) {
    for (const PageRef& page : *pages) {
      const PageView view = ViewOf(page);
      for (uint64_t left = page.live; left != 0; left &= left - 1) {
        positions.push_back(view.position(static_cast<uint32_t>(std::countr_zero(left))));
      }
    }
  }
  return positions;
}

void Store::CheckEqualPositions(const LaneSet& set, uint32_t layer) const {
  const auto aligned = [](const Lane& lane) {
    return std::none_of(lane.body.begin(), lane.body.end(),
                        [](const PageRef& page) { return page.positions.valid(); });
  };
  const auto same = [](const PageRef& a, const PageRef& b) {
    return a.base == b.base && a.live == b.live;
  };
  const Lane& first = set.lane(layer, 0);
  for (uint32_t head = 1; head < set.shape_.n_kv_heads; ++head) {
    const Lane& lane = set.lane(layer, head);
    // Aligned lanes that went the same way are equal at a glance.
    if (aligned(first) && aligned(lane) &&
        std::equal(first.body.begin(), first.body.end(), lane.body.begin(), lane.body.end(),
                   same) &&
        std::equal(first.tail.begin(), first.tail.end(), lane.tail.begin(), lane.tail.end(),
                   same)) {
      continue;
    }
    CHECK_MSG(Positions(first) == Positions(lane), "head=all: heads 0 and {} of layer {} differ",
              head, layer);
  }
}

void Store::DropEntries(LaneSet& set, size_t lane_index, const std::vector<uint32_t>& indices) {
  Lane& lane = set.lanes_[lane_index];
  auto next = indices.begin();
  uint32_t begin = 0;  // index of the page's first live entry
  size_t first_changed = SIZE_MAX;
  for (size_t i = 0; i < lane.body.size() + lane.tail.size() && next != indices.end(); ++i) {
    PageRef& page = i < lane.body.size() ? lane.body[i] : lane.tail[i - lane.body.size()];
    uint64_t left = page.live;
    const uint32_t end = begin + page.n_live();
    for (; next != indices.end() && *next < end; ++next) {
      for (; begin < *next; ++begin) left &= left - 1;
      const auto slot = static_cast<uint32_t>(std::countr_zero(left));
      if (!set.protected_.empty()) {
        const uint32_t position = ViewOf(page).position(slot);
        CHECK_MSG(!set.IsProtected(position), "position {} is protected", position);
      }
      page.live &= ~(uint64_t{1} << slot);
      first_changed = std::min(first_changed, i);
    }
    begin = end;
  }
  CHECK(next == indices.end());
  set.Touch(lane_index, first_changed);
  lane.n_entries -= static_cast<uint32_t>(indices.size());
  set.dropped_ += indices.size();
  dropped_total_ += indices.size();
}

// Pages without entries go. Complete tail pages enter the body, where pages are sealed those that
// are.
void Store::Tidy(LaneSet& set, size_t lane_index) {
  Lane& lane = set.lanes_[lane_index];
  bool changed = false;
  for (std::vector<PageRef>* pages : {&lane.body, &lane.tail}) {
    for (const PageRef& page : *pages) {
      if (page.live != 0) continue;
      changed = true;
      page.ForEachPlane([&](PlaneId id) { pool_.Drop(id, set.reservation_); });
    }
    std::erase_if(*pages, [](const PageRef& page) { return page.live == 0; });
  }
  const bool seals = set.FormsOf(lane_index).seals();
  const auto open = std::find_if(lane.tail.begin(), lane.tail.end(), [&](const PageRef& page) {
    return seals ? !page.sealed : uint64_t{page.base} + kPageEntries > set.next_position_;
  });
  lane.body.insert(lane.body.end(), lane.tail.begin(), open);
  lane.tail.erase(lane.tail.begin(), open);
  if (changed) set.Touch(lane_index, 0);
}

// Body pages up to the last one that other lane sets see too; behind it lie the lane's own.
size_t Store::SharedPages(const Lane& lane) const {
  size_t n = lane.body.size();
  while (n > 0 && !IsShared(lane.body[n - 1])) --n;
  return n;
}

// Tail pages that count beside those of the body: where pages are sealed open ones are counted
// apart.
uint64_t Store::OpenPages(const LaneSet& set, size_t lane) {
  return !set.FormsOf(lane).seals() && set.next_position_ % kPageEntries != 0 ? 1 : 0;
}

// Where the longest run of pages begins that ends at `shared`, is less than half alive and can be
// copied within ForkPages (see demand.cc); `shared` if there is none.
size_t Store::CopyFrom(const LaneSet& set, size_t lane_index, size_t shared) const {
  const Lane& lane = set.lanes_[lane_index];
  const bool seals = set.FormsOf(lane_index).seals();
  const uint64_t own = PagesFor(LiveEntries(From(lane.body, shared))) + OpenPages(set, lane_index);
  const uint64_t bound = ForkPages(seals ? &set.shape_.seals : nullptr, set.fork_position_,
                                   set.next_position_ - set.fork_position_);
  size_t from = shared;
  uint64_t live = 0;
  for (size_t i = shared; i-- > 0;) {
    live += lane.body[i].n_live();
    if (live < kHalfPage * (shared - i) && own + PagesFor(live) <= bound) from = i;
  }
  return from;
}

// Lanes with more pages of their own than allowed, and lanes about to copy: from the first hole on.
void Store::PackInPlace(LaneSet& set, const std::vector<size_t>& lanes) {
  std::vector<Packing> packings;
  for (const size_t index : lanes) {
    const Lane& lane = set.lanes_[index];
    const size_t shared = SharedPages(lane);
    const uint64_t pages = lane.body.size() - shared;
    const uint64_t tight = PagesFor(LiveEntries(From(lane.body, shared)));
    const uint64_t entries =
        set.FormsOf(index).seals() ? LiveEntries(lane.body) : uint64_t{lane.n_entries};
    const uint64_t allowed = PagesFor(entries) + 1 - OpenPages(set, index);
    if (pages == tight) continue;
    if (pages <= allowed && CopyFrom(set, index, shared) == shared) continue;
    size_t first = shared;
    while (lane.body[first].n_live() == kPageEntries) ++first;
    Packing packing;
    if (Prepare(set, index, first, first, 0, &packing)) packings.push_back(std::move(packing));
  }
  Run(set, packings);
}

// Runs of shared pages that are less than half alive: their entries go into new pages in front of
// the lane's own, which move up to fill the last of them.
void Store::CopyOut(LaneSet& set, const std::vector<size_t>& lanes) {
  std::vector<Packing> packings;
  for (const size_t index : lanes) {
    const Lane& lane = set.lanes_[index];
    const size_t shared = SharedPages(lane);
    const size_t from = CopyFrom(set, index, shared);
    if (from == shared) continue;
    const uint64_t fresh = PagesFor(LiveEntries(std::span(lane.body).subspan(from, shared - from)));
    Packing packing;
    if (Prepare(set, index, from, shared, fresh, &packing)) packings.push_back(std::move(packing));
  }
  Run(set, packings);
}

void Store::Detach(LaneSetHandle& handle) {
  LaneSet& set = Changeable(handle);
  CHECK(!set.lent_);
  std::vector<Packing> packings;
  for (size_t index = 0; index < set.lanes_.size(); ++index) {
    Tidy(set, index);
    const Lane& lane = set.lanes_[index];
    const size_t shared = SharedPages(lane);
    if (shared == 0) continue;
    Packing packing;
    const uint64_t fresh = PagesFor(LiveEntries(std::span(lane.body).first(shared)));
    CHECK(Prepare(set, index, 0, shared, fresh, &packing));
    packings.push_back(std::move(packing));
  }
  Run(set, packings);
}

// Body pages from `first` on are to become `fresh` new ones and those from `own` on, as many as
// their entries need. False when the grant does not hold what that takes.
bool Store::Prepare(LaneSet& set, size_t lane_index, size_t first, size_t own, uint64_t fresh,
                    Packing* packing) {
  const Lane& lane = set.lanes_[lane_index];
  const auto body = std::span(lane.body);
  const uint64_t n_pages = PagesFor(LiveEntries(body.subspan(first)));
  std::vector<PlaneId> positions;
  for (const PageRef& page : body.subspan(own)) {
    if (page.positions.valid()) positions.push_back(page.positions);
  }
  Demand demand;
  const LayerForms forms = set.FormsOf(lane_index);
  demand.Add(PlaneBytes(forms.k.sealed, set.shape_.head_dim), fresh);
  demand.Add(PlaneBytes(forms.v.sealed, set.shape_.head_dim), fresh);
  if (n_pages > positions.size()) demand.AddPositions(n_pages - positions.size());
  for (const auto& [bytes, n] : demand.planes()) {
    if (pool_.Left(set.reservation_, bytes) < n) return false;
  }

  packing->lane = lane_index;
  packing->first = first;
  packing->from.assign(body.begin() + first, body.end());
  for (uint64_t i = 0; i < fresh; ++i) {
    packing->to.push_back(TakePage(set, lane_index, forms.seals()));
  }
  for (const PageRef& page : body.subspan(own)) {
    if (packing->to.size() < n_pages) {
      packing->to.push_back(page);
    } else {
      packing->released.insert(packing->released.end(), {page.k, page.v});
    }
  }
  for (const PageRef& page : body.subspan(first, own - first)) {
    page.ForEachPlane([&](PlaneId id) { packing->released.push_back(id); });
  }
  while (positions.size() > n_pages) {
    packing->released.push_back(positions.back());
    positions.pop_back();
  }
  while (positions.size() < n_pages) {
    positions.push_back(pool_.Take(set.reservation_, kPositionBytes, PlaneUse::kPositions));
  }
  for (uint64_t i = 0; i < n_pages; ++i) packing->to[i].positions = positions[i];
  return true;
}

void Store::Run(LaneSet& set, std::vector<Packing>& packings) {
  const auto move = [&](size_t i, size_t /*worker*/) {
    MoveEntries(pool_, kernels_.planes, set.shape_.head_dim, packings[i].from, packings[i].to);
  };
  if (workers_ != nullptr && packings.size() > 1) {
    workers_->Run(packings.size(), move);
  } else {
    for (size_t i = 0; i < packings.size(); ++i) move(i, 0);
  }
  for (const Packing& packing : packings) {
    std::vector<PageRef>& body = set.lanes_[packing.lane].body;
    body.resize(packing.first);
    body.insert(body.end(), packing.to.begin(), packing.to.end());
    set.Touch(packing.lane, packing.first);
    for (const PlaneId id : packing.released) pool_.Drop(id, set.reservation_);
  }
}

}  // namespace kvasir
