// Row kernels, written once on vec.h. Sums run in four chains of eight lanes, folded in one order
// that depends on the length alone.
#include "kernels/row_kernels.h"
#include "kernels/simd/fill.h"
#include "kernels/simd/vec.h"

namespace kvasir::KVASIR_SIMD {

void ExpBelow(const float* x, size_t n, float most, double* out);  // rows_exp.cc

namespace {

// The first n < 8 floats of p, the other lanes `rest`.
inline F32 LoadSome(const float* p, size_t n, float rest) {
  float lanes[kLanes];
  for (size_t i = 0; i < kLanes; ++i) lanes[i] = i < n ? p[i] : rest;
  return Load(lanes);
}

inline void StoreSome(F32 a, size_t n, float* p) {
  float lanes[kLanes];
  Store(a, lanes);
  memcpy(p, lanes, n * sizeof(float));
}

#if defined(KVASIR_TARGET_AVX512)

// The functions below on sixteen lanes, with the operations and so the bits of eight.

inline F32 Low(__m512 v) { return {_mm512_castps512_ps256(v)}; }
inline F32 High(__m512 v) { return {_mm512_extractf32x8_ps(v, 1)}; }

// Chains 0 and 1 are the halves of the first vector, 2 and 3 those of the second.
float SumOfSquares(const float* x, size_t n) {
  __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  size_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (size_t j = 0; j < 2; ++j) {
      const __m512 v = _mm512_loadu_ps(x + i + 2 * j * kLanes);
      sum[j] = _mm512_fmadd_ps(v, v, sum[j]);
    }
  }
  F32 first = Low(sum[0]);
  for (; i < n; i += kLanes) {
    const F32 v = n - i >= kLanes ? Load(x + i) : LoadSome(x + i, n - i, 0.0f);
    first = MulAdd(v, v, first);
  }
  return SumOfLanes(Add(Add(first, Low(sum[1])), Add(High(sum[0]), High(sum[1]))));
}

// vec.h's Exp.
inline __m512 WideExp(__m512 x) {
  const auto set = [](float value) { return _mm512_set1_ps(value); };
  const __m512 clamped = _mm512_max_ps(_mm512_min_ps(x, set(88.3f)), set(-87.3f));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(clamped, set(1.44269504f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_sub_ps(clamped, _mm512_mul_ps(n, set(0.693359375f)));
  r = _mm512_add_ps(r, _mm512_mul_ps(n, set(2.12194440e-4f)));
  __m512 p = set(1.9841270e-4f);
  constexpr float kTaylor[] = {1.3888889e-3f, 8.3333333e-3f, 4.1666667e-2f, 1.6666667e-1f,
                               0.5f,          1.0f,          1.0f};
#pragma GCC unroll 7
  for (const float c : kTaylor) p = _mm512_fmadd_ps(p, r, set(c));
  const __m512i power =
      _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
  const __m512 value = _mm512_mul_ps(p, _mm512_castsi512_ps(power));
  const __m512 large = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, set(-87.3f), _CMP_GE_OQ), value);
  return _mm512_mask_mov_ps(large, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}

// How many of n elements were done.
size_t WideSiluMul(float* gate, const float* up, size_t n) {
  size_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const __m512 x = _mm512_loadu_ps(gate + i);
    const __m512 e = WideExp(_mm512_sub_ps(_mm512_setzero_ps(), x));
    const __m512 silu = _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), e));
    _mm512_storeu_ps(gate + i, _mm512_mul_ps(silu, _mm512_loadu_ps(up + i)));
  }
  return i;
}

#else

size_t WideSiluMul(float*, const float*, size_t) { return 0; }

float SumOfSquares(const float* x, size_t n) {
  F32 sum[4] = {Zero(), Zero(), Zero(), Zero()};
  size_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (size_t j = 0; j < 4; ++j) {
      const F32 v = Load(x + i + j * kLanes);
      sum[j] = MulAdd(v, v, sum[j]);
    }
  }
  for (; i < n; i += kLanes) {
    const F32 v = n - i >= kLanes ? Load(x + i) : LoadSome(x + i, n - i, 0.0f);
    sum[0] = MulAdd(v, v, sum[0]);
  }
  return SumOfLanes(Add(Add(sum[0], sum[2]), Add(sum[1], sum[3])));
}

#endif

// out[i] = f(i) for vectors of eight; f may load past n, nothing is stored there.
template <typename F>
inline void ForEachVector(size_t n, float* out, F f) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) Store(f(i), out + i);
  if (i < n) StoreSome(f(i), n - i, out + i);
}

void RmsNorm(const float* x, const float* weight, size_t n, float eps, float* out) {
  const float mean = SumOfSquares(x, n) / static_cast<float>(n);
  const F32 inverse = Set(1.0f / __builtin_sqrtf(mean + eps));
  ForEachVector(n, out, [=](size_t i) { return Mul(Mul(Load(x + i), inverse), Load(weight + i)); });
}

// Exp ends at 2e38: for x below -88.3 the quotient is a tiny number of the right sign.
inline F32 Silu(F32 x) { return Div(x, Add(Set(1.0f), Exp(Sub(Zero(), x)))); }

void SiluMul(float* gate, const float* up, size_t n) {
  const size_t done = WideSiluMul(gate, up, n);
  gate += done, up += done, n -= done;
  ForEachVector(n, gate, [=](size_t i) { return Mul(Silu(Load(gate + i)), Load(up + i)); });
}

void AddRow(float* x, const float* y, size_t n) {
  ForEachVector(n, x, [=](size_t i) { return Add(Load(x + i), Load(y + i)); });
}

// Plain loops: every element is two products and a sum, never fused, however the compiler
// vectorizes them.
void Rope(float* head, const float* __restrict cos, const float* __restrict sin, size_t dim,
          bool interleaved) {
  const size_t half = dim / 2;
  if (interleaved) {
    for (size_t i = 0; i < half; ++i) {
      const float a = head[2 * i], b = head[2 * i + 1];
      head[2 * i] = a * cos[i] - b * sin[i];
      head[2 * i + 1] = b * cos[i] + a * sin[i];
    }
    return;
  }
  float* __restrict low = head;
  float* __restrict high = head + half;
  for (size_t i = 0; i < half; ++i) {
    const float a = low[i], b = high[i];
    low[i] = a * cos[i] - b * sin[i];
    high[i] = b * cos[i] + a * sin[i];
  }
}

float MaxOfRow(const float* x, size_t n) {
  const float lowest = -__builtin_inff();
  F32 largest[2] = {Set(lowest), Set(lowest)};
  size_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    largest[0] = Max(largest[0], Load(x + i));
    largest[1] = Max(largest[1], Load(x + i + kLanes));
  }
  for (; i < n; i += kLanes) {
    const F32 v = n - i >= kLanes ? Load(x + i) : LoadSome(x + i, n - i, lowest);
    largest[0] = Max(largest[0], v);
  }
  return MaxOfLanes(Max(largest[0], largest[1]));
}

void ExpShifted(const float* x, size_t n, float shift, float* out) {
  ForEachVector(n, out, [=](size_t i) { return Exp(Sub(Load(x + i), Set(shift))); });
}

}  // namespace

void FillRows(kvasir::RowKernels* table) {
  table->rms_norm = RmsNorm;
  table->silu_mul = SiluMul;
  table->add = AddRow;
  table->rope = Rope;
  table->max = MaxOfRow;
  table->exp_shifted = ExpShifted;
  table->exp_below = ExpBelow;
}

}  // namespace kvasir::KVASIR_SIMD
