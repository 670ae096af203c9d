// Packing dense planes into sparse ones, and sparse rows into new planes (kernels/plane.h). Entries
// are chosen 32 at a time, in vector lanes: a threshold per entry, found bit after bit, above which
// its channels stay, and a count of those that equal it and may still stay. So K and V share all
// but how magnitudes are gathered, and which channels stay comes out as bits.
#include "kernels/simd/sparse_lanes.h"

namespace kvasir::KVASIR_SIMD {

namespace {

constexpr size_t kBlock = 32;  // entries chosen at a time
constexpr size_t kVectors = kBlock / kLanes;

// Element types of the dense plane a sparse one is packed from.
template <Codec kCodec>
struct SourceOf {
  using E = ElementBF16;
  static F32 Float(U32 bits) { return AsF32(ShiftLeft(bits, 16)); }
};
template <>
struct SourceOf<Codec::kSparseF16> {
  using E = ElementF16;
  static F32 Float(U32 bits) {
    uint32_t wide[kLanes];
    uint16_t half[kLanes];
    StoreU32(bits, wide);
    for (size_t i = 0; i < kLanes; ++i) half[i] = static_cast<uint16_t>(wide[i]);
    return LoadF16(half);
  }
};

inline U32 LoadMagnitude(const uint16_t* at) {
  return And(LoadU16(reinterpret_cast<const uint8_t*>(at)), SetU32(0x7fff));
}
inline U32 LoadU32(const uint32_t* at) {
  return KVASIR_SIMD::LoadU32(reinterpret_cast<const uint8_t*>(at));
}

// The choice for kBlock entries. Tables are [dim][kBlock].
struct Block {
  uint32_t magnitude[kMaxHeadDim * kBlock];  // as stored
  uint32_t rank[kMaxHeadDim * kBlock];       // what is compared, where that is something else
  uint32_t kept[kMaxHeadDim];                // per channel, the entries that keep it
  uint32_t largest[kBlock];                  // magnitude kept

  // Magnitudes of the entries from `e` on.
  void GatherKeys(const uint16_t* source, size_t dim, size_t e) {
    uint32_t* out = magnitude;
    for (size_t c = 0; c < dim; ++c) {
      for (size_t v = 0; v < kVectors; ++v, out += kLanes) {
        StoreU32(LoadMagnitude(source + c * kPageEntries + e + v * kLanes), out);
      }
    }
  }
  void GatherValues(const uint16_t* source, size_t dim, size_t e) {
    for (size_t row = 0; row < kBlock; row += kLanes) {
      for (size_t c = 0; c < dim; c += kLanes) {  // the last vector of a row may reach behind it
        F32 t[kLanes];
        for (size_t i = 0; i < kLanes; ++i) {
          t[i] = AsF32(LoadMagnitude(source + (e + row + i) * dim + c));
        }
        Transpose8(t);
        const size_t n = dim - c < kLanes ? dim - c : kLanes;
        for (size_t i = 0; i < n; ++i) {
          StoreU32(AsU32(t[i]), magnitude + (c + i) * kBlock + row);
        }
      }
    }
  }

  // Ranks are magnitudes times weights: the bits of f32 order as they do.
  template <Codec kCodec>
  void Weigh(const float* weights, size_t dim) {
    for (size_t i = 0; i < dim * kBlock; i += kLanes) {
      const F32 x = SourceOf<kCodec>::Float(LoadU32(magnitude + i));
      const U32 bits = AsU32(Mul(x, Set(weights[i / kBlock])));
      StoreU32(And(bits, SetU32(0x7fffffff)), rank + i);
    }
  }

  // Fills `kept` by the `keep` largest values of `by`, which are below 2 * top_bit.
  void Choose(const uint32_t* by, size_t dim, size_t keep, uint32_t top_bit) {
    U32 threshold[kVectors];  // the largest that at least `keep` channels reach
    for (U32& t : threshold) t = SetU32(0);
    for (uint32_t bit = top_bit; bit != 0; bit >>= 1) {
      U32 candidate[kVectors], below[kVectors];
      for (size_t v = 0; v < kVectors; ++v) {
        candidate[v] = Or(threshold[v], SetU32(bit));
        below[v] = SetU32(0);
      }
      for (size_t c = 0; c < dim; ++c) {
        KVASIR_UNROLL
        for (size_t v = 0; v < kVectors; ++v) {
          const U32 less = Greater(candidate[v], LoadU32(by + c * kBlock + v * kLanes));
          below[v] = Sub(below[v], less);
        }
      }
      const U32 most = SetU32(static_cast<uint32_t>(dim - keep));
      for (size_t v = 0; v < kVectors; ++v) {
        threshold[v] = Or(threshold[v], AndNot(Greater(below[v], most), SetU32(bit)));
      }
    }
    Keep(by, dim, keep, threshold);
  }

