// Walks a lane's entries as a query tile sees them: runs of entries of one page and one part.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/plane.h"

namespace kvasir {

// Live entries of one page that belong to one part and that some row of the tile sees.
struct EntryRun {
  const PageView* page = nullptr;
  uint64_t part = 0;
  uint64_t bits = 0;  // the entries' slots, never 0

  uint32_t first() const { return page->position(static_cast<uint32_t>(std::countr_zero(bits))); }
  uint32_t last() const {
    return page->position(63u - static_cast<uint32_t>(std::countl_zero(bits)));
  }
};

// Bits of `live` whose entries lie below `limit`; positions ascend with the slots.
inline uint64_t SlotsBelow(const PageView& page, uint64_t live, uint64_t limit) {
  if (live == 0) return 0;
  const uint32_t last = 63u - static_cast<uint32_t>(std::countl_zero(live));
  if (page.position(last) < limit) return live;
  if (page.positions == nullptr) {
    return limit <= page.base ? 0 : live & ((uint64_t{1} << (limit - page.base)) - 1);
  }
  uint64_t below = 0;
  for (uint64_t left = live; left != 0; left &= left - 1) {
    if (page.position(static_cast<uint32_t>(std::countr_zero(left))) >= limit) break;
    below |= left & (~left + 1);
  }
  return below;
}

// A value: a copy walks on from the same place.
class LaneCursor {
 public:
  // Entries at positions from `first` to `last`, in parts of 2^shift positions.
  LaneCursor(const LaneView& lane, uint32_t shift, uint32_t first, uint32_t last)
      : pages_(lane.pages), n_pages_(lane.n_pages), shift_(shift), first_(first), last_(last) {}

  // False at the end. Segments come in ascending position.
  bool Next(EntryRun* run) {
    for (; page_ < n_pages_; ++page_, slot_ = 0) {
      const PageView& page = pages_[page_];
      if (page.k == nullptr || slot_ >= page.filled) continue;
      const uint64_t filled = page.filled < 64 ? (uint64_t{1} << page.filled) - 1 : ~uint64_t{0};
      uint64_t live = page.live & filled & ~uint64_t{0} << slot_;
      if (first_ > 0) live &= ~SlotsBelow(page, live, first_);
      if (live == 0) continue;
      const uint32_t position = page.position(static_cast<uint32_t>(std::countr_zero(live)));
      if (position > last_) return false;
      run->page = &page;
      run->part = position >> shift_;
      const uint64_t part_end = (run->part + 1) << shift_;
      const uint64_t limit = part_end <= last_ ? part_end : uint64_t{last_} + 1;
      run->bits = SlotsBelow(page, live, limit);
      slot_ = 64u - static_cast<uint32_t>(std::countl_zero(run->bits));
      return true;
    }
    return false;
  }

 private:
  const PageView* pages_;
  uint32_t n_pages_;
  uint32_t shift_;
  uint32_t first_, last_;
  uint32_t page_ = 0, slot_ = 0;
};

}  // namespace kvasir
