// PairKernels against plain loops: FMA chains over operands rounded to bf16, bit for bit.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/ref/planes.h"
#include "kernels/table.h"
#include "kernels/testing.h"

namespace kvasir {
namespace {

// Integer keys are no pairs: their products are sums of integers.
std::vector<PlaneForm> FormsOfKeys(size_t dim) {
  std::vector<PlaneForm> forms = AllForms(dim);
  std::erase_if(forms, [](PlaneForm form) {
    return IsInteger(form.codec) || form.codec == Codec::kSparseI8;
  });
  return forms;
}

float Rounded(float x) { return BF16ToF32(F32ToBF16(x)); }
float First(uint32_t pair) { return std::bit_cast<float>(pair & 0xffff0000u); }
float Second(uint32_t pair) { return std::bit_cast<float>(pair << 16); }

// Random pairs that are numbers.
std::vector<uint32_t> RandomPairs(size_t n, uint32_t seed) {
  const std::vector<float> x = Random(2 * n, seed);
  std::vector<uint32_t> pairs(n);
  for (size_t i = 0; i < n; ++i) {
    pairs[i] = uint32_t{F32ToBF16(x[2 * i])} << 16 | F32ToBF16(x[2 * i + 1]);
  }
  return pairs;
}

class PairsTest : public testing::TestWithParam<const Kernels*> {
 protected:
  void SetUp() override {
    if (!GetParam()->planes.pairs) GTEST_SKIP() << "no dot products of bf16 pairs";
  }
  const PairKernels& pairs() const { return GetParam()->planes.pairs; }

