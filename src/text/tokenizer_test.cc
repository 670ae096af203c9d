#include "text/tokenizer.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <random>

#include "base/error.h"
#include "text/test_support.h"

namespace kvasir {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kSpace[] = "\u2581";

TEST(TokenizerTest, MatchesThePackageTokenizersOnSmollm2) {
  const std::string model = ModelPath("smollm2-135m-instruct-q4_1.gguf");
  if (model.empty()) GTEST_SKIP() << "the model smollm2 is not there";
  const auto tokenizer = TokenizerOf(model);
  const auto goldens = ReadGoldens("tokenizer_goldens.json");
  for (size_t i = 0; i < goldens["texts"].size(); ++i) {
    const auto text = goldens["texts"][i].get<std::string>();
    EXPECT_EQ(tokenizer->Encode(text, false), Ids(goldens["smollm2_ids"][i])) << text;
  }
  EXPECT_EQ(tokenizer->name(), "gpt2/smollm");
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->eos(), 2);
  EXPECT_FALSE(tokenizer->add_bos());
  EXPECT_THAT(tokenizer->ends(), ElementsAre(0, 2));
  EXPECT_THAT(tokenizer->Encode("<|im_start|>a<|im_end|>", true), ElementsAre(1, 81, 2));
  EXPECT_THAT(tokenizer->chat_template(), HasSubstr("<|im_start|>"));
}

TEST(TokenizerTest, MatchesThePackageTokenizersOnASmallVocabulary) {
  const auto goldens = ReadGoldens("tokenizer_goldens.json");
  for (const std::string pre : {"gpt-2", "smollm", "qwen2", "llama3", "tekken"}) {
    const auto tokenizer = Tokenizer::FromGguf(TinyBpeMetadata(goldens, pre));
    for (size_t i = 0; i < goldens["texts"].size(); ++i) {
      const auto text = goldens["texts"][i].get<std::string>();
      const std::vector<TokenId> ids = tokenizer->Encode(text, false);
      EXPECT_EQ(ids, Ids(goldens["tiny"]["ids"][pre][i])) << pre << ": " << text;
      EXPECT_EQ(tokenizer->Decode(ids), text);
    }
  }
}

TEST(TokenizerTest, KeepsBrokenBytesThroughARoundTrip) {
  const auto goldens = ReadGoldens("tokenizer_goldens.json");
  const auto tokenizer = Tokenizer::FromGguf(TinyBpeMetadata(goldens, "qwen2"));
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (size_t i = 0; i < 200; ++i) {
      // Lead bytes, continuation bytes and ASCII in equal parts: many characters begun, few ended.
      const uint32_t kind = random() % 3;
      text += static_cast<char>(kind == 0   ? 0xC0 + random() % 0x40
                                : kind == 1 ? 0x80 + random() % 0x40
                                            : random() % 0x80);
    }
    ASSERT_EQ(tokenizer->Decode(tokenizer->Encode(text, false)), text) << round;
  }
}

// Merging by the definition: the best pair of the whole sequence, again and again.
std::vector<std::string> MergeSlowly(std::string_view word,
                                     const std::vector<std::string>& merges) {
  std::vector<std::string> parts;
  for (const char c : word) parts.emplace_back(1, c);
  while (true) {
    size_t best = merges.size(), best_at = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = std::ranges::find(merges, parts[i] + " " + parts[i + 1]);
      const auto rank = static_cast<size_t>(found - merges.begin());
      if (rank < best) {
        best = rank;
        best_at = i;
      }
    }
    if (best == merges.size()) return parts;
    parts[best_at] += parts[best_at + 1];
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(best_at) + 1);
  }
}

