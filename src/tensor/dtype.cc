#include "tensor/dtype.h"

#include "base/error.h"

namespace kvasir {

namespace {
constexpr DTypeInfo kTypes[kDTypes] = {
    {DType::kF32, "F32", 0, 1, 4},
    {DType::kF16, "F16", 1, 1, 2},
    {DType::kBF16, "BF16", 30, 1, 2},
    {DType::kQ4_0, "Q4_0", 2, 32, 18},
    {DType::kQ4_1, "Q4_1", 3, 32, 20},
    {DType::kQ5_0, "Q5_0", 6, 32, 22},
    {DType::kQ5_1, "Q5_1", 7, 32, 24},
    {DType::kQ8_0, "Q8_0", 8, 32, 34},
    {DType::kQ2_K, "Q2_K", 10, 256, 84},
    {DType::kQ3_K, "Q3_K", 11, 256, 110},
    {DType::kQ4_K, "Q4_K", 12, 256, 144},
    {DType::kQ5_K, "Q5_K", 13, 256, 176},
    {DType::kQ6_K, "Q6_K", 14, 256, 210},
    {DType::kIQ4_NL, "IQ4_NL", 20, 32, 18},
    {DType::kIQ4_XS, "IQ4_XS", 23, 256, 136},
};

// Numbers that GGUF gives to types this engine does not read.
struct ForeignType {
  uint32_t gguf_id;
  std::string_view name;
};
constexpr ForeignType kForeign[] = {
    {9, "Q8_1"},        {15, "Q8_K"},       {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"},
    {19, "IQ1_S"},      {21, "IQ3_S"},      {22, "IQ2_S"},   {24, "I8"},     {25, "I16"},
    {26, "I32"},        {27, "I64"},        {28, "F64"},     {29, "IQ1_M"},  {31, "Q4_0_4_4"},
    {32, "Q4_0_4_8"},   {33, "Q4_0_8_8"},   {34, "TQ1_0"},   {35, "TQ2_0"},  {36, "IQ4_NL_4_4"},
    {37, "IQ4_NL_4_8"}, {38, "IQ4_NL_8_8"}, {39, "MXFP4"},   {40, "NVFP4"},  {41, "Q1_0"},
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

std::string_view ForeignGgufType(uint32_t gguf_id) {
  for (const ForeignType& type : kForeign) {
    if (type.gguf_id == gguf_id) return type.name;
  }
  return {};
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
