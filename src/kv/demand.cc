// How many planes a lane set may come to need, with the reasons why that is enough. All counts are
// pages of one lane; "own" pages are those taken under the set's reservation.
#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "kv/store.h"

namespace kvasir {

namespace {

// Pages that a fork may copy out before it has appended anything: shared pages had dead entries
// when it was made (less than two pages of them in a body, and the open page), and copies are
// rounded up to pages.
constexpr uint64_t kCopiedPages = 6;

uint64_t Pages(uint64_t entries) { return DivideUp<uint64_t>(entries, kPageEntries); }

Demand PerLane(const LaneShape& shape, uint64_t pages, uint64_t positions) {
  Demand demand;
  demand.Add(PlaneBytes(shape.k_form, shape.head_dim), pages);
  demand.Add(PlaneBytes(shape.v_form, shape.head_dim), pages);
  demand.AddPositions(positions);
  return demand;
}

// T = growth.tokens, N = growth.cap, B = growth.rows. Two bounds on the own pages of a lane hold at
// every moment.
//
// (1) ceil(T / 64). An append adds a page for a block of 64 positions that has none; a page enters
//     the body when its block is complete; packing and copying never make more pages than they
//     read. So there are at most as many pages as blocks.
//
// (2) ceil((N + B) / 64) + 2. Let a commit that dropped entries of this lane leave n <= N live ones
//     at next position p, r = p mod 64, and let m rows follow before the next such commit:
//     n + m <= N + B. The commit leaves own body pages <= ceil(n / 64) + 1 - [r > 0] and no tail
//     but the open page. Afterwards the tail has ceil((r + m) / 64) pages. Together,
//       r > 0:  ceil(n / 64) + 1 + ceil((m - 1) / 64)  <=  ceil((n + m) / 64) + 2
//       r = 0:  ceil(n / 64) + 1 + ceil(m / 64)        <=  ceil((n + m) / 64) + 2.
//     Before the first such commit there is a page per block of positions since the set began or
//     was forked: ceil((r + m) / 64) <= ceil((N + B) / 64) + 1.
//     Inside a commit, clearing bits and moving complete pages into the body takes nothing, and
//     packing in place takes no K or V planes. Copying out takes ceil(x / 64) pages for x live
//     entries of shared pages when the own body is tight, ceil(y / 64) pages for y live entries:
//     x + y <= n, so with the open page there are at most ceil(n / 64) + 1 + 1 own pages.
//
// Position planes of its own: ceil(N / 64), one per page that was packed. A packing leaves the own
// part of the body tight, so at most ceil(n / 64) pages have one; pages that enter the body later
// have none until the next packing, which uses those of the pages it reads before it takes new
// ones.
uint64_t MostPages(const Growth& growth) {
  if (growth.cap == 0) return Pages(growth.tokens);
  return std::min(Pages(growth.tokens), Pages(growth.cap + growth.rows) + 2);
}

uint64_t MostPositions(const Growth& growth) {
  if (growth.cap == 0) return 0;
  return std::min(Pages(growth.tokens), Pages(growth.cap));
}

}  // namespace

Demand MaxDemand(const LaneShape& shape, const Growth& growth) {
  return PerLane(shape, MostPages(growth), MostPositions(growth)).Times(shape.lanes());
}

// Own pages of a fork are those that its m rows so far touch, the open page it began with included,
// and pages copied out of shared ones. An append adds a page only for a block that counts in the
// first part. A copy is made only if the lane's own pages, counting the open block, stay within
// ForkPages(position, m): it is a way to release shared pages, never a need. ForkPages grows with m
// at least as fast as appends need, so the own pages stay within ForkPages(position, rows) to the
// end. Bound (2) holds as well, because its proof does not ask whether other pages of the lane are
// shared: the smaller of the two is enough.
// A lane that drops as many entries as it gains copies half a page for every 32 rows at most:
// rows / 32 leaves room for twice that.
uint64_t ForkPages(uint32_t position, uint64_t rows) {
  return Pages(position % kPageEntries + rows) + rows / 32 + kCopiedPages;
}

Demand ForkDemand(const LaneShape& shape, uint32_t position, uint64_t rows, const Growth& growth) {
  Growth whole = growth;
  whole.tokens = std::max(growth.tokens, position + rows);
  const uint64_t touched = rows == 0 ? 0 : Pages(position % kPageEntries + rows);
  const uint64_t pages =
      growth.cap == 0 ? touched : std::min(MostPages(whole), ForkPages(position, rows));
  return PerLane(shape, pages, MostPositions(whole)).Times(shape.lanes());
}

}  // namespace kvasir
