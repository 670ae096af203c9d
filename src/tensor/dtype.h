// Element types of tensors in files and in memory, and the scalar conversions between float
// formats.
//
// Quantized types are blocks: `block` consecutive elements of a row share `bytes` bytes. Layouts
// and type numbers are GGUF's (ggml.h); expansion to f32 is in format/dequantize.h.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace kvasir {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
};
inline constexpr int kDTypes = 15;

struct DTypeInfo {
  DType dtype;
  std::string_view name;  // as GGUF tools print it: "Q4_K"
  uint32_t gguf_id;
  uint32_t block;  // elements in a block
  uint32_t bytes;  // bytes of a block
};
const DTypeInfo& Info(DType dtype);
// The type with this GGUF number, or nullptr.
const DTypeInfo* FindGgufType(uint32_t gguf_id);
// What GGUF calls a number that is no DType ("IQ2_XXS"); empty where the number is not known.
std::string_view ForeignGgufType(uint32_t gguf_id);

// What a nibble of IQ4_NL and IQ4_XS stands for.
inline constexpr int8_t kIQ4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};

inline float F16ToF32(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t magnitude = h & 0x7fff;
  if (magnitude >= 0x7c00) {  // infinity, NaN
    return std::bit_cast<float>(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  }
  if (magnitude < 0x400) {  // zero, subnormal: magnitude x 2^-24
    const float value = static_cast<float>(magnitude) * 5.9604644775390625e-8f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000));
}

// Round to nearest, ties to even; overflow to infinity; NaN stays NaN. Bits equal VCVTPS2PH's.
uint16_t F32ToF16(float value);

inline float BF16ToF32(uint16_t h) { return std::bit_cast<float>(static_cast<uint32_t>(h) << 16); }

inline uint16_t F32ToBF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace kvasir