  std::vector<uint8_t> Plane(PlaneForm form, size_t dim, bool keys, uint64_t live) const {
    return MakePlane(GetParam()->planes, form, dim, keys, Random(64 * dim, 7).data(), live);
  }
};

INSTANTIATE_TEST_SUITE_P(Targets, PairsTest, testing::ValuesIn(AvailableKernels()),
                         [](const auto& target) { return std::string(target.param->target); });

constexpr size_t kDims[] = {1, 8, 15, 17, 40, 64, 80, 112, 128, 256};

TEST_P(PairsTest, QueriesAreScaledThenRounded) {
  for (const size_t dim : kDims) {
    const std::vector<float> q = Random(dim, 1);
    std::vector<uint32_t> out(PairedDim(dim) + 1, 0xdead);
    pairs().pair_queries(q.data(), 0.3f, dim, out.data());
    for (size_t c = 0; c < dim; ++c) {
      const float got = c % 2 == 0 ? First(out[c / 2]) : Second(out[c / 2]);
      ASSERT_EQ(got, Rounded(q[c] * 0.3f)) << dim << " " << c;
    }
    if (dim % 2 == 1) {
      EXPECT_EQ(Second(out[dim / 2]), 0.0f);
    }
    EXPECT_EQ(out.back(), 0xdeadu);
  }
}

TEST_P(PairsTest, ScoresAreChainsOverAscendingChannels) {
  for (const size_t dim : kDims) {
    for (const PlaneForm form : FormsOfKeys(dim)) {
      const std::vector<uint8_t> plane = Plane(form, dim, true, ~uint64_t{0});
      const std::vector<float> k = ref::Expand(form, plane.data(), dim, true);
      const size_t half = PairedDim(dim), stride = 70;
      std::vector<uint32_t> expanded(half * 64);
      pairs().expand_k[form.index()](plane.data(), form.Shape(dim),
                                     dim % 2 == 0 ? plane.data() : nullptr, expanded.data());
      for (const size_t n : {1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 26}) {
        const std::vector<uint32_t> q = RandomPairs(n * half, 2);
        std::vector<float> got(n * stride), in_place(n * stride);
        pairs().scores(q.data(), half, n, expanded.data(), dim, got.data(), stride);
        const auto run = pairs().scores_in_place[form.index()];
        if (run != nullptr) {
          run(q.data(), half, n, plane.data(), form.Shape(dim), n % 2 == 0 ? plane.data() : nullptr,
              in_place.data(), stride);
        }
        for (size_t r = 0; r < n; ++r) {
          for (size_t e = 0; e < 64; ++e) {
            float sum = 0;
            for (size_t c = 0; c < dim; ++c) {
              const uint32_t x = q[r * half + c / 2];
              sum = std::fma(c % 2 == 0 ? First(x) : Second(x), Rounded(k[c * 64 + e]), sum);
            }
            ASSERT_EQ(got[r * stride + e], sum) << dim << " rows " << n << " row " << r;
            if (run != nullptr) {
              ASSERT_EQ(in_place[r * stride + e], sum) << dim << " rows " << n;
            }
          }
        }
      }
    }
  }
}

TEST_P(PairsTest, SumsAreChainsOverLiveEntriesAndOthersAreNotRead) {
  std::mt19937_64 rng(3);
  for (const size_t dim : kDims) {
    for (const PlaneForm form : AllForms(dim)) {
      for (const size_t n : {1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 26}) {
        const uint64_t live = n % 3 == 0 ? ~uint64_t{0} : rng() | 1,
                       seen = n % 2 == 0 ? live : rng();
        const std::vector<uint8_t> plane = Plane(form, dim, false, live & seen);
        const std::vector<float> v = ref::Expand(form, plane.data(), dim, false);
        const size_t n_pairs = (static_cast<size_t>(std::popcount(live)) + 1) / 2;
        const size_t padded = PaddedDim(dim), stride = padded + 8;
        std::vector<uint32_t> p = RandomPairs(n * 32, 4), expanded(n_pairs * padded);
        if (std::popcount(live) % 2 == 1) {
          for (size_t r = 0; r < n; ++r) p[r * 32 + n_pairs - 1] &= 0xffff0000u;
        }
        const std::vector<float> before = Random(n * stride, 5);
        std::vector<float> got = before, in_place = before;
        EXPECT_TRUE(pairs().expand_v[form.index()](plane.data(), form.Shape(dim), live, seen,
                                                   n % 2 == 0 ? plane.data() : nullptr,
                                                   expanded.data()));
        pairs().sums(p.data(), 32, n, expanded.data(), n_pairs, dim, got.data(), stride);
        const auto run = pairs().sums_in_place[form.index()];
        if (run != nullptr) {
          run(p.data(), 32, n, plane.data(), form.Shape(dim), live, seen,
              n % 2 == 0 ? plane.data() : nullptr, in_place.data(), stride);
        }
        for (size_t r = 0; r < n; ++r) {
          for (size_t c = 0; c < dim; ++c) {
            float sum = before[r * stride + c];
            size_t i = 0;
            for (size_t e = 0; e < 64; ++e) {
              if ((live >> e & 1) == 0) continue;
              const uint32_t x = p[r * 32 + i / 2];
              const float weight = i++ % 2 == 0 ? First(x) : Second(x);
              if (seen >> e & 1) sum = std::fma(weight, Rounded(v[e * dim + c]), sum);
            }
            ASSERT_EQ(got[r * stride + c], sum) << dim << " rows " << n << " row " << r;
            if (run != nullptr) {
              ASSERT_EQ(in_place[r * stride + c], sum) << dim << " rows " << n;
            }
          }
          ASSERT_EQ(0, std::memcmp(&got[r * stride + padded], &before[r * stride + padded], 32));
        }
      }
    }
  }
}

TEST_P(PairsTest, ExpandingTellsWhetherValuesAreFinite) {
  for (const size_t dim : kDims) {
    for (const PlaneForm form : AllForms(dim)) {
      const uint64_t others = ~(uint64_t{1} << 37);
      const std::vector<uint8_t> plane = Plane(form, dim, false, others);  // entry 37 is NaN
      std::vector<uint32_t> out(32 * PaddedDim(dim));
      const auto expand = pairs().expand_v[form.index()];
      EXPECT_FALSE(
          expand(plane.data(), form.Shape(dim), ~uint64_t{0}, ~uint64_t{0}, nullptr, out.data()));
      EXPECT_TRUE(expand(plane.data(), form.Shape(dim), ~uint64_t{0}, others, nullptr, out.data()));
      EXPECT_TRUE(expand(plane.data(), form.Shape(dim), others, others, nullptr, out.data()));
    }
  }
}

TEST_P(PairsTest, WeightsArePackedRoundedAndSummedExactly) {
  const float inf = std::numeric_limits<float>::infinity();
  std::mt19937_64 rng(6);
  for (const size_t n : {1, 3, 20}) {
    for (int i = 0; i < 20; ++i) {
      const uint64_t live = i == 0 ? ~uint64_t{0} : i == 1 ? uint64_t{1} << 63 : rng() | 2;
      const size_t stride = 80;
      std::vector<float> scores = Random(n * stride, static_cast<uint32_t>(i), 6), max(n, -inf);
      for (size_t r = 0; r < n; ++r) {
        for (size_t e = 0; e < 64; ++e) {
          if ((live >> e & 1) == 0 || (e % 7 == 3 && e != 63)) scores[r * stride + e] = -inf;
          max[r] = std::max(max[r], scores[r * stride + e]);
        }
      }
      std::vector<float> weights = scores;
      std::vector<uint64_t> sum(n * 8, 5);
      pairs().weights(weights.data(), stride, n, live, max.data(), sum.data());
      for (size_t r = 0; r < n; ++r) {
        const uint32_t* packed = reinterpret_cast<const uint32_t*>(&weights[r * stride]);
        size_t at = 0;
        double expected_sum = 0;
        for (size_t e = 0; e < 64; ++e) {
          if ((live >> e & 1) == 0) continue;
          const float got = at % 2 == 0 ? First(packed[at / 2]) : Second(packed[at / 2]);
          ++at;
          const double exact = std::exp2(double{scores[r * stride + e]} - double{max[r]});
          ASSERT_NEAR(got, exact, (1.0 / 256 + 1e-4) * exact) << e;
          if (scores[r * stride + e] == max[r]) {
            ASSERT_EQ(got, 1.0f);
          }
          expected_sum += std::nearbyint(double{got} * (1 << 22));
        }
        for (; at < 64; ++at) {
          ASSERT_EQ(at % 2 == 0 ? First(packed[at / 2]) : Second(packed[at / 2]), 0.0f) << at;
        }
        uint64_t total = 0;
        for (size_t lane = 0; lane < 8; ++lane) total += sum[r * 8 + lane] - 5;
        ASSERT_EQ(static_cast<double>(total), expected_sum) << r;
      }
    }
  }
}

}  // namespace
}  // namespace kvasir