  void FindLargest(size_t dim) {
    for (size_t e = 0; e < kBlock; e += kLanes) {
      F32 most = Zero();  // integers below 2^16
      for (size_t c = 0; c < dim; ++c) {
        const F32 x = ToF32(LoadU32(magnitude + c * kBlock + e));
        most = Max(most, Select(static_cast<uint8_t>(kept[c] >> e), x, Zero()));
      }
      float lanes[kLanes];
      Store(most, lanes);
      for (size_t i = 0; i < kLanes; ++i) largest[e + i] = static_cast<uint32_t>(lanes[i]);
    }
  }

 private:
  // All above the threshold stay, and of those at it the first ones, until there are `keep`.
  void Keep(const uint32_t* by, size_t dim, size_t keep, const U32* threshold) {
    U32 ties[kVectors];
    for (U32& n : ties) n = SetU32(static_cast<uint32_t>(keep));
    for (size_t c = 0; c < dim; ++c) {
      for (size_t v = 0; v < kVectors; ++v) {
        const U32 above = Greater(LoadU32(by + c * kBlock + v * kLanes), threshold[v]);
        ties[v] = Sub(ties[v], And(above, SetU32(1)));
      }
    }
    for (size_t c = 0; c < dim; ++c) {
      kept[c] = 0;
      for (size_t v = 0; v < kVectors; ++v) {
        const U32 x = LoadU32(by + c * kBlock + v * kLanes);
        const U32 above = Greater(x, threshold[v]), below = Greater(threshold[v], x);
        const U32 tie = AndNot(Or(above, below), Greater(ties[v], SetU32(0)));
        ties[v] = Sub(ties[v], And(tie, SetU32(1)));
        kept[c] |= static_cast<uint32_t>(TopBits(Or(above, tie))) << v * kLanes;
      }
    }
  }
};

// Scales of int8 rows.
struct Scales {
  uint16_t bits[kPageEntries];      // f16
  float divisor[kPageEntries + 1];  // never 0
  uint64_t valid = 0;               // entries that int8 can hold

