// Row kernels, written once on vec.h. Sums run in four chains of eight lanes, folded in one order
// that depends on the length alone.
#include "kernels/row_kernels.h"
#include "kernels/simd/fill.h"
#include "kernels/simd/vec.h"

namespace kvasir::KVASIR_SIMD {

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
}

}  // namespace kvasir::KVASIR_SIMD
