#include "cli/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace kvasir {
namespace {

using testing::HasSubstr;

Encoding Codecs(const std::vector<std::string_view>& flags, Codec otherwise = Codec::kF16) {
  return ParseCodecs(ParseArguments(AllVerbs()[0], flags), otherwise);
}

std::string Refusal(const std::vector<std::string_view>& flags) {
  try {
    Codecs(flags);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUsage);
    return error.what();
  }
  return "accepted";
}

TEST(Codecs, FollowTheDefaultWhereNothingIsSaid) {
  EXPECT_EQ(Codecs({}), (Encoding{Codec::kF16, Codec::kF16}));
  EXPECT_EQ(Codecs({}, Codec::kF32), (Encoding{Codec::kF32, Codec::kF32}));
  EXPECT_EQ(Codecs({"--kv-codec", "q8:for=v"}, Codec::kF32), (Encoding{Codec::kF32, Codec::kQ8}));
}

TEST(Codecs, AreNamedPerSideOrForBoth) {
  EXPECT_EQ(Codecs({"--kv-codec", "q8"}), (Encoding{Codec::kQ8, Codec::kQ8}));
  EXPECT_EQ(Codecs({"--kv-codec", "bf16:for=k", "--kv-codec", "f32:for=v"}),
            (Encoding{Codec::kBF16, Codec::kF32}));
  EXPECT_EQ(Codecs({"-ctk", "q8_0", "-ctv", "f16"}), (Encoding{Codec::kQ8, Codec::kF16}));
  EXPECT_EQ(Codecs({"-ctk", "q8", "-ctv", "q4_0"}), (Encoding{Codec::kQ8, Codec::kQ4}));
  EXPECT_EQ(Codecs({"--kv-cache-dtype", "f32"}), (Encoding{Codec::kF32, Codec::kF32}));
}

TEST(Codecs, AreRefusedWithTheListWhenUnknown) {
  EXPECT_THAT(Refusal({"-ctk", "iq4_nl"}), HasSubstr("f32, f16, bf16, q8_0, q4_0"));
  EXPECT_THAT(Refusal({"--kv-codec", "q3"}), HasSubstr("f32, f16, bf16, q8, q4, mustafar"));
  EXPECT_THAT(Refusal({"--kv-codec", "q8:fro=k"}), HasSubstr("for"));
  EXPECT_THAT(Refusal({"--kv-codec", "q8:for=q"}), HasSubstr("k|v"));
}

TEST(Codecs, AreRefusedWhenASideIsNamedTwice) {
  EXPECT_THAT(Refusal({"--kv-codec", "q8", "-ctk", "f16"}), HasSubstr("keys is given twice"));
}

Encoding Specs(const std::vector<std::string_view>& specs) {
  std::vector<std::string_view> flags;
  for (const std::string_view spec : specs) flags.insert(flags.end(), {"--kv-codec", spec});
  return Codecs(flags);
}

TEST(Mustafar, HasTheDefaultsOfThePaper) {
  const Encoding encoding = Specs({"mustafar"});
  const EncodingRule expected = {
      .codec = Codec::kSparseBF16, .recent = 32, .open = Codec::kBF16, .thousandths = 500};
  EXPECT_EQ(encoding.rules, std::vector<EncodingRule>{expected});
  EXPECT_EQ(encoding.seals, (SealRule{.recent = 32}));
  EXPECT_EQ(Specs({"bitmap-sparse:sparsity=0.5"}), encoding);
}

TEST(Mustafar, TakesPlanesAndLayersApart) {
  const Encoding encoding =
      Specs({"mustafar:for=k,type=i8,keep=33,recent=64", "q4:for=v,recent=64,layers=2-5",
             "mustafar:sparsity=0.7,for=v,recent=64,type=f16,layers=6"});
  const std::vector<EncodingRule> expected = {
      {.values = false, .codec = Codec::kSparseI8, .recent = 64, .open = Codec::kBF16, .keep = 33},
      {.keys = false, .first_layer = 2, .last_layer = 5, .codec = Codec::kQ4, .recent = 64},
      {.keys = false,
       .first_layer = 6,
       .last_layer = 6,
       .codec = Codec::kSparseF16,
       .recent = 64,
       .thousandths = 700}};
  EXPECT_EQ(encoding.rules, expected);
  EXPECT_EQ(encoding.v, Codec::kF16);
}

TEST(Mustafar, CountsThousandthsInIntegers) {
  EXPECT_EQ(Specs({"mustafar:sparsity=0.7"}).rules[0].thousandths, 700);
  EXPECT_EQ(Specs({"mustafar:sparsity=0.625"}).rules[0].thousandths, 625);
  EXPECT_EQ(Specs({"mustafar:sparsity=0.95"}).rules[0].thousandths, 950);
  EXPECT_EQ(KeptChannels(80, 700), 24);  // 26 in floating point
  for (const char* text : {"0.5x", "1", "0.1234", ".5", "0.", "5e-1", "-0.5"}) {
    EXPECT_THAT(Refusal({"--kv-codec", fmt::format("mustafar:sparsity={}", text)}),
                HasSubstr("up to three decimals"))
        << text;
  }
  for (const char* text : {"0.951", "0.099", "0.0"}) {
    EXPECT_THAT(Refusal({"--kv-codec", fmt::format("mustafar:sparsity={}", text)}),
                HasSubstr("from 0.100 to 0.950"))
        << text;
  }
}

