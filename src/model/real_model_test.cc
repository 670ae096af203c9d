// A real model against transformers' losses for the same text: exactly in kExact, closely in kFast.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "model/testing.h"

namespace kvasir {
namespace {

using testing::Logits;
using testing::RealModel;
using testing::Runner;
using testing::RunnerOptions;
using testing::TestData;

// Loss of every token after the first, and the most likely token at its place.
struct Losses {
  std::vector<int32_t> ids;
  std::vector<double> nll;
  std::vector<int32_t> top1;

  double mean() const {
    double sum = 0;
    for (const double x : nll) sum += x;
    return sum / static_cast<double>(nll.size());
  }
};

Losses ReadLosses(const std::string& path) {
  std::ifstream file(path);
  Losses losses;
  int32_t id = 0, top1 = 0;
  for (double nll = 0; file >> id >> nll >> top1;) {
    losses.ids.push_back(id);
    if (losses.ids.size() == 1) continue;
    losses.nll.push_back(nll);
    losses.top1.push_back(top1);
  }
  return losses;
}

Losses Measure(Runner& runner, const std::vector<int32_t>& ids, size_t block) {
  Losses losses{.ids = ids};
  const Logits logits = runner.Feed(ids, block);
  for (size_t i = 1; i < ids.size(); ++i) {
    const std::vector<float>& row = logits[i - 1];
    const auto best = std::ranges::max_element(row);
    double sum = 0;
    for (const float x : row) sum += std::exp(double{x} - *best);
    losses.nll.push_back(std::log(sum) + *best - row[static_cast<size_t>(ids[i])]);
    losses.top1.push_back(static_cast<int32_t>(best - row.begin()));
  }
  return losses;
}

struct Case {
  const char* file;
  const char* golden;
};

class RealModelLosses : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    path_ = RealModel(GetParam().file);
    if (path_.empty()) GTEST_SKIP() << GetParam().file << " is not in KVASIR_MODELS";
    expected_ = ReadLosses(TestData(GetParam().golden));
    ASSERT_GT(expected_.ids.size(), 400u);
  }
  std::string path_;
  Losses expected_;
};

TEST_P(RealModelLosses, AreThoseOfTransformersInTheExactPath) {
  Runner runner(path_, {.compute = Compute::kExact, .encoding = {Codec::kF32, Codec::kF32}});
  const Losses losses = Measure(runner, expected_.ids, 512);
  for (size_t i = 0; i < losses.nll.size(); ++i) {
    ASSERT_NEAR(losses.nll[i], expected_.nll[i], 1e-3) << "token " << i + 1;
  }
}

TEST_P(RealModelLosses, AreCloseInTheFastPath) {
  Runner runner(path_, {.compute = Compute::kFast, .encoding = {Codec::kF16, Codec::kF16}});
  const Losses losses = Measure(runner, expected_.ids, 512);
  EXPECT_NEAR(losses.mean(), expected_.mean(), 0.005 * expected_.mean());
  size_t differ = 0;
  for (size_t i = 0; i < losses.top1.size(); ++i) differ += losses.top1[i] != expected_.top1[i];
  EXPECT_LE(static_cast<double>(differ), 0.03 * static_cast<double>(losses.top1.size()));
}

INSTANTIATE_TEST_SUITE_P(
    Models, RealModelLosses,
    ::testing::Values(Case{"smollm2-135m-instruct-q4_1.gguf", "smollm2_nll.txt"},
                      Case{"qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "qwen-0.5b_nll.txt"}),
    [](const auto& info) { return std::string(info.index == 0 ? "smollm2" : "qwen"); });

TEST(SmolLm2, GivesEqualBitsWhateverTheBlocksTheThreadsAndTheNeighbours) {
  const std::string path = RealModel("smollm2-135m-instruct-q4_1.gguf");
  if (path.empty()) GTEST_SKIP() << "smollm2-135m-instruct-q4_1.gguf is not in KVASIR_MODELS";
  std::vector<int32_t> ids = ReadLosses(TestData("smollm2_nll.txt")).ids;
  ids.resize(80);
  const std::span<const int32_t> tokens(ids);
  for (const Kernels* kernels : AvailableKernels()) {
    for (const Compute compute : {Compute::kFast, Compute::kExact}) {
      // Without FMA instructions the exact path takes minutes; the small models cover it.
      if (compute == Compute::kExact && kernels != &BestKernels()) continue;
      const auto options = [&](size_t threads) {
        return RunnerOptions{.kernels = kernels,
                             .threads = threads,
                             .compute = compute,
                             .encoding = testing::DenseFor(compute),
                             .max_rows = 128};
      };
      const Logits whole = Runner(path, options(2)).Feed(tokens, tokens.size());
      Runner runner(path, options(3));
      LaneSetHandle a = runner.Sequence(80), b = runner.Sequence(80);
      Logits logits_a, logits_b;
      // b runs ahead in a large block, then one row of each in a pass, as two decoding users.
      runner.Pass({{&b, tokens.first(72), &logits_b, WantLogits::kLast},
                   {&a, tokens.first(10), &logits_a, WantLogits::kLast}});
      for (size_t i = 0; i < 8; ++i) {
        runner.Pass({{&a, tokens.subspan(10 + i, 1), &logits_a},
                     {&b, tokens.subspan(72 + i, 1), &logits_b}});
      }
      EXPECT_TRUE(std::ranges::equal(logits_a, std::span(whole).subspan(9, 9))) << kernels->target;
      EXPECT_TRUE(std::ranges::equal(logits_b, std::span(whole).subspan(71, 9))) << kernels->target;
    }
  }
}

}  // namespace
}  // namespace kvasir
