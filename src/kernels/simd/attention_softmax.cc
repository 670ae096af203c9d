// The softmax between scores and values: masks and maxima, weights and their sums, merging of
// parts.
#include "kernels/simd/plane_codecs.h"

namespace kvasir::KVASIR_SIMD {

namespace {

#if defined(KVASIR_TARGET_AVX512)

void MaskMax(float* scores, size_t stride, size_t n, const uint64_t* visible, float* max) {
  const __m512 nothing = _mm512_set1_ps(-__builtin_inff());
  for (size_t r = 0; r < n; ++r, scores += stride, max += 16) {
    // The running maximum is the second operand: max_ps returns it when the score is NaN.
    __m512 largest = _mm512_loadu_ps(max);
    if (visible == nullptr || visible[r] == ~uint64_t{0}) {
      for (size_t e = 0; e < kPageEntries; e += 16) {
        largest = _mm512_max_ps(_mm512_loadu_ps(scores + e), largest);
      }
    } else {
      for (size_t e = 0; e < kPageEntries; e += 16) {
        const auto seen = static_cast<__mmask16>(visible[r] >> e);
        const __m512 x = _mm512_mask_loadu_ps(nothing, seen, scores + e);
        _mm512_storeu_ps(scores + e, x);
        largest = _mm512_max_ps(x, largest);
      }
    }
    _mm512_storeu_ps(max, largest);
  }
}

#else

void MaskMax(float* scores, size_t stride, size_t n, const uint64_t* visible, float* max) {
  const F32 nothing = Set(-__builtin_inff());
  for (size_t r = 0; r < n; ++r, max += 2 * kLanes) {
    float* s = scores + r * stride;
    // The running maximum is the second operand: Max returns it when the score is NaN.
    F32 largest[] = {Load(max), Load(max + kLanes)};
    if (visible == nullptr || visible[r] == ~uint64_t{0}) {
      for (size_t e = 0; e < kPageEntries; e += 2 * kLanes) {
        for (size_t h = 0; h < 2; ++h) largest[h] = Max(Load(s + e + h * kLanes), largest[h]);
      }
    } else {
      for (size_t e = 0; e < kPageEntries; e += kLanes) {
        const F32 x = Select(static_cast<uint8_t>(visible[r] >> e), Load(s + e), nothing);
        Store(x, s + e);
        F32& half = largest[e / kLanes % 2];
        half = Max(x, half);
      }
    }
    Store(largest[0], max);
    Store(largest[1], max + kLanes);
  }
}

#endif

// Up to eight rows. The weights of eight entries are transposed so that one addition per entry
// serves all rows.
template <bool kFull>
inline void ExpRows(float* scores, size_t stride, size_t n, size_t slots, const float* max,
                    float* sum) {
  if constexpr (kFull) n = kLanes;
  float sums[kLanes] = {};
  F32 shift[kLanes];
  for (size_t r = 0; r < n; ++r) {
    sums[r] = sum[r];
    shift[r] = Set(max[r]);
  }
  F32 total = Load(sums);
  for (size_t e = 0; e < slots; e += kLanes) {
    F32 t[kLanes];
    for (size_t r = 0; r < kLanes; ++r) {
      if (kFull || r < n) {
        t[r] = Exp2(Sub(Load(scores + r * stride + e), shift[r]));
        Store(t[r], scores + r * stride + e);
      } else {
        t[r] = Zero();
      }
    }
    Transpose8(t);
    for (size_t i = 0; i < kLanes; ++i) total = Add(total, t[i]);
  }
  Store(total, sums);
  for (size_t r = 0; r < n; ++r) sum[r] = sums[r];
}

void ExpWeights(float* scores, size_t stride, size_t n, size_t slots, const float* max,
                float* sum) {
  size_t r = 0;
  for (; r + kLanes <= n; r += kLanes) {
    ExpRows<true>(scores + r * stride, stride, kLanes, slots, max + r, sum + r);
  }
  if (r < n) ExpRows<false>(scores + r * stride, stride, n - r, slots, max + r, sum + r);
}

void Merge(float* to, const float* part, size_t n, size_t stride, size_t dim) {
  const float empty = -__builtin_inff();
  for (size_t r = 0; r < n; ++r, to += stride, part += stride) {
    if (part[0] == empty) continue;
    if (to[0] == empty) {
      memcpy(to, part, (kLanes + dim) * sizeof(float));
      continue;
    }
    const float max = part[0] > to[0] ? part[0] : to[0];
    float factor[kLanes];
    Store(Exp2(Select(1, Set(to[0] - max), Set(part[0] - max))), factor);
    to[0] = max;
    to[1] = MulAdd1(part[1], factor[1], to[1] * factor[0]);
    const F32 a = Set(factor[0]), b = Set(factor[1]);
    for (size_t c = kLanes; c < kLanes + dim; c += kLanes) {
      Store(MulAdd(Load(part + c), b, Mul(Load(to + c), a)), to + c);
    }
  }
}

}  // namespace

void FillSoftmax(PlaneKernels* table) {
  table->mask_max = MaskMax;
  table->exp_weights = ExpWeights;
  table->merge = Merge;
}

}  // namespace kvasir::KVASIR_SIMD
