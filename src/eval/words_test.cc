#include "eval/words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "base/error.h"

namespace kvasir {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;

template <typename Words>
void ExpectDistinct(const Words& words) {
  EXPECT_EQ(std::set<std::string_view>(words.begin(), words.end()).size(), words.size());
}

TEST(Words, ListsNameNothingTwice) {
  ExpectDistinct(Adjectives());
  ExpectDistinct(Nouns());
  ExpectDistinct(Cities());
  std::vector<std::string_view> both(Adjectives().begin(), Adjectives().end());
  both.insert(both.end(), Nouns().begin(), Nouns().end());
  ExpectDistinct(both);
  std::vector<std::string> compounds;
  for (const std::string_view a : Nouns()) {
    for (const std::string_view b : Nouns()) compounds.push_back(fmt::format("{}{}", a, b));
  }
  ExpectDistinct(compounds);
  for (const std::string_view city : Cities()) {
    for (const std::string_view other : Cities()) {
      EXPECT_TRUE(city == other || other.find(city) == city.npos) << city << " in " << other;
    }
  }
  EXPECT_GT(WordKeyCount(), 50'000u);
  EXPECT_EQ(WordKey(0), "able-acorn");
  EXPECT_NE(WordKey(1), WordKey(WordKeyCount() - 1));
}

TEST(Prose, HasManySentencesAndWordsAndNoneThatLabelsAnAnswer) {
  Generator generator(1);
  std::set<std::string> sentences, words;
  for (const std::string& sentence : Prose().Sentences(5000, generator)) {
    ASSERT_TRUE(sentence.front() >= 'A' && sentence.front() <= 'Z') << sentence;
    ASSERT_EQ(sentence.back(), '.') << sentence;
    ASSERT_EQ(sentence.find_first_of("0123456789-<>|"), sentence.npos) << sentence;
    sentences.insert(sentence);
    std::istringstream stream(sentence);
    for (std::string word; stream >> word;) {
      std::erase_if(word, [](char c) { return c == ',' || c == '.'; });
      words.insert(word);
    }
  }
  EXPECT_GT(sentences.size(), 4900u);
  EXPECT_GT(words.size(), 400u);
  for (const char* label : {"special", "number", "numbers", "secret", "key", "uuid", "value",
                            "answer", "variable", "sequence", "digits"}) {
    EXPECT_FALSE(words.contains(label)) << label;
  }
  for (const std::string_view city : Cities()) {
    EXPECT_FALSE(words.contains(std::string(city))) << city;
  }
}

TEST(Prose, CutsATextIntoSentencesAndGoesRound) {
  const Prose prose("One  is\nhere. Two? \n Three 3.5 m! rest", "text");
  Generator generator(1);
  std::vector<std::string> round = prose.Sentences(8, generator);
  EXPECT_TRUE(std::equal(round.begin(), round.begin() + 4, round.begin() + 4));
  std::rotate(round.begin(), std::find(round.begin(), round.end(), "One is here."), round.end());
  round.resize(4);
  EXPECT_THAT(round, ElementsAre("One is here.", "Two?", "Three 3.5 m!", "rest"));
}

TEST(Prose, RefusesWhatIsNoText) {
  EXPECT_THROW(Prose("", "text"), Error);
  EXPECT_THROW(Prose(" \n\t", "text"), Error);
  EXPECT_THROW(Prose("ab\xff", "text"), Error);
}

}  // namespace
}  // namespace kvasir
