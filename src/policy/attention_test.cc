// What methods read of attention, against plain loops in double: the sweep over keys, the window of
// query rows, the moments of queries, the pools.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "policy/attention_sweep.h"
#include "policy/expected/query_moments.h"
#include "policy/query_window.h"
#include "policy/test_lanes.h"
#include "tensor/dtype.h"

namespace kvasir {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::Pointwise;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// A lane in any codec whose dead slots decode to NaN, and its live keys as the codec returns them.
class CodecLane {
 public:
  CodecLane(PlaneForm form, uint32_t dim, uint32_t n, const Kernels& kernels, uint32_t seed)
      : dim_(dim) {
    const Codec codec = IsSparse(form.codec) ? SparseSource(form.codec) : form.codec;
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    const size_t stride = (dim + 15) / 16 * 16;
    std::vector<float> row(stride), expanded(size_t{dim} * kPageEntries);
    for (uint32_t position = 0; keys.size() < n;) {
      planes_.emplace_back(PlaneBytes(codec, dim) + 64);
      positions_.emplace_back(kPageEntries);
      PageView page;
      page.k_form = page.v_form = form;
      page.filled = static_cast<uint8_t>(1 + rng() % kPageEntries);
      for (uint32_t slot = 0; slot < page.filled; ++slot, ++position) {
        for (uint32_t c = 0; c < dim; ++c) row[c] = normal(rng);
        const bool live = rng() % 4 != 0;
        if (!live && !IsInteger(codec)) row.assign(stride, kNaN);
        kernels.planes.encode_k[static_cast<size_t>(codec)](row.data(), stride, 1, dim, slot,
                                                            planes_.back().data());
        if (!live && IsInteger(codec)) PoisonScales(codec, slot);
        positions_.back()[slot] = position;
        if (live) page.live |= uint64_t{1} << slot;
      }
      if (IsSparse(form.codec)) {
        const std::vector<uint8_t> dense = std::move(planes_.back());
        planes_.back().assign(PlaneBytes(form, dim) + 64, 0xff);
        kernels.planes.pack_k[form.index()](dense.data(), form.Shape(dim), nullptr,
                                            planes_.back().data());
      }
      kernels.planes.expand_k[form.index()](planes_.back().data(), form.Shape(dim),
                                            expanded.data());
      for (uint32_t slot = 0; slot < page.filled; ++slot) {
        std::vector<double> key(dim);
        for (uint32_t c = 0; c < dim; ++c) key[c] = expanded[c * kPageEntries + slot];
        if (page.live >> slot & 1) {
          keys.push_back(key);
          positions.push_back(positions_.back()[slot]);
        } else {
          EXPECT_TRUE(std::isnan(key[0])) << "a dead slot that would not show";
        }
      }
      pages_.push_back(page);
    }
    for (size_t i = 0; i < pages_.size(); ++i) {
      pages_[i].k = planes_[i].data();
      pages_[i].positions = positions_[i].data();
    }
    view = {pages_.data(), static_cast<uint32_t>(pages_.size()), static_cast<uint32_t>(keys.size()),
            dim};
  }

  LaneView view;
  std::vector<std::vector<double>> keys;  // live ones, in view order
  std::vector<uint32_t> positions;

 private:
  void PoisonScales(Codec codec, uint32_t slot) {
    const uint16_t nan = 0x7e00;
    for (size_t block = 0; block < CodecBlocks(dim_); ++block) {
      std::memcpy(planes_.back().data() + ScalesAt(codec, dim_) + (block * kPageEntries + slot) * 2,
                  &nan, 2);
    }
  }

