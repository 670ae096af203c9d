#include "bench/prompts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"

namespace kvasir::bench {
namespace {

using testing::HasSubstr;

std::vector<std::string> Split(const std::string& text) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : text + " ") {
    if (c != ' ') {
      word += c;
    } else if (!word.empty()) {
      words.push_back(std::move(word));
      word.clear();
    }
  }
  return words;
}

// A tokenizer that cuts every word into pieces of three characters.
size_t Thirds(const std::string& text) {
  size_t tokens = 0;
  for (const std::string& word : Split(text)) tokens += (word.size() + 2) / 3;
  return tokens;
}

size_t CommonPrefix(const std::string& a, const std::string& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                             a.begin());
}

TEST(PromptWords, AreManyAndDifferent) {
  const std::vector<std::string_view> words = PromptWords();
  EXPECT_GT(words.size(), 400u);
  EXPECT_EQ(std::set(words.begin(), words.end()).size(), words.size());
}

TEST(MakePrompts, TakesAWordForATokenWhenNobodyCounts) {
  PromptOptions options{.conversations = 5, .input_tokens = 30, .output_tokens = 7};
  const std::vector<Conversation> made = MakePrompts(options, {}, {});
  ASSERT_EQ(made.size(), 5u);
  for (const Conversation& c : made) {
    ASSERT_EQ(c.turns.size(), 1u);
    EXPECT_EQ(Split(c.turns[0].text).size(), 30u);
    EXPECT_EQ(c.turns[0].input_tokens, 30u);
    EXPECT_EQ(c.turns[0].max_tokens, 7u);
  }
}

TEST(MakePrompts, MeetsTheWantedLengthsInTheServersTokens) {
  PromptOptions options{.conversations = 40,
                        .input_tokens = 100,
                        .shape = LengthShape::kLogNormal,
                        .prefix_tokens = 150,
                        .prefixes = 3};
  Random lengths(options.seed, 1);
  double off = 0, wanted = 0;
  size_t calls = 0;
  const auto count = [&](const std::string& text) {
    ++calls;
    return Thirds(text);
  };
  for (const Conversation& c : MakePrompts(options, count, {})) {
    EXPECT_EQ(c.turns[0].input_tokens, Thirds(c.turns[0].text));
    const double want = 150 + DrawLength(options.shape, 100, lengths);
    DrawLength(options.shape, options.output_tokens, lengths);
    wanted += want;
    off += std::abs(want - static_cast<double>(c.turns[0].input_tokens));
  }
  EXPECT_LT(off, wanted * 0.01);
  EXPECT_LT(calls, 40u * 8);
}

TEST(MakePrompts, SharesThePrefixOfAGroupAndNothingElse) {
  PromptOptions options{
      .conversations = 12, .input_tokens = 20, .prefix_tokens = 50, .prefixes = 4};
  std::map<std::string, int> groups;
  std::set<std::string> next_words;
  for (const Conversation& c : MakePrompts(options, {}, {})) {
    const std::vector<std::string> words = Split(c.turns[0].text);
    ASSERT_EQ(words.size(), 70u);
    std::string prefix;
    for (size_t i = 0; i < 50; ++i) prefix += words[i] + " ";
    ++groups[prefix];
    EXPECT_TRUE(next_words.insert(words[50]).second) << words[50];
  }
  EXPECT_THAT(groups, testing::SizeIs(4));
  std::set<std::string> firsts;
  for (const auto& [prefix, n] : groups) {
    EXPECT_EQ(n, 3);
    EXPECT_TRUE(firsts.insert(Split(prefix)[0]).second);
  }
}

TEST(MakePrompts, BeginsEveryTextDifferentlyAlsoWhenWordsRunOut) {
  PromptOptions options{.conversations = 3000, .input_tokens = 4};
  std::set<std::string> openings;
  for (const Conversation& c : MakePrompts(options, {}, {})) {
    const std::vector<std::string> words = Split(c.turns[0].text);
    EXPECT_TRUE(openings.insert(words[0] + " " + words[1]).second) << c.turns[0].text;
  }
}

TEST(MakePrompts, GrowsConversationsByTurns) {
  PromptOptions options{.conversations = 3, .turns = 4, .input_tokens = 10, .prefix_tokens = 25};
  for (const Conversation& c : MakePrompts(options, {}, {})) {
    ASSERT_EQ(c.turns.size(), 4u);
    EXPECT_EQ(Split(c.turns[0].text).size(), 35u);
    for (int t = 1; t < 4; ++t) EXPECT_EQ(Split(c.turns[t].text).size(), 10u);
  }
}

