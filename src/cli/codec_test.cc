#include "cli/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace kvasir {
namespace {

using testing::HasSubstr;

CodecPair Codecs(const std::vector<std::string_view>& flags, Codec otherwise = Codec::kF16) {
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
  EXPECT_EQ(Codecs({}), (CodecPair{Codec::kF16, Codec::kF16}));
  EXPECT_EQ(Codecs({}, Codec::kF32), (CodecPair{Codec::kF32, Codec::kF32}));
  EXPECT_EQ(Codecs({"--kv-codec", "q8:for=v"}, Codec::kF32), (CodecPair{Codec::kF32, Codec::kQ8}));
}

TEST(Codecs, AreNamedPerSideOrForBoth) {
  EXPECT_EQ(Codecs({"--kv-codec", "q8"}), (CodecPair{Codec::kQ8, Codec::kQ8}));
  EXPECT_EQ(Codecs({"--kv-codec", "bf16:for=k", "--kv-codec", "f32:for=v"}),
            (CodecPair{Codec::kBF16, Codec::kF32}));
  EXPECT_EQ(Codecs({"-ctk", "q8_0", "-ctv", "f16"}), (CodecPair{Codec::kQ8, Codec::kF16}));
  EXPECT_EQ(Codecs({"-ctk", "q8", "-ctv", "q4_0"}), (CodecPair{Codec::kQ8, Codec::kQ4}));
  EXPECT_EQ(Codecs({"--kv-cache-dtype", "f32"}), (CodecPair{Codec::kF32, Codec::kF32}));
}

TEST(Codecs, AreRefusedWithTheListWhenUnknown) {
  EXPECT_THAT(Refusal({"-ctk", "iq4_nl"}), HasSubstr("f32, f16, bf16, q8_0, q4_0"));
  EXPECT_THAT(Refusal({"--kv-codec", "q3"}), HasSubstr("f32, f16, bf16, q8, q4"));
  EXPECT_THAT(Refusal({"--kv-codec", "q8:fro=k"}), HasSubstr("for"));
  EXPECT_THAT(Refusal({"--kv-codec", "q8:for=q"}), HasSubstr("k|v"));
}

TEST(Codecs, AreRefusedWhenASideIsNamedTwice) {
  EXPECT_THAT(Refusal({"--kv-codec", "q8", "-ctk", "f16"}), HasSubstr("keys is given twice"));
}

TEST(Codecs, PrintAsOneNameOrAsTwo) {
  EXPECT_EQ(Name(CodecPair{Codec::kQ8, Codec::kQ8}), "q8");
  EXPECT_EQ(Name(CodecPair{Codec::kF16, Codec::kQ8}), "k=f16,v=q8");
}

}  // namespace
}  // namespace kvasir
