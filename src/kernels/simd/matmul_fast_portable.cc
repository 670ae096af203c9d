// Fast products on any machine: a part of 32 steps is expanded to int16 [step][16], then every row
// runs integer loops over it that the compiler vectorizes.
#include "kernels/simd/target.h"

#if defined(KVASIR_TARGET_PORTABLE)

#include "kernels/simd/matmul.h"
#include "kernels/simd/vec.h"

namespace kvasir::KVASIR_SIMD {

namespace {

constexpr size_t kTileParts = 8;  // 256 steps

// 32 steps of K, and how a dot product becomes f32 (kernels/matmul_kernels.h).
struct Part {
  int16_t q[kActBlock][kGroup];
  float scale[kGroup], min[kGroup];
};

inline float Half(const uint8_t* p) { return HalfToFloat(static_cast<uint16_t>(p[0] | p[1] << 8)); }

inline uint8_t Nibble(const uint8_t* p, size_t c, size_t step) {
  return static_cast<uint8_t>(p[64 * (step / 4 % 4) + 4 * c + step % 4] >> (step / 16 * 4) & 15);
}

// `b` is the part inside a record of 256 steps.
template <PackedKind kKind>
void ExpandPart(const uint8_t* p, size_t b, Part* part) {
  if constexpr (kKind == PackedKind::kQ4K) {
    const uint8_t* in = p + record::kQ4KParts + b * record::kQ4KPartBytes;
    for (size_t c = 0; c < kGroup; ++c) {
      part->scale[c] = Half(p + 2 * c) * in[record::kQ4KScales + c];
      part->min[c] = -(Half(p + record::kQ4KMinimum + 2 * c) * in[record::kQ4KMinima + c]);
      for (size_t k = 0; k < kActBlock; ++k) part->q[k][c] = Nibble(in, c, k);
    }
  } else if constexpr (kKind == PackedKind::kQ6K) {
    const uint8_t* in = p + record::kQ6KParts + b * record::kQ6KPartBytes;
    for (size_t c = 0; c < kGroup; ++c) {
      part->scale[c] = Half(p + 2 * c);
      for (size_t k = 0; k < kActBlock; ++k) {
        const int scale = static_cast<int8_t>(in[record::kQ6KScales + k / 16 * kGroup + c]);
        const int high =
            in[record::kQ6KHigh + 64 * (k / 16) + 4 * c + k % 4] >> (k / 4 % 4 * 2) & 3;
        part->q[k][c] = static_cast<int16_t>(scale * ((Nibble(in, c, k) | high << 4) - 32));
      }
    }
  } else if constexpr (kKind == PackedKind::kQ4) {
    for (size_t c = 0; c < kGroup; ++c) {
      part->scale[c] = Half(p + record::kQ4Scales + 2 * c);
      part->min[c] = Half(p + record::kQ4Minima + 2 * c);
      for (size_t k = 0; k < kActBlock; ++k) part->q[k][c] = Nibble(p, c, k);
    }
  } else {
    for (size_t c = 0; c < kGroup; ++c) {
      part->scale[c] = Half(p + record::kQ8Scales + 2 * c);
      for (size_t k = 0; k < kActBlock; ++k) {
        part->q[k][c] = static_cast<int16_t>(p[64 * (k / 4) + 4 * c + k % 4] - 128);
      }
    }
  }
}

template <bool kMinima>
void RowPart(const Part& part, const int8_t* a, float scale, float scaled_sum, float* sum) {
  int32_t dot[kGroup] = {};
  for (size_t k = 0; k < kActBlock; ++k) {
    for (size_t c = 0; c < kGroup; ++c) dot[c] += part.q[k][c] * a[k];
  }
  for (size_t c = 0; c < kGroup; ++c) {
    sum[c] = MulAdd1(static_cast<float>(dot[c]), part.scale[c] * scale, sum[c]);
    if (kMinima) sum[c] = MulAdd1(part.min[c], scaled_sum, sum[c]);
  }
}

template <PackedKind kKind>
void Fast(const PackedGroups& w, const QuantizedRows& x, size_t n, float* out, size_t out_stride) {
  constexpr bool kMinima = kKind == PackedKind::kQ4 || kKind == PackedKind::kQ4K;
  constexpr RecordLayout kLayout = Record(kKind);
  constexpr size_t kPartsOfRecord = kLayout.steps / kActBlock;
  Part parts[kTileParts];
  const size_t blocks = w.k / kActBlock;
  for (size_t g = 0; g < w.n_groups; ++g) {
    for (size_t r = 0; r < n; ++r)
      memset(out + r * out_stride + g * kGroup, 0, kGroup * sizeof(float));
    for (size_t first = 0; first < blocks; first += kTileParts) {
      const size_t count = blocks - first < kTileParts ? blocks - first : kTileParts;
      for (size_t i = 0; i < count; ++i) {
        const size_t b = first + i;
        ExpandPart<kKind>(w.data + g * w.group_bytes + b / kPartsOfRecord * kLayout.bytes,
                          b % kPartsOfRecord, &parts[i]);
      }
      for (size_t r = 0; r < n; ++r) {
        for (size_t i = 0; i < count; ++i) {
          const size_t b = first + i;
          RowPart<kMinima>(parts[i], x.q + r * x.stride + b * kActBlock, x.scale[r * x.blocks + b],
                           x.scaled_sum[r * x.blocks + b], out + r * out_stride + g * kGroup);
        }
      }
    }
  }
}

}  // namespace

void FillFast(kvasir::MatMulKernels* table) {
  const auto set = [table](PackedKind kind, auto* f) { table->fast[static_cast<int>(kind)] = f; };
  set(PackedKind::kQ8, Fast<PackedKind::kQ8>);
  set(PackedKind::kQ4, Fast<PackedKind::kQ4>);
  set(PackedKind::kQ4K, Fast<PackedKind::kQ4K>);
  set(PackedKind::kQ6K, Fast<PackedKind::kQ6K>);
}

}  // namespace kvasir::KVASIR_SIMD

#endif
