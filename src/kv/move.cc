#include "kv/move.h"

#include <bit>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "kernels/sparse_plane.h"

namespace kvasir {

namespace {

// Neighbouring slots of one page that become neighbouring slots of another.
struct Run {
  uint32_t page = 0;  // index into `from`
  uint8_t from = 0, to = 0, n = 0;
};

// Planes as matrices. K: one row of 64 elements per channel (or block of channels, for scales).
template <typename T>
void MoveColumns(std::span<const Run> runs, std::span<const uint8_t* const> from, size_t offset,
                 size_t rows, uint8_t* to) {
  constexpr uint32_t kBlock = 8;  // shorter runs move element by element
  for (size_t row = 0; row < rows; ++row) {
    T* const target = reinterpret_cast<T*>(to + offset) + row * kPageEntries;
    for (const Run& run : runs) {
      const T* const source =
          reinterpret_cast<const T*>(from[run.page] + offset) + row * kPageEntries + run.from;
      if (run.n >= kBlock) {
        std::memmove(target + run.to, source, run.n * sizeof(T));
      } else {
        for (uint32_t i = 0; i < run.n; ++i) target[run.to + i] = source[i];
      }
    }
  }
}

// V: one row of `bytes` per entry.
void MoveRows(std::span<const Run> runs, std::span<const uint8_t* const> from, size_t offset,
              size_t bytes, uint8_t* to) {
  for (const Run& run : runs) {
    std::memmove(to + offset + run.to * bytes, from[run.page] + offset + run.from * bytes,
                 run.n * bytes);
  }
}

void MoveSparse(const PlaneKernels& kernels, PlaneForm form, size_t dim, bool keys,
                std::span<const Run> runs, std::span<const uint8_t* const> from, uint8_t* to) {
  std::vector<SparseRows> rows;
  for (const Run& run : runs) {
    if (rows.empty() || rows.back().plane != from[run.page]) rows.push_back({from[run.page], 0});
    rows.back().slots |= ~uint64_t{0} >> (64 - run.n) << run.from;
  }
  TakeRows(kernels, form, dim, keys, rows, to);
}

void MoveK(const PlaneKernels& kernels, PlaneForm form, size_t dim, std::span<const Run> runs,
           std::span<const uint8_t* const> from, uint8_t* to) {
  switch (form.codec) {
    case Codec::kF32:
      return MoveColumns<uint32_t>(runs, from, 0, dim, to);
    case Codec::kF16:
    case Codec::kBF16:
      return MoveColumns<uint16_t>(runs, from, 0, dim, to);
    case Codec::kQ8:  // an entry's integers lie in pairs of bytes
      MoveColumns<uint16_t>(runs, from, 0, PaddedChannels(dim) / 2, to);
      return MoveColumns<uint16_t>(runs, from, ScalesAt(form.codec, dim), CodecBlocks(dim), to);
    case Codec::kQ4:  // scales and minima are one matrix
      MoveColumns<uint16_t>(runs, from, 0, PaddedChannels(dim) / 4, to);
      return MoveColumns<uint16_t>(runs, from, ScalesAt(form.codec, dim), 2 * CodecBlocks(dim), to);
    case Codec::kSparseBF16:
    case Codec::kSparseF16:
    case Codec::kSparseI8:
      return MoveSparse(kernels, form, dim, true, runs, from, to);
  }
}

void MoveV(const PlaneKernels& kernels, PlaneForm form, size_t dim, std::span<const Run> runs,
           std::span<const uint8_t* const> from, uint8_t* to) {
  switch (form.codec) {
    case Codec::kF32:
      return MoveRows(runs, from, 0, dim * 4, to);
    case Codec::kF16:
    case Codec::kBF16:
      return MoveRows(runs, from, 0, dim * 2, to);
    case Codec::kQ8:
      MoveRows(runs, from, 0, PaddedChannels(dim), to);
      return MoveRows(runs, from, ScalesAt(form.codec, dim), CodecBlocks(dim) * 2, to);
    case Codec::kQ4:
      MoveRows(runs, from, 0, PaddedChannels(dim) / 2, to);
      MoveRows(runs, from, ScalesAt(form.codec, dim), CodecBlocks(dim) * 2, to);
      return MoveRows(runs, from, MinimaAt(dim), CodecBlocks(dim) * 2, to);
    case Codec::kSparseBF16:
    case Codec::kSparseF16:
    case Codec::kSparseI8:
      return MoveSparse(kernels, form, dim, false, runs, from, to);
  }
}

// Hands out the live entries of pages in order.
class EntryReader {
 public:
  explicit EntryReader(std::span<const PageRef> pages) : pages_(pages) {
    left_ = pages.empty() ? 0 : pages[0].live;
  }
  // The next entries, until `room` are reached; false at the end. `run->to` is left alone.
  bool Next(uint32_t room, Run* run) {
    while (page_ < pages_.size() && left_ == 0) {
      if (++page_ < pages_.size()) left_ = pages_[page_].live;
    }
    if (page_ == pages_.size()) return false;
    const auto first = static_cast<uint32_t>(std::countr_zero(left_));
    const auto length = static_cast<uint32_t>(std::countr_one(left_ >> first));
    const uint32_t n = std::min(length, room);
    const uint64_t taken = n == 64 ? ~uint64_t{0} : ((uint64_t{1} << n) - 1) << first;
    left_ &= ~taken;
    run->page = static_cast<uint32_t>(page_);
    run->from = static_cast<uint8_t>(first);
    run->n = static_cast<uint8_t>(n);
    return true;
  }

