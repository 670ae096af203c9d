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
// Sparse planes keep k of a row's channels, the largest ones (MUSTAFAR, arXiv 2505.22913), and a
// bit per channel that says which; every row has exactly k bits. Their rows are packed 64 at once
// from a dense page (PlaneKernels::pack_k, pack_v); what is not kept counts as +0. With w bytes a
// value:
//
//            values      64 k w bytes   K: channel after channel, in each the entries that keep it,
//                                       ascending; V: row after row, k values in channel order
//            scales      128 bytes      f16 [64], one per entry; sparse i8 alone: x = scale * q,
//                                       so that a scale of NaN makes NaN of a whole row
//            bitmaps     512 ceil(dim / 64) bytes of 64-bit words
//                                       K: [dim], bit e of word c: entry e keeps channel c;
//                                       V: [64][ceil(dim / 64)], bit j of word i: channel 64 i + j
//
// K is channel-major here as well: a score stays one chain over ascending channels with entries in
// the vector lanes, so packed keys give the bits of the dense keys with zeros in the other places.
// The price is that a row of K cannot be read alone. Bitmaps stand last so that vector loads past
// the last value end in the plane itself.
//
// Planes end with their last byte; the memory behind them is readable for 64 bytes past the end.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <compare>

namespace kvasir {

enum class Codec : uint8_t { kF32, kF16, kBF16, kQ8, kQ4, kSparseBF16, kSparseF16, kSparseI8 };
inline constexpr int kCodecs = 8;
inline constexpr int kDenseCodecs = 5;  // the first: rows can be written one by one
inline constexpr uint32_t kPageEntries = 64;
inline constexpr uint32_t kCodecBlock = 32;  // channels that share a scale
inline constexpr uint32_t kMaxHeadDim = 512;

// Rows of q8 and q4 have a scale per block; `IsSparse` planes have none or one.
constexpr bool IsInteger(Codec codec) { return codec == Codec::kQ8 || codec == Codec::kQ4; }
constexpr bool IsSparse(Codec codec) { return codec >= Codec::kSparseBF16; }
// The dense codec whose pages a sparse one is packed from.
constexpr Codec SparseSource(Codec codec) {
  return codec == Codec::kSparseF16 ? Codec::kF16 : Codec::kBF16;
}

// What a kernel must know of a plane beside its codec.
struct PlaneShape {
  size_t dim;
  size_t keep;  // channels kept per row of a sparse plane, 1 to dim; 0 of others

  constexpr PlaneShape(size_t dim, size_t keep = 0) : dim(dim), keep(keep) {}
};

// How a plane stores its rows. Implicitly made from the codec of a dense plane.
struct PlaneForm {
  Codec codec = Codec::kF16;
  uint16_t keep = 0;  // as in PlaneShape

  constexpr PlaneForm() = default;
  constexpr PlaneForm(Codec codec, uint16_t keep = 0) : codec(codec), keep(keep) {}
  constexpr size_t index() const { return static_cast<size_t>(codec); }  // into tables of kernels
  constexpr PlaneShape Shape(size_t dim) const { return {dim, keep}; }
  constexpr auto operator<=>(const PlaneForm&) const = default;
};

// Channels that a row of `dim` keeps when `sparsity` thousandths of it go: the even number that is
// not smaller than dim * (1 - sparsity / 1000). Integers alone: in floating point 80 channels at
// 0.7 would be 26 instead of 24.
constexpr uint16_t KeptChannels(size_t dim, size_t sparsity) {
  const size_t keep = 2 * ((dim * (1000 - sparsity) + 1999) / 2000);
  return static_cast<uint16_t>(keep < dim ? keep : dim);
}

// Of q8 and q4: the channels a row is padded to, and its blocks.
constexpr size_t PaddedChannels(size_t dim) { return (dim + 3) / 4 * 4; }
constexpr size_t CodecBlocks(size_t dim) { return (dim + kCodecBlock - 1) / kCodecBlock; }

// Where the scales of a q8 or q4 plane begin, and the minima of a q4 plane.
constexpr size_t ScalesAt(Codec codec, size_t dim) {
  return kPageEntries * PaddedChannels(dim) / (codec == Codec::kQ4 ? 2 : 1);
}
constexpr size_t MinimaAt(size_t dim) {
  return ScalesAt(Codec::kQ4, dim) + kPageEntries * CodecBlocks(dim) * 2;
}

// Of sparse planes: bytes of a value, where the scales and the bitmaps begin, words of a V row's
// bitmap.
constexpr size_t SparseValueBytes(Codec codec) { return codec == Codec::kSparseI8 ? 1 : 2; }
constexpr size_t SparseScalesAt(PlaneForm form) {
  return kPageEntries * form.keep * SparseValueBytes(form.codec);
}
constexpr size_t SparseBitmapsAt(PlaneForm form) {
  return SparseScalesAt(form) + (form.codec == Codec::kSparseI8 ? kPageEntries * 2 : 0);
}
constexpr size_t BitmapWords(size_t dim) { return (dim + 63) / 64; }

constexpr size_t PlaneBytes(PlaneForm form, size_t dim) {
  switch (form.codec) {
    case Codec::kF32:
      return kPageEntries * dim * 4;
    case Codec::kF16:
    case Codec::kBF16:
      return kPageEntries * dim * 2;
    case Codec::kQ8:
      return ScalesAt(Codec::kQ8, dim) + kPageEntries * CodecBlocks(dim) * 2;
    case Codec::kQ4:
      return MinimaAt(dim) + kPageEntries * CodecBlocks(dim) * 2;
    case Codec::kSparseBF16:
    case Codec::kSparseF16:
    case Codec::kSparseI8:
      break;
  }
  return SparseBitmapsAt(form) + kPageEntries * BitmapWords(dim) * 8;
}

// Some rows of a sparse plane.
struct SparseRows {
  const uint8_t* plane;
  uint64_t slots;
};

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
  PlaneForm k_form, v_form;

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
