#include "format/quantize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "base/bytes.h"
#include "base/mapped_file.h"
#include "format/dequantize.h"

namespace kvasir {
namespace {

constexpr DType kSearched[] = {DType::kQ4_K, DType::kQ6_K};
constexpr DType kAll[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ4_0, DType::kQ4_1,
                          DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kQ4_K, DType::kQ6_K};

std::vector<uint8_t> Encoded(DType dtype, const std::vector<float>& values) {
  const DTypeInfo& info = Info(dtype);
  std::vector<uint8_t> blocks(values.size() / info.block * info.bytes, 0xcd);
  QuantizeRow(dtype, values.data(), blocks.data(), values.size());
  return blocks;
}

std::vector<float> Expanded(DType dtype, const std::vector<uint8_t>& blocks) {
  const DTypeInfo& info = Info(dtype);
  std::vector<float> values(blocks.size() / info.bytes * info.block);
  DequantizeRow(dtype, blocks.data(), values.data(), values.size());
  return values;
}

double SquaredError(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
  return sum;
}
double ErrorOf(DType dtype, const std::vector<float>& values) {
  return SquaredError(values, Expanded(dtype, Encoded(dtype, values)));
}

std::vector<float> Normal(size_t n, float scale, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(n);
  for (float& value : values) value = normal(rng);
  return values;
}

struct Golden {
  DType dtype = DType::kF32;
  std::vector<float> values;
  std::vector<uint8_t> blocks;
};

// tools/make_quantize_goldens.py states the format.
std::vector<Golden> ReadGoldens() {
  const MappedFile file(KVASIR_SOURCE_DIR "/src/format/testdata/quantize.bin");
  ByteReader reader(file.bytes(), file.path());
  std::vector<Golden> goldens;
  while (reader.remaining() > 0) {
    Golden& golden = goldens.emplace_back();
    const DTypeInfo* info = FindGgufType(reader.Read<uint32_t>("type"));
    CHECK(info != nullptr);
    golden.dtype = info->dtype;
    golden.values.resize(reader.Read<uint32_t>("elements"));
    for (float& value : golden.values) value = reader.Read<float>("value");
    const auto blocks = reader.Take(golden.values.size() / info->block * info->bytes, "blocks");
    golden.blocks.assign(blocks.begin(), blocks.end());
  }
  return goldens;
}

bool IsSearched(DType dtype) { return std::ranges::find(kSearched, dtype) != std::end(kSearched); }

TEST(Quantize, GivesTheUsualBytesOfPlainTypes) {
  std::set<DType> seen;
  for (const Golden& golden : ReadGoldens()) {
    if (IsSearched(golden.dtype)) continue;
    seen.insert(golden.dtype);
    const std::vector<uint8_t> ours = Encoded(golden.dtype, golden.values);
    const DTypeInfo& info = Info(golden.dtype);
    for (size_t i = 0; i < ours.size(); ++i) {
      ASSERT_EQ(ours[i], golden.blocks[i])
          << info.name << " block " << i / info.bytes << " byte " << i % info.bytes;
    }
  }
  EXPECT_EQ(seen.size(), 7u);
}

TEST(Quantize, SearchesAtLeastAsWellAsLlamaCpp) {
  size_t sets = 0;
  for (const Golden& golden : ReadGoldens()) {
    if (!IsSearched(golden.dtype)) continue;
    ++sets;
    const double theirs = SquaredError(golden.values, Expanded(golden.dtype, golden.blocks));
    EXPECT_LE(ErrorOf(golden.dtype, golden.values), theirs)
        << Info(golden.dtype).name << " set " << sets;
  }
  EXPECT_EQ(sets, 6u);
}

// One group of 32 in an otherwise empty block: d and m can make any scale and minimum.
TEST(Quantize, FindsWhatExhaustiveSearchFindsForAGroupOfQ4_K) {
  for (uint32_t seed = 0; seed < 6; ++seed) {
    std::vector<float> values = Normal(32, 0.5f, seed);
    if (seed >= 3) values[5] = 3.0f;  // ends that stick out
    const auto [low, high] = std::ranges::minmax(values);
    double best = std::numeric_limits<double>::max();
    for (int s = 1; s <= 240; ++s) {
      for (int n = 0; n <= 240; ++n) {
        const float scale = (high - low) / 15 * static_cast<float>(s) / 200;
        const float minimum = std::max(-low, 0.0f) * static_cast<float>(n) / 200;
        double error = 0;
        for (const float x : values) {
          const float q = std::clamp(std::round((x + minimum) / scale), 0.0f, 15.0f);
          error += std::pow(double{scale} * q - minimum - x, 2);
        }
        best = std::min(best, error);
      }
    }
    values.resize(256, 0.0f);
    EXPECT_LE(ErrorOf(DType::kQ4_K, values), 1.03 * best) << "seed " << seed;
  }
}

TEST(Quantize, FindsWhatExhaustiveSearchFindsForAGroupOfQ6_K) {
  for (uint32_t seed = 0; seed < 6; ++seed) {
    std::vector<float> values = Normal(16, 0.5f, seed);
    if (seed >= 3) values[5] = 3.0f;
    float largest = 0;
    for (const float x : values) largest = std::max(largest, std::fabs(x));
    double best = std::numeric_limits<double>::max();
    for (int s = -4000; s <= 4000; ++s) {
      if (s == 0) continue;
      const float scale = largest / 30 * static_cast<float>(s) / 4000;
      double error = 0;
      for (const float x : values) {
        const float q = std::clamp(std::round(x / scale), -32.0f, 31.0f);
        error += std::pow(double{scale} * q - x, 2);
      }
      best = std::min(best, error);
    }
    values.resize(256, 0.0f);
    EXPECT_LE(ErrorOf(DType::kQ6_K, values), 1.01 * best) << "seed " << seed;
  }
}

TEST(Quantize, KeepsZerosInEveryType) {
  for (const DType dtype : kAll) {
    std::vector<float> values(256, 0.0f);
    EXPECT_EQ(Expanded(dtype, Encoded(dtype, values)), values) << Info(dtype).name;
    std::ranges::fill(values, -0.0f);
    for (const float x : Expanded(dtype, Encoded(dtype, values))) EXPECT_EQ(x, 0.0f);
  }
}

// Half a step of the type, where steps are set by the largest value, and rounding of scales.
TEST(Quantize, StaysWithinTheStepOfItsType) {
  const std::pair<DType, float> kSteps[] = {{DType::kF32, 0},           {DType::kF16, 1 / 2048.0f},
                                            {DType::kBF16, 1 / 256.0f}, {DType::kQ8_0, 1 / 235.0f},
                                            {DType::kQ6_K, 1 / 50.0f},  {DType::kQ5_1, 1 / 31.0f},
                                            {DType::kQ5_0, 1 / 15.0f},  {DType::kQ4_1, 1 / 15.0f},
                                            {DType::kQ4_0, 1 / 7.0f},   {DType::kQ4_K, 1 / 12.0f}};
  for (const auto& [dtype, step] : kSteps) {
    for (const float scale : {0.02f, 1.0f, 500.0f}) {
      const std::vector<float> values = Normal(2048, scale, 5);
      const std::vector<float> again = Expanded(dtype, Encoded(dtype, values));
      for (size_t i = 0; i < values.size(); ++i) {
        float largest = 0;  // of the 256 that share scales, or fewer
        for (size_t j = i / 256 * 256; j < i / 256 * 256 + 256; ++j) {
          largest = std::max(largest, std::fabs(values[j]));
        }
        ASSERT_NEAR(again[i], values[i], 1.02f * step * largest) << Info(dtype).name << " " << i;
      }
    }
  }
}

TEST(Quantize, KeepsOneOutlierAndWhatLiesBesideItsGroup) {
  for (const DType dtype : kSearched) {
    std::vector<float> values = Normal(256, 0.01f, 9);
    values[40] = -6.0f;
    const std::vector<float> again = Expanded(dtype, Encoded(dtype, values));
    EXPECT_NEAR(again[40], -6.0f, 0.06f) << Info(dtype).name;
    double error = 0, squares = 0;
    for (size_t i = 64; i < 256; ++i) {
      error += std::pow(double{again[i]} - values[i], 2);
      squares += std::pow(double{values[i]}, 2);
    }
    // Whole-number scales of the other groups are small, but not 0.
    EXPECT_LT(error, 0.6 * squares) << Info(dtype).name;
  }
}

TEST(Quantize, KeepsTheSignAndScaleOfTinyValues) {
  for (const DType dtype : kSearched) {
    std::vector<float> values = Normal(256, 1e-6f, 11);  // scales are below f16's
    EXPECT_LT(ErrorOf(dtype, values), 0.3 * SquaredError(values, std::vector<float>(256)))
        << Info(dtype).name;
  }
}

TEST(Quantize, TakesDenormalsForZeros) {
  std::vector<float> values(256);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = std::numeric_limits<float>::denorm_min() * static_cast<float>(i % 7) - 1e-40f;
  }
  for (const DType dtype : kAll) {
    if (dtype == DType::kF32 || dtype == DType::kBF16) continue;
    for (const float x : Expanded(dtype, Encoded(dtype, values))) {
      ASSERT_LT(std::fabs(x), 1e-6f) << Info(dtype).name;
    }
  }
}

TEST(Quantize, GivesTheSameBytesForRowsTogetherAndApart) {
  const std::vector<float> values = Normal(1024, 0.02f, 13);
  for (const DType dtype : kAll) {
    const std::vector<uint8_t> whole = Encoded(dtype, values);
    std::vector<uint8_t> parts;
    for (size_t i = 0; i < 1024; i += 256) {
      const auto part = Encoded(dtype, {values.begin() + i, values.begin() + i + 256});
      parts.insert(parts.end(), part.begin(), part.end());
    }
    EXPECT_EQ(parts, whole) << Info(dtype).name;
  }
}

TEST(Quantize, SaysWhichValueDoesNotFit) {
  for (const DType dtype : kAll) {
    std::vector<float> values = Normal(4096, 0.02f, 17);
    EXPECT_EQ(FirstUnfit(dtype, values.data(), values.size()), values.size()) << Info(dtype).name;
    for (const float bad :
         {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
          std::numeric_limits<float>::quiet_NaN()}) {
      std::vector<float> broken = values;
      broken[3000] = broken[4000] = bad;
      EXPECT_EQ(FirstUnfit(dtype, broken.data(), broken.size()), 3000u) << Info(dtype).name;
    }
  }
}

// What FirstUnfit lets pass has finite values again.
TEST(Quantize, HoldsTheLargestValuesThatFit) {
  for (const DType dtype : kAll) {
    float largest = std::numeric_limits<float>::max();
    while (FirstUnfit(dtype, &largest, 1) == 0) largest *= 0.999f;
    std::vector<float> values = Normal(256, largest / 8, 19);
    for (float& x : values) x = std::clamp(x, -largest, largest);
    values[3] = largest;
    values[100] = -largest;
    for (const float x : Expanded(dtype, Encoded(dtype, values))) {
      ASSERT_TRUE(std::isfinite(x)) << Info(dtype).name << " " << largest;
    }
  }
}

TEST(QuantizeDeathTest, RefusesAPartOfABlockAndTypesWithoutAnEncoder) {
  const float values[256] = {};
  uint8_t block[256];
  EXPECT_DEATH(QuantizeRow(DType::kQ8_0, values, block, 31), "CHECK");
  EXPECT_FALSE(CanQuantizeTo(DType::kQ5_K));
  EXPECT_DEATH(QuantizeRow(DType::kQ5_K, values, block, 256), "no encoder");
}

}  // namespace
}  // namespace kvasir
