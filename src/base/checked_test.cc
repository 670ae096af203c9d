#include "base/checked.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace kvasir {
namespace {

template <typename F>
std::string CorruptError(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kCorrupt);
    return error.what();
  }
  return "no error";
}

TEST(Checked, MultipliesAndAddsUpToTheLargestNumber) {
  EXPECT_EQ(MulOrThrow(0, UINT64_MAX, "x"), 0u);
  EXPECT_EQ(MulOrThrow(uint64_t{1} << 32, (uint64_t{1} << 32) - 1, "x"), 0xffffffff00000000u);
  EXPECT_EQ(MulOrThrow(1, UINT64_MAX, "x"), UINT64_MAX);
  EXPECT_EQ(AddOrThrow(UINT64_MAX - 1, 1, "x"), UINT64_MAX);
}

TEST(Checked, NamesWhatOverflowed) {
  EXPECT_EQ(CorruptError([] { MulOrThrow(uint64_t{1} << 32, uint64_t{1} << 32, "tensor a"); }),
            "tensor a: 4294967296 x 4294967296 does not fit into 64 bits");
  EXPECT_EQ(CorruptError([] { AddOrThrow(UINT64_MAX, 1, "offset"); }),
            "offset: 18446744073709551615 + 1 does not fit into 64 bits");
}

TEST(Checked, RoundsUpToMultiples) {
  EXPECT_EQ(DivideUp(0u, 64u), 0u);
  EXPECT_EQ(DivideUp(1u, 64u), 1u);
  EXPECT_EQ(DivideUp(64u, 64u), 1u);
  EXPECT_EQ(DivideUp(65u, 64u), 2u);
  EXPECT_EQ(RoundUp(65u, 64u), 128u);
  EXPECT_EQ(RoundUp(0u, 64u), 0u);
}

}  // namespace
}  // namespace kvasir
