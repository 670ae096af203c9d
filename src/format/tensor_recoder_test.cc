#include "format/tensor_recoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <numeric>

#include "base/mapped_file.h"
#include "base/temp_folder.h"
#include "format/dequantize.h"
#include "format/quantize.h"
#include "format/test_files.h"

namespace kvasir {
namespace {

using testing::HasSubstr;

std::vector<float> Values(uint64_t n) {
  return test::RandomValues({.name = "values", .dims = {n}}, 3);
}

SourceTensor Tensor(const std::vector<float>& values, std::vector<uint64_t> shape) {
  return {.name = "t.weight",
          .shape = std::move(shape),
          .data = reinterpret_cast<const uint8_t*>(values.data())};
}

// The bytes that a file with this one tensor has of it.
test::Bytes Written(const SourceTensor& source, DType to, size_t threads,
                    uint64_t* bytes_read = nullptr) {
  const test::TempFolder folder;
  const std::string path = folder.path() + "/out.gguf";
  const Metadata metadata("made");
  GgufWriter writer(path, metadata, {{source.name, source.shape, to}});
  Workers workers(threads);
  TensorRecoder recoder(workers, writer, [&](uint64_t bytes) {
    if (bytes_read != nullptr) *bytes_read += bytes;
  });
  recoder.Write(source, to);
  writer.Finish();
  const MappedFile file(path);
  const Gguf gguf = ParseGguf(file.bytes(), path);
  const auto data = file.bytes().subspan(gguf.tensors[0].offset, gguf.tensors[0].bytes);
  return {data.begin(), data.end()};
}

// More rows than one round of tasks takes, and a remainder.
TEST(TensorRecoder, EncodesEveryRowWhateverTheThreads) {
  const std::vector<float> values = Values(uint64_t{256} * 9001);
  const SourceTensor source = Tensor(values, {256, 9001});
  test::Bytes expected(values.size() / 32 * 34);
  QuantizeRow(DType::kQ8_0, values.data(), expected.data(), values.size());
  uint64_t bytes_read = 0;
  EXPECT_EQ(Written(source, DType::kQ8_0, 1, &bytes_read), expected);
  EXPECT_EQ(bytes_read, values.size() * sizeof(float));
  EXPECT_EQ(Written(source, DType::kQ8_0, 3), expected);
}

TEST(TensorRecoder, CopiesWhatHasTheTypeAlready) {
  // No value at all: bytes that encoding would change.
  test::Bytes blocks(34 * 4, 0xff);
  SourceTensor source{.name = "t.weight", .shape = {64, 2}, .dtype = DType::kQ8_0};
  source.data = blocks.data();
  EXPECT_EQ(Written(source, DType::kQ8_0, 2), blocks);
}

TEST(TensorRecoder, ReadsThreeDimensionsAsRows) {
  const std::vector<float> values = Values(32 * 3 * 2);
  EXPECT_EQ(Written(Tensor(values, {32, 3, 2}), DType::kF32, 1), test::ToBytes(values));
}

TEST(TensorRecoder, MakesNeighboursOfChannelsThatTurnTogether) {
  std::vector<float> rows(12);
  std::iota(rows.begin(), rows.end(), 0.0f);
  SourceTensor matrix = Tensor(rows, {1, 12});  // two heads of six
  matrix.pairing_heads = 2;
  const std::vector<float> expected = {0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11};
  EXPECT_EQ(Written(matrix, DType::kF32, 1), test::ToBytes(expected));
  SourceTensor bias = Tensor(rows, {12});
  bias.pairing_heads = 2;
  EXPECT_EQ(Written(bias, DType::kF32, 2), test::ToBytes(expected));
}

TEST(TensorRecoder, NamesTheValueThatDoesNotFit) {
  std::vector<float> values = Values(64 * 8);
  values[64 * 5 + 7] = std::numeric_limits<float>::quiet_NaN();
  const auto refusal = test::RefusalOf([&] { Written(Tensor(values, {64, 8}), DType::kQ4_0, 2); });
  EXPECT_EQ(refusal.code, Code::kInvalid);
  EXPECT_THAT(refusal.message, HasSubstr("\"t.weight\": row 5, column 7 is nan"));
  values[64 * 5 + 7] = 1e6f;
  EXPECT_THAT(test::RefusalOf([&] { Written(Tensor(values, {64, 8}), DType::kF16, 1); }).message,
              HasSubstr("smaller magnitudes"));
}

}  // namespace
}  // namespace kvasir
