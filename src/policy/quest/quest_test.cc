#include "policy/quest/quest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <map>
#include <numeric>

#include "policy/test_lanes.h"

namespace kvasir {
namespace {

constexpr uint32_t kHeads = 2, kDim = 24, kQueryHeads = kHeads * kTestGroup;

LaneShape ShapeOf(Codec codec, uint32_t layers = 1) {
  return {
      .n_layers = layers, .n_kv_heads = kHeads, .head_dim = kDim, .k_form = codec, .v_form = codec};
}

// Keys of a lane as they lie, [position][channel].
std::vector<std::vector<float>> KeysOf(const LaneView& lane) {
  std::vector<std::vector<float>> keys;
  std::vector<float> plane(kPageEntries * lane.head_dim);
  for (uint32_t p = 0; p < lane.n_pages; ++p) {
    const PageView& page = lane.pages[p];
    BestKernels().planes.expand_k[page.k_form.index()](page.k, page.k_form.Shape(lane.head_dim),
                                                       plane.data());
    for (uint32_t slot = 0; slot < page.filled; ++slot) {
      keys.emplace_back();
      for (uint32_t c = 0; c < lane.head_dim; ++c) {
        keys.back().push_back(plane[c * kPageEntries + slot]);
      }
    }
  }
  return keys;
}

class BoundsTest : public testing::TestWithParam<std::tuple<Codec, uint32_t>> {};
INSTANTIATE_TEST_SUITE_P(All, BoundsTest,
                         testing::Combine(testing::Values(Codec::kF32, Codec::kF16, Codec::kBF16,
                                                          Codec::kQ8, Codec::kQ4),
                                          testing::Values(2u, 16u, 64u)));

// The formula itself in double, and never below what some key gives; kept as rows come, a few at a
// time.
TEST_P(BoundsTest, AreThoseOfTheKeysAsTheyLieAndNeverBelowTheirProducts) {
  const auto [codec, part] = GetParam();
  const LaneShape shape = ShapeOf(codec);
  constexpr uint32_t kTokens = 4500;  // parts of 2 fill more than one plane of bounds
  TestSequence sequence(shape, MaxDemand(shape, {.tokens = kTokens}), RandomKeys(kDim, 3));
  KeyBounds bounds(shape, part, 0);
  for (uint32_t n = 1; sequence.position() < kTokens; n = n * 3 % 391) {
    sequence.Append(std::min(n, kTokens - sequence.position()));
    const uint32_t from = bounds.n_parts();
    bounds.Grow(sequence.position());
    for (uint32_t h = 0; h < kHeads; ++h) {
      bounds.Extend(0, h, sequence.View().lane(0, h), from, BestKernels());
    }
  }
  ASSERT_EQ(bounds.n_parts(), kTokens / part);
  KeyBounds::Scratch scratch;
  for (uint32_t h = 0; h < kHeads; ++h) {
    const auto keys = KeysOf(sequence.View().lane(0, h));
    for (uint32_t trial = 0; trial < 5; ++trial) {
      std::vector<float> q = RandomKeys(kDim, 100 + trial)(0, h, 0);
      std::vector<float> upper(bounds.n_parts());
      bounds.Upper(0, h, {q.data(), 1, kDim, kDim}, bounds.n_parts(), BestKernels(), &scratch,
                   upper.data());
      for (uint32_t i = 0; i < bounds.n_parts(); ++i) {
        double exact = 0, size = 0, most = -INFINITY;
        for (uint32_t c = 0; c < kDim; ++c) {
          double of_channel = -INFINITY;
          for (uint32_t e = i * part; e < (i + 1) * part; ++e) {
            of_channel = std::max(of_channel, double{q[c]} * double{keys[e][c]});
          }
          exact += of_channel;
          size += std::abs(of_channel);
        }
        for (uint32_t e = i * part; e < (i + 1) * part; ++e) {
          most = std::max(most, std::inner_product(q.begin(), q.end(), keys[e].begin(), 0.0));
        }
        ASSERT_GE(upper[i], most - 1e-6 * size) << "part " << i;
        ASSERT_GE(upper[i], exact - 1e-6 * size) << "part " << i;
        ASSERT_LE(upper[i], exact + (IsInteger(codec) ? 3e-3 : 1e-6) * size) << "part " << i;
      }
    }
  }
}

TEST(KeyBounds, TakeAnEighthOfF16Keys) {
  const LaneShape shape = ShapeOf(Codec::kF16, 5);
  const uint64_t keys = 65536 * shape.lanes() * kDim * 2;
  EXPECT_EQ(KeyBounds::Bytes(shape, 16, 0, 65536), keys / 8);
  EXPECT_EQ(KeyBounds::Bytes(shape, 16, 2, 65536), keys / 8 * 3 / 5);
  EXPECT_EQ(KeyBounds::Bytes(shape, 16, 2, 15), 0u);
  const auto policy =
      MakePolicy("quest:skip=0", {.shape = shape, .facts = FactsFor(shape, kTestGroup)});
  const Growth growth = policy->MaxGrowth(100, 65536, 0);
  EXPECT_EQ(growth.cap, 0u) << "nothing is dropped";
  EXPECT_EQ(policy->EvidenceBytes(growth), keys / 8);
}

// Positions that every lane reads at each generated token.
using Read = std::map<std::pair<uint32_t, uint32_t>, std::vector<uint32_t>>;

struct Sequence {
  explicit Sequence(uint32_t layers = 3, Codec codec = Codec::kF16)
      : shape(ShapeOf(codec, layers)),
        policy(MakePolicy("quest:budget=32,part=4,skip=1",
                          {.shape = shape, .facts = FactsFor(shape, kTestGroup)})),
        sequence(shape, MaxDemand(shape, {.tokens = 400}), RandomKeys(kDim, 1)) {}
  // One generated token behind `prompt`.
  Read Decode(PolicyState& state, uint32_t prompt, Workers* workers = nullptr) {
    EXPECT_EQ(state.MaxRows({sequence.position(), prompt}), 1u);
    EXPECT_TRUE(state.Selects({sequence.position(), prompt}));
    sequence.Append(1);
    Read read;
    for (uint32_t layer = 0; layer < shape.n_layers; ++layer) {
      const auto lanes = sequence.Chosen(&state, layer, kQueryHeads, workers);
      for (uint32_t h = 0; h < kHeads; ++h) GatherPositions(lanes[h], &read[{layer, h}]);
    }
    Observe(state, prompt, workers);
    return read;
  }
  void Observe(PolicyState& state, uint32_t prompt, Workers* workers = nullptr) {
    Plan plan;
    state.Observe({sequence.position(), prompt}, sequence.View(), workers, &plan);
    EXPECT_TRUE(plan.empty());
  }
  const LaneShape shape;
  const std::unique_ptr<Policy> policy;
  TestSequence sequence;
};

TEST(Quest, ReadsThePartsWithTheHighestBoundsAndItsOwn) {
  constexpr uint32_t kPrompt = 250, kPart = 4, kParts = 8;
  Sequence run;
  const auto state = run.policy->Begin({.shape = run.shape});
  EXPECT_FALSE(state->Selects({0, kPrompt}));
  run.sequence.Append(kPrompt);
  run.Observe(*state, kPrompt);
  EXPECT_FALSE(state->reads());
  Workers workers(2);
  for (uint32_t t = kPrompt; t < kPrompt + 40; ++t) {
    const Read read = run.Decode(*state, kPrompt, t % 2 == 0 ? nullptr : &workers);
    uint64_t hidden = 0, skipped_pages = 0;
    for (const auto& [lane, positions] : read) {
      const LaneView whole = run.sequence.View().lane(lane.first, lane.second);
      hidden += whole.n_entries - positions.size();
      if (lane.first == 0) {
        ASSERT_EQ(positions.size(), t + 1) << "the first layer is read whole";
        continue;
      }
      ASSERT_EQ(positions.size(), (kParts - 1) * kPart + t % kPart + 1);
      // Naive: bounds in double, the best by a full sort.
      const auto keys = KeysOf(whole);
      std::vector<std::pair<double, uint32_t>> parts;
      for (uint32_t i = 0; i < t / kPart; ++i) {
        double best = -INFINITY;
        for (uint32_t g = 0; g < kTestGroup; ++g) {
          const auto q = RandomKeys(kDim, 77)(lane.first, lane.second * kTestGroup + g, t);
          double u = 0;
          for (uint32_t c = 0; c < kDim; ++c) {
            double of_channel = -INFINITY;
            for (uint32_t e = i * kPart; e < (i + 1) * kPart; ++e) {
              of_channel = std::max(of_channel, double{q[c]} * double{keys[e][c]});
            }
            u += of_channel;
          }
          best = std::max(best, u);
        }
        parts.emplace_back(-best, i);
      }
      std::sort(parts.begin(), parts.end());
      std::vector<uint32_t> expected;
      uint64_t pages = 0;
      for (uint32_t i = 0; i + 1 < kParts; ++i) {
        for (uint32_t e = 0; e < kPart; ++e) expected.push_back(parts[i].second * kPart + e);
        pages |= uint64_t{1} << parts[i].second * kPart / kPageEntries;
      }
      for (uint32_t e = t / kPart * kPart; e <= t; ++e) expected.push_back(e);
      pages |= uint64_t{1} << t / kPageEntries;
      skipped_pages += whole.n_pages - static_cast<uint32_t>(std::popcount(pages));
      std::sort(expected.begin(), expected.end());
      ASSERT_EQ(positions, expected) << "token " << t;
    }
    // Bytes: whole K planes of pages that are read, V by entries, and the bounds.
    const uint64_t row = kDim * 2, whole = run.shape.lanes() * (t + 1) * 2 * row;
    const uint64_t bounds = uint64_t{2} * kHeads * (t / kPart) * 2 * row;
    ASSERT_TRUE(state->reads());
    EXPECT_EQ(state->reads()->hidden, hidden);
    EXPECT_EQ(state->reads()->bytes,
              whole - hidden * row - skipped_pages * kPageEntries * row + bounds);
    EXPECT_EQ(state->shareable_rows(), kPrompt);
  }
}

// Within the budget views are not touched: attention over them has the bits it always had.
TEST(Quest, LeavesViewsAloneThatFitTheBudget) {
  Sequence run;
  const auto state = run.policy->Begin({.shape = run.shape});
  run.sequence.Append(20);
  run.Observe(*state, 20);
  while (run.sequence.position() < 40) {
    run.sequence.Append(1);
    for (uint32_t layer = 0; layer < run.shape.n_layers; ++layer) {
      const auto lanes = run.sequence.Chosen(state.get(), layer, kQueryHeads);
      for (uint32_t h = 0; h < kHeads; ++h) {
        const LaneView whole = run.sequence.View().lane(layer, h);
        const bool same = lanes[h].pages == whole.pages && lanes[h].n_entries == whole.n_entries;
        EXPECT_EQ(same, layer == 0 || run.sequence.position() <= 32) << run.sequence.position();
      }
    }
    run.Observe(*state, 20);
    EXPECT_EQ(state->reads()->hidden > 0, run.sequence.position() > 32);
    EXPECT_EQ(state->shareable_rows(), run.sequence.position() > 32 ? 32 : UINT32_MAX);
  }
}

// Forks take bounds with them; one that begins behind a prefix makes its own.
TEST(Quest, ForksAndStatesThatBeginLateChooseAlike) {
  constexpr uint32_t kPrompt = 203;
  Sequence whole;
  const auto state = whole.policy->Begin({.shape = whole.shape});
  for (const uint32_t n : {1u, 64u, 100u, 38u}) {
    whole.sequence.Append(n);
    whole.Observe(*state, kPrompt);
  }
  Sequence other;
  const auto late = other.policy->Begin({.shape = other.shape});
  other.sequence.Append(kPrompt - 1);  // another's
  other.sequence.Append(1);
  other.Observe(*late, kPrompt);
  const auto fork = state->Fork();
  TestSequence child = whole.sequence.Fork(MaxDemand(whole.shape, {.tokens = 400}));
  std::vector<Read> reads;
  for (int t = 0; t < 30; ++t) reads.push_back(whole.Decode(*state, kPrompt));
  for (int t = 0; t < 30; ++t) ASSERT_EQ(other.Decode(*late, kPrompt), reads[t]) << t;
  for (int t = 0; t < 30; ++t) {
    child.Append(1);
    for (uint32_t layer = 0; layer < whole.shape.n_layers; ++layer) {
      const auto lanes = child.Chosen(fork.get(), layer, kQueryHeads);
      for (uint32_t h = 0; h < kHeads; ++h) {
        std::vector<uint32_t> positions;
        GatherPositions(lanes[h], &positions);
        ASSERT_EQ(positions, (reads[t][{layer, h}])) << t;
      }
    }
    Plan plan;
    fork->Observe({child.position(), kPrompt}, child.View(), nullptr, &plan);
  }
}

TEST(Quest, NamesItsKeysAndRefusesLayersThatAreNotThere) {
  const LaneShape shape = ShapeOf(Codec::kF16, 3);
  const PolicyContext context = {.shape = shape, .facts = FactsFor(shape, kTestGroup)};
  EXPECT_EQ(MakePolicy("quest", context)->Spec(), "quest:budget=1024,part=16,skip=2");
  EXPECT_THROW(MakePolicy("quest:skip=3", context), Error);
  EXPECT_THROW(MakePolicy("quest:part=12", context), Error);
}

// Bounds made before a page is sealed would not be those of one that finds it sealed.
TEST(Quest, RefusesKeysThatChangeWhenPagesAreSealed) {
  LaneShape shape = ShapeOf(Codec::kBF16, 3);
  const auto make = [&] {
    return MakePolicy("quest", {.shape = shape, .facts = FactsFor(shape, kTestGroup)});
  };
  shape.layers.resize(3, shape.Forms(0));
  shape.layers[2].v.sealed = PlaneForm(Codec::kSparseBF16, 6);
  EXPECT_NE(make(), nullptr) << "values may change";
  shape.layers[2].k.sealed = PlaneForm(Codec::kSparseBF16, 6);
  EXPECT_THROW(make(), Error);
}

}  // namespace
}  // namespace kvasir
