#include "policy/keydiff/keydiff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "policy/test_lanes.h"

namespace kvasir {
namespace {

using ::testing::FloatNear;
using ::testing::Pointwise;

using Keys = std::vector<std::vector<float>>;
const KeyDiffScorer kUnit(KeyDiffScorer::Anchor::kUnit, false);

Keys RandomLane(size_t n, uint32_t dim, std::mt19937* rng) {
  std::normal_distribution<float> normal;
  Keys keys(n, std::vector<float>(dim));
  for (std::vector<float>& key : keys) {
    const float length = std::exp(normal(*rng));
    for (float& value : key) value = length * normal(*rng);
    key[0] += length;  // a common direction, as cached keys have
  }
  return keys;
}

HandLane Lay(const Keys& keys, const Kernels& kernels) {
  HandLane lane(static_cast<uint32_t>(keys[0].size()), kernels);
  for (size_t i = 0; i < keys.size(); ++i) lane.Add(static_cast<uint32_t>(i), keys[i]);
  return lane;
}

std::vector<float> ScoresOf(const Scorer& scorer, const Keys& keys, const Kernels& kernels) {
  HandLane lane = Lay(keys, kernels);
  return Scores(scorer, kernels, lane.View());
}

double Cosine(const std::vector<double>& a, const std::vector<double>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t c = 0; c < a.size(); ++c) {
    ab += a[c] * b[c];
    aa += a[c] * a[c];
    bb += b[c] * b[c];
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

std::vector<std::vector<double>> UnitKeys(const Keys& keys) {
  std::vector<std::vector<double>> unit;
  for (const std::vector<float>& key : keys) {
    std::vector<double> k(key.begin(), key.end());
    const double length = std::sqrt(std::inner_product(k.begin(), k.end(), k.begin(), 0.0));
    for (double& value : k) value = length > 0 ? value / length : 0;
    unit.push_back(std::move(k));
  }
  return unit;
}

// Scores in double, from the anchor.
std::vector<double> AnchorScores(const Keys& keys) {
  const auto unit = UnitKeys(keys);
  std::vector<double> anchor(keys[0].size(), 0);
  for (const auto& k : unit) {
    for (size_t c = 0; c < anchor.size(); ++c) anchor[c] += k[c];
  }
  std::vector<double> scores;
  for (const auto& k : unit) scores.push_back(-Cosine(k, anchor));
  return scores;
}

std::vector<size_t> Order(const std::vector<double>& scores) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  return order;
}

class KeyDiffTest : public testing::TestWithParam<const Kernels*> {
 protected:
  const Kernels& kernels() const { return *GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Targets, KeyDiffTest, testing::ValuesIn(AvailableKernels()),
                         [](const auto& info) { return std::string(info.param->target); });

TEST_P(KeyDiffTest, ScoresAreMinusTheCosineToTheAnchor) {
  std::mt19937 rng(1);
  for (const uint32_t dim : {1u, 2u, 7u, 64u, 80u, 128u}) {
    const Keys keys = RandomLane(150, dim, &rng);
    const std::vector<double> expected = AnchorScores(keys);
    EXPECT_THAT(ScoresOf(kUnit, keys, kernels()),
                Pointwise(FloatNear(2e-6f), std::vector<float>(expected.begin(), expected.end())))
        << "dim " << dim;
  }
}

// With unit keys the sum of cosines of one key to all others is its product with the anchor: the
// paper's two forms rank alike, in exact arithmetic.
TEST_P(KeyDiffTest, PairwiseSumsAndTheAnchorRankAlike) {
  std::mt19937 rng(2);
  for (int round = 0; round < 1000; ++round) {
    const Keys keys = RandomLane(2 + rng() % 100, 4 + rng() % 13, &rng);
    const auto unit = UnitKeys(keys);
    std::vector<double> pairwise;
    for (const auto& a : unit) {
      double sum = 0;
      for (const auto& b : unit) sum += Cosine(a, b);
      pairwise.push_back(-sum);
    }
    const std::vector<double> scores = AnchorScores(keys);
    const std::vector<size_t> by_pairs = Order(pairwise);
    for (size_t i = 1; i < by_pairs.size(); ++i) {
      // Less than this apart is equal but for the last bits: two keys alone always are.
      ASSERT_GE(scores[by_pairs[i - 1]], scores[by_pairs[i]] - 1e-12) << "round " << round;
    }

    // The scorer's floats keep the same set wherever the border is not a matter of rounding.
    const std::vector<float> floats = ScoresOf(kUnit, keys, kernels());
    const std::vector<size_t> order = Order(scores);
    const size_t keep = rng() % keys.size();
    if (keep == 0 || scores[order[keep - 1]] - scores[order[keep]] < 1e-5) continue;
    std::vector<uint32_t> candidates, drops;
    SelectDrops(floats, std::vector<uint8_t>(keys.size(), 0), keep, &candidates, &drops);
    std::vector<uint32_t> expected(order.begin() + static_cast<ptrdiff_t>(keep), order.end());
    std::sort(expected.begin(), expected.end());
    ASSERT_EQ(drops, expected) << "round " << round;
  }
}

TEST_P(KeyDiffTest, PermutedKeysHavePermutedScores) {
  std::mt19937 rng(3);
  const Keys keys = RandomLane(200, 32, &rng);
  std::vector<size_t> permutation(keys.size());
  std::iota(permutation.begin(), permutation.end(), size_t{0});
  std::shuffle(permutation.begin(), permutation.end(), rng);
  Keys permuted;
  std::vector<float> expected;
  const std::vector<float> scores = ScoresOf(kUnit, keys, kernels());
  for (const size_t i : permutation) {
    permuted.push_back(keys[i]);
    expected.push_back(scores[i]);
  }
  EXPECT_THAT(ScoresOf(kUnit, permuted, kernels()), Pointwise(FloatNear(1e-6f), expected));
}

TEST_P(KeyDiffTest, ScalingOneKeyChangesNoBit) {
  std::mt19937 rng(4);
  const Keys keys = RandomLane(100, 24, &rng);
  const std::vector<float> scores = ScoresOf(kUnit, keys, kernels());
  for (const float factor : {0.25f, 1024.0f}) {  // powers of two: no rounding of the key itself
    Keys scaled = keys;
    for (float& value : scaled[17]) value *= factor;
    EXPECT_EQ(ScoresOf(kUnit, scaled, kernels()), scores);
    // The raw anchor does follow the length of a key.
    const KeyDiffScorer raw(KeyDiffScorer::Anchor::kRaw, false);
    EXPECT_NE(ScoresOf(raw, scaled, kernels()), ScoresOf(raw, keys, kernels()));
  }
}

TEST_P(KeyDiffTest, EqualKeysHaveEqualScoresWhereverTheyLie) {
  std::mt19937 rng(5);
  Keys keys = RandomLane(130, 16, &rng);
  keys[70] = keys[129] = keys[3];
  const std::vector<float> scores = ScoresOf(kUnit, keys, kernels());
  EXPECT_EQ(scores[3], scores[70]);
  EXPECT_EQ(scores[3], scores[129]);
}

TEST_P(KeyDiffTest, PackingOfPagesChangesNoBit) {
  std::mt19937 rng(6);
  for (int round = 0; round < 50; ++round) {
    const Keys keys = RandomLane(1 + rng() % 200, 16 + rng() % 20, &rng);
    HandLane holes(static_cast<uint32_t>(keys[0].size()), kernels());
    for (size_t i = 0; i < keys.size(); ++i) {
      if (rng() % 20 == 0) holes.Page();  // a page that is not full
      while (rng() % 3 == 0) holes.AddDead();
      holes.Add(static_cast<uint32_t>(i), keys[i]);
    }
    holes.AddDead();
    ASSERT_EQ(Scores(kUnit, kernels(), holes.View()), ScoresOf(kUnit, keys, kernels()))
        << "round " << round;
  }
}

TEST_P(KeyDiffTest, InvertNegatesTheScores) {
  std::mt19937 rng(7);
  const Keys keys = RandomLane(90, 8, &rng);
  const KeyDiffScorer invert(KeyDiffScorer::Anchor::kUnit, true);
  std::vector<float> expected = ScoresOf(kUnit, keys, kernels());
  for (float& score : expected) score = -score;
  EXPECT_EQ(ScoresOf(invert, keys, kernels()), expected);
}

TEST_P(KeyDiffTest, ScoresRowsAsTheirCodecReturnsThem) {
  std::mt19937 rng(8);
  const uint32_t dim = 40, n = 150;
  const Keys keys = RandomLane(n, dim, &rng);
  for (const Codec codec : {Codec::kF16, Codec::kBF16, Codec::kQ8, Codec::kQ4}) {
    const auto index = static_cast<size_t>(codec);
    std::vector<std::vector<uint8_t>> planes;
    std::vector<PageView> pages;
    Keys decoded;
    for (uint32_t begin = 0; begin < n; begin += kPageEntries) {
      const uint32_t filled = std::min(kPageEntries, n - begin);
      planes.emplace_back(PlaneBytes(codec, dim) + 64);
      std::vector<float> rows(size_t{filled} * 48), plane(size_t{dim} * kPageEntries);
      for (uint32_t i = 0; i < filled; ++i) {
        std::copy(keys[begin + i].begin(), keys[begin + i].end(), rows.begin() + i * 48);
      }
      kernels().planes.encode_k[index](rows.data(), 48, filled, dim, 0, planes.back().data());
      kernels().planes.expand_k[index](planes.back().data(), dim, plane.data());
      for (uint32_t i = 0; i < filled; ++i) {
        std::vector<float> key(dim);
        for (uint32_t c = 0; c < dim; ++c) key[c] = plane[c * kPageEntries + i];
        decoded.push_back(std::move(key));
      }
      PageView page;
      page.live = filled == 64 ? ~uint64_t{0} : (uint64_t{1} << filled) - 1;
      page.base = begin;
      page.filled = static_cast<uint8_t>(filled);
      page.k_form = page.v_form = codec;
      pages.push_back(page);
    }
    for (size_t i = 0; i < pages.size(); ++i) pages[i].k = planes[i].data();
    const LaneView view = {pages.data(), static_cast<uint32_t>(pages.size()), n, dim};
    EXPECT_EQ(Scores(kUnit, kernels(), view), ScoresOf(kUnit, decoded, kernels()))
        << "codec " << index;
  }
}

TEST_P(KeyDiffTest, ScratchOfAnotherLaneLeavesNoTrace) {
  std::mt19937 rng(9);
  ScorerScratch scratch;
  std::vector<uint32_t> positions;
  for (const auto& [n, dim] : {std::pair<size_t, uint32_t>{300, 64}, {5, 8}, {130, 128}, {1, 3}}) {
    const Keys keys = RandomLane(n, dim, &rng);
    HandLane lane = Lay(keys, kernels());
    const LaneView view = lane.View();
    GatherPositions(view, &positions);
    std::vector<float> used(n), fresh(n);
    ScorerScratch none;
    const ScoredLane scored = {.view = view, .positions = positions, .kernels = &kernels()};
    const float factor = kUnit.Score(scored, &scratch, used);
    EXPECT_EQ(kUnit.Score(scored, &none, fresh), factor);
    EXPECT_EQ(used, fresh);
  }
}

}  // namespace
}  // namespace kvasir
