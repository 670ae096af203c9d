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

// Pages of its own that one lane may come to hold, by their form.
struct LanePages {
  uint64_t open = 0, sealed = 0;  // a page that is never sealed is an open one
  uint64_t positions = 0;
};

// Sums over all lanes. `of(seals)`: the pages of a lane that seals, or of one that does not.
template <typename F>
Demand OverLanes(const LaneShape& shape, const F& of) {
  Demand demand;
  for (uint32_t i = 0; i < shape.n_layers; ++i) {
    const LayerForms forms = shape.Forms(shape.first_layer + i);
    const LanePages pages = of(forms.seals());
    Demand lane;
    for (const PlaneLife& life : {forms.k, forms.v}) {
      lane.Add(PlaneBytes(life.open, shape.head_dim), pages.open);
      lane.Add(PlaneBytes(life.sealed, shape.head_dim), pages.sealed);
    }
    lane.AddPositions(pages.positions);
    demand.Add(lane.Times(shape.n_kv_heads));
  }
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

// Of a lane that seals, open and sealed pages are bounded apart; every sealed page comes from an
// open one of the same block of positions.
//
// Open pages: those of positions from SealRule::End on, so OpenPages() and never more than
// ceil(T / 64); P = growth.prompt tokens stay open until the prompt's end whatever was dropped of
// them, so ceil(P / 64) if that is more. Dropping and packing take none.
//
// Sealed pages: (1) one per seal event, End(T) / 64. (2) as above, ceil((N + B) / 64) + 2, without
// an open page in the count: a commit leaves at most ceil(n / 64) + 1 of them, m rows bring at most
// ceil(m / 64) events, and a copy is made of sealed pages alone. At a prompt's end all its pages
// are sealed before any is packed: End(P) / 64 if that is more.
LanePages MostPagesOf(bool seals, const SealRule& rule, const Growth& growth) {
  LanePages pages = {.open = MostPages(growth), .positions = MostPositions(growth)};
  if (!seals) return pages;
  const uint64_t whole = Pages(growth.tokens);
  pages.open = std::min(whole, std::max(rule.OpenPages(), Pages(growth.prompt)));
  pages.sealed = rule.End(growth.tokens) / kPageEntries;
  if (growth.cap > 0) {
    const uint64_t of_prompt = rule.End(growth.prompt) / kPageEntries;
    pages.sealed = std::min(pages.sealed, std::max(Pages(growth.cap + growth.rows) + 2, of_prompt));
  }
  return pages;
}

}  // namespace

Demand MaxDemand(const LaneShape& shape, const Growth& growth) {
  return OverLanes(shape, [&](bool seals) { return MostPagesOf(seals, shape.seals, growth); });
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
//
// Where pages are sealed the same holds of the sealed ones, with seal events in place of touched
// pages: a fork seals pages that it shares with its parent as pages of its own. Its open pages may
// all come to be its own: those that hold something when it is made, by being written to.
uint64_t ForkPages(const SealRule* rule, uint32_t position, uint64_t rows) {
  const uint64_t made = rule == nullptr
                            ? Pages(position % kPageEntries + rows)
                            : (rule->End(position + rows) - rule->End(position)) / kPageEntries;
  return made + rows / 32 + kCopiedPages;
}

Demand ForkDemand(const LaneShape& shape, uint32_t position, uint64_t rows, const Growth& growth) {
  Growth whole = growth;
  whole.tokens = std::max(growth.tokens, position + rows);
  return OverLanes(shape, [&](bool seals) {
    const SealRule& rule = shape.seals;
    LanePages pages = MostPagesOf(seals, rule, whole);
    const uint64_t most = ForkPages(seals ? &rule : nullptr, position, rows);
    if (!seals) {
      const uint64_t touched = rows == 0 ? 0 : Pages(position % kPageEntries + rows);
      pages.open = growth.cap == 0 ? touched : std::min(pages.open, most);
      return pages;
    }
    const uint32_t end = growth.prompt > 0 ? 0 : rule.End(position);
    const uint64_t events = (rule.End(position + rows) - end) / kPageEntries;
    pages.open = rows == 0 ? 0 : std::min(pages.open, Pages(position + rows - end));
    pages.sealed = growth.cap == 0 ? events : std::min(pages.sealed, std::max(most, events));
    return pages;
  });
}

}  // namespace kvasir