TEST(ByteBpeTest, MergesAsTheDefinitionSays) {
  const std::vector<std::string> merges = {"a b", "b a", "ab a", "a a", "aa aa", "ba ab", "ab ab"};
  std::vector<TestToken> tokens = {{"a"}, {"b"}};
  for (const std::string& merge : merges) {
    const size_t space = merge.find(' ');
    tokens.push_back({merge.substr(0, space) + merge.substr(space + 1)});
  }
  Metadata metadata = VocabularyMetadata("gpt2", tokens);
  metadata.Set("tokenizer.ggml.pre", std::string("gpt-2"));
  metadata.Set("tokenizer.ggml.merges", MetadataArray{merges});
  const auto tokenizer = Tokenizer::FromGguf(metadata);
  for (uint32_t bits = 0; bits < 1 << 12; ++bits) {
    std::string word;
    for (int i = 0; i < 12; ++i) word += (bits >> i & 1) != 0 ? 'a' : 'b';
    std::vector<std::string> parts;
    for (const TokenId id : tokenizer->Encode(word, false)) {
      parts.push_back(tokenizer->Piece(id, false));
    }
    ASSERT_EQ(parts, MergeSlowly(word, merges)) << word;
  }
}

TEST(ByteBpeTest, DropsBytesThatHaveNoToken) {
  Metadata metadata = VocabularyMetadata("gpt2", {{"a"}, {"b"}, {"ab"}});
  metadata.Set("tokenizer.ggml.pre", std::string("gpt-2"));
  metadata.Set("tokenizer.ggml.merges", MetadataArray{std::vector<std::string>{"a b"}});
  const auto tokenizer = Tokenizer::FromGguf(metadata);
  EXPECT_THAT(tokenizer->Encode("abcb", false), ElementsAre(2, 1));
  EXPECT_THAT(tokenizer->Encode("\xFF", false), IsEmpty());
}

TEST(ByteBpeTest, EncodesAMegabyteOfOneLetterAndOfSpaces) {
  const auto goldens = ReadGoldens("tokenizer_goldens.json");
  for (const std::string pre : {"gpt-2", "smollm", "qwen2", "llama3", "tekken"}) {
    const auto tokenizer = Tokenizer::FromGguf(TinyBpeMetadata(goldens, pre));
    for (const char c : {'a', ' '}) {
      const std::string text(1 << 20, c);
      EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text, false)), text);
    }
  }
}

TEST(ByteBpeTest, EncodesAUnitBeyondItsLimitInParts) {
  const auto goldens = ReadGoldens("tokenizer_goldens.json");
  const auto tokenizer = Tokenizer::FromGguf(TinyBpeMetadata(goldens, "gpt-2"));
  const std::string text((1 << 22) + 5, 'z');
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text, false)), text);
}

TEST(ByteBpeTest, RefusesTablesThatContradictEachOther) {
  const auto refusal = [](std::vector<std::string> merges, size_t n_types) {
    Metadata metadata;
    metadata.Set("tokenizer.ggml.model", std::string("gpt2"));
    metadata.Set("tokenizer.ggml.pre", std::string("gpt-2"));
    metadata.Set("tokenizer.ggml.tokens", MetadataArray{std::vector<std::string>{"a", "b", "ab"}});
    metadata.Set("tokenizer.ggml.token_type", MetadataArray{std::vector<int64_t>(n_types, 1)});
    metadata.Set("tokenizer.ggml.merges", MetadataArray{std::move(merges)});
    try {
      Tokenizer::FromGguf(metadata);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kCorrupt);
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(refusal({"a b"}, 3), "accepted");
  EXPECT_THAT(refusal({"a b"}, 2), HasSubstr("2 types for 3 tokens"));
  EXPECT_THAT(refusal({"ab"}, 3), HasSubstr("two tokens"));
  EXPECT_THAT(refusal({""}, 3), HasSubstr("two tokens"));
  EXPECT_THAT(refusal({"a c"}, 3), HasSubstr("missing"));
  EXPECT_THAT(refusal({"b a"}, 3), HasSubstr("missing"));
}

TEST(TokenizerTest, NamesTheKnownModelsWhenItRefusesOne) {
  try {
    Tokenizer::FromGguf(VocabularyMetadata("bert", {{"a"}}));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUnsupported);
    EXPECT_THAT(error.what(), HasSubstr("bert"));
    EXPECT_THAT(error.what(), HasSubstr("gpt2, llama"));
  }
}