  uint32_t dim_;
  std::vector<PageView> pages_;
  std::vector<std::vector<uint8_t>> planes_;
  std::vector<std::vector<uint32_t>> positions_;
};

// Sums over rows (position, query) of the probability of each entry.
struct Row {
  uint32_t position;
  std::vector<float> query;
};
std::vector<float> ReferenceSums(const CodecLane& lane, const std::vector<Row>& rows, bool causal,
                                 const std::vector<uint8_t>& counted) {
  std::vector<double> sums(lane.keys.size());
  for (const Row& row : rows) {
    std::vector<double> weights(lane.keys.size(), -std::numeric_limits<double>::infinity());
    for (size_t i = 0; i < lane.keys.size(); ++i) {
      if (!counted.empty() && counted[i] == 0) continue;
      if (causal && lane.positions[i] > row.position) continue;
      double dot = 0;
      for (size_t c = 0; c < row.query.size(); ++c) dot += double{row.query[c]} * lane.keys[i][c];
      weights[i] = dot / std::sqrt(static_cast<double>(row.query.size()));
    }
    const double most = *std::max_element(weights.begin(), weights.end());
    double total = 0;
    for (double& weight : weights) {
      weight = std::isinf(weight) ? 0 : std::exp(weight - most);
      total += weight;
    }
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += total > 0 ? weights[i] / total : 0;
  }
  return {sums.begin(), sums.end()};
}

class SweepTest : public testing::TestWithParam<const Kernels*> {
 protected:
  const Kernels& kernels() const { return *GetParam(); }

