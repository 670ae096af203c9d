#include "base/bytes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace kvasir {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<uint8_t> kBytes = {0x01, 0x02, 0x03, 0x04, 0x00, 0x00, 0x80, 0x3f, 0xff};

TEST(ByteReader, ReadsLittleEndianValuesInOrder) {
  ByteReader reader(kBytes, "file");
  EXPECT_EQ(reader.Read<uint32_t>("id"), 0x04030201u);
  EXPECT_EQ(reader.offset(), 4u);
  EXPECT_EQ(reader.Read<float>("scale"), 1.0f);
  EXPECT_EQ(reader.remaining(), 1u);
  EXPECT_THAT(reader.Take(1, "tail"), ElementsAre(0xff));
  EXPECT_EQ(reader.remaining(), 0u);
}

TEST(ByteReader, TakesNothingAtTheEnd) {
  ByteReader reader({}, "file");
  EXPECT_TRUE(reader.Take(0, "nothing").empty());
}

TEST(ByteReader, RefusesToReadPastTheEndAndStaysWhereItWas) {
  ByteReader reader(kBytes, "model.gguf");
  reader.Take(6, "head");
  for (const uint64_t n : {uint64_t{4}, UINT64_MAX}) {
    try {
      reader.Take(n, "tensor count");
      ADD_FAILURE() << n;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kCorrupt);
      EXPECT_THAT(error.what(), AllOf(HasSubstr("model.gguf"), HasSubstr("tensor count"),
                                      HasSubstr("byte 6"), HasSubstr("3 left")));
    }
  }
  EXPECT_THROW(reader.Read<uint32_t>("id"), Error);
  EXPECT_EQ(reader.offset(), 6u);
}

}  // namespace
}  // namespace kvasir
