#include "model/rope.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace kvasir {
namespace {

TEST(Rope, TurnsThePairsOfAHeadAtFallingSpeeds) {
  const Rope rope(8, {.theta = 10000});
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
  const Rope rope(64, {.theta = 500000});
  float cos[32], sin[32];
  rope.Fill(0, cos, sin);
  for (int i = 0; i < 32; ++i) {
    EXPECT_EQ(cos[i], 1.0f);
    EXPECT_EQ(sin[i], 0.0f);
  }
}

RopeConfig Llama31() {
  return {.theta = 500000,
          .scaling = RopeScaling::kLlama3,
          .factor = 8,
          .original_context = 8192,
          .low_frequency = 1,
          .high_frequency = 4};
}

TEST(Rope, LinearScalingDividesEveryFrequency) {
  const Rope plain(16, {.theta = 10000});
  const Rope scaled(16, {.theta = 10000, .scaling = RopeScaling::kLinear, .factor = 4});
  for (uint32_t i = 0; i < 8; ++i) {
    EXPECT_EQ(scaled.inverse_frequencies()[i], plain.inverse_frequencies()[i] / 4);
  }
}

TEST(Rope, Llama3KeepsShortWavesAndStretchesLongOnes) {
  const Rope plain(128, {.theta = 500000}), scaled(128, Llama31());
  int kept = 0, stretched = 0, blended = 0;
  for (uint32_t i = 0; i < 64; ++i) {
    const double f = double{plain.inverse_frequencies()[i]}, wave = 2 * M_PI / f;
    const double got = double{scaled.inverse_frequencies()[i]};
    if (wave < 8192 / 4.0) {
      ++kept;
      EXPECT_EQ(got, f);
    } else if (wave > 8192) {
      ++stretched;
      EXPECT_EQ(got, f / 8);
    } else {
      const double smooth = (8192 / wave - 1) / 3;
      ++blended;
      EXPECT_NEAR(got / ((1 - smooth) * f / 8 + smooth * f), 1, 1e-5);
    }
  }
  // Pairs 28.2 and 34.98 have waves of 2,048 and 8,192 positions.
  EXPECT_EQ(kept, 29);
  EXPECT_EQ(stretched, 29);
  EXPECT_EQ(blended, 6);
}

TEST(Rope, DivisorsStandForAScaling) {
  const Rope scaled(128, Llama31());
  const Rope plain(128, {.theta = 500000});
  RopeConfig divided = {.theta = 500000};
  for (uint32_t i = 0; i < 64; ++i) {
    divided.divisors.push_back(plain.inverse_frequencies()[i] / scaled.inverse_frequencies()[i]);
  }
  const Rope again(128, divided);
  for (uint32_t i = 0; i < 64; ++i) {
    EXPECT_NEAR(again.inverse_frequencies()[i] / scaled.inverse_frequencies()[i], 1, 1e-6);
  }
}

// Qwen2.5 with a factor of 4 over 32,768 positions: the pairs that make 32 turns and one turn there
// are 23.6 and 39.6.
TEST(Rope, YarnBlendsByTurnsAndEnlarges) {
  const RopeConfig config = {.theta = 1e6,
                             .scaling = RopeScaling::kYarn,
                             .factor = 4,
                             .original_context = 32768,
                             .attention_factor = YarnAttentionFactor(4)};
  const Rope plain(128, {.theta = 1e6}), scaled(128, config);
  for (uint32_t i = 0; i < 64; ++i) {
    const double ramp = std::clamp((i - 23.0) / (40.0 - 23.0), 0.0, 1.0);
    const double f = double{plain.inverse_frequencies()[i]};
    EXPECT_NEAR(double{scaled.inverse_frequencies()[i]} / (f * (1 - ramp) + f / 4 * ramp), 1, 1e-5)
        << i;
  }
  float cos[64], sin[64];
  scaled.Fill(0, cos, sin);
  EXPECT_NEAR(cos[0], 1.138629, 1e-6);
  EXPECT_EQ(sin[0], 0.0f);
}

// At position 8000 the rounding of the angle is a hundred times larger than that of the cosine: the
// angle has to be the product of the two floats, not the better one of doubles.
TEST(Rope, RoundsTheAngleBeforeItTakesTheCosine) {
  const Rope rope(64, {.theta = 100000});
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