  // Rows of a group as AttentionSweep wants them.
  static std::vector<Row> RandomRows(uint32_t n, uint32_t group, uint32_t dim, uint32_t first,
                                     std::mt19937* rng) {
    std::normal_distribution<float> normal;
    std::vector<Row> rows;
    for (uint32_t r = 0; r < n * group; ++r) {
      Row row = {first + r / group, std::vector<float>(dim)};
      for (float& x : row.query) x = 2 * normal(*rng);
      rows.push_back(std::move(row));
    }
    return rows;
  }
  std::vector<float> Sums(const CodecLane& lane, const std::vector<Row>& rows, uint32_t group,
                          bool causal, const std::vector<uint8_t>& counted) const {
    const size_t dim = rows[0].query.size(), stride = (dim + 15) / 16 * 16;
    const float scale = AttentionSweep::kLog2E / std::sqrt(static_cast<float>(dim));
    std::vector<float> q(rows.size() * stride);
    for (size_t r = 0; r < rows.size(); ++r) {
      for (size_t c = 0; c < dim; ++c) q[r * stride + c] = rows[r].query[c] * scale;
    }
    ScorerScratch scratch;
    scratch.rows.assign(1 << 14, kNaN);  // of another lane
    AttentionSweep sweep(lane.view, kernels(), counted, &scratch);
    std::vector<float> sums(lane.keys.size(), 0.0f);
    sweep.AddProbabilities(q.data(), stride, rows.size(), group, rows[0].position, causal, sums);
    return sums;
  }
};
INSTANTIATE_TEST_SUITE_P(Targets, SweepTest, testing::ValuesIn(AvailableKernels()),
                         [](const auto& info) { return std::string(info.param->target); });

TEST_P(SweepTest, SumsAreThoseOfPlainLoops) {
  std::mt19937 rng(1);
  for (const uint32_t dim : {8u, 64u, 80u}) {
    const auto half = static_cast<uint16_t>(dim / 2);
    for (const PlaneForm form :
         {PlaneForm(Codec::kF32), PlaneForm(Codec::kF16), PlaneForm(Codec::kBF16),
          PlaneForm(Codec::kQ8), PlaneForm(Codec::kQ4), PlaneForm(Codec::kSparseBF16, half),
          PlaneForm(Codec::kSparseI8, half)}) {
      const CodecLane lane(form, dim, 200, kernels(), dim);
      for (const uint32_t group : {1u, 2u, 4u, 8u}) {
        // More rows than a tile holds, the last one at the last entry.
        const uint32_t n = 80 / group + 3;
        const std::vector<Row> rows =
            RandomRows(n, group, dim, lane.positions.back() + 1 - n, &rng);
        for (const bool causal : {false, true}) {
          EXPECT_THAT(Sums(lane, rows, group, causal, {}),
                      Pointwise(FloatNear(2e-5f), ReferenceSums(lane, rows, causal, {})))
              << "codec " << form.index() << " dim " << dim << " group " << group;
        }
      }
    }
  }
}

TEST_P(SweepTest, OnlyCountedEntriesAreInTheNormaliser) {
  std::mt19937 rng(2);
  for (const Codec codec : {Codec::kF32, Codec::kQ8}) {
    const CodecLane lane(codec, 16, 300, kernels(), 3);
    const std::vector<Row> rows = RandomRows(6, 2, 16, lane.positions.back() - 5, &rng);
    for (const uint32_t most : {0u, 2u, 5u}) {
      std::vector<uint8_t> counted;
      for (size_t i = 0; i < lane.keys.size(); ++i) {
        // Whole pages without any, and a mixture behind.
        counted.push_back(i > 130 && rng() % 5 < most ? 1 : 0);
      }
      for (const bool causal : {false, true}) {
        EXPECT_THAT(Sums(lane, rows, 2, causal, counted),
                    Pointwise(FloatNear(2e-5f), ReferenceSums(lane, rows, causal, counted)))
            << "counted " << most;
      }
    }
  }
}

TEST_P(SweepTest, RowsThatSeeNothingGiveNothing) {
  std::mt19937 rng(3);
  const CodecLane lane(Codec::kF32, 8, 70, kernels(), 4);
  std::vector<uint8_t> counted(lane.keys.size(), 0);
  counted.back() = 1;
  const uint32_t last = lane.positions.back();
  const std::vector<Row> rows = RandomRows(2, 1, 8, last - 1, &rng);  // the first cannot see it
  const std::vector<float> sums = Sums(lane, rows, 1, /*causal=*/true, counted);
  EXPECT_EQ(sums.back(), 1.0f);
  for (size_t i = 0; i + 1 < sums.size(); ++i) EXPECT_EQ(sums[i], 0.0f) << i;
}

TEST_P(SweepTest, LargeScoresDoNotOverflow) {
  std::mt19937 rng(4);
  const CodecLane lane(Codec::kF32, 8, 100, kernels(), 5);
  std::vector<Row> rows = RandomRows(3, 1, 8, lane.positions.back() - 2, &rng);
  for (Row& row : rows) {
    for (float& x : row.query) x *= 300;
  }
  EXPECT_THAT(Sums(lane, rows, 1, true, {}),
              Pointwise(FloatNear(1e-3f), ReferenceSums(lane, rows, true, {})));
}

// A window over `shape` to which rows are shown in passes; values tell layer, head and position.
class WindowFeed {
 public:
  WindowFeed(const LaneShape& shape, uint32_t n_heads, const Kernels& kernels = BestKernels())
      : shape_(shape), n_heads_(n_heads), kernels_(kernels) {}

