#include "format/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>

#include "format/test_files.h"

namespace kvasir {
namespace {

using test::Append;
using test::AppendString;
using test::Bytes;
using test::GgufBuilder;
using test::Refusal;
using test::RefusalOf;
using testing::AllOf;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;

constexpr uint32_t kArray = static_cast<uint32_t>(GgufType::kArray);

// A valid file with values of several types and two tensors.
GgufBuilder SmallFile() {
  GgufBuilder file;
  file.String("name", "small");
  file.Uint("count", 7);
  file.Float("real", 0.5f);
  file.Number("flag", GgufType::kBool, uint8_t{1});
  file.Number("negative", GgufType::kI8, int8_t{-3});
  const std::string words[] = {"a", "", "c\nd"};
  file.Strings("words", words);
  Bytes raw;
  Append(raw, GgufType::kI16);
  Append<uint64_t>(raw, 2);
  Append<int16_t>(raw, -300);
  Append<int16_t>(raw, 300);
  file.Raw("numbers", kArray, raw);
  file.tensors.push_back({.name = "vector", .type = 0, .shape = {3}, .data = Bytes(12, 1)});
  file.tensors.push_back({.name = "matrix", .type = 8, .shape = {64, 2}, .data = Bytes(136, 2)});
  return file;
}

Refusal Parsed(const Bytes& bytes) {
  return RefusalOf([&] { ParseGguf(bytes, "x.gguf"); });
}
auto Refuses(Code code, const std::string& word) {
  return AllOf(Field(&Refusal::code, code),
               Field(&Refusal::message,
                     AllOf(HasSubstr("x.gguf"), HasSubstr(word), testing::Not(HasSubstr("\n")))));
}

TEST(Gguf, ReadsValuesOfEveryKindAndPlacesTensors) {
  const Bytes bytes = SmallFile().Build();
  const Gguf file = ParseGguf(bytes, "x.gguf");
  EXPECT_EQ(file.version, 3u);
  EXPECT_EQ(file.metadata.String("name"), "small");
  EXPECT_EQ(file.metadata.Uint("count"), 7u);
  EXPECT_EQ(file.metadata.Float("real"), 0.5);
  EXPECT_TRUE(file.metadata.Bool("flag", false));
  EXPECT_THAT(*file.metadata.Strings("words"), ElementsAre("a", "", "c\nd"));
  EXPECT_THAT(file.metadata.Ints("numbers"), ElementsAre(-300, 300));
  EXPECT_EQ(std::get<int64_t>(*file.metadata.Find("negative")), -3);

  ASSERT_EQ(file.tensors.size(), 2u);
  EXPECT_EQ(file.tensors[0].name, "vector");
  EXPECT_THAT(file.tensors[0].shape, ElementsAre(3));
  EXPECT_EQ(file.tensors[0].bytes, 12u);
  EXPECT_EQ(bytes[file.tensors[0].offset], 1);
  EXPECT_EQ(file.tensors[1].dtype, DType::kQ8_0);
  EXPECT_EQ(file.tensors[1].bytes, 136u);
  EXPECT_EQ(bytes[file.tensors[1].offset], 2);
  EXPECT_EQ(file.tensors[1].offset + 136, bytes.size());
}

TEST(Gguf, ReadsVersionTwoAlike) {
  GgufBuilder file = SmallFile();
  file.version = 2;
  EXPECT_EQ(ParseGguf(file.Build(), "x").metadata.Uint("count"), 7u);
}

TEST(Gguf, HonoursTheStatedAlignment) {
  GgufBuilder file = SmallFile();
  file.alignment = 4096;
  file.Uint("general.alignment", 4096);
  const Bytes bytes = file.Build();
  EXPECT_EQ(ParseGguf(bytes, "x").tensors[1].offset % 4096, 0u);
}

TEST(Gguf, RefusesEveryTruncation) {
  const Bytes bytes = SmallFile().Build();
  for (size_t n = 0; n < bytes.size(); ++n) {
    // A copy of its own size, so that a sanitizer sees a read behind the end.
    const Bytes cut(bytes.begin(), bytes.begin() + n);
    EXPECT_EQ(Parsed(cut).code, Code::kCorrupt) << n << " bytes: " << Parsed(cut).message;
  }
}

TEST(Gguf, SurvivesEveryBitFlip) {
  Bytes bytes = SmallFile().Build();
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= 1 << bit % 8;
    try {
      for (const GgufTensor& tensor : ParseGguf(bytes, "x").tensors) {
        EXPECT_LE(tensor.bytes, bytes.size() - tensor.offset) << "bit " << bit;
      }
    } catch (const Error&) {
    }
    bytes[bit / 8] ^= 1 << bit % 8;
  }
}

struct Malformed {
  const char* name;
  std::function<void(GgufBuilder&)> spoil;
  Code code;
  const char* word;
};

Bytes ArrayHeader(uint32_t type, uint64_t count) {
  Bytes raw;
  Append(raw, type);
  Append(raw, count);
  return raw;
}

const Malformed kMalformed[] = {
    {"version 1", [](GgufBuilder& f) { f.version = 1; }, Code::kUnsupported, "versions 2 and 3"},
    {"version 4", [](GgufBuilder& f) { f.version = 4; }, Code::kUnsupported, "version 4"},
    {"big-endian", [](GgufBuilder& f) { f.version = 3 << 24; }, Code::kUnsupported, "big-endian"},
    {"endless tensors", [](GgufBuilder& f) { f.n_tensors = int64_t{1} << 60; }, Code::kCorrupt,
     "tensors"},
    {"endless key-values", [](GgufBuilder& f) { f.n_key_values = int64_t{1} << 60; },
     Code::kCorrupt, "key-values"},
    {"endless strings", [](GgufBuilder& f) { f.Raw("s", kArray, ArrayHeader(8, 1ull << 60)); },
     Code::kCorrupt, "elements of the key \"s\""},
    {"endless numbers", [](GgufBuilder& f) { f.Raw("n", kArray, ArrayHeader(10, 1ull << 61)); },
     Code::kCorrupt, "elements of the key \"n\""},
    {"endless bools", [](GgufBuilder& f) { f.Raw("b", kArray, ArrayHeader(7, 1ull << 62)); },
     Code::kCorrupt, "\"b\""},
    {"array of arrays", [](GgufBuilder& f) { f.Raw("a", kArray, ArrayHeader(9, 1)); },
     Code::kUnsupported, "array of arrays"},
    {"unknown value type", [](GgufBuilder& f) { f.Raw("u", 13, {0}); }, Code::kCorrupt, "type 13"},
    {"unknown element type", [](GgufBuilder& f) { f.Raw("u", kArray, ArrayHeader(77, 0)); },
     Code::kCorrupt, "type 77"},
    {"bool of 2", [](GgufBuilder& f) { f.Number("two", GgufType::kBool, uint8_t{2}); },
     Code::kCorrupt, "0 or 1"},
    {"endless string",
     [](GgufBuilder& f) {
       Bytes raw;
       Append(raw, std::numeric_limits<uint64_t>::max());
       f.Raw("s", 8, raw);
     },
     Code::kCorrupt, "\"s\""},
    {"repeated key", [](GgufBuilder& f) { f.Uint("count", 8); }, Code::kCorrupt, "twice"},
    {"empty key", [](GgufBuilder& f) { f.Uint("", 8); }, Code::kCorrupt, "key"},
    {"key of 64 KiB", [](GgufBuilder& f) { f.Uint(std::string(65536, 'k'), 8); }, Code::kCorrupt,
     "65535"},
    {"key with a line break", [](GgufBuilder& f) { f.Raw("a\nb", 99, {}); }, Code::kCorrupt,
     "a\\nb"},
    {"alignment 0", [](GgufBuilder& f) { f.Uint("general.alignment", 0); }, Code::kCorrupt,
     "power of two"},
    {"alignment 48", [](GgufBuilder& f) { f.Uint("general.alignment", 48); }, Code::kCorrupt,
     "power of two"},
    {"alignment 1 GiB", [](GgufBuilder& f) { f.Uint("general.alignment", 1 << 30); },
     Code::kCorrupt, "power of two"},
    {"text as alignment", [](GgufBuilder& f) { f.String("general.alignment", "32"); },
     Code::kCorrupt, "whole number"},
    {"empty name", [](GgufBuilder& f) { f.tensors[0].name = ""; }, Code::kCorrupt, "name"},
    {"name of 256 bytes", [](GgufBuilder& f) { f.tensors[0].name = std::string(256, 't'); },
     Code::kCorrupt, "255"},
    {"repeated name", [](GgufBuilder& f) { f.tensors[1].name = "vector"; }, Code::kCorrupt,
     "twice"},
    {"no dimension", [](GgufBuilder& f) { f.tensors[0].shape = {}; }, Code::kCorrupt,
     "0 dimensions"},
    {"five dimensions", [](GgufBuilder& f) { f.tensors[0].shape = {1, 1, 1, 1, 3}; },
     Code::kCorrupt, "5 dimensions"},
    {"a dimension of zero", [](GgufBuilder& f) { f.tensors[1].shape = {64, 0}; }, Code::kCorrupt,
     "zero"},
    {"a product beyond 64 bits",
     [](GgufBuilder& f) { f.tensors[0].shape = {1ull << 33, 1ull << 33}; }, Code::kCorrupt,
     "64 bits"},
    {"bytes beyond 64 bits", [](GgufBuilder& f) { f.tensors[0].shape = {1ull << 63}; },
     Code::kCorrupt, "64 bits"},
    {"a foreign tensor type", [](GgufBuilder& f) { f.tensors[1].type = 16; }, Code::kUnsupported,
     "\"matrix\" has the type IQ2_XXS; known types are F32 F16 BF16"},
    {"an unknown tensor type", [](GgufBuilder& f) { f.tensors[1].type = 99; }, Code::kUnsupported,
     "\"matrix\" has the type number 99; known types are F32 F16 BF16"},
    {"rows that end inside a block", [](GgufBuilder& f) { f.tensors[1].shape = {16, 8}; },
     Code::kCorrupt, "block"},
    {"unaligned data", [](GgufBuilder& f) { f.tensors[1].offset = 33; }, Code::kCorrupt,
     "alignment"},
    {"data behind the end", [](GgufBuilder& f) { f.tensors[1].offset = 64; }, Code::kCorrupt,
     "136 bytes at offset 64"},
    {"an offset near 2^63", [](GgufBuilder& f) { f.tensors[1].offset = INT64_MAX - 31; },
     Code::kCorrupt, "data section"},
    {"overlap", [](GgufBuilder& f) { f.tensors[1].offset = 0; }, Code::kCorrupt, "overlap"},
};

TEST(Gguf, RefusesWhatIsMalformedByName) {
  for (const Malformed& row : kMalformed) {
    GgufBuilder file = SmallFile();
    row.spoil(file);
    EXPECT_THAT(Parsed(file.Build()), Refuses(row.code, row.word)) << row.name;
  }
}

TEST(Gguf, RefusesAnotherKindOfFile) {
  const std::string_view text = "PK\x03\x04 something else";
  EXPECT_THAT(Parsed(Bytes(text.begin(), text.end())), Refuses(Code::kCorrupt, "GGUF"));
  EXPECT_THAT(Parsed({}), Refuses(Code::kCorrupt, "magic"));
}

TEST(Gguf, MetadataAloneNeedsNoKnownTensors) {
  GgufBuilder file = SmallFile();
  file.tensors[0].type = 39;
  EXPECT_EQ(ParseGgufMetadata(file.Build(), "x").Uint("count"), 7u);
}

TEST(Gguf, ReadsRealVocabularyFiles) {
  const char* data = std::getenv("KVASIR_TEST_DATA");
  if (data == nullptr) GTEST_SKIP() << "KVASIR_TEST_DATA is not set";
  const std::string folder = std::string(data) + "/tokenizers/ggml-vocab/ggml-vocab-";
  if (!std::filesystem::exists(folder + "gpt-2.gguf")) GTEST_SKIP() << folder << "* is absent";
  const struct {
    const char* name;
    const char* architecture;
    size_t n_tokens;
  } rows[] = {{"gpt-2", "gpt2", 50257}, {"llama-spm", "llama", 32000}, {"phi-3", "phi3", 32064}};
  for (const auto& row : rows) {
    const Metadata metadata = ReadGgufMetadata(folder + row.name + ".gguf");
    EXPECT_EQ(metadata.String("general.architecture"), row.architecture);
    EXPECT_EQ(metadata.Strings("tokenizer.ggml.tokens")->size(), row.n_tokens) << row.name;
    EXPECT_EQ(metadata.Ints("tokenizer.ggml.token_type").size(), row.n_tokens) << row.name;
  }
}

}  // namespace
}  // namespace kvasir