std::vector<std::string> Texts(const std::vector<Conversation>& conversations) {
  std::vector<std::string> texts;
  for (const Conversation& c : conversations) texts.push_back(c.turns[0].text);
  return texts;
}

TEST(MakePrompts, AreThoseOfTheSeed) {
  PromptOptions options{.conversations = 8, .shape = LengthShape::kUniform};
  const std::vector<std::string> first = Texts(MakePrompts(options, Thirds, {}));
  EXPECT_EQ(first, Texts(MakePrompts(options, Thirds, {})));
  options.seed = 1;
  EXPECT_NE(first, Texts(MakePrompts(options, Thirds, {})));
}

TEST(MakeWarmups, ShareNothingWithTheMeasured) {
  PromptOptions options{.conversations = 8, .input_tokens = 40, .prefix_tokens = 60};
  for (const std::string& warm : Texts(MakeWarmups(options, 3, {}))) {
    EXPECT_EQ(Split(warm).size(), 100u);
    for (const std::string& text : Texts(MakePrompts(options, {}, {}))) {
      EXPECT_LT(CommonPrefix(warm, text), 20u);
    }
  }
}

std::string Refusal(std::string_view text, Route route) {
  try {
    ParseDataset(text, "d.jsonl", route, 9, 100);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(ParseDataset, TakesPromptsAndBatchLines) {
  const std::vector<Conversation> made = ParseDataset(
      "{\"prompt\":\"a\"}\n\n  \n{\"prompt\":[1,2],\"output_len\":3}\r\n"
      "{\"custom_id\":\"x\",\"url\":\"/v1/"
      "completions\",\"body\":{\"prompt\":\"b\",\"max_tokens\":4,"
      "\"top_k\":5}}",
      "d.jsonl", Route::kCompletions, 9, 100);
  ASSERT_EQ(made.size(), 3u);
  EXPECT_EQ(made[0].turns[0].body, (nlohmann::json{{"prompt", "a"}}));
  EXPECT_EQ(made[0].turns[0].max_tokens, 9u);
  EXPECT_EQ(made[1].turns[0].body, (nlohmann::json{{"prompt", {1, 2}}}));
  EXPECT_EQ(made[1].turns[0].max_tokens, 3u);
  EXPECT_EQ(made[2].turns[0].body, (nlohmann::json{{"prompt", "b"}, {"top_k", 5}}));
  EXPECT_EQ(made[2].turns[0].max_tokens, 4u);
}

TEST(ParseDataset, MakesAMessageOfAPromptForTheChatRoute) {
  const std::vector<Conversation> made =
      ParseDataset("{\"prompt\":\"a\"}\n{\"messages\":[{\"role\":\"user\",\"content\":\"b\"}]}\n",
                   "d.jsonl", Route::kChat, 9, 100);
  ASSERT_EQ(made.size(), 2u);
  EXPECT_EQ(made[0].turns[0].body["messages"][0]["content"], "a");
  EXPECT_FALSE(made[0].turns[0].body.contains("prompt"));
  EXPECT_EQ(made[1].turns[0].body["messages"][0]["content"], "b");
}

TEST(ParseDataset, TakesNoMoreThanTheLimit) {
  EXPECT_EQ(ParseDataset("{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\nbroken", "d", Route::kChat, 9, 2)
                .size(),
            2u);
}

TEST(ParseDataset, NamesTheLineThatIsWrong) {
  for (const char* line :
       {"{", "[]", "{}", "{\"prompt\":3}", "{\"body\":7}", "{\"prompt\":\"a\",\"messages\":[]}",
        "{\"prompt\":\"a\",\"max_tokens\":-1}", "{\"prompt\":\"a\",\"output_len\":\"x\"}"}) {
    EXPECT_THAT(Refusal(std::string("{\"prompt\":\"a\"}\n") + line, Route::kCompletions),
                HasSubstr("d.jsonl: line 2"))
        << line;
  }
  EXPECT_THAT(Refusal("{\"messages\":[]}", Route::kCompletions),
              HasSubstr("--endpoint /v1/chat/completions"));
  EXPECT_THAT(Refusal("{\"prompt\":[1]}", Route::kChat), HasSubstr("--endpoint /v1/completions"));
  EXPECT_THAT(Refusal("\n\n", Route::kChat), HasSubstr("holds no requests"));
}

}  // namespace
}  // namespace kvasir::bench