TEST(TokenizerTest, RefusesSpecialIdsOutsideTheVocabulary) {
  Metadata metadata = VocabularyMetadata("llama", {{"a"}});
  metadata.Set("tokenizer.ggml.eos_token_id", uint64_t{1});
  EXPECT_THROW(Tokenizer::FromGguf(metadata), Error);
}

std::vector<TestToken> SmallSentencePieceTokens() {
  std::vector<TestToken> tokens = {{"<unk>", 2}, {"<s>", 3}, {"</s>", 3}};
  constexpr char kHex[] = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back({std::string("<0x") + kHex[byte / 16] + kHex[byte % 16] + ">", 6});
  }
  return tokens;  // 259 of them
}

TEST(SentencePieceTest, MergesByScoreAndFallsBackToBytes) {
  std::vector<TestToken> tokens = SmallSentencePieceTokens();
  for (const TestToken& token : std::vector<TestToken>{{kSpace, 1, -9},
                                                       {"a", 1, -10},
                                                       {"b", 1, -11},
                                                       {"ab", 1, -2},
                                                       {"ba", 1, -1},
                                                       {std::string(kSpace) + "a", 1, -3}}) {
    tokens.push_back(token);
  }
  Metadata metadata = VocabularyMetadata("llama", tokens);
  metadata.Set("tokenizer.ggml.bos_token_id", uint64_t{1});
  metadata.Set("tokenizer.ggml.eos_token_id", uint64_t{2});
  const auto tokenizer = Tokenizer::FromGguf(metadata);
  const TokenId space = 259, a = 260, b = 261, ab = 262, ba = 263, space_a = 264;
  // "ba" has the better score than "ab"; the space that the rule adds goes with the first "a".
  EXPECT_THAT(tokenizer->Encode("aba", false), ElementsAre(space_a, ba));
  EXPECT_THAT(tokenizer->Encode("abab", false, false), ElementsAre(a, ba, b));
  EXPECT_THAT(tokenizer->Encode("ab", false, false), ElementsAre(ab));
  EXPECT_THAT(tokenizer->Encode("a\u00e9", false, false), ElementsAre(a, 3 + 0xC3, 3 + 0xA9));
  EXPECT_THAT(tokenizer->Encode("  a", false), ElementsAre(space, space, space_a));
  EXPECT_THAT(tokenizer->Encode("", false), IsEmpty());
  EXPECT_TRUE(tokenizer->add_bos());
  EXPECT_EQ(tokenizer->name(), "llama");
}

TEST(SentencePieceTest, NeverMakesSpecialOrByteTokensOutOfText) {
  std::vector<TestToken> tokens = SmallSentencePieceTokens();
  for (const char* text : {"<", "s", ">", "<s", "0", "x", "4", "1", "<0", "<0x", "<0x4", "<0x41"}) {
    tokens.push_back({text, 1, -1});
  }
  Metadata metadata = VocabularyMetadata("llama", tokens);
  metadata.Set("tokenizer.ggml.add_space_prefix", false);
  const auto tokenizer = Tokenizer::FromGguf(metadata);
  EXPECT_THAT(tokenizer->Encode("<s>", false), ElementsAre(262, 261));
  EXPECT_THAT(tokenizer->Encode("<s>", true), ElementsAre(1));
  EXPECT_THAT(tokenizer->Encode("<0x41>", true), ElementsAre(270, 261));
}

TEST(SentencePieceTest, DropsThePrefixSpaceOnlyAtTheStart) {
  std::vector<TestToken> tokens = SmallSentencePieceTokens();
  tokens.push_back({std::string(kSpace) + "a", 1, -1});  // 259
  Metadata metadata = VocabularyMetadata("llama", tokens);
  metadata.Set("tokenizer.ggml.bos_token_id", uint64_t{1});
  const auto tokenizer = Tokenizer::FromGguf(metadata);
  const std::vector<TokenId> plain = {259, 259}, with_bos = {1, 259, 259}, late_bos = {259, 1, 259};
  EXPECT_EQ(tokenizer->Decode(plain), " a a");
  EXPECT_EQ(tokenizer->Decode(plain, false, true), "a a");
  EXPECT_EQ(tokenizer->Decode(with_bos), "a a");
  EXPECT_EQ(tokenizer->Decode(with_bos, true), "<s>a a");
  EXPECT_EQ(tokenizer->Decode(late_bos), " a a");
  EXPECT_EQ(tokenizer->Decode({}), "");
}

