#include "format/quantize.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace kvasir {

namespace {

void StoreF16(uint8_t* dst, float value) {
  const uint16_t half = F32ToF16(value);
  std::memcpy(dst, &half, sizeof(half));
}

// 0 for a scale of 0, and for one so small that its inverse is infinite: it is 0 in f16 too.
float Inverse(float scale) {
  const float inverse = 1.0f / scale;
  return std::isfinite(inverse) ? inverse : 0.0f;
}

void EncodeF32(const float* x, uint8_t* dst) { std::memcpy(dst, x, sizeof(float)); }
void EncodeF16(const float* x, uint8_t* dst) { StoreF16(dst, *x); }
void EncodeBF16(const float* x, uint8_t* dst) {
  const uint16_t half = F32ToBF16(*x);
  std::memcpy(dst, &half, sizeof(half));
}

void EncodeQ8_0(const float* x, uint8_t* dst) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float scale = largest / 127.0f, inverse = Inverse(scale);
  StoreF16(dst, scale);
  for (int i = 0; i < 32; ++i) {
    // std::round, in a form that loops over vectors: halves go away from zero.
    const float scaled = x[i] * inverse, magnitude = std::fabs(scaled);
    const int whole = static_cast<int>(magnitude);
    const int level = whole + (magnitude - static_cast<float>(whole) >= 0.5f ? 1 : 0);
    dst[2 + i] = static_cast<uint8_t>(scaled < 0 ? -level : level);
  }
}

// The value of largest magnitude, the first of equals.
float Extreme(const float* x) {
  float extreme = x[0];
  for (int i = 1; i < 32; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  return extreme;
}

// `half` + x / scale, cut to a whole number in 0..largest.
uint8_t Level(float scaled, float half, int largest) {
  return static_cast<uint8_t>(std::min(static_cast<int>(scaled + half), largest));
}

// Low nibbles are elements 0 to 15, high ones 16 to 31.
void PackNibbles(const uint8_t* levels, uint8_t* dst) {
  for (int i = 0; i < 16; ++i) {
    dst[i] = static_cast<uint8_t>((levels[i] & 15) | levels[i + 16] << 4);
  }
}
// The fifth bits, bit i of a word for element i.
void PackFifthBits(const uint8_t* levels, uint8_t* dst) {
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= uint32_t{levels[i]} >> 4 << i;
  std::memcpy(dst, &bits, sizeof(bits));
}

// The extreme value is the lowest level, -8 or -16.
void SymmetricLevels(const float* x, int bits, uint8_t* scale_at, uint8_t* levels) {
  const int middle = 1 << (bits - 1);
  const float scale = Extreme(x) / static_cast<float>(-middle), inverse = Inverse(scale);
  StoreF16(scale_at, scale);
  const float half = static_cast<float>(middle) + 0.5f;
  for (int i = 0; i < 32; ++i) levels[i] = Level(x[i] * inverse, half, 2 * middle - 1);
}

// From the smallest value, level 0, to the largest.
void AffineLevels(const float* x, int bits, uint8_t* scale_and_minimum_at, uint8_t* levels) {
  const int largest = (1 << bits) - 1;
  const auto [low, high] = std::minmax_element(x, x + 32);
  const float scale = (*high - *low) / static_cast<float>(largest), inverse = Inverse(scale);
  StoreF16(scale_and_minimum_at, scale + 0.0f);  // -0 becomes 0
  StoreF16(scale_and_minimum_at + 2, *low + 0.0f);
  for (int i = 0; i < 32; ++i) levels[i] = Level((x[i] - *low) * inverse, 0.5f, largest);
}

void EncodeQ4_0(const float* x, uint8_t* dst) {
  uint8_t levels[32];
  SymmetricLevels(x, 4, dst, levels);
  PackNibbles(levels, dst + 2);
}
void EncodeQ4_1(const float* x, uint8_t* dst) {
  uint8_t levels[32];
  AffineLevels(x, 4, dst, levels);
  PackNibbles(levels, dst + 4);
}
void EncodeQ5_0(const float* x, uint8_t* dst) {
  uint8_t levels[32];
  SymmetricLevels(x, 5, dst, levels);
  PackFifthBits(levels, dst + 2);
  PackNibbles(levels, dst + 6);
}
void EncodeQ5_1(const float* x, uint8_t* dst) {
  uint8_t levels[32];
  AffineLevels(x, 5, dst, levels);
  PackFifthBits(levels, dst + 4);
  PackNibbles(levels, dst + 8);
}

template <void (*kEncode)(const float*, uint8_t*)>
void EncodeBlocks(const DTypeInfo& info, const float* values, uint8_t* dst, uint64_t n) {
  for (uint64_t i = 0; i < n / info.block; ++i) {
    kEncode(values + i * info.block, dst + i * info.bytes);
  }
}

using EncodeRow = void (*)(const DTypeInfo&, const float*, uint8_t*, uint64_t);

// nullptr: none.
EncodeRow EncoderOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return EncodeBlocks<EncodeF32>;
    case DType::kF16:
      return EncodeBlocks<EncodeF16>;
    case DType::kBF16:
      return EncodeBlocks<EncodeBF16>;
    case DType::kQ4_0:
      return EncodeBlocks<EncodeQ4_0>;
    case DType::kQ4_1:
      return EncodeBlocks<EncodeQ4_1>;
    case DType::kQ5_0:
      return EncodeBlocks<EncodeQ5_0>;
    case DType::kQ5_1:
      return EncodeBlocks<EncodeQ5_1>;
    case DType::kQ8_0:
      return EncodeBlocks<EncodeQ8_0>;
    case DType::kQ4_K:
      return EncodeBlocks<QuantizeQ4_K>;
    case DType::kQ6_K:
      return EncodeBlocks<QuantizeQ6_K>;
    case DType::kQ2_K:
    case DType::kQ3_K:
    case DType::kQ5_K:
    case DType::kIQ4_NL:
    case DType::kIQ4_XS:
      break;
  }
  return nullptr;
}

