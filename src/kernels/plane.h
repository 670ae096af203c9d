// Planes of KV pages: what 64 rows of K or V look like in memory, and the views kernels read.
//
// K planes are channel-major, [dim][64]: vector lanes are entries, so a score is one chain over
// ascending channels and has the same bits in decode and in prefill [contract: sum.order]. V planes
// are entry-major, [64][dim]: lanes are channels, and a row is added after the row before it.
//
//   f32, f16, bf16  elements in that order
//   q8              int8, then f16 scales, one per entry and 32 channels (the last block of a row
//                   may be shorter): x = scale * q, scale = amax / 127
//   q4              4 bits, then f16 scales and f16 minima as in q8: x = scale * q + min with q in
//                   0..15. A minimum of its own costs half a bit and pays: a scale alone doubles
//                   what smollm2's text loses by 4-bit keys, and Qwen's keys, whose large channels
//                   lie off zero, become useless.
//
// Keys of q8 and q4 lie ready for 16-bit dot products of pairs of channels: q8 [pairs][64][2]; q4
// [quads][64][2], where byte j of quad g holds channels 4g + j (low half) and 4g + 2 + j (high
// half). Values are [64][dim], the even channel of q4 in the low half. Both are padded to four
// channels with zeros. Scales and minima: K [blocks][64], V [64][blocks].
//
// Planes end with their last byte; the memory behind them is readable for 64 bytes past the end.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace kvasir {

enum class Codec : uint8_t { kF32, kF16, kBF16, kQ8, kQ4 };
inline constexpr int kCodecs = 5;
inline constexpr uint32_t kPageEntries = 64;
inline constexpr uint32_t kCodecBlock = 32;  // channels that share a scale
inline constexpr uint32_t kMaxHeadDim = 512;

// Of q8 and q4: the channels a row is padded to, and its blocks.
constexpr size_t PaddedChannels(size_t dim) { return (dim + 3) / 4 * 4; }
constexpr size_t CodecBlocks(size_t dim) { return (dim + kCodecBlock - 1) / kCodecBlock; }
constexpr bool IsInteger(Codec codec) { return codec == Codec::kQ8 || codec == Codec::kQ4; }

// Where the scales of a q8 or q4 plane begin, and the minima of a q4 plane.
constexpr size_t ScalesAt(Codec codec, size_t dim) {
  return kPageEntries * PaddedChannels(dim) / (codec == Codec::kQ4 ? 2 : 1);
}
constexpr size_t MinimaAt(size_t dim) {
  return ScalesAt(Codec::kQ4, dim) + kPageEntries * CodecBlocks(dim) * 2;
}

constexpr size_t PlaneBytes(Codec codec, size_t dim) {
  switch (codec) {
    case Codec::kF32:
      return kPageEntries * dim * 4;
    case Codec::kF16:
    case Codec::kBF16:
      return kPageEntries * dim * 2;
    case Codec::kQ8:
      return ScalesAt(Codec::kQ8, dim) + kPageEntries * CodecBlocks(dim) * 2;
    case Codec::kQ4:
      break;
  }
  return MinimaAt(dim) + kPageEntries * CodecBlocks(dim) * 2;
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