TEST(SentencePieceTest, KeepsBrokenBytesAndLongRuns) {
  std::vector<TestToken> tokens = SmallSentencePieceTokens();
  for (const char* text : {"a", "aa", "aaaa"}) tokens.push_back({text, 1, -1});
  tokens.push_back({kSpace, 1, -2});
  tokens.push_back({std::string(kSpace) + kSpace, 1, -1});
  const auto tokenizer = Tokenizer::FromGguf(VocabularyMetadata("llama", tokens));
  for (const std::string& text :
       {std::string(1 << 20, 'a'), std::string(1 << 20, ' '), std::string("\xFF\xC3\xA9\xE4 a\x80"),
        std::string((1 << 22) + 5, 'a')}) {
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text, false), false, true), text);
  }
}

TEST(SentencePieceTest, GivesTheSameIdsWordByWordAsInOneStretch) {
  std::vector<TestToken> tokens = SmallSentencePieceTokens();
  const std::string space = kSpace;
  for (const std::string& text : {space, space + space, space + "a", std::string("a"),
                                  std::string("b"), std::string("ab"), space + "ab"}) {
    tokens.push_back({text, 1, -static_cast<double>(tokens.size() % 4)});
  }
  const auto by_words = Tokenizer::FromGguf(VocabularyMetadata("llama", tokens));
  // One token with a space inside, out of reach of these texts, makes it take texts whole.
  tokens.push_back({"z" + space + "z", 1, -100});
  const auto whole = Tokenizer::FromGguf(VocabularyMetadata("llama", tokens));
  std::mt19937 random(3);
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (int i = 0; i < 30; ++i) text += " ab"[random() % 3];
    ASSERT_EQ(by_words->Encode(text, false), whole->Encode(text, false)) << text;
  }
}

