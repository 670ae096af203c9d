#include "format/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "format/test_files.h"

namespace kvasir {
namespace {

using test::Bytes;
using test::RefusalOf;
using test::SafetensorsFile;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kHeader =
    R"({"__metadata__": {"format": "pt"},)"
    R"( "b": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [8, 20]},)"
    R"( "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},)"
    R"( "c": {"dtype": "F16", "shape": [], "data_offsets": [20, 22]},)"
    R"( "e": {"dtype": "F16", "shape": [0, 4], "data_offsets": [20, 20]}}   )";

TEST(Safetensors, ReadsTensorsByOffsetAndMetadata) {
  const Bytes bytes = SafetensorsFile(kHeader, Bytes(22));
  const Safetensors file = ParseSafetensors(bytes, "x");
  EXPECT_EQ(file.metadata.at("format"), "pt");
  ASSERT_EQ(file.tensors.size(), 4u);
  EXPECT_EQ(file.tensors[0].name, "a");
  EXPECT_EQ(file.tensors[1].name, "b");
  EXPECT_EQ(file.tensors[1].dtype, DType::kBF16);
  EXPECT_THAT(file.tensors[1].shape, ElementsAre(2, 3));
  EXPECT_EQ(file.tensors[1].offset, bytes.size() - 14);
  EXPECT_EQ(file.tensors[1].bytes, 12u);
  EXPECT_EQ(file.tensors[2].name, "e");
  EXPECT_THAT(file.tensors[3].shape, ElementsAre());
}

TEST(Safetensors, RefusesEveryTruncationAndAnExtraByte) {
  Bytes bytes = SafetensorsFile(kHeader, Bytes(22));
  for (size_t n = 0; n < bytes.size(); ++n) {
    const Bytes cut(bytes.begin(), bytes.begin() + n);
    EXPECT_EQ(RefusalOf([&] { ParseSafetensors(cut, "x"); }).code, Code::kCorrupt) << n;
  }
  bytes.push_back(0);
  EXPECT_EQ(RefusalOf([&] { ParseSafetensors(bytes, "x"); }).code, Code::kCorrupt);
}

TEST(Safetensors, SurvivesEveryBitFlip) {
  Bytes bytes = SafetensorsFile(kHeader, Bytes(22));
  for (size_t bit = 0; bit < (bytes.size() - 22) * 8; ++bit) {
    bytes[bit / 8] ^= 1 << bit % 8;
    try {
      for (const SafeTensor& tensor : ParseSafetensors(bytes, "x").tensors) {
        EXPECT_LE(tensor.bytes, bytes.size() - tensor.offset) << "bit " << bit;
      }
    } catch (const Error&) {
    }
    bytes[bit / 8] ^= 1 << bit % 8;
  }
}

TEST(Safetensors, RefusesWhatIsMalformedByName) {
  const struct {
    std::string header;
    Code code;
    const char* word;
  } rows[] = {
      {"[]", Code::kCorrupt, "no JSON object"},
      {R"({"a": 1})", Code::kCorrupt, "\"a\" is not described"},
      {R"({"a": {"shape": [2], "data_offsets": [0, 8]}})", Code::kCorrupt, "dtype"},
      {R"({"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}})", Code::kUnsupported,
       "\"a\": type \"F8_E4M3\"; F32, F16 and BF16"},
      {R"({"a": {"dtype": "F32", "data_offsets": [0, 8]}})", Code::kCorrupt, "shape"},
      {R"({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}})", Code::kCorrupt,
       "whole numbers"},
      {R"({"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}})", Code::kCorrupt,
       "whole numbers"},
      {R"({"a": {"dtype": "F32", "shape": [1,1,1,1,1,1,1,1,2], "data_offsets": [0, 8]}})",
       Code::kCorrupt, "up to 8"},
      {R"({"a": {"dtype": "F32", "shape": [2]}})", Code::kCorrupt, "data_offsets"},
      {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8]}})", Code::kCorrupt,
       "data_offsets"},
      {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}})", Code::kCorrupt,
       "ascending"},
      {R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})", Code::kCorrupt,
       "inside 8 bytes"},
      {R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}})", Code::kCorrupt,
       "needs 12 bytes"},
      {R"({"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 8]}})",
       Code::kCorrupt, "64 bits"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}})", Code::kCorrupt,
       "begins at byte 4"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})", Code::kCorrupt,
       "8 bytes of data"},
      {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},)"
       R"( "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}})",
       Code::kCorrupt, "\"b\" begins at byte 4"},
      {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},)"
       R"( "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})",
       Code::kCorrupt, "twice"},
      {R"({"__metadata__": {"k": 1}})", Code::kCorrupt, "\"k\""},
      {R"({"__metadata__": []})", Code::kCorrupt, "__metadata__"},
  };
  for (const auto& row : rows) {
    const test::Refusal refusal = RefusalOf([&] {
      const Bytes bytes = SafetensorsFile(row.header, Bytes(8));
      ParseSafetensors(bytes, "x.safetensors");
    });
    EXPECT_EQ(refusal.code, row.code) << row.header;
    EXPECT_THAT(refusal.message, testing::AllOf(HasSubstr("x.safetensors"), HasSubstr(row.word)));
  }
}

TEST(Safetensors, RefusesAHeaderLengthThatIsNotThere) {
  for (const uint64_t length : {uint64_t{9}, kMaxSafetensorsHeader + 1, ~uint64_t{0}}) {
    Bytes bytes;
    test::Append(bytes, length);
    test::AppendBytes(bytes, "{}");
    EXPECT_EQ(RefusalOf([&] { ParseSafetensors(bytes, "x"); }).code, Code::kCorrupt) << length;
  }
}

}  // namespace
}  // namespace kvasir