  float Value(uint32_t layer, uint32_t query_head, uint32_t position, uint32_t c) const {
    return HashedUnit(layer, query_head, position, c) - 0.5f;
  }
  void Show(Evidence* evidence, uint32_t first, uint32_t n) const {
    // Wider than needed: rows have a stride.
    const size_t width = size_t{n_heads_} * shape_.head_dim, stride = width + 16;
    std::vector<float> q(n * stride);
    for (uint32_t l = 0; l < shape_.n_layers; ++l) {
      const uint32_t layer = shape_.first_layer + l;
      for (uint32_t r = 0; r < n; ++r) {
        for (uint32_t h = 0; h < n_heads_; ++h) {
          for (uint32_t c = 0; c < shape_.head_dim; ++c) {
            q[r * stride + h * shape_.head_dim + c] = Value(layer, h, first + r, c);
          }
        }
      }
      evidence->Take({.layer = layer,
                      .first_position = first,
                      .rows = {q.data(), n, width, stride},
                      .kernels = &kernels_});
    }
  }
  // The last rows of all layers and heads are these positions'.
  void Expect(const QueryWindow& window, uint32_t end, uint32_t n) const {
    const size_t stride = (shape_.head_dim + 15) / 16 * 16;
    std::vector<float> scratch, out;
    for (uint32_t l = 0; l < shape_.n_layers; ++l) {
      const uint32_t layer = shape_.first_layer + l;
      ASSERT_EQ(window.n_rows(layer), n);
      ASSERT_EQ(window.end(layer), end);
      for (uint32_t head = 0; head < shape_.n_kv_heads; ++head) {
        out.assign(size_t{n} * window.group() * stride, kNaN);
        window.Read(layer, head, n, 0.5f, kernels_, &scratch, out.data(), stride);
        for (uint32_t r = 0; r < n; ++r) {
          for (uint32_t g = 0; g < window.group(); ++g) {
            for (uint32_t c = 0; c < shape_.head_dim; ++c) {
              float expected = Value(layer, head * window.group() + g, end - n + r, c);
              if (shape_.k_form.codec != Codec::kF32) {
                ASSERT_NEAR(out[(size_t{r} * window.group() + g) * stride + c], expected / 2, 2e-4);
              } else {
                ASSERT_EQ(out[(size_t{r} * window.group() + g) * stride + c], expected / 2)
                    << "row " << r << " head " << head << " g " << g;
              }
            }
          }
        }
      }
    }
  }

