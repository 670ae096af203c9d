#include "format/dequantize.h"

#include <cstring>

#include "base/error.h"

namespace kvasir {

namespace {

template <typename T>
T Load(const uint8_t* src) {
  T value;
  std::memcpy(&value, src, sizeof(T));
  return value;
}

float LoadF16(const uint8_t* src) { return F16ToF32(Load<uint16_t>(src)); }

void ExpandF32(const uint8_t* src, float* dst) { *dst = Load<float>(src); }
void ExpandF16(const uint8_t* src, float* dst) { *dst = LoadF16(src); }
void ExpandBF16(const uint8_t* src, float* dst) { *dst = BF16ToF32(Load<uint16_t>(src)); }

// 32 signed bytes under one scale.
void ExpandQ8_0(const uint8_t* src, float* dst) {
  const float scale = LoadF16(src);
  const uint8_t* q = src + 2;
  for (int i = 0; i < 32; ++i) dst[i] = static_cast<float>(static_cast<int8_t>(q[i])) * scale;
}

// 32 nibbles around 8: low nibbles are elements 0 to 15, high ones 16 to 31.
void ExpandQ4_0(const uint8_t* src, float* dst) {
  const float scale = LoadF16(src);
  const uint8_t* q = src + 2;
  for (int i = 0; i < 16; ++i) {
    dst[i] = scale * static_cast<float>((q[i] & 15) - 8);
    dst[i + 16] = scale * static_cast<float>((q[i] >> 4) - 8);
  }
}

// 32 nibbles, scale and minimum.
void ExpandQ4_1(const uint8_t* src, float* dst) {
  const float scale = LoadF16(src), minimum = LoadF16(src + 2);
  const uint8_t* q = src + 4;
  for (int i = 0; i < 16; ++i) {
    dst[i] = scale * static_cast<float>(q[i] & 15) + minimum;
    dst[i + 16] = scale * static_cast<float>(q[i] >> 4) + minimum;
  }
}

// As Q4_0 with a fifth bit per element, bit i of a word for element i; values around 16.
void ExpandQ5_0(const uint8_t* src, float* dst) {
  const float scale = LoadF16(src);
  const auto fifth = Load<uint32_t>(src + 2);
  const uint8_t* q = src + 6;
  for (int i = 0; i < 16; ++i) {
    const int low = (q[i] & 15) | static_cast<int>(fifth >> i & 1) << 4;
    const int high = q[i] >> 4 | static_cast<int>(fifth >> (i + 16) & 1) << 4;
    dst[i] = scale * static_cast<float>(low - 16);
    dst[i + 16] = scale * static_cast<float>(high - 16);
  }
}

// As Q5_0 and Q4_1: five bits, scale and minimum.
void ExpandQ5_1(const uint8_t* src, float* dst) {
  const float scale = LoadF16(src), minimum = LoadF16(src + 2);
  const auto fifth = Load<uint32_t>(src + 4);
  const uint8_t* q = src + 8;
  for (int i = 0; i < 16; ++i) {
    const int low = (q[i] & 15) | static_cast<int>(fifth >> i & 1) << 4;
    const int high = q[i] >> 4 | static_cast<int>(fifth >> (i + 16) & 1) << 4;
    dst[i] = scale * static_cast<float>(low) + minimum;
    dst[i + 16] = scale * static_cast<float>(high) + minimum;
  }
}

// Sixteen groups of 16 values of 2 bits; a byte for each group has the scale in its low nibble and
// the minimum in its high one. Each half of the block is 4 runs of 32; run r is at bits 2r of the
// half's 32 bytes.
void ExpandQ2_K(const uint8_t* src, float* dst) {
  const uint8_t* q = src + 16;
  const float scale_of_scales = LoadF16(src + 80), scale_of_minima = LoadF16(src + 82);
  for (int run = 0; run < 8; ++run) {
    for (int i = 0; i < 32; ++i) {
      const uint8_t factors = src[run * 2 + i / 16];
      const float scale = scale_of_scales * static_cast<float>(factors & 15);
      const float minimum = scale_of_minima * static_cast<float>(factors >> 4);
      const int two_bits = q[run / 4 * 32 + i] >> (run % 4 * 2) & 3;
      dst[run * 32 + i] = scale * static_cast<float>(two_bits) - minimum;
    }
  }
}

// As Q2_K without minima; values around 4 have their third bit at bit `run` of 32 bytes, and scales
// around 32 have six: low nibbles in 8 bytes (groups 0 to 7, then 8 to 15 on top of them), two high
// bits in 4 (groups g, g + 4, g + 8, g + 12 to a byte).
void ExpandQ3_K(const uint8_t* src, float* dst) {
  const uint8_t *third = src, *q = src + 32, *scales = src + 96;
  const float scale_of_scales = LoadF16(src + 108);
  for (int run = 0; run < 8; ++run) {
    for (int i = 0; i < 32; ++i) {
      const int group = run * 2 + i / 16;
      const int scale6 = (scales[group % 8] >> (group / 8 * 4) & 15) |
                         (scales[8 + group % 4] >> (group / 4 * 2) & 3) << 4;
      const float scale = scale_of_scales * static_cast<float>(scale6 - 32);
      const int value = (q[run / 4 * 32 + i] >> (run % 4 * 2) & 3) | (third[i] >> run & 1) << 2;
      dst[run * 32 + i] = scale * static_cast<float>(value - 4);
    }
  }
}

// Scale and minimum of group `g` of a K block: eight pairs of 6 bits in 12 bytes. Pairs 0 to 3 are
// whole; of pairs 4 to 7 the low nibbles are in bytes 8 to 11 and the high bits on top of the
// others.
void UnpackScales(const uint8_t* packed, int g, int* scale, int* minimum) {
  if (g < 4) {
    *scale = packed[g] & 63;
    *minimum = packed[g + 4] & 63;
  } else {
    *scale = (packed[g + 4] & 15) | (packed[g - 4] >> 6 << 4);
    *minimum = packed[g + 4] >> 4 | (packed[g] >> 6 << 4);
  }
}

// Of group g of a Q4_K or Q5_K block.
struct GroupScale {
  GroupScale(const uint8_t* block, int g) {
    int scale6 = 0, minimum6 = 0;
    UnpackScales(block + 4, g, &scale6, &minimum6);
    scale = LoadF16(block) * static_cast<float>(scale6);
    minimum = LoadF16(block + 2) * static_cast<float>(minimum6);
  }
  float scale, minimum;
};

// Eight groups of 32 nibbles; 32 bytes hold two groups, low nibbles first.
void ExpandQ4_K(const uint8_t* src, float* dst) {
  const uint8_t* q = src + 16;
  for (int g = 0; g < 8; ++g) {
    const auto [scale, minimum] = GroupScale(src, g);
    const int shift = g % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      const int nibble = q[g / 2 * 32 + i] >> shift & 15;
      dst[g * 32 + i] = scale * static_cast<float>(nibble) - minimum;
    }
  }
}

// As Q4_K with a fifth bit per element: group g has it at bit g of 32 bytes.
void ExpandQ5_K(const uint8_t* src, float* dst) {
  const uint8_t *fifth = src + 16, *q = src + 48;
  for (int g = 0; g < 8; ++g) {
    const auto [scale, minimum] = GroupScale(src, g);
    const int shift = g % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      const int value = (q[g / 2 * 32 + i] >> shift & 15) | (fifth[i] >> g & 1) << 4;
      dst[g * 32 + i] = scale * static_cast<float>(value) - minimum;
    }
  }
}

