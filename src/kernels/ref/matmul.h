// Oracle of the matrix product: ggml's blocks, the int8 activations and both arithmetics in plain
// loops.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "base/error.h"
#include "kernels/matmul_kernels.h"
#include "tensor/view.h"

namespace kvasir::ref {

// 32 steps of one output as integers: w = scale * q + min, and what q means to the fast arithmetic.
// Q2_K: w = scale * q + min * minimum, where the minimum is an integer for each step.
struct WeightBlock {
  int32_t q[kActBlock] = {};
  float scale = 0, min = 0;
  bool has_min = false;
  int32_t minimum[kActBlock] = {};
  bool has_minima = false;
};

inline float HalfAt(const uint8_t* p) { return F16ToF32(static_cast<uint16_t>(p[0] | p[1] << 8)); }

// Block `b` (of 32 steps) of a quantized row; `w`, if given, receives the weights in f32.
inline WeightBlock ReadBlock(DType dtype, const uint8_t* row, size_t b, float* w) {
  WeightBlock block;
  float expanded[kActBlock];
  switch (dtype) {
    case DType::kQ4_0:
    case DType::kQ4_1: {
      const bool has_min = dtype == DType::kQ4_1;
      const uint8_t* p = row + b * (has_min ? 20 : 18);
      block.scale = HalfAt(p);
      block.min = has_min ? HalfAt(p + 2) : 0;
      block.has_min = has_min;
      for (size_t i = 0; i < 32; ++i) {
        const uint8_t byte = p[(has_min ? 4 : 2) + i % 16];
        block.q[i] = (i < 16 ? byte & 15 : byte >> 4) - (has_min ? 0 : 8);
        expanded[i] = block.scale * static_cast<float>(block.q[i]);
        if (has_min) expanded[i] += block.min;
      }
      break;
    }
    case DType::kQ5_0: {
      const uint8_t* p = row + b * 22;
      block.scale = HalfAt(p);
      for (size_t i = 0; i < 32; ++i) {
        const int low = i < 16 ? p[6 + i] & 15 : p[6 + i - 16] >> 4;
        const int fifth = p[2 + i / 8] >> (i % 8) & 1;
        block.q[i] = low + 16 * fifth - 16;
        expanded[i] = block.scale * static_cast<float>(block.q[i]);
      }
      break;
    }
    case DType::kQ5_1: {
      const uint8_t* p = row + b * 24;
      block.scale = HalfAt(p);
      block.min = HalfAt(p + 2);
      block.has_min = true;
      for (size_t i = 0; i < 32; ++i) {
        const int low = i < 16 ? p[8 + i] & 15 : p[8 + i - 16] >> 4;
        block.q[i] = low + 16 * (p[4 + i / 8] >> (i % 8) & 1);
        expanded[i] = block.scale * static_cast<float>(block.q[i]) + block.min;
      }
      break;
    }
    case DType::kIQ4_NL: {
      const uint8_t* p = row + b * 18;
      block.scale = HalfAt(p);
      for (size_t i = 0; i < 32; ++i) {
        block.q[i] = kIQ4Values[i < 16 ? p[2 + i] & 15 : p[2 + i - 16] >> 4];
        expanded[i] = block.scale * static_cast<float>(block.q[i]);
      }
      break;
    }
    case DType::kIQ4_XS: {
      const uint8_t* p = row + b / 8 * 136;
      const size_t j = b % 8;
      const int pair = (p[2 + j / 4] >> (j % 4 * 2)) & 3;
      const int nibble = j % 2 == 0 ? p[4 + j / 2] & 15 : p[4 + j / 2] >> 4;
      block.scale = HalfAt(p) * static_cast<float>(nibble + 16 * pair - 32);
      const uint8_t* q = p + 8 + 16 * j;
      for (size_t i = 0; i < 32; ++i) {
        block.q[i] = kIQ4Values[i < 16 ? q[i] & 15 : q[i - 16] >> 4];
        expanded[i] = block.scale * static_cast<float>(block.q[i]);
      }
      break;
    }
    case DType::kQ2_K: {
      const uint8_t* p = row + b / 8 * 84;
      block.scale = HalfAt(p + 80);
      block.min = -HalfAt(p + 82);
      block.has_minima = true;
      for (size_t i = 0; i < 32; ++i) {
        const size_t step = b % 8 * 32 + i;
        const int scale = p[step / 16] & 15;
        const int q = p[16 + step / 128 * 32 + i] >> (step % 128 / 32 * 2) & 3;
        block.q[i] = scale * q;
        block.minimum[i] = p[step / 16] >> 4;
        expanded[i] = block.scale * static_cast<float>(scale) * static_cast<float>(q) +
                      block.min * static_cast<float>(block.minimum[i]);
      }
      break;
    }
    case DType::kQ3_K: {
      const uint8_t* p = row + b / 8 * 110;
      block.scale = HalfAt(p + 108);
      for (size_t i = 0; i < 32; ++i) {
        const size_t step = b % 8 * 32 + i, group = step / 16;
        const int low = group < 8 ? p[96 + group] & 15 : p[96 + group - 8] >> 4;
        const int scale = low + 16 * (p[104 + group % 4] >> (group / 4 * 2) & 3) - 32;
        const int pair = p[32 + step / 128 * 32 + i] >> (step % 128 / 32 * 2) & 3;
        const int q = pair - (p[i] >> (b % 8) & 1 ? 0 : 4);
        block.q[i] = scale * q;
        expanded[i] = block.scale * static_cast<float>(scale) * static_cast<float>(q);
      }
      break;
    }
    case DType::kQ8_0: {
      const uint8_t* p = row + b * 34;
      block.scale = HalfAt(p);
      for (size_t i = 0; i < 32; ++i) {
        block.q[i] = static_cast<int8_t>(p[2 + i]);
        expanded[i] = block.scale * static_cast<float>(block.q[i]);
      }
      break;
    }
    case DType::kQ4_K:
    case DType::kQ5_K: {
      const bool five = dtype == DType::kQ5_K;
      const uint8_t* p = row + b / 8 * (five ? 176 : 144);
      const uint8_t* s = p + 4;
      const size_t j = b % 8;
      const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
      const int min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
      block.scale = HalfAt(p) * static_cast<float>(scale);
      block.min = -(HalfAt(p + 2) * static_cast<float>(min));
      block.has_min = true;
      for (size_t i = 0; i < 32; ++i) {
        const uint8_t byte = p[(five ? 48 : 16) + j / 2 * 32 + i];
        block.q[i] = j % 2 == 0 ? byte & 15 : byte >> 4;
        if (five) block.q[i] += 16 * (p[16 + i] >> j & 1);
        expanded[i] = block.scale * static_cast<float>(block.q[i]) + block.min;
      }
      break;
    }
    case DType::kQ6_K: {
      const uint8_t* p = row + b / 8 * 210;
      block.scale = HalfAt(p + 208);
      for (size_t i = 0; i < 32; ++i) {
        const size_t step = b % 8 * 32 + i, half = step / 128, in_half = step % 128;
        const uint8_t low = p[half * 64 + in_half % 64];
        const int nibble = in_half < 64 ? low & 15 : low >> 4;
        const int pair = p[128 + half * 32 + in_half % 32] >> (in_half / 32 * 2) & 3;
        const int scale = static_cast<int8_t>(p[192 + step / 16]);
        const int q = (nibble | pair << 4) - 32;
        block.q[i] = scale * q;
        expanded[i] = block.scale * static_cast<float>(scale) * static_cast<float>(q);
      }
      break;
    }
    default:
      CheckFailed(__FILE__, __LINE__, "a quantized type");
  }
  if (w != nullptr) std::memcpy(w, expanded, sizeof(expanded));
  return block;
}

// Weight row `output` in f32.
inline std::vector<float> ExpandRow(const TensorView& t, size_t output) {
  std::vector<float> w(t.cols);
  const uint8_t* row = t.row(output);
  for (size_t k = 0; k < t.cols; ++k) {
    uint16_t half = 0;
    if (t.dtype == DType::kF32) {
      std::memcpy(&w[k], row + 4 * k, 4);
    } else if (t.dtype == DType::kF16 || t.dtype == DType::kBF16) {
      std::memcpy(&half, row + 2 * k, 2);
      w[k] = t.dtype == DType::kF16 ? F16ToF32(half) : BF16ToF32(half);
    } else if (k % kActBlock == 0) {
      ReadBlock(t.dtype, row, k / kActBlock, &w[k]);
    }
  }
  return w;
}

struct QuantizedBlock {
  size_t block = 0;
  int q[kActBlock] = {};
  float scale = 0, scaled_sum = 0;
};
inline QuantizedBlock QuantizeBlock(const float* x, size_t block) {
  QuantizedBlock out = {.block = block};
  float amax = 0;
  bool finite = true;
  for (size_t i = 0; i < kActBlock; ++i) {
    amax = std::fmax(amax, std::fabs(x[i]));
    finite &= std::isfinite(x[i]);
  }
  const bool zero = !finite || amax < std::ldexp(1.0f, -110);
  out.scale = !finite ? std::numeric_limits<float>::quiet_NaN() : zero ? 0 : amax / 127;
  int sum = 0;
  for (size_t i = 0; i < kActBlock; ++i) {
    const float inverse = 127 / amax;
    out.q[i] = zero ? 0 : static_cast<int>(std::nearbyint(x[i] * inverse));
    sum += out.q[i];
  }
  out.scaled_sum = out.scale * static_cast<float>(sum);
  return out;
}

// Every block, then the rests, in the order in which they are added.
struct QuantizedRow {
  std::vector<QuantizedBlock> blocks;
  size_t n_rests = 0;
};
inline QuantizedRow Quantize(const float* x, size_t k) {
  QuantizedRow row;
  const size_t n = k / kActBlock;
  float lanes[8] = {};
  for (size_t b = 0; b < n; ++b) {
    row.blocks.push_back(QuantizeBlock(x + b * kActBlock, b));
    const float scale = row.blocks[b].scale;
    lanes[b % 8] += scale * scale;
  }
  const float total = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
                      ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
  const float most = kRestFactor * total / static_cast<float>(n);
  for (size_t b = 0; b < n; ++b) {
    const QuantizedBlock first = row.blocks[b];
    if (!(first.scale * first.scale > most)) continue;
    float rest[kActBlock];
    for (size_t i = 0; i < kActBlock; ++i) {
      rest[i] = x[b * kActBlock + i] - static_cast<float>(first.q[i]) * first.scale;
    }
    row.blocks.push_back(QuantizeBlock(rest, b));
    ++row.n_rests;
  }
  return row;
}

// a * b + c with one rounding or two, as the target's MulAdd does.
inline float MulAdd(float a, float b, float c, bool fused) {
  return fused ? std::fma(a, b, c) : a * b + c;
}

// One element, fast arithmetic: integers exact, blocks folded in ascending order, then rests.
inline float FastElement(DType dtype, const uint8_t* weights, const QuantizedRow& x, bool fused) {
  float sum = 0;
  for (const QuantizedBlock& a : x.blocks) {
    const WeightBlock w = ReadBlock(dtype, weights, a.block, nullptr);
    int64_t dot = 0;
    for (size_t i = 0; i < kActBlock; ++i) dot += int64_t{w.q[i]} * a.q[i];
    CHECK(std::abs(dot) < 1 << 24);
    sum = MulAdd(static_cast<float>(dot), w.scale * a.scale, sum, fused);
    if (w.has_min) sum = MulAdd(w.min, a.scaled_sum, sum, fused);
    if (w.has_minima) {
      int minima = 0;
      for (size_t i = 0; i < kActBlock; ++i) minima += w.minimum[i] * a.q[i];
      sum = MulAdd(static_cast<float>(minima), w.min * a.scale, sum, fused);
    }
  }
  return sum;
}

// One element, exact arithmetic.
inline float ExactElement(const std::vector<float>& w, const float* x, bool fused) {
  float sum = 0;
  for (size_t k = 0; k < w.size(); ++k) sum = MulAdd(x[k], w[k], sum, fused);
  return sum;
}

inline double Dot(const std::vector<float>& w, const float* x) {
  double sum = 0;
  for (size_t k = 0; k < w.size(); ++k) sum += static_cast<double>(w[k]) * x[k];
  return sum;
}

}  // namespace kvasir::ref