 private:
  const LaneShape shape_;
  const uint32_t n_heads_;
  const Kernels& kernels_;
};

LaneShape WindowShape(Codec codec) {
  return {.first_layer = 3,
          .n_layers = 2,
          .n_kv_heads = 2,
          .head_dim = 12,
          .k_form = codec,
          .v_form = codec};
}

class WindowTest : public testing::TestWithParam<Codec> {};
INSTANTIATE_TEST_SUITE_P(Codecs, WindowTest,
                         testing::Values(Codec::kF32, Codec::kF16, Codec::kBF16, Codec::kQ8,
                                         Codec::kQ4));

TEST_P(WindowTest, HoldsTheLastRowsInOrderHoweverTheyCame) {
  const LaneShape shape = WindowShape(GetParam());
  const WindowFeed feed(shape, 6);
  for (const uint32_t capacity : {1u, 5u, 64u, 70u, 130u}) {
    QueryWindow window(shape, 6, capacity);
    std::mt19937 rng(capacity);
    uint32_t end = 0;
    for (int pass = 0; pass < 12; ++pass) {
      // Up to twice what it holds at once: as many as it asks for are shown.
      const uint32_t rows = 1 + rng() % (2 * capacity), shown = window.QueryRows(rows);
      EXPECT_EQ(shown, std::min(rows, capacity));
      feed.Show(&window, end + rows - shown, shown);
      end += rows;
      // Rows in between that it did not ask for were not the last ones.
      feed.Expect(window, end, window.n_rows(3));
      if (testing::Test::HasFatalFailure()) return;
      ASSERT_GE(window.n_rows(3), shown);
    }
    for (uint32_t i = 0; i < 2 * capacity; ++i) feed.Show(&window, end++, 1);
    feed.Expect(window, end, capacity);
  }
}

TEST(QueryWindow, MoreRowsThanItHoldsLeaveTheLast) {
  const LaneShape shape = WindowShape(Codec::kF32);
  const WindowFeed feed(shape, 4);
  QueryWindow window(shape, 4, 5);
  feed.Show(&window, 100, 23);
  feed.Expect(window, 123, 5);
}

TEST(QueryWindow, AGapBeginsAnew) {
  const LaneShape shape = WindowShape(Codec::kF32);
  const WindowFeed feed(shape, 4);
  QueryWindow window(shape, 4, 8);
  feed.Show(&window, 0, 6);
  feed.Show(&window, 6, 1);
  feed.Expect(window, 7, 7);
  feed.Show(&window, 9, 3);  // 7 and 8 were never shown
  feed.Expect(window, 12, 3);
  feed.Show(&window, 4, 2);  // back
  feed.Expect(window, 6, 2);
  window.Clear();
  feed.Expect(window, 6, 0);
  feed.Show(&window, 6, 2);
  feed.Expect(window, 8, 2);
}

TEST(QueryWindow, ForksGoTheirOwnWays) {
  const LaneShape shape = WindowShape(Codec::kF16);
  const WindowFeed feed(shape, 4);
  QueryWindow parent(shape, 4, 6);
  feed.Show(&parent, 0, 9);
  const auto fork = parent.Fork();
  const auto& child = dynamic_cast<const QueryWindow&>(*fork);
  feed.Expect(child, 9, 6);
  feed.Show(&parent, 9, 4);
  feed.Expect(child, 9, 6);
  feed.Expect(parent, 13, 6);
  feed.Show(fork.get(), 9, 1);
  feed.Expect(child, 10, 6);
  feed.Expect(parent, 13, 6);
}

TEST(QueryWindow, TakesTwoBytesAnElementAndFourBesideF32Lanes) {
  const auto bytes = [](Codec codec) {
    const LaneShape shape = {
        .n_layers = 28, .n_kv_heads = 4, .head_dim = 128, .k_form = codec, .v_form = codec};
    return QueryWindow::Bytes(shape, 28, 32);  // R1-Distill-Qwen-7B
  };
  EXPECT_EQ(bytes(Codec::kF16), 32u * 28 * 128 * 28 * 2);
  EXPECT_EQ(bytes(Codec::kQ4), bytes(Codec::kF16));
  EXPECT_EQ(bytes(Codec::kF32), 2 * bytes(Codec::kF16));
}

class MomentsTest : public testing::TestWithParam<bool> {
 protected:
  static constexpr uint32_t kDim = 24, kHeads = 4, kFirst = 4;
  MomentsTest() : shape_(F32Shape(2, 2, kDim)), facts_(FactsFor(shape_, 2)) {
    facts_.interleaved = GetParam();
  }
  // A query before RoPE.
  static float Raw(uint32_t layer, uint32_t head, uint32_t position, uint32_t c) {
    return HashedUnit(layer, head, position, c) + (c == head ? 1.0f : -0.2f);
  }
  std::vector<double> Turned(uint32_t layer, uint32_t head, uint32_t position) const {
    std::vector<double> q(kDim);
    for (uint32_t i = 0; i < kDim / 2; ++i) {
      const uint32_t a = GetParam() ? 2 * i : i, b = GetParam() ? 2 * i + 1 : i + kDim / 2;
      const double angle = double{facts_.inverse_frequencies[i]} * position;
      const double x = Raw(layer, head, position, a), y = Raw(layer, head, position, b);
      q[a] = x * std::cos(angle) - y * std::sin(angle);
      q[b] = x * std::sin(angle) + y * std::cos(angle);
    }
    return q;
  }
  void Show(QueryMoments* moments, uint32_t first, uint32_t n, Workers* workers = nullptr) const {
    const size_t width = size_t{kHeads} * kDim;
    std::vector<float> q(n * width);
    for (uint32_t layer = 0; layer < 2; ++layer) {
      for (uint32_t r = 0; r < n; ++r) {
        for (uint32_t h = 0; h < kHeads; ++h) {
          const std::vector<double> row = Turned(layer, h, first + r);
          std::copy(row.begin(), row.end(), q.begin() + r * width + h * kDim);
        }
      }
      moments->Take({.layer = layer,
                     .first_position = first,
                     .rows = {q.data(), n, width, width},
                     .kernels = &BestKernels(),
                     .workers = workers});
    }
  }
  static void Expect(const Moments& got, uint32_t layer, uint32_t head, uint32_t first,
                     uint32_t end) {
    const double n = end - first;
    std::vector<double> mean(kDim);
    for (uint32_t p = first; p < end; ++p) {
      for (uint32_t c = 0; c < kDim; ++c) mean[c] += Raw(layer, head, p, c) / n;
    }
    for (uint32_t a = 0; a < kDim; ++a) {
      ASSERT_NEAR(got.mean[a], mean[a], 2e-5);
      for (uint32_t b = 0; b < kDim; ++b) {
        double covariance = 0;
        for (uint32_t p = first; p < end; ++p) {
          covariance += (Raw(layer, head, p, a) - mean[a]) * (Raw(layer, head, p, b) - mean[b]) / n;
        }
        ASSERT_NEAR(got.covariance[a * kDim + b], covariance, 1e-4) << a << " " << b;
      }
    }
  }
  LaneShape shape_;
  ModelFacts facts_;
};
INSTANTIATE_TEST_SUITE_P(Layouts, MomentsTest, testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "interleaved" : "halves");
});