class SpecialTokensTest : public ::testing::Test {
 protected:
  SpecialTokensTest() {
    Metadata metadata = TinyBpeMetadata(goldens_, "qwen2",
                                        {{"<|im_end|>", 3},
                                         {"<|im_end|>x", 3},
                                         {"<tool>", 4},
                                         {"<pad>", 5},
                                         {"<|eot_id|>", 3},
                                         {"<bos>", 3}});
    metadata.Set("tokenizer.ggml.eos_token_id", static_cast<uint64_t>(first_ + 5));
    metadata.Set("tokenizer.ggml.bos_token_id", static_cast<uint64_t>(first_ + 5));
    tokenizer_ = Tokenizer::FromGguf(metadata);
  }
  const nlohmann::ordered_json goldens_ = ReadGoldens("tokenizer_goldens.json");
  const TokenId first_ = static_cast<TokenId>(goldens_["tiny"]["tokens"].size());
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(SpecialTokensTest, MatchesControlTokensOnlyWhenAsked) {
  EXPECT_THAT(tokenizer_->Encode("<|im_end|>", true), ElementsAre(first_));
  const std::vector<TokenId> plain = tokenizer_->Encode("<|im_end|>", false);
  EXPECT_GT(plain.size(), 1u);
  EXPECT_EQ(tokenizer_->Decode(plain), "<|im_end|>");
  EXPECT_GT(tokenizer_->Encode("<pad>", true).size(), 1u);
}

TEST_F(SpecialTokensTest, MatchesUserDefinedTokensAlways) {
  EXPECT_THAT(tokenizer_->Encode("<tool><tool>", false), ElementsAre(first_ + 2, first_ + 2));
  EXPECT_EQ(tokenizer_->Piece(first_ + 2, false), "<tool>");
}

TEST_F(SpecialTokensTest, PrefersTheLongestMatch) {
  EXPECT_THAT(tokenizer_->Encode("<|im_end|>x<|im_end|>", true), ElementsAre(first_ + 1, first_));
}

TEST_F(SpecialTokensTest, ShowsControlTokensOnlyWhenAsked) {
  EXPECT_EQ(tokenizer_->Piece(first_, false), "");
  EXPECT_EQ(tokenizer_->Piece(first_, true), "<|im_end|>");
  EXPECT_TRUE(tokenizer_->IsControl(first_));
  EXPECT_FALSE(tokenizer_->IsControl(first_ + 2));
  EXPECT_FALSE(tokenizer_->IsControl(-1));
  EXPECT_FALSE(tokenizer_->IsControl(first_ + 6));
  EXPECT_THROW(tokenizer_->Piece(first_ + 6, true), Error);
  EXPECT_THROW(tokenizer_->Piece(-1, true), Error);
}

TEST_F(SpecialTokensTest, KnowsWhatEndsAGeneration) {
  EXPECT_THAT(tokenizer_->ends(), ElementsAre(first_, first_ + 4, first_ + 5));
  EXPECT_TRUE(tokenizer_->IsEnd(first_ + 4));
  EXPECT_FALSE(tokenizer_->IsEnd(first_ + 1));
  EXPECT_FALSE(tokenizer_->IsEnd(kNoToken));
}

// One token for each byte, in the order of the bytes.
std::unique_ptr<Tokenizer> ByteTokens() {
  std::vector<TestToken> tokens = SmallSentencePieceTokens();
  return Tokenizer::FromGguf(VocabularyMetadata("llama", tokens));
}

TEST(StreamDecoderTest, HoldsBackCharactersUntilTheyAreWhole) {
  const auto tokenizer = ByteTokens();
  StreamDecoder decoder(*tokenizer);
  std::vector<std::string> parts;
  for (const char c : std::string("a\u00e9\U0001F600!")) {
    parts.push_back(decoder.Push(3 + static_cast<uint8_t>(c)));
  }
  EXPECT_THAT(parts, ElementsAre("a", "", "\u00e9", "", "", "", "\U0001F600", "!"));
  EXPECT_EQ(decoder.text(), "a\u00e9\U0001F600!");
}

TEST(StreamDecoderTest, PassesOverIdsWithoutText) {
  const auto tokenizer = ByteTokens();
  StreamDecoder decoder(*tokenizer);
  EXPECT_EQ(decoder.Push(3 + 'a'), "a");
  EXPECT_EQ(decoder.Push(static_cast<TokenId>(tokenizer->vocab_size())), "");
  EXPECT_EQ(decoder.Push(-1), "");
  EXPECT_EQ(decoder.Push(3 + 'b'), "b");
}

TEST(StreamDecoderTest, GivesUpOnBytesThatCanNoLongerBecomeACharacter) {
  const auto tokenizer = ByteTokens();
  StreamDecoder decoder(*tokenizer);
  std::vector<std::string> parts;
  for (const uint8_t byte : {0xFF, 0xE4, 0xBD, 0x41, 0xE0, 0x80, 0xC3, 0xC3, 0xA9}) {
    parts.push_back(decoder.Push(3 + byte));
  }
  EXPECT_THAT(parts, ElementsAre("\xFF", "", "",
                                 "\xE4\xBD"
                                 "A",
                                 "", "\xE0\x80", "", "\xC3", "\u00e9"));
}

TEST(StreamDecoderTest, EqualsDecodeOfTheWholeList) {
  std::vector<TestToken> tokens = SmallSentencePieceTokens();
  tokens.push_back({std::string(kSpace) + "a", 1, -1});
  Metadata metadata = VocabularyMetadata("llama", tokens);
  metadata.Set("tokenizer.ggml.bos_token_id", uint64_t{1});
  const auto tokenizer = Tokenizer::FromGguf(metadata);
  for (const std::vector<TokenId>& ids : std::vector<std::vector<TokenId>>{
           {259, 259}, {1, 259}, {1, 1, 259}, {2, 259}, {259, 1, 259}, {1}, {}}) {
    for (const bool at_start : {false, true}) {
      StreamDecoder decoder(*tokenizer, at_start);
      for (const TokenId id : ids) decoder.Push(id);
      EXPECT_EQ(decoder.text(), tokenizer->Decode(ids, false, at_start));
    }
  }
}

}  // namespace
}  // namespace kvasir