// Magnitudes up to this one have finite scales; K blocks keep a factor of two for what the search
// adds.
float LargestMagnitude(DType dtype) {
  constexpr float kF16 = 65504.0f;
  switch (dtype) {
    case DType::kF16:
      return std::nextafter(65520.0f, 0.0f);  // from there on rounding is to infinity
    case DType::kBF16:
      return std::nextafter(std::bit_cast<float>(0x7f7f8000u), 0.0f);
    case DType::kQ8_0:
      return kF16 * 127;
    case DType::kQ4_0:
      return kF16 * 8;
    case DType::kQ5_0:
      return kF16 * 16;
    case DType::kQ4_1:
    case DType::kQ5_1:
      return kF16;
    case DType::kQ4_K:
      return kF16 * 32;
    case DType::kQ6_K:
      return kF16 * 2048;
    default:
      return std::bit_cast<float>(0x7f7fffffu);
  }
}

}  // namespace

bool CanQuantizeTo(DType dtype) { return EncoderOf(dtype) != nullptr; }

uint64_t FirstUnfit(DType dtype, const float* values, uint64_t n) {
  const float limit = LargestMagnitude(dtype);
  constexpr uint64_t kStep = 1024;  // looked at without a branch
  for (uint64_t begin = 0; begin < n; begin += kStep) {
    const uint64_t end = std::min(begin + kStep, n);
    uint32_t unfit = 0;
    for (uint64_t i = begin; i < end; ++i) unfit |= !(std::fabs(values[i]) <= limit);
    if (unfit == 0) continue;
    for (uint64_t i = begin; i < end; ++i) {
      if (!(std::fabs(values[i]) <= limit)) return i;  // NaN too
    }
  }
  return n;
}

void QuantizeRow(DType dtype, const float* values, uint8_t* dst, uint64_t n) {
  const DTypeInfo& info = Info(dtype);
  CHECK(n % info.block == 0);
  const EncodeRow encode = EncoderOf(dtype);
  CHECK_MSG(encode != nullptr, "no encoder for {}", info.name);
  encode(info, values, dst, n);
}

}  // namespace kvasir
