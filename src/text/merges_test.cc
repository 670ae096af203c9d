#include "text/merges.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <utility>

namespace kvasir {
namespace {

struct Rules {
  MergeTable table;
  std::map<std::pair<TokenId, TokenId>, MergeTable::Merge> merges;

  explicit Rules(size_t n) : table(n) {}
  void Add(TokenId left, TokenId right, MergeTable::Merge merge) {
    table.Add(left, right, merge);
    merges.emplace(std::pair(left, right), merge);
  }
};

// Merging by the definition: the best pair of the whole sequence, again and again.
std::vector<TokenId> MergeSlowly(std::vector<TokenId> symbols, const Rules& rules) {
  while (true) {
    uint32_t best = UINT32_MAX;
    size_t best_at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = rules.merges.find({symbols[i], symbols[i + 1]});
      if (found == rules.merges.end() || found->second.rank >= best) continue;
      best = found->second.rank;
      best_at = i;
    }
    if (best == UINT32_MAX) return symbols;
    symbols[best_at] = rules.merges.at({symbols[best_at], symbols[best_at + 1]}).merged;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best_at) + 1);
  }
}

std::vector<TokenId> MergeFast(const std::vector<TokenId>& symbols, SymbolMerger* merger) {
  merger->Clear();
  for (const TokenId symbol : symbols) merger->Add(symbol);
  return merger->Merge();
}

// Random rules: merged symbols may be part of merges of any rank, lower ones too, and ranks repeat.
Rules RandomRules(std::mt19937* random, uint32_t n_letters, uint32_t n_merges) {
  Rules rules(n_merges);
  const uint32_t n_symbols = n_letters + n_merges;
  for (uint32_t i = 0; i < n_merges; ++i) {
    const auto left = static_cast<TokenId>((*random)() % n_symbols);
    const auto right = static_cast<TokenId>((*random)() % n_symbols);
    rules.Add(left, right,
              {static_cast<uint32_t>((*random)() % n_merges), static_cast<TokenId>(n_letters + i)});
  }
  return rules;
}

TEST(SymbolMergerTest, MergesShortAndLongSequencesAsTheDefinitionSays) {
  std::mt19937 random(5);
  for (int round = 0; round < 15; ++round) {
    const auto n_letters = static_cast<uint32_t>(2 + random() % 3);
    const Rules rules = RandomRules(&random, n_letters, static_cast<uint32_t>(4 + random() % 60));
    SymbolMerger merger(rules.table);
    for (const size_t n : {1, 2, 5, 24, 25, 100, 1023, 1024, 1500}) {
      std::vector<TokenId> symbols;
      for (size_t i = 0; i < n; ++i) symbols.push_back(static_cast<TokenId>(random() % n_letters));
      ASSERT_EQ(MergeFast(symbols, &merger), MergeSlowly(symbols, rules)) << round << " " << n;
    }
  }
}

TEST(SymbolMergerTest, MergesEqualRanksFromTheLeft) {
  Rules rules(3);
  rules.Add(0, 0, {0, 1});
  rules.Add(0, 1, {0, 2});
  rules.Add(1, 0, {0, 3});
  SymbolMerger merger(rules.table);
  for (const size_t n : {3, 30, 1501}) {
    const std::vector<TokenId> symbols(n, 0);
    EXPECT_EQ(MergeFast(symbols, &merger), MergeSlowly(symbols, rules)) << n;
  }
}

TEST(MergeTableTest, KeepsTheFirstOfTwoMergesOfAPair) {
  MergeTable table(2);
  table.Add(1, 2, {5, 7});
  table.Add(1, 2, {3, 8});
  EXPECT_EQ(table.Find(1, 2).rank, 5u);
  EXPECT_EQ(table.Find(1, 2).merged, 7);
  EXPECT_FALSE(table.Find(2, 1).exists());
  EXPECT_EQ(table.n_ranks(), 6u);
}

}  // namespace
}  // namespace kvasir
