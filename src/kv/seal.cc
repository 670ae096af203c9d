// Sealing: pages that have left the window of recent entries take their sealed form.
//
// Planes are taken first, for all pages of a call, because taking a plane may move others; then
// pages are packed in parallel, then the open planes go back. So a grant holds both forms of the
// pages of one call at once.
#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "kernels/sparse_plane.h"
#include "kv/store.h"

namespace kvasir {

namespace {

// Sealing one page costs less than waking others up.
constexpr size_t kParallelPages = 4;

constexpr size_t kSlack = 64;  // that kernels may read behind a plane

// A copy of a dense 16-bit plane, with slack, whose dead rows are zeros: what is sealed of a page
// depends on its live rows alone.
std::vector<uint8_t> WithoutDeadRows(const uint8_t* plane, uint64_t live, size_t dim, bool keys) {
  const size_t bytes = kPageEntries * dim * sizeof(uint16_t);
  std::vector<uint8_t> copy(bytes + kSlack);
  std::memcpy(copy.data(), plane, bytes);
  auto* const elements = reinterpret_cast<uint16_t*>(copy.data());
  for (uint32_t slot = 0; slot < kPageEntries; ++slot) {
    if ((live >> slot & 1) != 0) continue;
    if (keys) {
      for (size_t c = 0; c < dim; ++c) elements[c * kPageEntries + slot] = 0;
    } else {
      std::fill_n(elements + slot * dim, dim, uint16_t{0});
    }
  }
  return copy;
}

// Rows of q8 and q4 are encoded from what the window held.
void Requantize(const PlaneKernels& kernels, const PlaneLife& life, size_t dim, bool keys,
                const uint8_t* from, uint8_t* to) {
  std::vector<float> rows(kPageEntries * dim);
  if (!keys) {
    kernels.expand_v[life.open.index()](from, life.open.Shape(dim), rows.data());
    return kernels.encode_v[life.sealed.index()](rows.data(), dim, kPageEntries, dim, 0, to);
  }
  std::vector<float> columns(kPageEntries * dim);
  kernels.expand_k[life.open.index()](from, life.open.Shape(dim), columns.data());
  for (size_t slot = 0; slot < kPageEntries; ++slot) {
    for (size_t c = 0; c < dim; ++c) rows[slot * dim + c] = columns[c * kPageEntries + slot];
  }
  kernels.encode_k[life.sealed.index()](rows.data(), dim, kPageEntries, dim, 0, to);
}

// Writes zeros over what a row of a dense plane does not keep; the other rows are left alone.
void PruneRow(const PlaneKernels& kernels, const PlaneLife& life, size_t dim, bool keys,
              uint32_t slot, uint8_t* plane) {
  if (!IsSparse(life.sealed.codec)) return;
  std::vector<uint8_t> packed(PlaneBytes(life.sealed, dim) + kSlack);
  const auto& pack = keys ? kernels.pack_k : kernels.pack_v;
  pack[life.sealed.index()](plane, life.sealed.Shape(dim), nullptr, packed.data());
  auto* const elements = reinterpret_cast<uint16_t*>(plane);
  for (size_t c = 0; c < dim; ++c) {
    if (KeepsChannel(life.sealed, dim, keys, packed.data(), slot, c)) continue;
    elements[keys ? c * kPageEntries + slot : slot * dim + c] = 0;
  }
}

}  // namespace

// A page on its way from one form to the other.
struct Store::Sealing {
  size_t lane = 0, page = 0;  // in the tail
  PageRef to;
  size_t nonfinite = 0;
};

// The page as it will be; what does not change its form moves on, or is copied where others see it
// too: whoever shares a page shares all of it.
PageRef Store::TakeSealed(LaneSet& set, size_t lane, const PageRef& page) {
  const LayerForms forms = set.FormsOf(lane);
  const bool shared = IsShared(page);
  PageRef sealed = page;
  sealed.sealed = true;
  sealed.k_form = forms.k.sealed;
  sealed.v_form = forms.v.sealed;
  if (shared || forms.k.seals()) sealed.k = TakePlane(set, sealed.k_form);
  if (shared || forms.v.seals()) sealed.v = TakePlane(set, sealed.v_form);
  return sealed;
}

// Returns how many rows had no finite scale.
size_t Store::SealPlane(const PlaneLife& life, uint32_t head_dim, bool keys, const float* weights,
                        uint64_t live, PlaneId from, PlaneId to) {
  if (from == to) return 0;
  const uint8_t* open = pool_.Address(from);
  uint8_t* const sealed = pool_.Address(to);
  if (!life.seals()) {
    std::memcpy(sealed, open, pool_.Bytes(from));
    return 0;
  }
  std::vector<uint8_t> cleared;
  if (live != ~uint64_t{0}) {
    cleared = WithoutDeadRows(open, live, head_dim, keys);
    open = cleared.data();
  }
  const PlaneKernels& kernels = kernels_.planes;
  if (!IsSparse(life.sealed.codec)) {
    Requantize(kernels, life, head_dim, keys, open, sealed);
    return 0;
  }
  const auto& pack = keys ? kernels.pack_k : kernels.pack_v;
  return pack[life.sealed.index()](open, life.sealed.Shape(head_dim), weights, sealed);
}

// Of the last 32 queries at a multiple of 32, where windows end; else of the last 32 to 63.
std::vector<float> Store::QueryWeights(LaneSet& set, size_t lane, uint32_t n_seen) {
  const std::span<const float> open = set.QuerySums(lane, false);
  const std::span<const float> complete = set.QuerySums(lane, true);
  std::vector<float> weights(open.begin(), open.end());
  if (n_seen % kQueryBlock == 0) return weights;
  for (size_t c = 0; c < weights.size(); ++c) weights[c] += complete[c];
  return weights;
}

void Store::SealLanes(LaneSet& set, size_t first_lane, size_t n_lanes, uint32_t n_seen) {
  const uint32_t end = set.shape_.seals.End(n_seen);
  std::vector<Sealing> sealings;
  for (size_t lane = first_lane; lane < first_lane + n_lanes; ++lane) {
    if (!set.FormsOf(lane).seals()) continue;
    // What is due lies right before the pages that are not.
    const std::vector<PageRef>& tail = set.lanes_[lane].tail;
    size_t due = tail.size();
    while (due > 0 && tail[due - 1].base >= end) --due;
    size_t first = due;
    while (first > 0 && !tail[first - 1].sealed) --first;
    for (size_t page = first; page < due; ++page) {
      sealings.push_back({lane, page, TakeSealed(set, lane, tail[page])});
    }
  }
  const auto seal = [&](size_t i, size_t /*worker*/) {
    Sealing& s = sealings[i];
    const LayerForms forms = set.FormsOf(s.lane);
    const PageRef& from = set.lanes_[s.lane].tail[s.page];
    const uint32_t dim = set.shape_.head_dim;
    std::vector<float> weights;
    if (forms.k.by_query) weights = QueryWeights(set, s.lane, n_seen);
    const float* const of_keys = weights.empty() ? nullptr : weights.data();
    s.nonfinite = SealPlane(forms.k, dim, /*keys=*/true, of_keys, from.live, from.k, s.to.k) +
                  SealPlane(forms.v, dim, /*keys=*/false, nullptr, from.live, from.v, s.to.v);
  };
  if (workers_ != nullptr && sealings.size() >= kParallelPages) {
    workers_->Run(sealings.size(), seal);
  } else {
    for (size_t i = 0; i < sealings.size(); ++i) seal(i, 0);
  }
  for (const Sealing& s : sealings) {
    PageRef& page = set.lanes_[s.lane].tail[s.page];
    for (const PlaneId id : {page.k, page.v}) {
      if (id != s.to.k && id != s.to.v) pool_.Drop(id, set.reservation_);
    }
    page = s.to;
    set.Touch(s.lane, set.lanes_[s.lane].body.size() + s.page);
    rows_nonfinite_ += s.nonfinite;
  }
}

// Rows [begin, end) have left the window, their page has not.
void Store::PruneRows(LaneSet& set, size_t first_lane, size_t n_lanes, uint32_t begin,
                      uint32_t end) {
  for (size_t lane = first_lane; lane < first_lane + n_lanes; ++lane) {
    if (!set.FormsOf(lane).seals()) continue;
    std::vector<PageRef>& tail = set.lanes_[lane].tail;
    for (size_t i = tail.size(); i-- > 0 && tail[i].base + kPageEntries > begin;) {
      if (tail[i].sealed || tail[i].base >= end || !IsShared(tail[i])) continue;
      CopyOpenPage(set, lane, tail[i]);
      set.Touch(lane, set.lanes_[lane].body.size() + i);
    }
  }
  const auto prune = [&](size_t i, size_t /*worker*/) {
    const size_t lane = first_lane + i;
    const LayerForms forms = set.FormsOf(lane);
    const uint32_t dim = set.shape_.head_dim;
    for (const PageRef& page : set.lanes_[lane].tail) {
      if (page.sealed || !forms.seals()) continue;
      for (uint32_t slot = 0; slot < page.filled; ++slot) {
        if (page.base + slot < begin || page.base + slot >= end) continue;
        PruneRow(kernels_.planes, forms.k, dim, true, slot, pool_.Address(page.k));
        PruneRow(kernels_.planes, forms.v, dim, false, slot, pool_.Address(page.v));
      }
    }
  };
  if (workers_ != nullptr && n_lanes >= kParallelPages) {
    workers_->Run(n_lanes, prune);
  } else {
    for (size_t i = 0; i < n_lanes; ++i) prune(i, 0);
  }
}

// After the attention of the row that was seen last.
void Store::SealBehind(LaneSet& set, size_t first_lane, size_t n_lanes, uint32_t n_seen) {
  if (!set.sealing_) return;
  SealLanes(set, first_lane, n_lanes, n_seen);
  const SealRule& rule = set.shape_.seals;
  // Rows come one by one.
  if (rule.by_row && n_seen > rule.recent) {
    PruneRows(set, first_lane, n_lanes, n_seen - rule.recent - 1, n_seen - rule.recent);
  }
}

void Store::StartSealing(LaneSetHandle& handle) {
  LaneSet& set = Changeable(handle);
  if (set.sealing_ || set.shape_.seals.recent == 0) return;
  set.sealing_ = true;
  // Layer by layer: no more than one is there in both forms.
  const size_t heads = set.shape_.n_kv_heads;
  for (size_t lane = 0; lane < set.lanes_.size(); lane += heads) {
    SealLanes(set, lane, heads, set.next_position_);
  }
  const SealRule& rule = set.shape_.seals;
  if (rule.by_row && set.next_position_ > rule.recent) {
    PruneRows(set, 0, set.lanes_.size(), set.sealed_end(), set.next_position_ - rule.recent);
  }
  std::vector<size_t> lanes;
  for (size_t lane = 0; lane < set.lanes_.size() && set.dropped_ > 0; ++lane) {
    if (set.FormsOf(lane).seals()) lanes.push_back(lane);
  }
  Pack(set, lanes);
}

}  // namespace kvasir
