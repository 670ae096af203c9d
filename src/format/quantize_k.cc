// Q4_K and Q6_K by search for the smallest squared error.
//
// A block is 256 values in groups: 8 of 32 in Q4_K, x ~ d s q - m n with levels q of 4 bits, scales
// s and minima n of 6 bits; 16 of 16 in Q6_K, x ~ d s q with levels of 6 bits around 32 and s an
// i8. d and m are f16. Three steps, the same for both:
//   1. Each group on its own, with real scales: from several first scales, levels are the nearest
//      ones, and the scale (and minimum) for given levels is a linear least squares problem with a
//      closed solution. Taking turns is Lloyd's method (IEEE Trans. Inf. Theory 28, 1982, section
//      III) on evenly spaced levels; no turn makes the error larger.
//   2. d and m from the largest group; each group then tries the whole-number scales (and minima)
//      next to its own with the levels that are best for each.
//   3. With scales and levels fixed, d and m are again least squares; then step 2's trials once
//   more.
//      What has the smaller error stays.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "format/quantize.h"
#include "tensor/dtype.h"

namespace kvasir {

namespace {

// Four floats; sums have one order.
using F4 = float __attribute__((vector_size(16)));
using I4 = int32_t __attribute__((vector_size(16)));

F4 All(float x) { return F4{x, x, x, x}; }
F4 Load(const float* p) {
  F4 v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
float Sum(F4 v) { return (v[0] + v[1]) + (v[2] + v[3]); }
F4 Select(I4 mask, F4 a, F4 b) {
  return reinterpret_cast<F4>((reinterpret_cast<I4>(a) & mask) | (reinterpret_cast<I4>(b) & ~mask));
}
F4 Clamp(F4 x, float low, float high) {
  x = Select(x < All(low), All(low), x);
  return Select(x > All(high), All(high), x);
}
// Nearest whole number, for magnitudes below 2^22: the unit of the sum is 1.
F4 Round(F4 x) {
  const F4 unit = All(12582912.0f);
  return (x + unit) - unit;
}

float RoundToF16(float x) { return F16ToF32(F32ToF16(x)); }
// A scale as f16, and never 0 unless it is: tiny groups would vanish.
float ScaleToF16(float x) {
  constexpr float kSmallest = 5.9604644775390625e-8f;
  const float half = RoundToF16(x);
  return half != 0 || x == 0 ? half : std::copysign(kSmallest, x);
}

// Sums over a group with given levels q.
struct Sums {
  float q = 0, qq = 0, xq = 0;
};

template <int kN>
Sums SumsOf(const float* x, const F4* q) {
  F4 sq = All(0), sqq = All(0), sxq = All(0);
  for (int i = 0; i < kN / 4; ++i) {
    sq += q[i];
    sqq += q[i] * q[i];
    sxq += Load(x + 4 * i) * q[i];
  }
  return {Sum(sq), Sum(sqq), Sum(sxq)};
}

// Levels nearest to (x - offset) * inverse in low..high.
template <int kN>
void Nearest(const float* x, float offset, float inverse, float low, float high, F4* q) {
  for (int i = 0; i < kN / 4; ++i) {
    q[i] = Clamp(Round((Load(x + 4 * i) - All(offset)) * All(inverse)), low, high);
  }
}

// The squared error of scale * q + offset.
template <int kN>
float ErrorOf(const float* x, const F4* q, float scale, float offset) {
  F4 sum = All(0);
  for (int i = 0; i < kN / 4; ++i) {
    const F4 e = Load(x + 4 * i) - All(scale) * q[i] - All(offset);
    sum += e * e;
  }
  return Sum(sum);
}

// ---- Q4_K --------------------------------------------------------------------------------------

constexpr int kGroup4 = 32, kGroups4 = 8;
constexpr int kTurns = 2;

struct Group4 {
  float sum = 0;                 // of the values
  float scale = 0, minimum = 0;  // real: x ~ scale q - minimum, both >= 0
  int scale6 = 0, minimum6 = 0;  // whole numbers
  F4 q[kGroup4 / 4] = {};        // levels, 0 to 15
  float error = 0;               // with the whole numbers
};

struct Fit4 {
  float scale = 0, offset = 0;  // offset <= 0
  float error = 0;              // less the sum of squares: as good for comparing
};

// The best scale and offset for levels with these sums.
Fit4 Solve4(const Group4& g, const Sums& s) {
  constexpr float kN = kGroup4;
  const float det = kN * s.qq - s.q * s.q;
  Fit4 fit;
  if (det > 0) {
    fit.scale = (kN * s.xq - s.q * g.sum) / det;
    fit.offset = (g.sum - fit.scale * s.q) / kN;
  } else {
    fit.offset = g.sum / kN;
  }
  if (fit.offset > 0) {  // minima are not negative
    fit.offset = 0;
    fit.scale = s.qq > 0 ? s.xq / s.qq : 0;
  }
  fit.error = -fit.scale * s.xq - fit.offset * g.sum;
  return fit;
}

// Step 1.
void FitGroup4(const float* x, Group4* g) {
  const auto [smallest, largest] = std::minmax_element(x, x + kGroup4);
  const float low = std::min(*smallest, 0.0f), range = std::max(*largest, 0.0f) - low;
  if (!(range > 1e-30f)) return;  // zeros, or less than f16 holds
  for (int i = 0; i < kGroup4; ++i) g->sum += x[i];
  // How many steps the range is divided into; of more than 15, levels have those in the middle:
  // ends that stick out are cut.
  constexpr float kSteps[] = {14.0f, 15.0f, 16.0f, 17.0f, 18.0f};
  Fit4 best;
  for (const float steps : kSteps) {
    const float inverse = steps / range;
    const float offset = low + 0.5f * std::max(steps - 15.0f, 0.0f) / inverse;
    F4 q[kGroup4 / 4];
    Nearest<kGroup4>(x, offset, inverse, 0, 15, q);
    Fit4 fit = Solve4(*g, SumsOf<kGroup4>(x, q));
    for (int turn = 0; turn < kTurns && fit.scale > 0; ++turn) {
      Nearest<kGroup4>(x, fit.offset, 1.0f / fit.scale, 0, 15, q);
      fit = Solve4(*g, SumsOf<kGroup4>(x, q));
    }
    if (fit.scale >= 0 && fit.error < best.error) best = fit;
  }
  g->scale = best.scale;
  g->minimum = -best.offset;
}

// Step 2: the whole numbers around those of the real scale and minimum.
void ChooseGroup4(const float* x, float d, float m, Group4* g) {
  const int scale6 = d > 0 ? static_cast<int>(std::min(g->scale / d + 0.5f, 63.0f)) : 0;
  const int minimum6 = m > 0 ? static_cast<int>(std::min(g->minimum / m + 0.5f, 63.0f)) : 0;
  bool first = true;
  for (int s = std::max(scale6 - 1, 0); s <= std::min(scale6 + 1, 63); ++s) {
    for (int n = std::max(minimum6 - 1, 0); n <= std::min(minimum6 + 1, 63); ++n) {
      const float scale = d * static_cast<float>(s), offset = -m * static_cast<float>(n);
      F4 q[kGroup4 / 4];
      Nearest<kGroup4>(x, offset, scale > 0 ? 1.0f / scale : 0.0f, 0, 15, q);
      const float error = ErrorOf<kGroup4>(x, q, scale, offset);
      if (!first && error >= g->error) continue;
      first = false;
      g->scale6 = s;
      g->minimum6 = n;
      g->error = error;
      std::memcpy(g->q, q, sizeof(q));
    }
  }
}

struct Block4 {
  float d = 0, m = 0;
  Group4 groups[kGroups4];
  float error() const {
    float sum = 0;
    for (const Group4& g : groups) sum += g.error;
    return sum;
  }
};

void ChooseAll4(const float* x, Block4* block) {
  for (int g = 0; g < kGroups4; ++g) {
    ChooseGroup4(x + g * kGroup4, block->d, block->m, &block->groups[g]);
  }
}

// Step 3: d and m for the levels and whole numbers there are. Normal equations of x ~ d a - m n
// with a = s q.
void Refit4(const float* x, Block4* block) {
  double aa = 0, an = 0, nn = 0, xa = 0, xn = 0;
  for (int g = 0; g < kGroups4; ++g) {
    const Group4& group = block->groups[g];
    const Sums sums = SumsOf<kGroup4>(x + g * kGroup4, group.q);
    const double s = group.scale6, n = group.minimum6;
    aa += s * s * double{sums.qq};
    an += s * n * double{sums.q};
    nn += n * n * kGroup4;
    xa += s * double{sums.xq};
    xn += n * double{group.sum};
  }
  const double det = aa * nn - an * an;
  if (det > 1e-9 * aa * nn) {
    const double d = (xa * nn - xn * an) / det, m = (xa * an - xn * aa) / det;
    block->d = ScaleToF16(static_cast<float>(std::max(d, 0.0)));
    block->m = ScaleToF16(static_cast<float>(std::max(m, 0.0)));
  } else if (aa > 0 && nn == 0) {
    block->d = ScaleToF16(static_cast<float>(xa / aa));
  }
}

void PackQ4_K(const Block4& block, uint8_t* dst) {
  const uint16_t halves[2] = {F32ToF16(block.d), F32ToF16(block.m)};
  std::memcpy(dst, halves, sizeof(halves));
  uint8_t* packed = dst + 4;
  std::memset(packed, 0, 12);
  for (int g = 0; g < kGroups4; ++g) {
    const int s = block.groups[g].scale6, n = block.groups[g].minimum6;
    if (g < 4) {
      packed[g] = static_cast<uint8_t>(s);
      packed[g + 4] = static_cast<uint8_t>(n);
    } else {
      packed[g + 4] = static_cast<uint8_t>((s & 15) | (n & 15) << 4);
      packed[g - 4] = static_cast<uint8_t>(packed[g - 4] | s >> 4 << 6);
      packed[g] = static_cast<uint8_t>(packed[g] | n >> 4 << 6);
    }
  }
  for (int g = 0; g < kGroups4; ++g) {
    for (int i = 0; i < kGroup4; ++i) {
      const auto level = static_cast<int>(block.groups[g].q[i / 4][i % 4]);
      uint8_t& byte = dst[16 + g / 2 * 32 + i];
      byte = static_cast<uint8_t>(g % 2 == 0 ? level : byte | level << 4);
    }
  }
}

// ---- Q6_K --------------------------------------------------------------------------------------

constexpr int kGroup6 = 16, kGroups6 = 16;

struct Group6 {
  float scale = 0;         // real, of either sign
  int scale8 = 0;          // whole number
  F4 q[kGroup6 / 4] = {};  // levels, -32 to 31
  float error = 0;         // with the whole number
};

void FitGroup6(const float* x, Group6* g) {
  float extreme = 0;
  for (int i = 0; i < kGroup6; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  if (!(std::fabs(extreme) > 1e-30f)) return;
  // The level of the extreme value: -32 is the farthest, 31 leaves that one unused.
  constexpr float kLevels[] = {-33.0f, -32.0f, -31.0f, -30.0f, 31.0f, 32.0f};
  float best_gain = 0;
  for (const float level : kLevels) {
    F4 q[kGroup6 / 4];
    float inverse = level / extreme;
    Sums sums;
    for (int turn = 0; turn < kTurns; ++turn) {
      Nearest<kGroup6>(x, 0, inverse, -32, 31, q);
      sums = SumsOf<kGroup6>(x, q);
      if (sums.xq == 0) break;
      inverse = sums.qq / sums.xq;
    }
    if (sums.xq == 0) continue;
    // What the best scale, xq / qq, takes off the sum of squares.
    const float gain = sums.xq * sums.xq / sums.qq;
    if (gain <= best_gain) continue;
    best_gain = gain;
    g->scale = sums.xq / sums.qq;
  }
}

void ChooseGroup6(const float* x, float d, Group6* g) {
  const float whole = d != 0 ? std::floor(g->scale / d + 0.5f) : 0.0f;
  const int scale8 = static_cast<int>(std::clamp(whole, -128.0f, 127.0f));
  bool first = true;
  for (int s = std::max(scale8 - 1, -128); s <= std::min(scale8 + 1, 127); ++s) {
    const float scale = d * static_cast<float>(s);
    F4 q[kGroup6 / 4];
    Nearest<kGroup6>(x, 0, scale != 0 ? 1.0f / scale : 0.0f, -32, 31, q);
    const float error = ErrorOf<kGroup6>(x, q, scale, 0);
    if (!first && error >= g->error) continue;
    first = false;
    g->scale8 = s;
    g->error = error;
    std::memcpy(g->q, q, sizeof(q));
  }
}

struct Block6 {
  float d = 0;
  Group6 groups[kGroups6];
  float error() const {
    float sum = 0;
    for (const Group6& g : groups) sum += g.error;
    return sum;
  }
};

void ChooseAll6(const float* x, Block6* block) {
  for (int g = 0; g < kGroups6; ++g) {
    ChooseGroup6(x + g * kGroup6, block->d, &block->groups[g]);
  }
}

void Refit6(const float* x, Block6* block) {
  double aa = 0, xa = 0;
  for (int g = 0; g < kGroups6; ++g) {
    const Group6& group = block->groups[g];
    const Sums sums = SumsOf<kGroup6>(x + g * kGroup6, group.q);
    aa += double{sums.qq} * group.scale8 * group.scale8;
    xa += double{sums.xq} * group.scale8;
  }
  if (aa > 0) block->d = ScaleToF16(static_cast<float>(xa / aa));
}

void PackQ6_K(const Block6& block, uint8_t* dst) {
  std::memset(dst, 0, 192);
  for (int run = 0; run < 8; ++run) {
    uint8_t* low = dst + run / 4 * 64 + run % 2 * 32;
    uint8_t* high = dst + 128 + run / 4 * 32;
    const int low_shift = run % 4 / 2 * 4, high_shift = run % 4 * 2;
    for (int i = 0; i < 32; ++i) {
      const F4& four = block.groups[run * 2 + i / 16].q[i % 16 / 4];
      const int level = static_cast<int>(four[i % 4]) + 32;
      low[i] = static_cast<uint8_t>(low[i] | (level & 15) << low_shift);
      high[i] = static_cast<uint8_t>(high[i] | level >> 4 << high_shift);
    }
  }
  for (int g = 0; g < kGroups6; ++g) {
    dst[192 + g] = static_cast<uint8_t>(static_cast<int8_t>(block.groups[g].scale8));
  }
  const uint16_t half = F32ToF16(block.d);
  std::memcpy(dst + 208, &half, sizeof(half));
}

}  // namespace

void QuantizeQ4_K(const float* values, uint8_t* block) {
  Block4 first;
  for (int g = 0; g < kGroups4; ++g) {
    FitGroup4(values + g * kGroup4, &first.groups[g]);
    first.d = std::max(first.d, first.groups[g].scale / 63.0f);
    first.m = std::max(first.m, first.groups[g].minimum / 63.0f);
  }
  first.d = ScaleToF16(first.d);
  first.m = ScaleToF16(first.m);
  ChooseAll4(values, &first);
  Block4 second = first;
  Refit4(values, &second);
  ChooseAll4(values, &second);
  PackQ4_K(second.error() < first.error() ? second : first, block);
}

void QuantizeQ6_K(const float* values, uint8_t* block) {
  Block6 best;
  float largest = 0;
  for (int g = 0; g < kGroups6; ++g) {
    FitGroup6(values + g * kGroup6, &best.groups[g]);
    const float scale = best.groups[g].scale;
    if (std::fabs(scale) > std::fabs(largest)) largest = scale;
  }
  best.d = ScaleToF16(std::fabs(largest) / 127.0f);
  ChooseAll6(values, &best);
  // The largest scale as -128, and least squares from the better of the two.
  Block6 other = best;
  other.d = ScaleToF16(largest / -128.0f);
  ChooseAll6(values, &other);
  if (other.error() < best.error()) best = other;
  other = best;
  Refit6(values, &other);
  ChooseAll6(values, &other);
  PackQ6_K(other.error() < best.error() ? other : best, block);
}

}  // namespace kvasir
