// Exact products, written once on vec.h: records are expanded to f32 [step][16] in a tile on the
// stack, then up to six rows at a time run one MulAdd chain per output over the ascending steps of
// the tile. Chains rest in `out` between tiles. One or two rows take two groups at once, for chains
// enough to hide latency.
#include "kernels/simd/fill.h"
#include "kernels/simd/matmul.h"
#include "kernels/simd/vec.h"

namespace kvasir::KVASIR_SIMD {

namespace {

constexpr size_t kTileSteps = 256;  // 16 KiB per group
// What fits into registers: six rows of one group or two rows of two; on the portable target, which
// may have 16 registers of four floats, two rows of one.
#if defined(KVASIR_TARGET_PORTABLE)
constexpr size_t kMostRows = 2, kMostGroups = 1;
#else
constexpr size_t kMostRows = 6, kMostGroups = 2;
#endif
constexpr size_t kVectors = kGroup / kLanes;

inline F32 LoadHalves(const uint8_t* p) { return LoadF16(reinterpret_cast<const uint16_t*>(p)); }

// One record as f32; `v` is the vector of eight outputs. Steps lie kGroup floats apart.
template <PackedKind kKind>
struct Expand;

template <>
struct Expand<PackedKind::kF32> {
  static void Record(const uint8_t* p, size_t v, float* out) {
    Store(Load(reinterpret_cast<const float*>(p) + v * kLanes), out);
  }
};
template <>
struct Expand<PackedKind::kF16> {
  static void Record(const uint8_t* p, size_t v, float* out) {
    Store(LoadF16(reinterpret_cast<const uint16_t*>(p) + v * kLanes), out);
  }
};
template <>
struct Expand<PackedKind::kBF16> {
  static void Record(const uint8_t* p, size_t v, float* out) {
    const U32 pairs = LoadU32(p + 4 * kLanes * v);
    Store(AsF32(ShiftLeft(Field(pairs, 16, 16), 16)), out);
    Store(AsF32(ShiftLeft(pairs, 16)), out + kGroup);
  }
};

template <>
struct Expand<PackedKind::kQ8> {
  static void Record(const uint8_t* p, size_t v, float* out) {
    const F32 scale = LoadHalves(p + record::kQ8Scales + 16 * v);
    for (size_t s = 0; s < 8; ++s) {
      const U32 bytes = LoadU32(p + 64 * s + 32 * v);
      for (size_t j = 0; j < 4; ++j) {
        const F32 q = Sub(ToF32(Field(bytes, static_cast<int>(8 * j), 8)), Set(128.0f));
        Store(Mul(scale, q), out + (4 * s + j) * kGroup);
      }
    }
  }
};

// 32 steps of nibbles through store(step, value).
template <typename F>
inline void ForEachNibble(const uint8_t* p, size_t v, F store) {
  for (size_t s = 0; s < 4; ++s) {
    const U32 bytes = LoadU32(p + 64 * s + 32 * v);
    for (size_t j = 0; j < 4; ++j) {
      store(4 * s + j, Field(bytes, static_cast<int>(8 * j), 4));
      store(4 * s + j + 16, Field(bytes, static_cast<int>(8 * j) + 4, 4));
    }
  }
}

template <>
struct Expand<PackedKind::kQ4> {
  static void Record(const uint8_t* p, size_t v, float* out) {
    const F32 scale = LoadHalves(p + record::kQ4Scales + 16 * v);
    const F32 min = LoadHalves(p + record::kQ4Minima + 16 * v);
    ForEachNibble(p, v, [=](size_t step, U32 q) {
      Store(Add(Mul(scale, ToF32(q)), min), out + step * kGroup);
    });
  }
};

template <>
struct Expand<PackedKind::kQ4S> {
  static void Record(const uint8_t* p, size_t v, float* out) {
    const F32 scale = LoadHalves(p + record::kQ4Scales + 16 * v);
    ForEachNibble(p, v, [=](size_t step, U32 q) {
      Store(Mul(scale, Sub(ToF32(q), Set(8.0f))), out + step * kGroup);
    });
  }
};

template <>
struct Expand<PackedKind::kQ4K> {
  static void Record(const uint8_t* p, size_t v, float* out) {
    const F32 d = LoadHalves(p + 16 * v);
    const F32 dmin = LoadHalves(p + record::kQ4KMinimum + 16 * v);
    for (size_t b = 0; b < 8; ++b) {
      const uint8_t* part = p + record::kQ4KParts + b * record::kQ4KPartBytes;
      const F32 scale = Mul(d, ToF32(LoadU8(part + record::kQ4KScales + kLanes * v)));
      const F32 min = Mul(dmin, ToF32(LoadU8(part + record::kQ4KMinima + kLanes * v)));
      ForEachNibble(part, v, [=](size_t step, U32 q) {
        Store(Sub(Mul(scale, ToF32(q)), min), out + (32 * b + step) * kGroup);
      });
    }
  }
};

template <>
struct Expand<PackedKind::kQ6K> {
  static void Record(const uint8_t* p, size_t v, float* out) {
    const F32 d = LoadHalves(p + 16 * v);
    for (size_t b = 0; b < 8; ++b) {
      const uint8_t* part = p + record::kQ6KParts + b * record::kQ6KPartBytes;
      const int8_t* scales = reinterpret_cast<const int8_t*>(part + record::kQ6KScales);
      const F32 scale[2] = {Mul(d, LoadI8(scales + kLanes * v)),
                            Mul(d, LoadI8(scales + kGroup + kLanes * v))};
      const uint8_t* high = part + record::kQ6KHigh + 32 * v;
      ForEachNibble(part, v, [=](size_t step, U32 low) {
        const size_t block = step / 4;
        const int shift = static_cast<int>(8 * (step % 4) + 2 * (block % 4));
        const U32 top = Field(LoadU32(high + 64 * (block / 4)), shift, 2);
        const F32 q = Sub(ToF32(Or(low, ShiftLeft(top, 4))), Set(32.0f));
        Store(Mul(scale[step / 16], q), out + (32 * b + step) * kGroup);
      });
    }
  }
};

template <>
struct Expand<PackedKind::kQ5> {
  static void Record(const uint8_t* p, size_t v, float* out) {
    const F32 scale = Load(reinterpret_cast<const float*>(p + record::kQ5Scales) + kLanes * v);
    const F32 min = Load(reinterpret_cast<const float*>(p + record::kQ5Minima) + kLanes * v);
    const U32 high = LoadU32(p + record::kQ5High + 32 * v);
    ForEachNibble(p, v, [=](size_t step, U32 low) {
      const U32 fifth = Field(high, static_cast<int>(8 * (step % 4) + step / 4), 1);
      const F32 q = ToF32(Or(low, ShiftLeft(fifth, 4)));
      Store(Add(Mul(scale, q), min), out + step * kGroup);
    });
  }
};

template <>
struct Expand<PackedKind::kIQ4> {
  static void Record(const uint8_t* p, size_t v, float* out) {
    alignas(64) float table[16];
    for (size_t i = 0; i < 16; ++i) table[i] = kIQ4Table[i];
    const F32 scale = Load(reinterpret_cast<const float*>(p + record::kIQ4Scales) + kLanes * v);
    ForEachNibble(p, v, [&](size_t step, U32 q) {
      Store(Mul(scale, Lookup(table, q)), out + step * kGroup);
    });
  }
};

template <>
struct Expand<PackedKind::kQ2K> {
  static void Record(const uint8_t* p, size_t v, float* out) {
    const F32 d = LoadHalves(p + 16 * v);
    const F32 dmin = LoadHalves(p + record::kQ2KMinimum + 16 * v);
    for (size_t half = 0; half < 16; ++half) {
      const uint8_t* part = p + record::kQ2KParts + half / 2 * record::kQ2KPartBytes;
      const U32 factors = LoadU8(part + record::kQ2KFactors + half % 2 * kGroup + kLanes * v);
      const F32 scale = Mul(d, ToF32(Field(factors, 0, 4)));
      const F32 min = Mul(dmin, ToF32(Field(factors, 4, 4)));
      const U32 bytes = LoadU32(part + half % 2 * 64 + 32 * v);
      for (size_t step = 0; step < 16; ++step) {
        const F32 q = ToF32(Field(bytes, static_cast<int>(8 * (step % 4) + step / 4 * 2), 2));
        Store(Sub(Mul(scale, q), min), out + (16 * half + step) * kGroup);
      }
    }
  }
};

struct Chains {  // where the chains of a row block lie
  const float* x;
  size_t x_stride;
  float* out;
  size_t out_stride;
};

// Rows [row, row + kRows) of `n_groups` = kGroups expanded groups, `steps` steps.
template <int kRows, int kGroups>
inline void Tile(const float* w, size_t steps, const Chains& c, size_t row, bool first) {
  constexpr int kV = kGroups * static_cast<int>(kVectors);
  F32 sum[kRows][kV];
  const float* x = c.x + row * c.x_stride;
  float* out = c.out + row * c.out_stride;
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kV; ++v) {
      sum[r][v] = first ? Zero() : Load(out + r * c.out_stride + v * kLanes);
    }
  }
  for (size_t k = 0; k < steps; ++k) {
    F32 weights[kV];
    for (int v = 0; v < kV; ++v) {
      const size_t group = static_cast<size_t>(v) / kVectors,
                   half = static_cast<size_t>(v) % kVectors;
      weights[v] = Load(w + group * kTileSteps * kGroup + k * kGroup + half * kLanes);
    }
    for (int r = 0; r < kRows; ++r) {
      const F32 a = Set(x[r * c.x_stride + k]);
      for (int v = 0; v < kV; ++v) sum[r][v] = MulAdd(a, weights[v], sum[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kV; ++v) Store(sum[r][v], out + r * c.out_stride + v * kLanes);
  }
}

// Two groups: one or two rows. One group: tiles of six, and the last eight or fewer rows so that no
// tile is small where that can be avoided: a chain alone waits for its own sums.
template <int kGroups>
void AllRows(const float* w, size_t steps, const Chains& c, size_t n, bool first) {
  size_t row = 0;
  const auto tile = [&]<int kRows>() {
    Tile<kRows, kGroups>(w, steps, c, row, first);
    row += kRows;
  };
  while (row < n) {
    const size_t left = n - row;
    if constexpr (kGroups == 1 && kMostRows == 6) {
      if (left == 6 || left > 8) {
        tile.template operator()<6>();
        continue;
      }
      if (left == 4 || left > 6) {
        tile.template operator()<4>();
        continue;
      }
      if (left > 2) {
        tile.template operator()<3>();
        continue;
      }
    }
    left >= 2 ? tile.template operator()<2>() : tile.template operator()<1>();
  }
}

template <PackedKind kKind>
void ExpandTile(const uint8_t* records, size_t steps, float* tile) {
  constexpr RecordLayout kLayout = kvasir::Record(kKind);
  for (size_t k = 0; k < steps; k += kLayout.steps, records += kLayout.bytes) {
    for (size_t v = 0; v < kVectors; ++v) {
      Expand<kKind>::Record(records, v, tile + k * kGroup + v * kLanes);
    }
  }
}

template <PackedKind kKind>
void Exact(const PackedGroups& w, const float* x, size_t x_stride, size_t n, float* out,
           size_t out_stride) {
  constexpr RecordLayout kLayout = kvasir::Record(kKind);
  alignas(64) float tile[kMostGroups * kTileSteps * kGroup];
  const size_t at_once = n <= 2 ? kMostGroups : 1;
  for (size_t g = 0; g < w.n_groups; g += at_once) {
    const size_t groups = w.n_groups - g < at_once ? w.n_groups - g : at_once;
    for (size_t k = 0; k < w.k; k += kTileSteps) {
      const size_t steps = w.k - k < kTileSteps ? w.k - k : kTileSteps;
      for (size_t i = 0; i < groups; ++i) {
        ExpandTile<kKind>(w.data + (g + i) * w.group_bytes + k / kLayout.steps * kLayout.bytes,
                          steps, tile + i * kTileSteps * kGroup);
      }
      const Chains chains = {x + k, x_stride, out + g * kGroup, out_stride};
      if (groups == kMostGroups) {
        AllRows<kMostGroups>(tile, steps, chains, n, k == 0);
      } else {
        AllRows<1>(tile, steps, chains, n, k == 0);
      }
    }
  }
}

}  // namespace

void FillExact(kvasir::MatMulKernels* table) {
  const auto set = [table](PackedKind kind, auto* f) { table->exact[static_cast<int>(kind)] = f; };
  set(PackedKind::kF32, Exact<PackedKind::kF32>);
  set(PackedKind::kF16, Exact<PackedKind::kF16>);
  set(PackedKind::kBF16, Exact<PackedKind::kBF16>);
  set(PackedKind::kQ8, Exact<PackedKind::kQ8>);
  set(PackedKind::kQ4, Exact<PackedKind::kQ4>);
  set(PackedKind::kQ4S, Exact<PackedKind::kQ4S>);
  set(PackedKind::kQ4K, Exact<PackedKind::kQ4K>);
  set(PackedKind::kQ6K, Exact<PackedKind::kQ6K>);
  set(PackedKind::kQ5, Exact<PackedKind::kQ5>);
  set(PackedKind::kIQ4, Exact<PackedKind::kIQ4>);
  set(PackedKind::kQ2K, Exact<PackedKind::kQ2K>);
}

}  // namespace kvasir::KVASIR_SIMD