 private:
  std::span<const PageRef> pages_;
  size_t page_ = 0;
  uint64_t left_ = 0;
};

std::vector<uint32_t> Positions(const Pool& pool, std::span<const PageRef> pages) {
  std::vector<uint32_t> positions;
  positions.reserve(pages.size() * kPageEntries);
  for (const PageRef& page : pages) {
    const uint32_t* stored = nullptr;
    if (page.positions.valid()) {
      stored = reinterpret_cast<const uint32_t*>(pool.Address(page.positions));
    }
    for (uint64_t left = page.live; left != 0; left &= left - 1) {
      const auto slot = static_cast<uint32_t>(std::countr_zero(left));
      positions.push_back(stored ? stored[slot] : page.base + slot);
    }
  }
  return positions;
}

}  // namespace

void MoveEntries(Pool& pool, const PlaneKernels& kernels, uint32_t head_dim,
                 std::span<const PageRef> from, std::span<PageRef> to) {
  std::vector<const uint8_t*> k, v;
  for (const PageRef& page : from) {
    CHECK(page.k_form == to[0].k_form && page.v_form == to[0].v_form);
    k.push_back(pool.Address(page.k));
    v.push_back(pool.Address(page.v));
  }
  // All positions are read before any is written: planes of positions may change places.
  const std::vector<uint32_t> positions = Positions(pool, from);
  std::vector<Run> runs;
  EntryReader reader(from);
  size_t done = 0;
  for (PageRef& page : to) {
    runs.clear();
    uint32_t filled = 0;
    uint64_t mark = 0;
    for (Run run; filled < kPageEntries && reader.Next(kPageEntries - filled, &run);) {
      run.to = static_cast<uint8_t>(filled);
      for (uint32_t i = 0; i < run.n; ++i) {
        mark |= (from[run.page].mark >> (run.from + i) & 1) << (run.to + i);
      }
      filled += run.n;
      runs.push_back(run);
    }
    CHECK(filled > 0);
    MoveK(kernels, page.k_form, head_dim, runs, k, pool.Address(page.k));
    MoveV(kernels, page.v_form, head_dim, runs, v, pool.Address(page.v));
    std::memcpy(pool.Address(page.positions), positions.data() + done, filled * sizeof(uint32_t));
    page.base = 0;
    page.filled = static_cast<uint8_t>(filled);
    page.live = filled == 64 ? ~uint64_t{0} : (uint64_t{1} << filled) - 1;
    page.mark = mark;
    done += filled;
  }
  CHECK(done == positions.size());
}

}  // namespace kvasir
