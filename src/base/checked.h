// Arithmetic on sizes that come from outside: overflow is an Error that names what overflowed.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/error.h"

namespace kvasir {

inline uint64_t MulOrThrow(uint64_t a, uint64_t b, std::string_view what) {
  uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) {
    Fail(Code::kCorrupt, "{}: {} x {} does not fit into 64 bits", what, a, b);
  }
  return product;
}

inline uint64_t AddOrThrow(uint64_t a, uint64_t b, std::string_view what) {
  uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) {
    Fail(Code::kCorrupt, "{}: {} + {} does not fit into 64 bits", what, a, b);
  }
  return sum;
}

template <typename T>
constexpr T DivideUp(T a, T b) {
  return (a + b - 1) / b;
}
template <typename T>
constexpr T RoundUp(T a, T multiple) {
  return DivideUp(a, multiple) * multiple;
}

}  // namespace kvasir
