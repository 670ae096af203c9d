#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>

#include "model/testing.h"

namespace kvasir {
namespace {

using testing::Logits;
using testing::ReadIds;
using testing::Runner;
using testing::RunnerOptions;
using testing::TestData;

// Small random models with the logits that transformers computes for them: every parameter is
// random, widths leave remainders, head size times heads is not the hidden width.
constexpr const char* kFolders[] = {
    "llama_tied",     "llama_gqa2",   "llama_bias_gqa4_bf16",
    "llama_wide_f16", "llama_linear", "llama_llama3",
    "llama_yarn",     "llama_gguf",   "mistral_window",
    "mistral_wide",   "qwen2",        "qwen2_window_yarn",
    "qwen3",          "qwen3_layers",
};

std::string ModelPath(const std::string& name) {
  return TestData(name) + (name == "llama_gguf" ? "/model.gguf" : "");
}

Logits ExpectedLogits(const std::string& name, size_t n_tokens, uint32_t vocab) {
  std::ifstream file(TestData(name) + "/logits.bin", std::ios::binary);
  Logits rows(n_tokens, std::vector<float>(vocab));
  for (auto& row : rows) {
    file.read(reinterpret_cast<char*>(row.data()), static_cast<std::streamsize>(vocab * 4));
  }
  EXPECT_TRUE(file.good());
  return rows;
}

double MaxDifference(const Logits& a, const Logits& b) {
  double largest = a.size() == b.size() ? 0 : INFINITY;
  for (size_t r = 0; r < std::min(a.size(), b.size()); ++r) {
    for (size_t i = 0; i < a[r].size(); ++i) {
      const double difference = std::abs(double{a[r][i]} - double{b[r][i]});
      largest = difference <= largest ? largest : difference;  // a NaN counts
    }
  }
  return largest;
}

// Not ==: zeros of different sign are different bits, equal NaNs equal ones.
bool SameBits(const Logits& a, const Logits& b) {
  return std::ranges::equal(a, b, [](const auto& x, const auto& y) {
    return std::ranges::equal(x, y, [](float s, float t) {
      return std::bit_cast<uint32_t>(s) == std::bit_cast<uint32_t>(t);
    });
  });
}

class RandomModel : public ::testing::TestWithParam<std::tuple<const char*, const Kernels*>> {
 protected:
  std::string name() const { return std::get<0>(GetParam()); }
  std::vector<int32_t> Tokens() const { return ReadIds(TestData(name()) + "/tokens.txt"); }
  RunnerOptions With(Compute compute, size_t threads) const {
    return {.kernels = std::get<1>(GetParam()),
            .threads = threads,
            .compute = compute,
            .encoding = testing::DenseFor(compute),
            .max_rows = 64};
  }
};

TEST_P(RandomModel, GivesTheLogitsOfTransformers) {
  Runner runner(ModelPath(name()), With(Compute::kExact, 2));
  const std::vector<int32_t> tokens = Tokens();
  ASSERT_GE(tokens.size(), 32u);
  const Logits expected = ExpectedLogits(name(), tokens.size(), runner.model().config().vocab_size);
  EXPECT_LE(MaxDifference(runner.Feed(tokens, tokens.size()), expected), 1e-4);
}

TEST_P(RandomModel, StaysNearTransformersWithTheFastKernels) {
  Runner runner(ModelPath(name()), With(Compute::kFast, 2));
  const std::vector<int32_t> tokens = Tokens();
  const Logits expected = ExpectedLogits(name(), tokens.size(), runner.model().config().vocab_size);
  const Logits logits = runner.Feed(tokens, tokens.size());
  // int8 activations and an f16 cache against logits that spread over a few units.
  double error = 0, power = 0;
  for (size_t r = 0; r < expected.size(); ++r) {
    for (size_t i = 0; i < expected[r].size(); ++i) {
      error += std::pow(logits[r][i] - expected[r][i], 2);
      power += std::pow(expected[r][i], 2);
    }
  }
  EXPECT_LE(error / power, 1e-3);
}

TEST_P(RandomModel, GivesEqualBitsInBlocksOfAnySizeAndWithAnyNumberOfThreads) {
  for (const Compute compute : {Compute::kExact, Compute::kFast}) {
    const std::vector<int32_t> tokens = Tokens();
    const Logits whole = Runner(ModelPath(name()), With(compute, 1)).Feed(tokens, tokens.size());
    for (const size_t threads : {1, 2, 3}) {
      Runner runner(ModelPath(name()), With(compute, threads));
      for (const size_t block : {size_t{1}, size_t{3}, size_t{7}, tokens.size()}) {
        EXPECT_TRUE(SameBits(runner.Feed(tokens, block), whole))
            << "blocks of " << block << ", " << threads << " threads";
      }
    }
  }
}

TEST_P(RandomModel, GivesEqualBitsAloneAndBesideOtherSequences) {
  for (const Compute compute : {Compute::kExact, Compute::kFast}) {
    Runner runner(ModelPath(name()), With(compute, 2));
    const std::vector<int32_t> a = Tokens();
    const std::vector<int32_t> b(a.rbegin(), a.rend() - 5);
    const Logits alone_a = runner.Feed(a, a.size()), alone_b = runner.Feed(b, b.size());

    LaneSetHandle lanes_a = runner.Sequence(a.size()), lanes_b = runner.Sequence(b.size());
    Logits logits_a, logits_b;
    // Pieces of uneven length, in changing order, one of the two often alone.
    size_t at_a = 0, at_b = 0;
    for (size_t step = 0; at_a < a.size() || at_b < b.size(); ++step) {
      const size_t n_a = std::min(a.size() - at_a, step * 5 % 7);
      const size_t n_b = std::min(b.size() - at_b, step * 3 % 5);
      std::vector<Runner::Piece> pieces;
      if (n_a > 0) pieces.push_back({&lanes_a, std::span(a).subspan(at_a, n_a), &logits_a});
      if (n_b > 0) pieces.push_back({&lanes_b, std::span(b).subspan(at_b, n_b), &logits_b});
      if (step % 2 == 1) std::ranges::reverse(pieces);
      if (!pieces.empty()) runner.Pass(pieces);
      at_a += n_a;
      at_b += n_b;
    }
    EXPECT_TRUE(SameBits(logits_a, alone_a));
    EXPECT_TRUE(SameBits(logits_b, alone_b));
    runner.store().CheckIntegrity();
  }
}

std::string CaseName(const ::testing::TestParamInfo<RandomModel::ParamType>& info) {
  return std::string(std::get<0>(info.param)) + "_" + std::get<1>(info.param)->target;
}
INSTANTIATE_TEST_SUITE_P(AllTargets, RandomModel,
                         ::testing::Combine(::testing::ValuesIn(kFolders),
                                            ::testing::ValuesIn(AvailableKernels().begin(),
                                                                AvailableKernels().end())),
                         CaseName);

TEST(Forward, GivesOnlyTheLogitsThatWereAskedFor) {
  Runner runner(ModelPath("llama_gqa2"), {});
  const std::vector<int32_t> tokens = ReadIds(TestData("llama_gqa2") + "/tokens.txt");
  const Logits whole = runner.Feed(tokens, tokens.size());

  const auto part = std::span(tokens).first(10);
  LaneSetHandle lanes[] = {runner.Sequence(40), runner.Sequence(40), runner.Sequence(40)};
  Logits none, last, all;
  runner.Pass({{&lanes[0], part, &none, WantLogits::kNone},
               {&lanes[1], part, &last, WantLogits::kLast},
               {&lanes[2], part.first(4), &all, WantLogits::kAll}});
  EXPECT_TRUE(none.empty());
  EXPECT_TRUE(SameBits(last, {whole[9]}));
  EXPECT_TRUE(SameBits(all, Logits(whole.begin(), whole.begin() + 4)));

  // The rows without logits are in the cache all the same.
  Logits next;
  const auto eleventh = std::span(tokens).subspan(10, 1);
  runner.Pass({{&lanes[0], eleventh, &next}, {&lanes[1], eleventh, &next}});
  EXPECT_TRUE(SameBits(next, {whole[10], whole[10]}));
}

TEST(Forward, SaysWhichRowTheLogitsBelongTo) {
  Runner runner(ModelPath("llama_tied"), {});
  const std::vector<int32_t> tokens = {5, 6, 7, 8};
  LaneSetHandle lanes[] = {runner.Sequence(4), runner.Sequence(4), runner.Sequence(4)};
  std::vector<AppendCursor> cursors;
  for (LaneSetHandle& handle : lanes) cursors.push_back(runner.store().Append(handle, 4));
  const Segment segments[] = {{tokens, &cursors[0], WantLogits::kLast},
                              {tokens, &cursors[1], WantLogits::kNone},
                              {tokens, &cursors[2], WantLogits::kAll}};
  std::vector<std::pair<size_t, uint32_t>> calls;
  runner.model().Forward(segments,
                         [&](size_t segment, uint32_t row, std::span<const float> logits) {
                           calls.push_back({segment, row});
                           EXPECT_EQ(logits.size(), runner.model().config().vocab_size);
                         });
  using Call = std::pair<size_t, uint32_t>;
  EXPECT_THAT(calls,
              ::testing::ElementsAre(Call{0, 3}, Call{2, 0}, Call{2, 1}, Call{2, 2}, Call{2, 3}));
}

// Both planes, or one, of layers in other forms behind a window of `recent`.
Encoding Sealing(Codec k, Codec v, uint32_t recent) {
  Encoding encoding;
  const auto rule = [&](Codec codec, bool keys) {
    EncodingRule r = {.keys = keys, .values = !keys, .codec = codec, .recent = recent};
    r.open = codec == Codec::kSparseBF16 || codec == Codec::kSparseI8 ? Codec::kBF16 : Codec::kF16;
    if (IsSparse(codec)) r.thousandths = 700;
    encoding.rules.push_back(r);
  };
  rule(k, true);
  if (v != Codec::kF16) rule(v, false);
  encoding.seals.recent = recent;
  return encoding;
}

std::vector<int32_t> ManyTokens(size_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<int32_t> tokens(n);
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng() % 60);
  return tokens;
}

// What a row reads sealed is a function of its position: whatever shares its pass, and however wide
// the passes were.
TEST(SealedLanes, GiveEqualBitsInBlocksOfAnySizeBesideOthersAndWithAnyNumberOfThreads) {
  const Encoding encodings[] = {Sealing(Codec::kSparseBF16, Codec::kSparseBF16, 32),
                                Sealing(Codec::kSparseI8, Codec::kF16, 64),
                                Sealing(Codec::kQ8, Codec::kQ4, 32)};
  const std::vector<int32_t> a = ManyTokens(600, 1), b = ManyTokens(333, 2);
  for (const Encoding& encoding : encodings) {
    for (const Kernels* kernels : AvailableKernels()) {
      const bool best = kernels == &BestKernels();
      if (!best && &encoding != encodings) continue;
      const auto options = [&](size_t threads) {
        return RunnerOptions{.kernels = kernels,
                             .threads = threads,
                             .compute = Compute::kFast,
                             .encoding = encoding,
                             .max_rows = 640};
      };
      const Logits whole = Runner(ModelPath("llama_gqa2"), options(1)).Feed(a, a.size());
      Runner runner(ModelPath("llama_gqa2"), options(2));
      const std::vector<size_t> blocks =
          best ? std::vector<size_t>{1, 63, 64, 512, 600} : std::vector<size_t>{63};
      for (const size_t block : blocks) {
        EXPECT_TRUE(SameBits(runner.Feed(a, block), whole)) << "blocks of " << block;
      }
      const Logits alone_b = runner.Feed(b, b.size());
      LaneSetHandle lanes_a = runner.Sequence(a.size()), lanes_b = runner.Sequence(b.size());
      Logits logits_a, logits_b;
      for (size_t at_a = 0, at_b = 0, step = 0; at_a < a.size() || at_b < b.size(); ++step) {
        const size_t n_a = std::min(a.size() - at_a, step * 37 % 101);
        const size_t n_b = std::min(b.size() - at_b, step * 53 % 89);
        std::vector<Runner::Piece> pieces;
        if (n_a > 0) pieces.push_back({&lanes_a, std::span(a).subspan(at_a, n_a), &logits_a});
        if (n_b > 0) pieces.push_back({&lanes_b, std::span(b).subspan(at_b, n_b), &logits_b});
        if (!pieces.empty()) runner.Pass(pieces);
        at_a += n_a;
        at_b += n_b;
      }
      EXPECT_TRUE(SameBits(logits_a, whole));
      EXPECT_TRUE(SameBits(logits_b, alone_b));
      runner.store().CheckIntegrity();
    }
  }
}

// Rows that nobody wants logits of, and rows of a pass that is wanted in part.
TEST(SealedLanes, TheLastLayerSealsWithoutAttention) {
  const std::vector<int32_t> tokens = ManyTokens(400, 3);
  Runner runner(ModelPath("llama_gqa2"),
                {.compute = Compute::kFast,
                 .encoding = Sealing(Codec::kSparseF16, Codec::kSparseBF16, 32),
                 .max_rows = 400});
  const Logits whole = runner.Feed(tokens, 400);
  LaneSetHandle lanes = runner.Sequence(400);
  Logits last;
  runner.Pass({{&lanes, std::span(tokens).first(170), &last, WantLogits::kNone}});
  runner.Pass({{&lanes, std::span(tokens).subspan(170, 200), &last, WantLogits::kLast}});
  runner.Pass({{&lanes, std::span(tokens).subspan(370), &last, WantLogits::kLast}});
  EXPECT_TRUE(SameBits(last, {whole[369], whole[399]}));
}

TEST(Load, ReportsProgressThatEndsAtOne) {
  for (const char* name : {"llama_tied", "llama_gqa2"}) {
    const ModelFile file = ModelFile::Open(ModelPath(name));
    Workers workers(1);
    std::vector<double> seen;
    const auto model = Model::Load(file, BestKernels(), workers, {.max_rows = 8},
                                   [&](double done) { seen.push_back(done); });
    ASSERT_FALSE(seen.empty());
    EXPECT_TRUE(std::ranges::is_sorted(seen));
    EXPECT_DOUBLE_EQ(seen.back(), 1.0) << name;
    EXPECT_GT(model->weight_bytes(), 80u << 10) << name;
    EXPECT_GT(model->scratch_bytes(), 8u * 1024) << name;
  }
}

}  // namespace
}  // namespace kvasir