// Sixteen groups of 16 values around 32: 4 low bits in 128 bytes, 2 high bits in 64, an i8 scale a
// group. Each half of the block is 4 runs of 32: runs 0 and 1 in low nibbles, 2 and 3 in high ones;
// run r has its high bits at 2r of the half's 32 bytes.
void ExpandQ6_K(const uint8_t* src, float* dst) {
  const uint8_t* scales = src + 192;
  const float scale_of_scales = LoadF16(src + 208);
  for (int run = 0; run < 8; ++run) {
    const uint8_t* low = src + run / 4 * 64 + run % 2 * 32;
    const uint8_t* high = src + 128 + run / 4 * 32;
    const int low_shift = run % 4 / 2 * 4, high_shift = run % 4 * 2;
    for (int i = 0; i < 32; ++i) {
      const auto scale8 = static_cast<int8_t>(scales[run * 2 + i / 16]);
      const float scale = scale_of_scales * static_cast<float>(scale8);
      const int q = (low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4;
      dst[run * 32 + i] = scale * static_cast<float>(q - 32);
    }
  }
}

// 32 nibbles that stand for the values of a table, in the order of Q4_0.
void ExpandTable(float scale, const uint8_t* q, float* dst) {
  for (int i = 0; i < 16; ++i) {
    dst[i] = scale * static_cast<float>(kIQ4Values[q[i] & 15]);
    dst[i + 16] = scale * static_cast<float>(kIQ4Values[q[i] >> 4]);
  }
}

void ExpandIQ4_NL(const uint8_t* src, float* dst) { ExpandTable(LoadF16(src), src + 2, dst); }

// Eight groups with scales of six bits around 32: low nibbles in 4 bytes, high pairs in a word.
void ExpandIQ4_XS(const uint8_t* src, float* dst) {
  const float scale_of_scales = LoadF16(src);
  const int high = Load<uint16_t>(src + 2);
  for (int g = 0; g < 8; ++g) {
    const int scale6 = (src[4 + g / 2] >> (g % 2 * 4) & 15) | (high >> (g * 2) & 3) << 4;
    ExpandTable(scale_of_scales * static_cast<float>(scale6 - 32), src + 8 + g * 16, dst + g * 32);
  }
}

template <void (*kExpand)(const uint8_t*, float*)>
void ExpandBlocks(const DTypeInfo& info, const uint8_t* src, float* dst, uint64_t n) {
  for (uint64_t i = 0; i < n / info.block; ++i) {
    kExpand(src + i * info.bytes, dst + i * info.block);
  }
}

}  // namespace