  // From the largest magnitude in bf16: amax / 127 rounded upward. As that is never nearer to a
  // number of f16 without being one than a division in f32 can tell, rounding twice does no harm.
  void Set(size_t e, uint32_t largest) {
    const uint32_t wide = largest << 16;
    float amax;
    memcpy(&amax, &wide, sizeof(amax));
    const float quotient = amax / 127.0f;
    uint16_t half[kLanes];
    float value[kLanes];
    StoreF16(KVASIR_SIMD::Set(quotient), half);
    Store(LoadF16(half), value);
    if (value[0] < quotient) {
      ++half[0];
      Store(LoadF16(half), value);
    }
    const bool holds = half[0] < 0x7c00;  // neither infinite nor NaN
    bits[e] = holds ? half[0] : uint16_t{0x7e00};
    divisor[e] = holds && half[0] != 0 ? value[0] : 1.0f;
    valid |= uint64_t{holds} << e;
  }
};

// Values whose bits are set, one behind the other; where the next one goes. May write 64 bytes.
#if defined(KVASIR_TARGET_AVX512)
inline uint16_t* Compress(const uint16_t* from, uint64_t bits, uint16_t* out) {
  for (int i = 0; i < 2; ++i, from += 32, bits >>= 32) {
    const auto half = static_cast<uint32_t>(bits);
    const __m512i values = _mm512_maskz_loadu_epi16(half, from);
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi16(half, values));
    out += __builtin_popcount(half);
  }
  return out;
}
inline int8_t* Compress(const int8_t* from, uint64_t bits, int8_t* out) {
  _mm512_storeu_si512(out, _mm512_maskz_compress_epi8(bits, _mm512_loadu_si512(from)));
  return out + __builtin_popcountll(bits);
}
#else
template <typename T>
inline T* Compress(const T* from, uint64_t bits, T* out) {
  for (; bits != 0; bits &= bits - 1) *out++ = from[__builtin_ctzll(bits)];
  return out;
}
#endif

// Up to 64 elements of bf16 as int8; `divisor` per element or, with kStep 0, one for all.
template <size_t kStep>
inline void Quantize(const uint16_t* from, size_t n, const float* divisor, uint64_t valid,
                     int8_t* q) {
  for (size_t i = 0; i < n; i += kLanes) {
    F32 by;
    if constexpr (kStep == 0) {
      by = Set(*divisor);
    } else {
      by = Load(divisor + i);
    }
    const F32 x = Div(LoadBF16(from + i), by);
    const F32 held = Select(static_cast<uint8_t>(valid >> i), x, Zero());
    StoreI8(Max(Min(held, Set(127.0f)), Set(-127.0f)), q + i);
  }
}

// Rows and columns of 64 bits change places.
void Transpose64(uint64_t* rows) {
  uint64_t mask = 0x00000000ffffffff;
  for (size_t j = 32; j != 0; j >>= 1, mask ^= mask << j) {
    for (size_t k = 0; k < 64; k = ((k | j) + 1) & ~j) {
      const uint64_t t = (rows[k] >> j ^ rows[k | j]) & mask;
      rows[k] ^= t << j;
      rows[k | j] ^= t;
    }
  }
}

// Of a row of `n` elements (64 entries of a channel, a word of an entry's channels) those in
// `bits`.
template <Codec kCodec, size_t kStep>
inline uint8_t* PutRow(const uint16_t* row, size_t n, uint64_t bits, const float* divisor,
                       uint64_t valid, uint8_t* out) {
  if constexpr (kCodec == Codec::kSparseI8) {
    int8_t q[kPageEntries];
    Quantize<kStep>(row, n, divisor, valid, q);
    return reinterpret_cast<uint8_t*>(Compress(q, bits, reinterpret_cast<int8_t*>(out)));
  } else {
    return reinterpret_cast<uint8_t*>(Compress(row, bits, reinterpret_cast<uint16_t*>(out)));
  }
}

template <Codec kCodec, bool kKeys>
size_t Pack(const uint8_t* dense, PlaneShape shape, const float* weights, uint8_t* plane) {
  const size_t dim = shape.dim, words = BitmapWords(dim);
  const PlaneForm form(kCodec, static_cast<uint16_t>(shape.keep));
  const uint16_t* source = reinterpret_cast<const uint16_t*>(dense);
  uint64_t kept[kMaxHeadDim] = {};  // per channel, the entries that keep it
  Scales scales;
  for (size_t e = 0; e < kPageEntries; e += kBlock) {
    Block block;
    if constexpr (kKeys) {
      block.GatherKeys(source, dim, e);
    } else {
      block.GatherValues(source, dim, e);
    }
    if (weights != nullptr) {
      block.Weigh<kCodec>(weights, dim);
      block.Choose(block.rank, dim, shape.keep, uint32_t{1} << 30);
    } else {
      block.Choose(block.magnitude, dim, shape.keep, uint32_t{1} << 14);
    }
    for (size_t c = 0; c < dim; ++c) kept[c] |= uint64_t{block.kept[c]} << e;
    if constexpr (kCodec == Codec::kSparseI8) {
      block.FindLargest(dim);
      for (size_t i = 0; i < kBlock; ++i) scales.Set(e + i, block.largest[i]);
    }
  }
  // Values first: the last ones may write beyond their part.
  uint8_t* out = plane;
  if constexpr (kKeys) {
    for (size_t c = 0; c < dim; ++c) {
      out = PutRow<kCodec, 1>(source + c * kPageEntries, kPageEntries, kept[c], scales.divisor,
                              scales.valid, out);
    }
  } else {
    for (size_t w = 0; w < words; ++w) Transpose64(kept + 64 * w);
    for (size_t e = 0; e < kPageEntries; ++e) {
      const uint64_t valid = scales.valid >> e & 1 ? ~uint64_t{0} : 0;
      for (size_t w = 0; w < words; ++w) {
        const size_t n = dim - 64 * w < 64 ? dim - 64 * w : 64;
        out = PutRow<kCodec, 0>(source + e * dim + 64 * w, n, kept[64 * w + e], scales.divisor + e,
                                valid, out);
      }
    }
  }
  size_t broken = 0;
  if constexpr (kCodec == Codec::kSparseI8) {
    memcpy(plane + SparseScalesAt(form), scales.bits, sizeof(scales.bits));
    broken = static_cast<size_t>(__builtin_popcountll(~scales.valid));
  }
  uint8_t* bitmaps = plane + SparseBitmapsAt(form);
  for (size_t w = 0; w < words; ++w) {
    for (size_t i = 0; i < kPageEntries; ++i) {
      const size_t at = kKeys ? 64 * w + i : i * words + w;
      memcpy(bitmaps + 8 * at, &kept[64 * w + i], sizeof(kept[0]));
    }
  }
  return broken;
}

// The bits of `word` at the places in `mask`, moved together.
#if defined(KVASIR_X86)
inline uint64_t Extract(uint64_t word, uint64_t mask) { return _pext_u64(word, mask); }
#else
inline uint64_t Extract(uint64_t word, uint64_t mask) {
  uint64_t bits = 0;
  for (int i = 0; mask != 0; mask &= mask - 1, ++i) {
    bits |= (word >> __builtin_ctzll(mask) & 1) << i;
  }
  return bits;
}
#endif

// Channel after channel, as where a plane's values of one begin depends on those before. A source
// may be read beyond its values, the plane written beyond its own: scales and bitmaps come last.
template <typename E>
void TakeK(const SparseRows* from, size_t n, PlaneShape shape, uint8_t* plane) {
  using T = typename E::T;
  const PlaneForm form(E::kCodec, static_cast<uint16_t>(shape.keep));
  const size_t scales_at = SparseScalesAt(form), bitmaps_at = SparseBitmapsAt(form);
  const T* values[kPageEntries];
  uint16_t scales[kPageEntries] = {};
  uint64_t kept[kMaxHeadDim] = {};
  size_t filled = 0;
  for (size_t i = 0; i < n; ++i) {
    values[i] = reinterpret_cast<const T*>(from[i].plane);
    for (uint64_t left = from[i].slots; left != 0; left &= left - 1, ++filled) {
      if constexpr (E::kCodec != Codec::kSparseI8) continue;
      const size_t slot = static_cast<size_t>(__builtin_ctzll(left));
      memcpy(&scales[filled], from[i].plane + scales_at + 2 * slot, 2);
    }
  }
  const uint64_t rest = filled < kPageEntries ? ~uint64_t{0} << filled : 0;
  T* out = reinterpret_cast<T*>(plane);
  for (size_t c = 0; c < shape.dim; ++c) {
    size_t to = 0;
    for (size_t i = 0; i < n; ++i) {
      const uint64_t word = WordAt(from[i].plane + bitmaps_at + 8 * c);
      out = Compress(values[i], Extract(from[i].slots, word), out);
      values[i] += __builtin_popcountll(word);
      if (to < kPageEntries) kept[c] |= Extract(word, from[i].slots) << to;
      to += static_cast<size_t>(__builtin_popcountll(from[i].slots));
    }
    if (c >= shape.keep || rest == 0) continue;
    kept[c] |= rest;
    memset(out, 0, (kPageEntries - filled) * sizeof(T));
    out += kPageEntries - filled;
  }
  if constexpr (E::kCodec == Codec::kSparseI8) memcpy(plane + scales_at, scales, sizeof(scales));
  memcpy(plane + bitmaps_at, kept, BitmapWords(shape.dim) * kPageEntries * 8);
}

template <typename E>
void Fill(PlaneKernels* table) {
  constexpr Codec kCodec = E::kCodec;
  table->take_k[static_cast<size_t>(kCodec)] = TakeK<E>;
  table->pack_k[static_cast<size_t>(kCodec)] = Pack<kCodec, true>;
  table->pack_v[static_cast<size_t>(kCodec)] = Pack<kCodec, false>;
}

}  // namespace

void FillSparsePack(PlaneKernels* table) {
  for (size_t i = 0; i < kDenseCodecs; ++i) {
    table->pack_k[i] = table->pack_v[i] = nullptr;
    table->take_k[i] = nullptr;
  }
  Fill<SparseBF16>(table);
  Fill<SparseF16>(table);
  Fill<SparseI8>(table);
}

}  // namespace kvasir::KVASIR_SIMD
