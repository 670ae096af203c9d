#include "kv/lane_set.h"

#include "base/error.h"

namespace kvasir {

uint64_t LaneShape::EntryBytes() const {
  uint64_t pages = 0;
  for (uint32_t i = 0; i < n_layers; ++i) {
    const LayerForms forms = Forms(first_layer + i);
    pages += PlaneBytes(forms.k.sealed, head_dim) + PlaneBytes(forms.v.sealed, head_dim);
  }
  return pages / (kPageEntries * std::max(n_layers, 1u));
}

uint64_t LaneSet::n_entries() const {
  uint64_t n = 0;
  for (const Lane& lane : lanes_) n += lane.n_entries;
  return n;
}

uint64_t LaneSet::live_bytes() const {
  uint64_t bytes = 0;
  for (const Lane& lane : lanes_) {
    for (const std::vector<PageRef>* pages : {&lane.body, &lane.tail}) {
      for (const PageRef& page : *pages) {
        const uint64_t of_page =
            PlaneBytes(page.k_form, shape_.head_dim) + PlaneBytes(page.v_form, shape_.head_dim);
        bytes += page.n_live() * (of_page / kPageEntries);
      }
    }
  }
  return bytes;
}

uint32_t LaneSet::max_entries_per_lane() const {
  uint32_t most = 0;
  for (const Lane& lane : lanes_) most = std::max(most, lane.n_entries);
  return most;
}

bool LaneSet::IsProtected(uint32_t position) const {
  // The first run that begins behind the position; the one before it may hold it.
  const auto after = std::upper_bound(protected_.begin(), protected_.end(), position,
                                      [](uint32_t p, const auto& run) { return p < run.first; });
  return after != protected_.begin() && position < std::prev(after)->second;
}

void LaneSet::Protect(uint32_t begin, uint32_t end) {
  CHECK(begin <= end);
  if (begin == end) return;
  // One run in place of all that touch [begin, end).
  const auto first = std::lower_bound(protected_.begin(), protected_.end(), begin,
                                      [](const auto& run, uint32_t p) { return run.second < p; });
  auto last = first;
  for (; last != protected_.end() && last->first <= end; ++last) {
    begin = std::min(begin, last->first);
    end = std::max(end, last->second);
  }
  protected_.insert(protected_.erase(first, last), {begin, end});
}

uint64_t LaneSet::table_bytes() const {
  uint64_t bytes = sizeof(LaneSet) + lanes_.capacity() * sizeof(Lane) +
                   views_.capacity() * sizeof(ViewCache) +
                   protected_.capacity() * sizeof(protected_[0]) +
                   owners_.capacity() * sizeof(OwnerRun) + query_sums_.capacity() * sizeof(float);
  for (const Lane& lane : lanes_) {
    bytes += (lane.body.capacity() + lane.tail.capacity()) * sizeof(PageRef);
  }
  for (const ViewCache& view : views_) bytes += view.pages.capacity() * sizeof(PageView);
  return bytes;
}

}  // namespace kvasir
