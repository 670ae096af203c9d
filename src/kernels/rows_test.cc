#include "kernels/ref/rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/table.h"

namespace kvasir {
namespace {

constexpr float kGuard = 12345.0f;

// n random floats, then eight guards: readable, never to be written or to count.
std::vector<float> Random(size_t n, uint32_t seed, float width = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, width);
  std::vector<float> x(n + 8, kGuard);
  for (size_t i = 0; i < n; ++i) x[i] = normal(random);
  return x;
}

void ExpectGuards(const std::vector<float>& x) {
  for (size_t i = x.size() - 8; i < x.size(); ++i) ASSERT_EQ(x[i], kGuard);
}

class RowsTest : public testing::TestWithParam<const Kernels*> {
 protected:
  const RowKernels& rows_ = GetParam()->rows;
};

INSTANTIATE_TEST_SUITE_P(Targets, RowsTest,
                         testing::ValuesIn(AvailableKernels().begin(), AvailableKernels().end()),
                         [](const auto& info) { return std::string(info.param->target); });

constexpr size_t kLengths[] = {1, 3, 7, 8, 9, 16, 31, 32, 33, 64, 100, 576, 1536, 4099};

TEST_P(RowsTest, RmsNormDividesByTheRootOfTheMeanSquare) {
  for (const size_t n : kLengths) {
    const std::vector<float> x = Random(n, 1, 3), weight = Random(n, 2);
    std::vector<float> out(n + 8, kGuard);
    rows_.rms_norm(x.data(), weight.data(), n, 1e-5f, out.data());
    const std::vector<double> expected = ref::RmsNorm({x.data(), n}, {weight.data(), n}, 1e-5f);
    for (size_t i = 0; i < n; ++i) {
      ASSERT_NEAR(out[i], expected[i], 1e-6 * std::abs(expected[i])) << n << ", " << i;
    }
    ExpectGuards(out);
  }
}

TEST_P(RowsTest, ExpBelowIsExactToSomeUnitsAndTheSameEverywhere) {
  std::vector<float> x = {0, -1e-30f, -1, -88, -707.9f, -709, -1e30f, -INFINITY};
  for (const float value : Random(4000, 3, 40)) x.push_back(-std::abs(value));
  std::vector<double> out(x.size()), first(x.size());
  for (const float most : {0.0f, 17.25f}) {
    for (float& value : x) value += most;
    rows_.exp_below(x.data(), x.size(), most, out.data());
    AvailableKernels()[0]->rows.exp_below(x.data(), x.size(), most, first.data());
    for (size_t i = 0; i < x.size(); ++i) {
      const double a = double{x[i]} - double{most}, expected = a < -708 ? 0 : std::exp(a);
      ASSERT_NEAR(out[i], expected, 0x1p-50 * expected) << a;
      ASSERT_EQ(out[i], first[i]) << a;
    }
  }
  EXPECT_EQ(out[0], 1);
}

TEST_P(RowsTest, RmsNormOfZerosIsZero) {
  std::vector<float> x(40), weight(40, 1.0f), out(40, kGuard);
  rows_.rms_norm(x.data(), weight.data(), 32, 1e-5f, out.data());
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(out[i], 0);
}

TEST_P(RowsTest, SiluMulGatesAndLeavesTheRestAlone) {
  for (const size_t n : kLengths) {
    std::vector<float> gate = Random(n, 3, 10);
    const std::vector<float> before = gate, up = Random(n, 4);
    rows_.silu_mul(gate.data(), up.data(), n);
    for (size_t i = 0; i < n; ++i) {
      const double expected = ref::Silu(before[i]) * up[i];
      ASSERT_NEAR(gate[i], expected, 1e-6 * std::abs(expected)) << before[i];
    }
    ExpectGuards(gate);
  }
}

TEST_P(RowsTest, SiluOfFarValuesNeitherOverflowsNorLosesNaN) {
  std::vector<float> gate = {-1e30f, -1000, -90, -88, 0, 90, 1e30f, std::nanf("")};
  const std::vector<float> before = gate, ones(8, 1.0f);
  rows_.silu_mul(gate.data(), ones.data(), 8);
  for (size_t i = 1; i < 7; ++i)
    EXPECT_NEAR(gate[i], ref::Silu(before[i]), 1e-6 * std::max(1e-28f, before[i]));
  EXPECT_LE(std::abs(gate[0]), 1e-7f);
  EXPECT_TRUE(std::isnan(gate[7]));
}

TEST_P(RowsTest, AddAdds) {
  for (const size_t n : kLengths) {
    std::vector<float> x = Random(n, 5);
    const std::vector<float> before = x, y = Random(n, 6);
    rows_.add(x.data(), y.data(), n);
    for (size_t i = 0; i < n; ++i) ASSERT_EQ(x[i], before[i] + y[i]);
    ExpectGuards(x);
  }
}

TEST_P(RowsTest, RopeRotatesPairs) {
  for (const size_t dim : {2, 6, 16, 64, 80, 128}) {
    for (const bool interleaved : {false, true}) {
      std::vector<float> cos, sin;
      for (size_t i = 0; i < dim / 2; ++i) {
        const double angle =
            17 * std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
      }
      std::vector<float> head = Random(dim, 7);
      const std::vector<double> expected = ref::Rope({head.data(), dim}, cos, sin, interleaved);
      rows_.rope(head.data(), cos.data(), sin.data(), dim, interleaved);
      for (size_t i = 0; i < dim; ++i) ASSERT_NEAR(head[i], expected[i], 1e-6) << dim << ", " << i;
      ExpectGuards(head);
    }
  }
}

TEST_P(RowsTest, MaxFindsTheLargestWhereverItIs) {
  for (const size_t n : kLengths) {
    std::vector<float> x = Random(n, 8);
    for (size_t i = 0; i < n; ++i) x[i] -= 100;
    for (const size_t at : {size_t{0}, n / 2, n - 1}) {
      std::vector<float> y = x;
      y[at] = -50;
      ASSERT_EQ(rows_.max(y.data(), n), -50) << n;
    }
  }
}

TEST_P(RowsTest, ExpShiftedIsAccurateAndEndsAtZero) {
  for (const size_t n : kLengths) {
    const std::vector<float> x = Random(n, 9, 20);
    const float shift = rows_.max(x.data(), n);
    std::vector<float> out(n + 8, kGuard);
    rows_.exp_shifted(x.data(), n, shift, out.data());
    for (size_t i = 0; i < n; ++i) {
      const double expected = std::exp(static_cast<double>(x[i] - shift));
      ASSERT_NEAR(out[i], expected, 3e-7 * expected + 1.3e-38) << x[i] - shift;
    }
    ExpectGuards(out);
  }
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {0, -200, -infinity, std::nanf(""), 10, -87, -1e30f, 1e-30f};
  std::vector<float> out(8);
  rows_.exp_shifted(x.data(), 8, 0, out.data());
  EXPECT_EQ(out[0], 1);
  EXPECT_EQ(out[1], 0);
  EXPECT_EQ(out[2], 0);
  EXPECT_TRUE(std::isnan(out[3]));
  EXPECT_NEAR(out[4], std::exp(10.0), 3e-7 * std::exp(10.0));
  EXPECT_EQ(out[6], 0);
  EXPECT_EQ(out[7], 1);
}

// Half of the row must not depend on what the other half holds.
TEST_P(RowsTest, ElementsDoNotInfluenceEachOther) {
  std::vector<float> a = Random(64, 10), b = a;
  for (size_t i = 32; i < 64; ++i) b[i] = std::nanf("");
  const std::vector<float> ones(72, 1.0f);
  std::vector<float> exp_a(72), exp_b(72);
  rows_.exp_shifted(a.data(), 64, 1, exp_a.data());
  rows_.exp_shifted(b.data(), 64, 1, exp_b.data());
  rows_.silu_mul(a.data(), ones.data(), 64);
  rows_.silu_mul(b.data(), ones.data(), 64);
  EXPECT_EQ(std::memcmp(a.data(), b.data(), 32 * sizeof(float)), 0);
  EXPECT_EQ(std::memcmp(exp_a.data(), exp_b.data(), 32 * sizeof(float)), 0);
}

TEST(KernelTableTest, NamesEveryTargetItCanRun) {
  ASSERT_FALSE(AvailableKernels().empty());
  EXPECT_STREQ(AvailableKernels().front()->target, "portable");
  EXPECT_EQ(&BestKernels(), AvailableKernels().back());
  for (const Kernels* kernels : AvailableKernels()) {
    EXPECT_EQ(FindKernels(kernels->target), kernels);
    EXPECT_THAT(CompiledTargets(), testing::Contains(std::string_view(kernels->target)));
  }
  EXPECT_EQ(FindKernels("abacus"), nullptr);
}

}  // namespace
}  // namespace kvasir
