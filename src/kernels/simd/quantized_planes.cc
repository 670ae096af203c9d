// Codecs q8 and q4 of KV planes: encoding rows and expanding planes.
#include "kernels/simd/plane_codecs.h"

namespace kvasir::KVASIR_SIMD {

namespace {

constexpr size_t kVectors = kCodecBlock / kLanes;

// Up to 32 channels as integers, one per byte, zeros from n on.
struct Block {
  uint8_t q[kCodecBlock];
  uint16_t scale, min;
};

// What f16 keeps of x.
inline float Stored(float x, uint16_t* half) {
  uint16_t halves[kLanes];
  StoreF16(Set(x), halves);
  float back[kLanes];
  Store(LoadF16(halves), back);
  *half = halves[0];
  return back[0];
}

// x within [low, the largest f16].
inline float Bounded(float x, float low) { return x < low ? low : x < 65504.0f ? x : 65504.0f; }

// int8 with a scale. The integers are made for the scale as stored, so its rounding costs nothing
// but the clamp at 127. Scales stay finite whatever the input.
struct Q8 {
  static constexpr Codec kCodec = Codec::kQ8;
  static constexpr size_t kChannels = 1;  // in a byte

  static void Quantize(const float* x, size_t n, Block* block) {
    F32 value[kVectors];
    F32 largest = Zero();
    for (size_t i = 0; i < kVectors; ++i) {
      value[i] = i * kLanes < n ? LoadOfRow(x, i * kLanes, n, 0) : Zero();
      largest = Max(Abs(value[i]), largest);
    }
    const float scale = Stored(Bounded(MaxOfLanes(largest) / 127.0f, 0.0f), &block->scale);
    const F32 inverse = Set(scale > 0 ? 1.0f / scale : 0.0f);
    for (size_t i = 0; i < kVectors; ++i) {
      const F32 scaled = Max(Mul(value[i], inverse), Set(-127.0f));
      StoreI8(Min(scaled, Set(127.0f)), reinterpret_cast<int8_t*>(block->q) + i * kLanes);
    }
  }
};

// 4 bits with a scale and a minimum, both made as stored as well.
struct Q4 {
  static constexpr Codec kCodec = Codec::kQ4;
  static constexpr size_t kChannels = 2;