TEST(Mustafar, IsExactOnlyBehindADensePrompt) {
  const Encoding encoding = Specs({"mustafar:mode=exact,keep=65"});
  EXPECT_TRUE(encoding.seals.by_row && encoding.seals.at_prompt_end);
  EXPECT_THAT(Refusal({"--kv-codec", "mustafar:mode=exact,type=i8"}), HasSubstr("type=bf16"));
  EXPECT_THAT(Refusal({"--kv-codec", "mustafar:mode=exact,when=stream"}), HasSubstr("when=stream"));
  EXPECT_TRUE(Specs({"q8:recent=32,when=prompt"}).seals.at_prompt_end);
}

TEST(Mustafar, RefusesWithTheOptionTheReasonAndARemedy) {
  const auto refusal = [](std::string_view spec) { return Refusal({"--kv-codec", spec}); };
  EXPECT_THAT(refusal("mustafar:recent=48"), HasSubstr("recent=48: a multiple of 32, such as 32"));
  EXPECT_THAT(refusal("mustafar:recent=31"), HasSubstr("recent"));
  EXPECT_THAT(refusal("mustafar:keep=0"), HasSubstr("keep"));
  EXPECT_THAT(refusal("mustafar:keep=20,sparsity=0.5"), HasSubstr("exclude each other"));
  EXPECT_THAT(refusal("mustafar:sparsty=0.5"), HasSubstr("sparsity"));
  EXPECT_THAT(refusal("mustafar:score=query,for=v"), HasSubstr("score=query weighs keys"));
  EXPECT_THAT(refusal("mustafar:score=query,mode=exact"), HasSubstr("give mode=page"));
  EXPECT_THAT(refusal("mustafar:type=q8"), HasSubstr("bf16|f16|i8"));
  EXPECT_THAT(refusal("mustafar:layers=5-2"), HasSubstr("layers=\"5-2\": one layer or a range"));
  EXPECT_THAT(refusal("mustafar:layers=a"), HasSubstr("a range A-B"));
  EXPECT_THAT(refusal("q8:when=prompt"), HasSubstr("needs a window: recent=32"));
  EXPECT_THAT(refusal("q8:sparsity=0.5"), HasSubstr("sparsity"));
  EXPECT_THAT(Refusal({"--kv-codec", "mustafar", "--kv-codec", "q8:for=v"}),
              HasSubstr("the values is given twice"));
  EXPECT_THAT(
      Refusal({"--kv-codec", "mustafar:layers=0-4", "--kv-codec", "mustafar:layers=4-9,keep=9"}),
      HasSubstr("tell them apart by for= or layers="));
  EXPECT_THAT(Refusal({"--kv-codec", "mustafar:for=k", "--kv-codec", "q4:for=v,recent=64"}),
              HasSubstr("the same for all"));
  EXPECT_THAT(Refusal({"-ctk", "mustafar"}), HasSubstr("f32, f16, bf16, q8_0, q4_0"));
}

TEST(Mustafar, PrintsWhatItWasAskedFor) {
  const auto name = [](const std::vector<std::string_view>& specs) { return Name(Specs(specs)); };
  EXPECT_EQ(name({"mustafar"}), "mustafar:sparsity=0.5,type=bf16,recent=32");
  EXPECT_EQ(name({"mustafar:keep=40,type=i8,when=prompt"}),
            "mustafar:keep=40,type=i8,recent=32,when=prompt");
  EXPECT_EQ(name({"mustafar:sparsity=0.75,mode=exact,recent=64"}),
            "mustafar:sparsity=0.75,type=bf16,recent=64,mode=exact");
  EXPECT_EQ(name({"mustafar:for=k", "q4:for=v,recent=32"}),
            "k=mustafar:sparsity=0.5,type=bf16,recent=32,v=q4:recent=32");
  EXPECT_EQ(name({"mustafar:score=query"}),
            "mustafar:sparsity=0.5,type=bf16,score=query,recent=32");
  EXPECT_EQ(name({"mustafar:layers=2-5"}),
            "f16+mustafar:sparsity=0.5,type=bf16,recent=32,layers=2-5");
  EXPECT_EQ(name({"q8:layers=0-3"}), "f16+q8:layers=0-3");
}

TEST(Codecs, PrintAsOneNameOrAsTwo) {
  EXPECT_EQ(Name(Encoding{Codec::kQ8, Codec::kQ8}), "q8");
  EXPECT_EQ(Name(Encoding{Codec::kF16, Codec::kQ8}), "k=f16,v=q8");
}

}  // namespace
}  // namespace kvasir
