#include "text/pretokenizer.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "text/test_support.h"

namespace kvasir {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Pieces(const PreTokenizer& rule, std::string_view text) {
  std::vector<std::string> pieces;
  rule.Split(text, [&](std::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

TEST(PreTokenizerTest, CutsAsThePackageTokenizersDoes) {
  const auto goldens = ReadGoldens("tokenizer_goldens.json");
  for (const std::string name : {"gpt-2", "smollm", "qwen2", "llama3", "tekken"}) {
    const PreTokenizer rule(name);
    for (size_t i = 0; i < goldens["texts"].size(); ++i) {
      const auto text = goldens["texts"][i].get<std::string>();
      const auto expected = goldens["piece_bytes"][name][i].get<std::vector<size_t>>();
      std::vector<size_t> sizes;
      std::string joined;
      for (const std::string& piece : Pieces(rule, text)) {
        sizes.push_back(piece.size());
        joined += piece;
      }
      EXPECT_EQ(sizes, expected) << name << ": " << text;
      EXPECT_EQ(joined, text);
    }
  }
}

TEST(PreTokenizerTest, KeepsSpacesBeforeADigitTogetherInSmollm) {
  EXPECT_THAT(Pieces(PreTokenizer("smollm"), "a  12 b"), ElementsAre("a", "  ", "1", "2", " b"));
  EXPECT_THAT(Pieces(PreTokenizer("gpt-2"), "a  12 b"), ElementsAre("a", " ", " 12", " b"));
}

TEST(PreTokenizerTest, GivesBrokenBytesPiecesOfTheirOwn) {
  EXPECT_THAT(Pieces(PreTokenizer("gpt-2"), "ab\xFF\xC3 cd\xE4\xBD"),
              ElementsAre("ab", "\xFF", "\xC3", " cd", "\xE4", "\xBD"));
}

TEST(PreTokenizerTest, NamesTheKnownRulesWhenItRefusesOne) {
  try {
    PreTokenizer("gpt-5");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUnsupported);
    EXPECT_THAT(error.what(), HasSubstr("gpt-5"));
    EXPECT_THAT(error.what(), HasSubstr("smollm"));
  }
}

TEST(PreTokenizerTest, ReadsLongRunsOfAnythingWithoutALimit) {
  for (const std::string name : {"gpt-2", "smollm", "qwen2", "llama3", "tekken"}) {
    const PreTokenizer rule(name);
    for (const std::string unit :
         {"a", " ", "\n", " \n", "!", "1", "\u3000", "\u0436", "'", "\xFF"}) {
      std::string text;
      while (text.size() < 1'000'000) text += unit;
      for (const std::string end : {"", "x", "\n"}) {
        size_t bytes = 0;
        rule.Split(text + end, [&](std::string_view piece) { bytes += piece.size(); });
        EXPECT_EQ(bytes, text.size() + end.size()) << name << " " << unit;
      }
    }
  }
}

}  // namespace
}  // namespace kvasir
