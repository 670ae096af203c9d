// Element-wise work on rows of floats. All arrays are readable to the next multiple of 8 floats.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace kvasir {

struct RowKernels {
  // out = x / sqrt(mean(x^2) + eps) * weight; out may be x. (RMSNorm, arXiv 1910.07467)
  void (*rms_norm)(const float* x, const float* weight, size_t n, float eps, float* out);
  // gate = silu(gate) * up, silu(x) = x / (1 + exp(-x)).
  void (*silu_mul)(float* gate, const float* up, size_t n);
  // x += y.
  void (*add)(float* x, const float* y, size_t n);
  // Rotates one head of `dim` channels in place by cos/sin of dim/2 angles (RoPE, arXiv
  // 2104.09864). interleaved: pairs (2i, 2i+1); otherwise (i, i + dim/2).
  void (*rope)(float* head, const float* cos, const float* sin, size_t dim, bool interleaved);
  // Largest value; ties and the index are the caller's business.
  float (*max)(const float* x, size_t n);
  // out[i] = exp(x[i] - shift); returns nothing: sums have an order of their own.
  void (*exp_shifted)(const float* x, size_t n, float shift, float* out);
  // out[i] = e^(x[i] - most) in double for x[i] <= most, finite or -infinity; within 2^-50 of it,
  // 0 where it is below 2^-1021. Bits are equal on all targets.
  void (*exp_below)(const float* x, size_t n, float most, double* out);
};

}  // namespace kvasir
