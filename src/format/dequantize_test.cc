#include "format/dequantize.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/mapped_file.h"

namespace kvasir {
namespace {

struct Golden {
  const DTypeInfo* info;
  uint32_t n;
  const uint8_t* blocks;
  std::vector<float> values;
};

// tools/make_dequant_goldens.py states the format.
std::vector<Golden> ReadGoldens(const MappedFile& file) {
  ByteReader reader(file.bytes(), file.path());
  std::vector<Golden> goldens;
  while (reader.remaining() > 0) {
    Golden golden{.info = FindGgufType(reader.Read<uint32_t>("type"))};
    CHECK(golden.info != nullptr);
    golden.n = reader.Read<uint32_t>("elements");
    golden.blocks = reader.Take(golden.n / golden.info->block * golden.info->bytes, "b").data();
    for (uint32_t i = 0; i < golden.n; ++i) golden.values.push_back(reader.Read<float>("value"));
    goldens.push_back(std::move(golden));
  }
  return goldens;
}

TEST(Dequantize, EqualsTheReferenceExpansionBitForBit) {
  const MappedFile file(KVASIR_SOURCE_DIR "/src/format/testdata/dequantize.bin");
  std::set<DType> seen;
  for (const Golden& golden : ReadGoldens(file)) {
    seen.insert(golden.info->dtype);
    std::vector<float> ours(golden.n, -7.0f);
    DequantizeRow(golden.info->dtype, golden.blocks, ours.data(), golden.n);
    for (uint32_t i = 0; i < golden.n; ++i) {
      if (std::isnan(golden.values[i])) {
        EXPECT_TRUE(std::isnan(ours[i])) << golden.info->name << " element " << i;
      } else {
        EXPECT_EQ(std::bit_cast<uint32_t>(ours[i]), std::bit_cast<uint32_t>(golden.values[i]))
            << golden.info->name << " element " << i << ": " << ours[i] << " for "
            << golden.values[i];
      }
    }
  }
  EXPECT_EQ(seen.size(), static_cast<size_t>(kDTypes)) << "a type has no golden";
}

TEST(Dequantize, WritesNothingForNoElements) {
  float untouched = 5.0f;
  DequantizeRow(DType::kQ4_K, nullptr, &untouched, 0);
  EXPECT_EQ(untouched, 5.0f);
}

TEST(DequantizeDeathTest, RefusesAPartOfABlock) {
  const uint8_t block[34] = {};
  float out[32];
  EXPECT_DEATH(DequantizeRow(DType::kQ8_0, block, out, 31), "CHECK");
}

}  // namespace
}  // namespace kvasir
