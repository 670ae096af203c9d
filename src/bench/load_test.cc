#include "bench/load.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace kvasir::bench {
namespace {

struct Moments {
  double mean = 0, deviation = 0;
};

Moments Of(const std::vector<double>& values) {
  Moments m;
  for (const double v : values) m.mean += v / static_cast<double>(values.size());
  for (const double v : values) m.deviation += (v - m.mean) * (v - m.mean);
  m.deviation = std::sqrt(m.deviation / static_cast<double>(values.size()));
  return m;
}

std::vector<double> Gaps(const std::vector<double>& times) {
  std::vector<double> gaps;
  for (size_t i = 1; i < times.size(); ++i) gaps.push_back(times[i] - times[i - 1]);
  return gaps;
}

TEST(ArrivalTimes, AreAllZeroWithoutARate) {
  for (const double time : ArrivalTimes(50, 0, 1, Random(1))) EXPECT_EQ(time, 0);
  EXPECT_TRUE(ArrivalTimes(0, 5, 1, Random(1)).empty());
}

TEST(ArrivalTimes, AscendAndEndWhereTheRateSays) {
  const std::vector<double> times = ArrivalTimes(200, 4, 1, Random(7));
  EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
  EXPECT_GT(times.front(), 0);
  EXPECT_NEAR(times.back(), 50, 1e-9);
}

TEST(ArrivalTimes, AreThoseOfTheSeed) {
  EXPECT_EQ(ArrivalTimes(20, 3, 1, Random(5)), ArrivalTimes(20, 3, 1, Random(5)));
  EXPECT_NE(ArrivalTimes(20, 3, 1, Random(5)), ArrivalTimes(20, 3, 1, Random(6)));
  EXPECT_NE(ArrivalTimes(20, 3, 1, Random(5)), ArrivalTimes(20, 3, 1, Random(5, 1)));
}

// Gaps of shape b have the relative deviation 1 / sqrt(b).
TEST(ArrivalTimes, SpreadAsTheBurstinessSays) {
  for (const double burstiness : {0.25, 1.0, 4.0}) {
    const Moments m = Of(Gaps(ArrivalTimes(40000, 10, burstiness, Random(3))));
    EXPECT_NEAR(m.mean, 0.1, 0.002) << burstiness;
    EXPECT_NEAR(m.deviation / m.mean, 1 / std::sqrt(burstiness), 0.05 / std::sqrt(burstiness))
        << burstiness;
  }
}

std::vector<double> Lengths(LengthShape shape, uint32_t mean) {
  Random random(11);
  std::vector<double> lengths;
  for (int i = 0; i < 40000; ++i) lengths.push_back(DrawLength(shape, mean, random));
  return lengths;
}

TEST(DrawLength, KeepsTheMean) {
  for (const LengthShape shape : {LengthShape::kFixed, LengthShape::kUniform}) {
    EXPECT_NEAR(Of(Lengths(shape, 400)).mean, 400, 4);
  }
  // The cut at ten times the mean takes a little away.
  EXPECT_NEAR(Of(Lengths(LengthShape::kLogNormal, 400)).mean, 396, 8);
}

TEST(DrawLength, StaysInTheBoundsOfItsShape) {
  const std::vector<double> uniform = Lengths(LengthShape::kUniform, 400);
  EXPECT_EQ(*std::min_element(uniform.begin(), uniform.end()), 200);
  EXPECT_EQ(*std::max_element(uniform.begin(), uniform.end()), 600);
  std::vector<double> tailed = Lengths(LengthShape::kLogNormal, 400);
  std::sort(tailed.begin(), tailed.end());
  EXPECT_NEAR(tailed[tailed.size() / 2], 400 * std::exp(-0.5),
              6);  // the median lies below the mean
  EXPECT_GT(tailed.back(), 3000);
  EXPECT_LE(tailed.back(), 4000);
  for (const double length : Lengths(LengthShape::kLogNormal, 1)) EXPECT_GE(length, 1);
}

}  // namespace
}  // namespace kvasir::bench