void DequantizeRow(DType dtype, const uint8_t* src, float* dst, uint64_t n) {
  const DTypeInfo& info = Info(dtype);
  CHECK(n % info.block == 0);
  switch (dtype) {
    case DType::kF32:
      return ExpandBlocks<ExpandF32>(info, src, dst, n);
    case DType::kF16:
      return ExpandBlocks<ExpandF16>(info, src, dst, n);
    case DType::kBF16:
      return ExpandBlocks<ExpandBF16>(info, src, dst, n);
    case DType::kQ4_0:
      return ExpandBlocks<ExpandQ4_0>(info, src, dst, n);
    case DType::kQ4_1:
      return ExpandBlocks<ExpandQ4_1>(info, src, dst, n);
    case DType::kQ5_0:
      return ExpandBlocks<ExpandQ5_0>(info, src, dst, n);
    case DType::kQ5_1:
      return ExpandBlocks<ExpandQ5_1>(info, src, dst, n);
    case DType::kQ8_0:
      return ExpandBlocks<ExpandQ8_0>(info, src, dst, n);
    case DType::kQ2_K:
      return ExpandBlocks<ExpandQ2_K>(info, src, dst, n);
    case DType::kQ3_K:
      return ExpandBlocks<ExpandQ3_K>(info, src, dst, n);
    case DType::kQ4_K:
      return ExpandBlocks<ExpandQ4_K>(info, src, dst, n);
    case DType::kQ5_K:
      return ExpandBlocks<ExpandQ5_K>(info, src, dst, n);
    case DType::kQ6_K:
      return ExpandBlocks<ExpandQ6_K>(info, src, dst, n);
    case DType::kIQ4_NL:
      return ExpandBlocks<ExpandIQ4_NL>(info, src, dst, n);
    case DType::kIQ4_XS:
      return ExpandBlocks<ExpandIQ4_XS>(info, src, dst, n);
  }
  CheckFailed(__FILE__, __LINE__, "every type has an expansion");
}

}  // namespace kvasir