TEST_P(MomentsTest, AreThoseOfQueriesBeforeRope) {
  for (const uint32_t cut : {1u, 3u, 50u, 300u}) {
    QueryMoments moments(shape_, facts_, kFirst, 20, true);
    for (uint32_t p = 0; p < 300; p += cut) Show(&moments, p, std::min(cut, 300 - p));
    for (uint32_t layer = 0; layer < 2; ++layer) {
      for (uint32_t h = 0; h < kHeads; ++h) {
        Expect(moments.OfAll(layer, h / 2, h % 2), layer, h, kFirst, 300);
        Expect(moments.OfRecent(layer, h / 2, h % 2, BestKernels()), layer, h, 280, 300);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(MomentsTest, WorkersAndForksChangeNoBit) {
  QueryMoments alone(shape_, facts_, kFirst, 20, true), shared(shape_, facts_, kFirst, 20, true);
  Workers workers(3);
  Show(&alone, 0, 100);
  Show(&shared, 0, 100, &workers);
  const auto fork = shared.Fork();
  Show(&shared, 100, 30, &workers);
  const auto& child = dynamic_cast<const QueryMoments&>(*fork);
  for (uint32_t h = 0; h < kHeads; ++h) {
    const Moments a = alone.OfAll(1, h / 2, h % 2), b = child.OfAll(1, h / 2, h % 2);
    EXPECT_EQ(a.mean, b.mean);
    EXPECT_EQ(a.covariance, b.covariance);
    EXPECT_NE(a.mean, shared.OfAll(1, h / 2, h % 2).mean);
  }
}

TEST(QueryMoments, TooFewRowsAreNoMoments) {
  const LaneShape shape = F32Shape(1, 1, 4);
  const QueryMoments none(shape, FactsFor(shape, 1), 4, 8, true);
  EXPECT_THAT(none.OfAll(0, 0, 0).mean, ElementsAre(0, 0, 0, 0));
}

std::vector<float> Pooled(std::vector<float> scores, uint32_t kernel, bool max) {
  std::vector<float> scratch = {kNaN, kNaN, kNaN};
  max ? MaxPool(scores, kernel, &scratch) : AveragePool(scores, kernel, &scratch);
  return scores;
}

TEST(Pools, AveragesCountZerosBeyondTheEnds) {
  EXPECT_THAT(Pooled({3, 6, 9, 12}, 3, false), ElementsAre(3, 6, 9, 7));
  EXPECT_THAT(Pooled({5, 10}, 5, false), ElementsAre(3, 3));
  EXPECT_THAT(Pooled({5, 10}, 1, false), ElementsAre(5, 10));
  EXPECT_THAT(Pooled({}, 7, false), ElementsAre());
}

TEST(Pools, MaximaSeeOnlyWhatIsThere) {
  EXPECT_THAT(Pooled({-3, -6, -9, -1}, 3, true), ElementsAre(-3, -3, -1, -1));
  EXPECT_THAT(Pooled({-5, -10}, 5, true), ElementsAre(-5, -5));
  EXPECT_THAT(Pooled({4, 1, 1, 1, 1, 9}, 5, true), ElementsAre(4, 4, 4, 9, 9, 9));
}

}  // namespace
}  // namespace kvasir
