#include "format/gguf_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <limits>

#include "base/mapped_file.h"
#include "base/temp_folder.h"
#include "format/test_files.h"

namespace kvasir {
namespace {

namespace fs = std::filesystem;
using test::RefusalOf;
using testing::HasSubstr;

// Writes again what `bytes` hold; returns the new file's bytes.
std::string Rewritten(std::span<const uint8_t> bytes) {
  const test::TempFolder folder;
  const std::string path = folder.path() + "/again.gguf";
  const Gguf file = ParseGguf(bytes, "first");
  std::vector<GgufTensorPlan> plans;
  for (const GgufTensor& tensor : file.tensors) {
    plans.push_back({tensor.name, tensor.shape, tensor.dtype});
  }
  GgufWriter writer(path, file.metadata, plans);
  for (const GgufTensor& tensor : file.tensors) {
    const auto data = bytes.subspan(tensor.offset, tensor.bytes);
    writer.Write(data.first(data.size() / 3));
    writer.Write(data.subspan(data.size() / 3));
  }
  EXPECT_FALSE(fs::exists(path));
  writer.Finish();
  const MappedFile again(path);
  return {again.bytes().begin(), again.bytes().end()};
}

std::span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

Metadata EveryType() {
  Metadata metadata("made");
  metadata.Set("general.architecture", std::string("none"), GgufType::kString);
  metadata.Set("z", uint64_t{255}, GgufType::kU8);
  metadata.Set("a", int64_t{-128}, GgufType::kI8);
  metadata.Set("u16", uint64_t{65535}, GgufType::kU16);
  metadata.Set("i16", int64_t{-32768}, GgufType::kI16);
  metadata.Set("u32", uint64_t{4294967295}, GgufType::kU32);
  metadata.Set("i32", int64_t{-2147483648}, GgufType::kI32);
  metadata.Set("f32", double{0.1f}, GgufType::kF32);
  metadata.Set("f64", 0.1, GgufType::kF64);
  metadata.Set("u64", std::numeric_limits<uint64_t>::max(), GgufType::kU64);
  metadata.Set("i64", std::numeric_limits<int64_t>::min(), GgufType::kI64);
  metadata.Set("bool", true, GgufType::kBool);
  metadata.Set("flags", MetadataArray{std::vector<bool>{true, false}}, GgufType::kBool);
  metadata.Set("bytes", MetadataArray{std::vector<uint64_t>{1, 2, 255}}, GgufType::kU8);
  metadata.Set("none", MetadataArray{std::vector<int64_t>{}}, GgufType::kI16);
  metadata.Set("reals", MetadataArray{std::vector<double>{1, -2.5}}, GgufType::kF32);
  metadata.Set("words", MetadataArray{std::vector<std::string>{"", "two", std::string("\0", 1)}},
               GgufType::kString);
  return metadata;
}

TEST(GgufWriter, KeepsEveryTypeAndTheOrderOfKeys) {
  const Metadata metadata = EveryType();
  const std::string first = GgufHeader(metadata, {});
  const Metadata again = ParseGgufMetadata(Bytes(first), "again");
  ASSERT_EQ(again.all().size(), metadata.all().size());
  for (const auto& [key, entry] : metadata.all()) {
    const MetadataEntry& read = again.all().at(key);
    EXPECT_EQ(read.type, entry.type) << key;
    EXPECT_EQ(read.place, entry.place) << key;
    EXPECT_EQ(read.value.index(), entry.value.index()) << key;
  }
  EXPECT_EQ(again.Uint("u64"), std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(std::get<int64_t>(*again.Find("i64")), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(again.Float("f64"), 0.1);
  EXPECT_EQ(again.Strings("words")->at(2), std::string("\0", 1));
  EXPECT_EQ(GgufHeader(again, {}), first);
}

TEST(GgufWriter, WritesTensorsThatAreReadAlike) {
  for (const uint32_t alignment : {8u, 32u, 4096u}) {
    test::GgufBuilder file;
    file.alignment = alignment;
    file.Uint("general.alignment", alignment);
    for (int i = 0; i < kDTypes; ++i) {
      const DTypeInfo& info = Info(static_cast<DType>(i));
      const uint64_t cols = info.block == 1 ? 3 : info.block;
      test::Bytes data(cols / info.block * info.bytes * 3, static_cast<uint8_t>(i + 1));
      file.tensors.push_back({.name = std::string(info.name),
                              .type = info.gguf_id,
                              .shape = {cols, 3},
                              .data = std::move(data)});
    }
    const test::Bytes first = file.Build();
    const std::string again = Rewritten(first);
    const Gguf a = ParseGguf(first, "a"), b = ParseGguf(Bytes(again), "b");
    EXPECT_EQ(b.alignment, alignment);
    ASSERT_EQ(b.tensors.size(), a.tensors.size());
    for (size_t i = 0; i < a.tensors.size(); ++i) {
      EXPECT_EQ(b.tensors[i].name, a.tensors[i].name);
      EXPECT_EQ(b.tensors[i].shape, a.tensors[i].shape);
      EXPECT_EQ(b.tensors[i].dtype, a.tensors[i].dtype);
      EXPECT_EQ(b.tensors[i].offset, a.tensors[i].offset);
      EXPECT_EQ(again.substr(b.tensors[i].offset, b.tensors[i].bytes),
                std::string(first.begin() + static_cast<ptrdiff_t>(a.tensors[i].offset),
                            first.begin() +
                                static_cast<ptrdiff_t>(a.tensors[i].offset + a.tensors[i].bytes)));
    }
    EXPECT_EQ(Rewritten(Bytes(again)), again);
  }
}

TEST(GgufWriter, LeavesNothingBehindWhenItIsNotFinished) {
  const test::TempFolder folder;
  {
    GgufWriter writer(folder.path() + "/x.gguf", Metadata(), {{"t", {4}, DType::kF32}});
    writer.Write(test::Bytes(8));
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(GgufWriter, RefusesWhatTheFormatCannotHold) {
  const auto refusal = [](std::vector<GgufTensorPlan> plans) {
    return RefusalOf([&] { GgufHeader(Metadata(), plans); }).message;
  };
  EXPECT_THAT(refusal({{"", {4}, DType::kF32}}), HasSubstr("name"));
  EXPECT_THAT(refusal({{std::string(256, 'x'), {4}, DType::kF32}}), HasSubstr("255"));
  EXPECT_THAT(refusal({{"t", {}, DType::kF32}}), HasSubstr("dimensions"));
  EXPECT_THAT(refusal({{"t", {1, 2, 3, 4, 5}, DType::kF32}}), HasSubstr("1 x 2 x 3 x 4 x 5"));
  EXPECT_THAT(refusal({{"t", {4, 0}, DType::kF32}}), HasSubstr("above 0"));
  EXPECT_THAT(refusal({{"t", {33}, DType::kQ8_0}}), HasSubstr("multiple of 32"));
  EXPECT_THAT(refusal({{"t", {1ull << 62, 8}, DType::kF32}}), HasSubstr("64 bits"));
  EXPECT_THAT(refusal({{"t", {4}, DType::kF32}, {"t", {4}, DType::kF32}}), HasSubstr("twice"));
  Metadata metadata("m");
  metadata.Set("general.alignment", uint64_t{48}, GgufType::kU32);
  EXPECT_THAT(RefusalOf([&] { GgufHeader(metadata, {}); }).message, HasSubstr("power of two"));
  Metadata empty_key;
  empty_key.Set("", true);
  EXPECT_THAT(RefusalOf([&] { GgufHeader(empty_key, {}); }).message, HasSubstr("key"));
}

TEST(GgufWriter, WritesRealFilesAgainByteForByte) {
  const char* data = std::getenv("KVASIR_TEST_DATA");
  if (data == nullptr) GTEST_SKIP() << "KVASIR_TEST_DATA is not set";
  std::vector<std::string> paths = {std::string(data) + "/models/stories260K/stories260K.gguf"};
  const std::string folder = std::string(data) + "/tokenizers/ggml-vocab";
  for (const char* name : {"gpt-2", "llama-spm", "phi-3"}) {
    paths.push_back(folder + "/ggml-vocab-" + name + ".gguf");
  }
  for (const std::string& path : paths) {
    if (!fs::exists(path)) GTEST_SKIP() << path << " is absent";
    const MappedFile file(path);
    std::string again = Rewritten(file.bytes());
    // Writers differ in whether they pad a file without tensors.
    again.resize(file.bytes().size());
    again[4] = static_cast<char>(file.bytes()[4]);  // the version: 2 is laid out as 3
    EXPECT_TRUE(std::equal(again.begin(), again.end(), file.bytes().begin(), [](char a, uint8_t b) {
      return static_cast<uint8_t>(a) == b;
    })) << path;
  }
}

}  // namespace
}  // namespace kvasir
