// Fast products on any machine, in the compiler's vectors of eight int16: a part of 32 steps is
// expanded to int16 in the order of the record, lane 4c + j being output c, step 4s + j. Products
// fit into 16 bits, and so do the sums of as many blocks of four steps as Depth() says.
#include "kernels/simd/target.h"

#if defined(KVASIR_TARGET_PORTABLE)

#include "kernels/simd/matmul.h"
#include "kernels/simd/vec.h"

namespace kvasir::KVASIR_SIMD {

namespace {

constexpr size_t kTileParts = 8;  // 256 steps

typedef int16_t Short8 __attribute__((vector_size(16)));
typedef int32_t Int4 __attribute__((vector_size(16)));
typedef uint32_t Unsigned4 __attribute__((vector_size(16)));
constexpr size_t kVectors = 4 * kGroup / 8;  // of one block of four steps

// 32 steps of K, and how a dot product becomes f32 (kernels/matmul_kernels.h).
struct Part {
  int16_t q[8][4 * kGroup];
  int32_t fold[2][kGroup];     // kQ6K, kQ2K: factor of the integer sum of each half
  int32_t minimum[2][kGroup];  // kQ2K: of each half, in units of `min`
  float scale[kGroup], min[kGroup];
};

// Blocks summed in 16 bits: 8 * 31 * 127, 2 * 128 * 127 and 4 * 32 * 127 stay below 32768.
constexpr size_t Depth(PackedKind kind) {
  if (kind == PackedKind::kQ8 || kind == PackedKind::kIQ4) return 2;
  return kind == PackedKind::kQ6K || kind == PackedKind::kQ2K ? 4 : 8;
}
// Whether each half of a part has a factor of its own.
constexpr bool HasHalves(PackedKind kind) {
  return kind == PackedKind::kQ6K || kind == PackedKind::kQ2K;
}

inline float Half(const uint8_t* p) { return HalfToFloat(static_cast<uint16_t>(p[0] | p[1] << 8)); }

void ExpandNibbles(const uint8_t* p, Part* part) {
  for (size_t s = 0; s < 4; ++s) {
    for (size_t i = 0; i < 4 * kGroup; ++i) {
      part->q[s][i] = p[64 * s + i] & 15;
      part->q[s + 4][i] = p[64 * s + i] >> 4;
    }
  }
}

// `b` is the part inside a record of 256 steps.
template <PackedKind kKind>
void ExpandPart(const uint8_t* p, size_t b, Part* part) {
  if constexpr (kKind == PackedKind::kQ4K) {
    const uint8_t* in = p + record::kQ4KParts + b * record::kQ4KPartBytes;
    ExpandNibbles(in, part);
    for (size_t c = 0; c < kGroup; ++c) {
      part->scale[c] = Half(p + 2 * c) * in[record::kQ4KScales + c];
      part->min[c] = -(Half(p + record::kQ4KMinimum + 2 * c) * in[record::kQ4KMinima + c]);
    }
  } else if constexpr (kKind == PackedKind::kQ6K) {
    const uint8_t* in = p + record::kQ6KParts + b * record::kQ6KPartBytes;
    ExpandNibbles(in, part);
    for (size_t s = 0; s < 8; ++s) {
      const uint8_t* high = in + record::kQ6KHigh + 64 * (s / 4);
      for (size_t i = 0; i < 4 * kGroup; ++i) {
        const int top = (high[i] >> (2 * (s % 4)) & 3) << 4;
        part->q[s][i] = static_cast<int16_t>((part->q[s][i] | top) - 32);
      }
    }
    for (size_t c = 0; c < kGroup; ++c) {
      part->scale[c] = Half(p + 2 * c);
      part->fold[0][c] = static_cast<int8_t>(in[record::kQ6KScales + c]);
      part->fold[1][c] = static_cast<int8_t>(in[record::kQ6KScales + kGroup + c]);
    }
  } else if constexpr (kKind == PackedKind::kQ2K) {
    const uint8_t* in = p + record::kQ2KParts + b * record::kQ2KPartBytes;
    for (size_t s = 0; s < 8; ++s) {
      for (size_t i = 0; i < 4 * kGroup; ++i) {
        part->q[s][i] = in[64 * (s / 4) + i] >> (2 * (s % 4)) & 3;
      }
    }
    for (size_t c = 0; c < kGroup; ++c) {
      part->scale[c] = Half(p + 2 * c);
      part->min[c] = -Half(p + record::kQ2KMinimum + 2 * c);
      for (size_t half = 0; half < 2; ++half) {
        const uint8_t factors = in[record::kQ2KFactors + half * kGroup + c];
        part->fold[half][c] = factors & 15;
        part->minimum[half][c] = factors >> 4;
      }
    }
  } else if constexpr (kKind == PackedKind::kQ5) {
    ExpandNibbles(p, part);
    for (size_t s = 0; s < 8; ++s) {
      for (size_t i = 0; i < 4 * kGroup; ++i) {
        const int fifth = (p[record::kQ5High + i] >> s & 1) << 4;
        part->q[s][i] = static_cast<int16_t>(part->q[s][i] | fifth);
      }
    }
    memcpy(part->scale, p + record::kQ5Scales, sizeof(part->scale));
    memcpy(part->min, p + record::kQ5Minima, sizeof(part->min));
  } else if constexpr (kKind == PackedKind::kIQ4) {
    ExpandNibbles(p, part);
    for (size_t s = 0; s < 8; ++s) {
      for (size_t i = 0; i < 4 * kGroup; ++i) part->q[s][i] = kIQ4Table[part->q[s][i]];
    }
    memcpy(part->scale, p + record::kIQ4Scales, sizeof(part->scale));
  } else if constexpr (kKind == PackedKind::kQ4S) {
    ExpandNibbles(p, part);
    for (auto& steps : part->q) {
      for (int16_t& q : steps) q = static_cast<int16_t>(q - 8);
    }
    for (size_t c = 0; c < kGroup; ++c) part->scale[c] = Half(p + record::kQ4Scales + 2 * c);
  } else if constexpr (kKind == PackedKind::kQ4) {
    ExpandNibbles(p, part);
    for (size_t c = 0; c < kGroup; ++c) {
      part->scale[c] = Half(p + record::kQ4Scales + 2 * c);
      part->min[c] = Half(p + record::kQ4Minima + 2 * c);
    }
  } else {
    for (size_t s = 0; s < 8; ++s) {
      for (size_t i = 0; i < 4 * kGroup; ++i) {
        part->q[s][i] = static_cast<int16_t>(p[64 * s + i] - 128);
      }
    }
    for (size_t c = 0; c < kGroup; ++c) part->scale[c] = Half(p + record::kQ8Scales + 2 * c);
  }
}

// The sums of lanes 2i and 2i + 1.
inline Int4 PairSums(Short8 v) {
  const Int4 pairs = reinterpret_cast<Int4>(v);
  const Int4 low = reinterpret_cast<Int4>(reinterpret_cast<Unsigned4>(pairs) << 16) >> 16;
  return low + (pairs >> 16);
}

// Blocks [begin, end) of four steps.
template <PackedKind kKind>
void DotOfBlocks(const Part& part, const Short8 (&steps)[8], size_t begin, size_t end,
                 int32_t (&dot)[kGroup]) {
  constexpr size_t kDepth = Depth(kKind);
  int32_t lanes[2 * kGroup];
  for (size_t v = 0; v < kVectors; ++v) {
    Int4 sum = {};
    for (size_t first = begin; first < end; first += kDepth) {
      Short8 partial = {};
      for (size_t s = first; s < first + kDepth; ++s) {
        Short8 q;
        memcpy(&q, part.q[s] + 8 * v, sizeof(q));
        partial += q * steps[s];
      }
      sum += PairSums(partial);
    }
    memcpy(lanes + 4 * v, &sum, sizeof(sum));
  }
  for (size_t c = 0; c < kGroup; ++c) dot[c] = lanes[2 * c] + lanes[2 * c + 1];
}

template <PackedKind kKind>
void Dot(const Part& part, const int8_t* a, int32_t (&dot)[kGroup]) {
  Short8 steps[8];
  for (size_t s = 0; s < 8; ++s) {
    const int8_t* four = a + 4 * s;
    steps[s] = Short8{four[0], four[1], four[2], four[3], four[0], four[1], four[2], four[3]};
  }
  if constexpr (HasHalves(kKind)) {
    int32_t half[2][kGroup];
    DotOfBlocks<kKind>(part, steps, 0, 4, half[0]);
    DotOfBlocks<kKind>(part, steps, 4, 8, half[1]);
    for (size_t c = 0; c < kGroup; ++c) {
      dot[c] = part.fold[0][c] * half[0][c] + part.fold[1][c] * half[1][c];
    }
  } else {
    DotOfBlocks<kKind>(part, steps, 0, 8, dot);
  }
}

template <PackedKind kKind>
void RowPart(const Part& part, const int8_t* a, float scale, float scaled_sum, float* sum) {
  constexpr bool kMinima =
      kKind == PackedKind::kQ4 || kKind == PackedKind::kQ4K || kKind == PackedKind::kQ5;
  int32_t dot[kGroup];
  Dot<kKind>(part, a, dot);
  for (size_t c = 0; c < kGroup; ++c) {
    sum[c] = MulAdd1(static_cast<float>(dot[c]), part.scale[c] * scale, sum[c]);
    if (kMinima) sum[c] = MulAdd1(part.min[c], scaled_sum, sum[c]);
  }
  if constexpr (kKind == PackedKind::kQ2K) {
    int32_t half[2] = {0, 0};
    for (size_t i = 0; i < kActBlock; ++i) half[i / 16] += a[i];
    for (size_t c = 0; c < kGroup; ++c) {
      const int32_t minima = part.minimum[0][c] * half[0] + part.minimum[1][c] * half[1];
      sum[c] = MulAdd1(static_cast<float>(minima), part.min[c] * scale, sum[c]);
    }
  }
}

// Rows whose rests are added while their blocks are expanded once.
constexpr size_t kRestRows = 64;

// Continues the chains of up to kRestRows rows with their rests.
template <PackedKind kKind>
void AddRests(const uint8_t* group, const QuantizedRows& x, size_t n, float* out,
              size_t out_stride) {
  constexpr RecordLayout kLayout = Record(kKind);
  constexpr size_t kPartsOfRecord = kLayout.steps / kActBlock;
  uint32_t next[kRestRows] = {};
  Part part;
  for (uint32_t b = 0; b < x.blocks; ++b) {
    bool expanded = false;
    for (size_t r = 0; r < n; ++r) {
      const size_t at = r * x.blocks + next[r];
      if (next[r] == x.n_rests[r] || x.rest_block[at] != b) continue;
      if (!expanded) {
        ExpandPart<kKind>(group + b / kPartsOfRecord * kLayout.bytes, b % kPartsOfRecord, &part);
        expanded = true;
      }
      RowPart<kKind>(part, x.rest_q + at * kActBlock, x.rest_scale[at], x.rest_scaled_sum[at],
                     out + r * out_stride);
      ++next[r];
    }
  }
}

template <PackedKind kKind>
void Fast(const PackedGroups& w, const QuantizedRows& x, size_t n, float* out, size_t out_stride) {
  constexpr RecordLayout kLayout = Record(kKind);
  constexpr size_t kPartsOfRecord = kLayout.steps / kActBlock;
  Part parts[kTileParts];
  const size_t blocks = x.blocks;
  for (size_t g = 0; g < w.n_groups; ++g) {
    const uint8_t* group = w.data + g * w.group_bytes;
    float* sums = out + g * kGroup;
    for (size_t r = 0; r < n; ++r) memset(sums + r * out_stride, 0, kGroup * sizeof(float));
    for (size_t first = 0; first < blocks; first += kTileParts) {
      const size_t count = blocks - first < kTileParts ? blocks - first : kTileParts;
      for (size_t i = 0; i < count; ++i) {
        const size_t b = first + i;
        ExpandPart<kKind>(group + b / kPartsOfRecord * kLayout.bytes, b % kPartsOfRecord,
                          &parts[i]);
      }
      for (size_t r = 0; r < n; ++r) {
        for (size_t i = 0; i < count; ++i) {
          const size_t at = r * blocks + first + i;
          RowPart<kKind>(parts[i], x.q + at * kActBlock, x.scale[at], x.scaled_sum[at],
                         sums + r * out_stride);
        }
      }
    }
    for (size_t r = 0; r < n; r += kRestRows) {
      AddRests<kKind>(group, x.From(r), n - r < kRestRows ? n - r : kRestRows,
                      sums + r * out_stride, out_stride);
    }
  }
}

}  // namespace

void FillFast(kvasir::MatMulKernels* table) {
  const auto set = [table](PackedKind kind, auto* f) { table->fast[static_cast<int>(kind)] = f; };
  set(PackedKind::kQ8, Fast<PackedKind::kQ8>);
  set(PackedKind::kQ4, Fast<PackedKind::kQ4>);
  set(PackedKind::kQ4S, Fast<PackedKind::kQ4S>);
  set(PackedKind::kQ4K, Fast<PackedKind::kQ4K>);
  set(PackedKind::kQ6K, Fast<PackedKind::kQ6K>);
  set(PackedKind::kQ5, Fast<PackedKind::kQ5>);
  set(PackedKind::kIQ4, Fast<PackedKind::kIQ4>);
  set(PackedKind::kQ2K, Fast<PackedKind::kQ2K>);
}

}  // namespace kvasir::KVASIR_SIMD

#endif
