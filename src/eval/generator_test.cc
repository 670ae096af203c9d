#include "eval/generator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

namespace kvasir {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Lt;
using ::testing::MatchesRegex;

TEST(SplitMix64, GivesThePublishedNumbers) {
  SplitMix64 numbers(0);
  EXPECT_EQ(numbers.Next(), 0xe220a8397b1dcdafu);
  EXPECT_EQ(numbers.Next(), 0x6e789e6aa1b965f4u);
  EXPECT_EQ(numbers.Next(), 0x06c45d188009454fu);
  EXPECT_EQ(numbers.Next(), 0xf88bb8a8724c81ecu);
}

TEST(Generator, GivesThePublishedNumbers) {
  Generator generator(0);
  EXPECT_EQ(generator.Next(), 0x99ec5f36cb75f2b4u);
  EXPECT_EQ(generator.Next(), 0xbf6e1f784956452au);
  EXPECT_EQ(generator.Next(), 0x1a5f849d4933e6e0u);
}

// Of 2^64 numbers, n = 3 * 2^62 takes three quarters; a draw that is not rejected must be uniform.
TEST(Generator, DrawsUniformlyBelowBoundsThatDivideNothing) {
  Generator generator(1);
  const uint64_t bound = uint64_t{3} << 62;
  size_t low = 0;
  for (size_t i = 0; i < 30000; ++i) low += generator.Below(bound) < bound / 3 ? 1 : 0;
  EXPECT_NEAR(static_cast<double>(low), 10000, 400);  // without rejection: 15000
  std::map<uint64_t, size_t> faces;
  for (size_t i = 0; i < 60000; ++i) ++faces[generator.Below(6)];
  ASSERT_EQ(faces.size(), 6u);
  for (const auto& [face, times] : faces) EXPECT_NEAR(static_cast<double>(times), 10000, 400);
}

TEST(Generator, ShufflesUniformly) {
  Generator generator(2);
  std::map<std::vector<int>, size_t> orders;
  for (size_t i = 0; i < 24000; ++i) {
    std::vector<int> items = {1, 2, 3, 4};
    generator.Shuffle(items);
    ++orders[items];
  }
  ASSERT_EQ(orders.size(), 24u);
  for (const auto& [order, times] : orders) EXPECT_NEAR(static_cast<double>(times), 1000, 160);
}

TEST(Generator, DrawsDistinctNumbersInRandomOrder) {
  Generator generator(3);
  std::map<std::vector<uint64_t>, size_t> pairs;
  for (size_t i = 0; i < 12000; ++i) ++pairs[generator.Distinct(2, 4)];
  ASSERT_EQ(pairs.size(), 12u);  // ordered pairs of different numbers
  for (const auto& [pair, times] : pairs) EXPECT_NEAR(static_cast<double>(times), 1000, 160);
  const std::vector<uint64_t> all = generator.Distinct(50, 50);
  EXPECT_EQ(std::set<uint64_t>(all.begin(), all.end()).size(), 50u);
  EXPECT_THAT(all, Each(Lt(50u)));
  EXPECT_THAT(generator.Ascending(4, 4), ElementsAre(0, 1, 2, 3));
}

TEST(Generator, MakesUuidsOfVersionFour) {
  Generator generator(4);
  std::set<std::string> uuids;
  for (size_t i = 0; i < 1000; ++i) {
    const std::string uuid = generator.Uuid();
    ASSERT_THAT(uuid, MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-"
                                   "[0-9a-f]{12}"));
    uuids.insert(uuid);
  }
  EXPECT_EQ(uuids.size(), 1000u);
}

TEST(SampleSeed, EveryFieldAndItsPlaceCount) {
  std::set<uint64_t> seeds = {
      SampleSeed("ruler", "vt", 1, 4096, 0, 1), SampleSeed("ruler", "vt", 2, 4096, 0, 1),
      SampleSeed("trace", "vt", 1, 4096, 0, 1), SampleSeed("ruler", "vt", 1, 0, 4096, 1),
      SampleSeed("ruler", "vt", 1, 4096, 1, 0), SampleSeed("ruler", "vt", 1, 4096, 1, 1),
      SampleSeed("ruler", "vt", 1, 8192, 0, 1), SampleSeed("ruler", "cwe", 1, 4096, 0, 1)};
  EXPECT_EQ(seeds.size(), 8u);
}

}  // namespace
}  // namespace kvasir