  static void Quantize(const float* x, size_t n, Block* block) {
    // NaN, also beyond the end, is no extreme and becomes q = 0.
    const float nan = __builtin_nanf("");
    F32 value[kVectors];
    F32 high = Set(-__builtin_inff()), low = Set(__builtin_inff());
    for (size_t i = 0; i < kVectors; ++i) {
      value[i] = i * kLanes < n ? LoadOfRow(x, i * kLanes, n, nan) : Set(nan);
      high = Max(value[i], high);
      low = Min(value[i], low);
    }
    const float lowest = -MaxOfLanes(Sub(Zero(), low));
    const float min = Stored(Bounded(lowest, -65504.0f), &block->min);
    const float scale = Stored(Bounded((MaxOfLanes(high) - min) / 15.0f, 0.0f), &block->scale);
    const F32 inverse = Set(scale > 0 ? 1.0f / scale : 0.0f);
    for (size_t i = 0; i < kVectors; ++i) {
      const F32 scaled = Max(Mul(Sub(value[i], Set(min)), inverse), Zero());
      StoreI8(Min(scaled, Set(15.0f)), reinterpret_cast<int8_t*>(block->q) + i * kLanes);
    }
  }
};

inline void PutScales(const Block& block, Codec codec, size_t dim, size_t at, uint8_t* plane) {
  memcpy(plane + ScalesAt(codec, dim) + 2 * at, &block.scale, 2);
  if (codec == Codec::kQ4) memcpy(plane + MinimaAt(dim) + 2 * at, &block.min, 2);
}

inline size_t Width(size_t dim, size_t c) { return dim - c < kCodecBlock ? dim - c : kCodecBlock; }

template <typename Q>
void EncodeV(const float* rows, size_t stride, size_t n, size_t dim, size_t slot, uint8_t* plane) {
  const size_t row_bytes = PaddedChannels(dim) / Q::kChannels, blocks = CodecBlocks(dim);
  for (size_t r = 0; r < n; ++r) {
    for (size_t b = 0; b < blocks; ++b) {
      const size_t c = b * kCodecBlock;
      Block block;
      Q::Quantize(rows + r * stride + c, Width(dim, c), &block);
      PutScales(block, Q::kCodec, dim, (slot + r) * blocks + b, plane);
      if constexpr (Q::kChannels == 2) {
        for (size_t i = 0; i < kCodecBlock / 2; ++i) {
          block.q[i] = static_cast<uint8_t>(block.q[2 * i] | block.q[2 * i + 1] << 4);
        }
      }
      memcpy(plane + (slot + r) * row_bytes + c / Q::kChannels, block.q,
             PaddedChannels(Width(dim, c)) / Q::kChannels);
    }
  }
}

// Two bytes of a K plane hold 2 * kChannels channels of an entry.
template <typename Q>
void EncodeK(const float* rows, size_t stride, size_t n, size_t dim, size_t slot, uint8_t* plane) {
  constexpr size_t kStep = 2 * Q::kChannels;
  for (size_t c = 0; c < dim; c += kCodecBlock) {
    Block block[kPageEntries];
    for (size_t r = 0; r < n; ++r) {
      Q::Quantize(rows + r * stride + c, Width(dim, c), &block[r]);
      PutScales(block[r], Q::kCodec, dim, c / kCodecBlock * kPageEntries + slot + r, plane);
    }
    for (size_t i = 0; i < PaddedChannels(Width(dim, c)); i += kStep) {
      uint8_t* out = plane + 2 * ((c + i) / kStep * kPageEntries + slot);
      for (size_t r = 0; r < n; ++r) {
        const uint8_t* q = block[r].q + i;
        for (size_t j = 0; j < 2; ++j) {
          out[2 * r + j] = Q::kChannels == 1 ? q[j] : static_cast<uint8_t>(q[j] | q[2 + j] << 4);
        }
      }
    }
  }
}

template <typename Values>
void ExpandV(const uint8_t* plane, PlaneShape shape, float* out) {
  const Values values(plane, shape);
  const size_t dim = shape.dim;
  for (size_t e = 0; e < kPageEntries; ++e) {
    size_t c = 0;
    for (; c + kLanes <= dim; c += kLanes) Store(values.At(e, c).Load(0), out + e * dim + c);
    if (c < dim) {
      float last[kLanes];
      Store(values.At(e, c).Load(0), last);
      memcpy(out + e * dim + c, last, (dim - c) * sizeof(float));
    }
  }
}

// Channel i of those that 16 bits of a K plane hold.
inline F32 Channel(const Q8&, U32 pair, size_t i) {  // its sign bit is moved to the top
  const U32 top = ShiftLeft(Field(pair, static_cast<int>(8 * i), 8), 24);
  return Mul(ToF32(top), Set(0x1p-24f));
}
inline F32 Channel(const Q4&, U32 quad, size_t i) {
  return ToF32(Field(quad, static_cast<int>(8 * (i % 2) + 4 * (i / 2)), 4));
}

template <typename Q>
void ExpandK(const uint8_t* plane, PlaneShape shape, float* out) {
  const size_t dim = shape.dim;
  constexpr size_t kStep = 2 * Q::kChannels;
  const uint16_t* scales = reinterpret_cast<const uint16_t*>(plane + ScalesAt(Q::kCodec, dim));
  const uint16_t* minima = scales + kPageEntries * CodecBlocks(dim);  // q4 alone has them
  for (size_t c = 0; c < dim; c += kStep) {
    const size_t width = dim - c < kStep ? dim - c : kStep;
    for (size_t e = 0; e < kPageEntries; e += kLanes) {
      const size_t at = c / kCodecBlock * kPageEntries + e;
      const F32 scale = LoadF16(scales + at);
      const U32 packed = LoadU16(plane + 2 * (c / kStep * kPageEntries + e));
      for (size_t i = 0; i < width; ++i) {
        const F32 q = Channel(Q(), packed, i);
        F32 x = Mul(q, scale);
        if constexpr (Q::kCodec == Codec::kQ4) x = Add(x, LoadF16(minima + at));
        Store(x, out + (c + i) * kPageEntries + e);
      }
    }
  }
}

}  // namespace

void FillQuantized(PlaneKernels* table) {
  constexpr int kQ8 = static_cast<int>(Codec::kQ8), kQ4 = static_cast<int>(Codec::kQ4);
  table->encode_k[kQ8] = EncodeK<Q8>;
  table->encode_v[kQ8] = EncodeV<Q8>;
  table->expand_k[kQ8] = ExpandK<Q8>;
  table->expand_v[kQ8] = ExpandV<Q8Values>;
  table->encode_k[kQ4] = EncodeK<Q4>;
  table->encode_v[kQ4] = EncodeV<Q4>;
  table->expand_k[kQ4] = ExpandK<Q4>;
  table->expand_v[kQ4] = ExpandV<Q4Values>;
}

}  // namespace kvasir::KVASIR_SIMD
