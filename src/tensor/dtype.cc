#include "tensor/dtype.h"

#include "base/error.h"

namespace kvasir {

namespace {
constexpr DTypeInfo kTypes[kDTypes] = {
    {DType::kF32, "F32", 0, 1, 4},      {DType::kF16, "F16", 1, 1, 2},
    {DType::kBF16, "BF16", 30, 1, 2},   {DType::kQ4_0, "Q4_0", 2, 32, 18},
    {DType::kQ4_1, "Q4_1", 3, 32, 20},  {DType::kQ5_0, "Q5_0", 6, 32, 22},
    {DType::kQ8_0, "Q8_0", 8, 32, 34},  {DType::kQ4_K, "Q4_K", 12, 256, 144},
    {DType::kQ6_K, "Q6_K", 14, 256, 210},
};
}  // namespace

const DTypeInfo& Info(DType dtype) {
  const DTypeInfo& info = kTypes[static_cast<size_t>(dtype)];
  DCHECK(info.dtype == dtype);
  return info;
}

const DTypeInfo* FindGgufType(uint32_t gguf_id) {
  for (const DTypeInfo& info : kTypes) {
    if (info.gguf_id == gguf_id) return &info;
  }
  return nullptr;
}

uint16_t F32ToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) {  // NaN: keep the top payload bits, make it quiet
    return sign | 0x7e00 | static_cast<uint16_t>((magnitude >> 13) & 0x3ff);
  }
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // 65520 and above round to infinity
  if (magnitude < 0x38800000) {                       // below 2^-14: subnormal or zero
    // Adding 0.5 places the unit of the sum at 2^-24, the spacing of f16 subnormals.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted) - 0x3f000000);
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return sign | static_cast<uint16_t>((rounded - 0x38000000) >> 13);
}

}  // namespace kvasir
