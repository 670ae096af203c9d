// Budgets add up, whatever spreads them.
#include "policy/adakv/ada_allocation.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "policy/pyramidkv/pyramid_allocation.h"

namespace kvasir {
namespace {

using ::testing::ElementsAre;

uint64_t Keep(std::span<const LaneShare> lanes) {
  return std::accumulate(lanes.begin(), lanes.end(), uint64_t{0},
                         [](uint64_t sum, const LaneShare& lane) { return sum + lane.keep; });
}
uint64_t Entries(std::span<const LaneShare> lanes) {
  return std::accumulate(lanes.begin(), lanes.end(), uint64_t{0},
                         [](uint64_t sum, const LaneShare& lane) { return sum + lane.entries; });
}

// Scores and marks of the lanes of one layer.
struct Layer {
  Layer(std::span<const LaneShare> lanes, std::mt19937* rng) {
    for (const LaneShare& lane : lanes) {
      std::vector<float> of_lane;
      std::vector<uint8_t> marks(lane.entries, 0);
      // Few values: many ties. Heads of different levels.
      const float level = static_cast<float>((*rng)() % 3);
      for (uint64_t i = 0; i < lane.entries; ++i) {
        of_lane.push_back(level + static_cast<float>((*rng)() % 8));
      }
      for (uint64_t i = 0; i < lane.always; ++i) marks[marks.size() - 1 - i] = 1;
      scores.push_back(std::move(of_lane));
      is_protected.push_back(std::move(marks));
    }
    for (size_t h = 0; h < lanes.size(); ++h) views.push_back({scores[h], is_protected[h]});
  }
  std::vector<std::vector<float>> scores;
  std::vector<std::vector<uint8_t>> is_protected;
  std::vector<LaneScores> views;
};

// E10, for random layers, heads, budgets, floors, betas and lengths.
TEST(Allocations, AddUpExactlyAndGiveNoLaneMoreThanItHas) {
  std::mt19937 rng(3);
  for (int round = 0; round < 3000; ++round) {
    const uint32_t n_layers = 1 + rng() % 40, heads = 1 + rng() % 8;
    const uint64_t always = rng() % 20, budget = always + 1 + rng() % 100;
    const bool ragged = round % 2 == 1;
    const uint64_t entries = always + 1 + rng() % 400;
    // Heads of a pyramid's layer hold the same; ada's do not.
    const auto make = [&](bool by_head) {
      std::vector<LaneShare> lanes;
      for (uint32_t i = 0; i < n_layers * heads; ++i) {
        LaneShare lane = {.entries = entries, .always = always};
        if (ragged && (by_head || i % heads == 0)) lane.entries = always + rng() % 400;
        if (ragged && !by_head && i % heads != 0) lane.entries = lanes.back().entries;
        lanes.push_back(lane);
      }
      return lanes;
    };
    const uint64_t target = budget * n_layers * heads;
    const auto check = [&](std::span<const LaneShare> lanes, uint64_t total) {
      ASSERT_EQ(Keep(lanes), std::min(total, Entries(lanes)));
      for (const LaneShare& lane : lanes) ASSERT_LE(lane.keep, lane.entries);
    };
    SCOPED_TRACE(fmt::format("round {}: {} layers, {} heads, budget {}, {} always, {} entries",
                             round, n_layers, heads, budget, always, entries));

    std::vector<LaneShare> lanes = make(true);
    Allocation().OverLayers(lanes, heads, target);
    ASSERT_NO_FATAL_FAILURE(check(lanes, target));

    lanes = make(false);
    if (std::all_of(lanes.begin(), lanes.end(),
                    [&](const LaneShare& lane) { return lane.entries > 0; })) {
      PyramidAllocation(1 + rng() % 40).OverLayers(lanes, heads, target);
      ASSERT_NO_FATAL_FAILURE(check(lanes, target));
    }

    lanes = make(true);
    const double floor = static_cast<double>(rng() % 11) / 10;
    for (const auto compat : {AdaAllocation::Compat::kPaper, AdaAllocation::Compat::kKvpress}) {
      const AdaAllocation ada(floor, compat);
      ada.OverLayers(lanes, heads, target);
      ASSERT_NO_FATAL_FAILURE(check(lanes, target));
      for (uint32_t l = 0; l < n_layers; ++l) {
        const std::span<LaneShare> layer = std::span(lanes).subspan(l * heads, heads);
        const uint64_t before = Keep(layer);
        if (std::any_of(layer.begin(), layer.end(),
                        [](const LaneShare& lane) { return lane.keep < lane.always; })) {
          continue;  // more is protected than the budget has: refused before it comes to this
        }
        Layer scored(layer, &rng);
        ada.OverHeads(scored.views, layer);
        ASSERT_NO_FATAL_FAILURE(check(layer, before)) << "layer " << l;
        for (const LaneShare& lane : layer) ASSERT_GE(lane.keep, lane.always);
      }
    }
  }
}

std::vector<uint64_t> KeepOf(const Allocation& allocation, std::vector<LaneShare> lanes,
                             uint32_t heads, uint64_t target) {
  allocation.OverLayers(lanes, heads, target);
  std::vector<uint64_t> keep;
  for (const LaneShare& lane : lanes) keep.push_back(lane.keep);
  return keep;
}

// The published settings: the authors' integers add up to more (64816).
TEST(PyramidAllocation, LongBenchShares) {
  const std::vector<LaneShare> lanes(32, LaneShare{.entries = 10000, .always = 32});
  const std::vector<uint64_t> keep = KeepOf(PyramidAllocation(20), lanes, 1, 2048 * 32);
  EXPECT_EQ(keep.front(), 3931u + 32);
  EXPECT_EQ(keep.back(), 101u + 32);
  EXPECT_EQ(std::accumulate(keep.begin(), keep.end(), uint64_t{0}), 64512u + 32 * 32);
}

// What is protected stays within the budget even where a layer's share is small.
TEST(PyramidAllocation, WhatStaysAnywayIsSetAside) {
  const std::vector<LaneShare> lanes(4, LaneShare{.entries = 100, .always = 8});
  EXPECT_THAT(KeepOf(PyramidAllocation(20), lanes, 1, 4 * 10), ElementsAre(12, 11, 9, 8));
}

// Lanes that are a pyramid already, after more tokens: still one.
TEST(PyramidAllocation, GoesOnBeingOne) {
  std::vector<LaneShare> lanes(4, LaneShare{.entries = 100, .always = 2});
  PyramidAllocation pyramid(4);
  const std::vector<uint64_t> first = KeepOf(pyramid, lanes, 1, 4 * 12);
  EXPECT_THAT(first, ElementsAre(20, 15, 9, 4));
  for (size_t i = 0; i < 4; ++i) lanes[i].entries = first[i] + 6;
  EXPECT_THAT(KeepOf(pyramid, lanes, 1, 4 * 12), ElementsAre(20, 15, 9, 4));
}

// 16 of the best 20 candidates are the first head's.
TEST(AdaAllocation, TheFloorIsThePartThatEveryHeadGets) {
  std::vector<std::vector<float>> scores(2, std::vector<float>(30));
  for (size_t i = 0; i < 30; ++i) {
    scores[0][i] = i < 16 ? 10.0f : 1.0f;
    scores[1][i] = i < 4 ? 10.0f : 1.0f;
  }
  const std::vector<uint8_t> marks(30, 0);
  const auto split = [&](double floor, AdaAllocation::Compat compat) {
    std::vector<LaneShare> lanes(2, LaneShare{.entries = 30, .keep = 10});
    const std::vector<LaneScores> views = {{scores[0], marks}, {scores[1], marks}};
    AdaAllocation(floor, compat).OverHeads(views, lanes);
    return std::pair(lanes[0].keep, lanes[1].keep);
  };
  using Split = std::pair<uint64_t, uint64_t>;
  EXPECT_EQ(split(0, AdaAllocation::Compat::kPaper), Split(16, 4));
  EXPECT_EQ(split(0.2, AdaAllocation::Compat::kPaper), Split(15, 5));  // 14.8 and 5.2
  EXPECT_EQ(split(0.5, AdaAllocation::Compat::kPaper), Split(13, 7));
  EXPECT_EQ(split(1, AdaAllocation::Compat::kPaper), Split(10, 10));
  // Eight of each are safe; the first head has the best of the others.
  EXPECT_EQ(split(0.8, AdaAllocation::Compat::kKvpress), Split(12, 8));
}

TEST(AdaAllocation, LayersStayEqualWhenHeadsAreNot) {
  const std::vector<LaneShare> lanes = {
      {.entries = 50}, {.entries = 10}, {.entries = 30}, {.entries = 30}};
  EXPECT_THAT(KeepOf(AdaAllocation(0.5, AdaAllocation::Compat::kPaper), lanes, 2, 4 * 20),
              ElementsAre(30, 10, 20, 20));
}

}  // namespace
}  // namespace kvasir
