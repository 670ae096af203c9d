#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace kvasir {
namespace {

TEST(Rope, TurnsThePairsOfAHeadAtFallingSpeeds) {
  const Rope rope(8, 10000);
  ASSERT_EQ(rope.n_angles(), 4u);
  float cos[4], sin[4];
  rope.Fill(3, cos, sin);
  // 10000^(-2i/8) = 1, 0.1, 0.01, 0.001
  const double angles[] = {3.0, 0.3, 0.03, 0.003};
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(cos[i], std::cos(angles[i]), 1e-6);
    EXPECT_NEAR(sin[i], std::sin(angles[i]), 1e-6);
  }
}

TEST(Rope, LeavesPositionZeroAlone) {
  const Rope rope(64, 500000);
  float cos[32], sin[32];
  rope.Fill(0, cos, sin);
  for (int i = 0; i < 32; ++i) {
    EXPECT_EQ(cos[i], 1.0f);
    EXPECT_EQ(sin[i], 0.0f);
  }
}

// At position 8000 the rounding of the angle is a hundred times larger than that of the cosine: the
// angle has to be the product of the two floats, not the better one of doubles.
TEST(Rope, RoundsTheAngleBeforeItTakesTheCosine) {
  const Rope rope(64, 100000);
  float cos[32], sin[32];
  rope.Fill(8000, cos, sin);
  int differs = 0;
  for (int i = 0; i < 32; ++i) {
    const float exponent = static_cast<float>(2 * i) / 64.0f;
    const float inverse = 1.0f / static_cast<float>(std::pow(100000.0, double{exponent}));
    const float angle = 8000.0f * inverse;
    EXPECT_EQ(cos[i], static_cast<float>(std::cos(double{angle}))) << i;
    EXPECT_EQ(sin[i], static_cast<float>(std::sin(double{angle}))) << i;
    const double ideal = 8000.0 * std::pow(100000.0, -i / 32.0);
    differs += cos[i] != static_cast<float>(std::cos(ideal));
  }
  EXPECT_GT(differs, 10);
}

}  // namespace
}  // namespace kvasir
