// Planes of KV pages: what 64 rows of K or V look like in memory, and the views kernels read.
//
// K planes are channel-major, [dim][64]: vector lanes are entries, so a score is one chain over
// ascending channels and has the same bits in decode and in prefill [contract: sum.order]. V planes
// are entry-major, [64][dim]: lanes are channels, and a row is added after the row before it.
//
//   f32, f16, bf16  elements in that order
//   q8              int8 in that order, then f16 scales, one per entry and 32 channels (the last
//                   block of a row may be shorter): K [blocks][64], V [64][blocks]; the scale is
//                   amax / 127
//
// Planes are unpadded; the memory behind them is readable for 64 bytes past the end.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace kvasir {

enum class Codec : uint8_t { kF32, kF16, kBF16, kQ8 };
inline constexpr int kCodecs = 4;
inline constexpr uint32_t kPageEntries = 64;
inline constexpr uint32_t kCodecBlock = 32;  // channels that share a scale
inline constexpr uint32_t kMaxHeadDim = 512;

constexpr size_t PlaneBytes(Codec codec, size_t dim) {
  switch (codec) {
    case Codec::kF32:
      return kPageEntries * dim * 4;
    case Codec::kF16:
    case Codec::kBF16:
      return kPageEntries * dim * 2;
    case Codec::kQ8:
      break;
  }
  return kPageEntries * (dim + (dim + kCodecBlock - 1) / kCodecBlock * 2);
}

// One page as kernels see it. Slots [0, filled) hold entries in ascending position; entry i is read
// iff bit i of `live` is set. Dead slots may hold anything, NaN included, and must not influence a
// result.
struct PageView {
  const uint8_t* k = nullptr;  // null: no keys (V-only)
  const uint8_t* v = nullptr;
  const uint32_t* positions = nullptr;  // null: slot i is position base + i
  uint64_t live = 0;
  uint64_t mark = 0;  // a flag per entry for policies that decide later
  uint32_t base = 0;
  uint8_t filled = 0;
  Codec k_codec = Codec::kF16;
  Codec v_codec = Codec::kF16;

  uint32_t position(uint32_t slot) const { return positions ? positions[slot] : base + slot; }
};

// The entries of one (sequence, layer, KV head), ascending in position. Valid until the store's
// next Commit or append.
struct LaneView {
  const PageView* pages = nullptr;
  uint32_t n_pages = 0;
  uint32_t n_entries = 0;  // live
  uint32_t head_dim = 0;
};

}  // namespace kvasir
