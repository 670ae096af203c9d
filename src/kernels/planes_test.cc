#include "kernels/ref/planes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/plane_kernels.h"
#include "kernels/table.h"
#include "kernels/testing.h"

namespace kvasir {
namespace {

constexpr size_t kDims[] = {8, 16, 18, 20, 40, 64, 80, 128, 256};
constexpr size_t kSlack = 64;

std::string_view CodecName(int codec) {
  constexpr std::string_view kNames[kDenseCodecs] = {"f32", "f16", "bf16", "q8", "q4"};
  return kNames[codec];
}

// Bytes of a plane and the slack behind it; 0xff is a NaN in every codec's floats.
std::vector<uint8_t> Plane(int codec, size_t dim) {
  return std::vector<uint8_t>(PlaneBytes(static_cast<Codec>(codec), dim) + kSlack, 0xff);
}

bool SameBits(const float* a, const float* b, size_t n) {
  return std::memcmp(a, b, n * sizeof(float)) == 0;
}

class PlanesTest : public testing::TestWithParam<const Kernels*> {
 protected:
  const PlaneKernels& kernels() const { return GetParam()->planes; }
  // Planes that have to be expanded first.
  bool IsExpanded(PlaneForm form) const {
    return IsSparse(form.codec) && std::string_view(GetParam()->target) == "portable";
  }
  // One step of a chain: fused where the target has FMA (simd/vec.h).
  float MulAdd(float a, float b, float c) const {
    return std::string_view(GetParam()->target) == "portable" ? a * b + c : std::fma(a, b, c);
  }
};

INSTANTIATE_TEST_SUITE_P(Targets, PlanesTest, testing::ValuesIn(AvailableKernels()),
                         [](const auto& target) { return std::string(target.param->target); });

TEST(Plane, BytesAreThoseOfTheLayout) {
  EXPECT_EQ(PlaneBytes(Codec::kF32, 64), 64u * 64 * 4);
  EXPECT_EQ(PlaneBytes(Codec::kF16, 40), 64u * 40 * 2);
  EXPECT_EQ(PlaneBytes(Codec::kBF16, 128), 64u * 128 * 2);
  EXPECT_EQ(PlaneBytes(Codec::kQ8, 64), 64u * (64 + 2 * 2));
  EXPECT_EQ(PlaneBytes(Codec::kQ8, 40), 64u * (40 + 2 * 2));
  EXPECT_EQ(PlaneBytes(Codec::kQ8, 18), 64u * (20 + 2));
  EXPECT_EQ(PlaneBytes(Codec::kQ4, 64), 64u * (32 + 2 * 4));
  EXPECT_EQ(PlaneBytes(Codec::kQ4, 18), 64u * (10 + 4));
}

TEST_P(PlanesTest, FloatCodecsRoundAsTheScalarConversionsDo) {
  const size_t dim = 24;
  std::vector<float> rows = Random(64 * dim, 1);
  const float inf = std::numeric_limits<float>::infinity();
  const float special[] = {0.0f,    -0.0f,          1e-8f,          -3e-8f,      6.1e-5f,
                           6.0e-5f, 65504.0f,       65519.9f,       65520.0f,    -7e4f,
                           inf,     -inf,           std::nanf(""),  1e-45f,      3.3e38f,
                           3.4e38f, 1.00048828125f, 1.00146484375f, 1.00390625f, 1.01171875f};
  std::copy(std::begin(special), std::end(special), rows.begin() + 5);
  std::copy(std::begin(special), std::end(special), rows.begin() + 40 * dim);
  for (int codec = 0; codec < 3; ++codec) {
    for (const bool keys : {true, false}) {
      SCOPED_TRACE(CodecName(codec));
      std::vector<uint8_t> plane = Plane(codec, dim);
      (keys ? kernels().encode_k : kernels().encode_v)[codec](rows.data(), dim, 64, dim, 0,
                                                              plane.data());
      for (size_t e = 0; e < 64; ++e) {
        for (size_t c = 0; c < dim; ++c) {
          const float x = rows[e * dim + c];
          const float expected = codec == 0   ? x
                                 : codec == 1 ? F16ToF32(F32ToF16(x))
                                              : BF16ToF32(F32ToBF16(x));
          const float got =
              ref::PlaneValue(static_cast<Codec>(codec), plane.data(), dim, keys, e, c);
          ASSERT_EQ(std::bit_cast<uint32_t>(got), std::bit_cast<uint32_t>(expected)) << x;
        }
      }
    }
  }
}

TEST_P(PlanesTest, Int8StaysWithinHalfAStep) {
  for (const size_t dim : kDims) {
    for (const float sigma : {1e-3f, 1.0f, 1e4f}) {
      std::vector<float> rows = Random(64 * dim, 2, sigma);
      std::fill_n(rows.begin() + 3 * dim, dim, 0.0f);
      for (const bool keys : {true, false}) {
        std::vector<uint8_t> plane = Plane(3, dim);
        (keys ? kernels().encode_k : kernels().encode_v)[3](rows.data(), dim, 64, dim, 0,
                                                            plane.data());
        for (size_t e = 0; e < 64; ++e) {
          for (size_t c = 0; c < dim; ++c) {
            const float* row = rows.data() + e * dim;
            float largest = 0;
            const size_t block = c / 32 * 32;
            for (size_t i = block; i < std::min(dim, block + 32); ++i) {
              largest = std::max(largest, std::fabs(row[i]));
            }
            // Half a step, the step's own rounding to f16, and the unit of f16 subnormals.
            const float bound = largest / 127 * (0.5f + 127 * 0x1p-11f) + 127 * 0x1p-25f;
            const float got = ref::PlaneValue(Codec::kQ8, plane.data(), dim, keys, e, c);
            ASSERT_LE(std::fabs(got - row[c]), bound) << dim << " " << row[c];
          }
        }
      }
    }
  }
}

TEST_P(PlanesTest, FourBitsStayWithinHalfAStepOfTheRangeTheySpan) {
  for (const size_t dim : kDims) {
    for (const float sigma : {1e-3f, 1.0f, 1e3f}) {
      std::vector<float> rows = Random(64 * dim, 2, sigma);
      std::fill_n(rows.begin() + 3 * dim, dim, 0.0f);
      std::fill_n(rows.begin() + 4 * dim, dim, 5.0f);                    // no range
      for (size_t c = 0; c < dim; ++c) rows[6 * dim + c] += 20 * sigma;  // far from zero
      for (const bool keys : {true, false}) {
        std::vector<uint8_t> plane = Plane(4, dim);
        (keys ? kernels().encode_k : kernels().encode_v)[4](rows.data(), dim, 64, dim, 0,
                                                            plane.data());
        for (size_t e = 0; e < 64; ++e) {
          for (size_t c = 0; c < dim; ++c) {
            const float* row = rows.data() + e * dim;
            const size_t block = c / 32 * 32, end = std::min(dim, block + 32);
            const auto [low, high] = std::minmax_element(row + block, row + end);
            const float far = std::max(std::fabs(*low), std::fabs(*high));
            // Half a step; the roundings of the minimum and of fifteen steps to f16.
            const float bound =
                (*high - *low) / 15 * (0.5f + 15 * 0x1p-11f) + far * 0x1.8p-11f + 16 * 0x1p-25f;
            const float got = ref::PlaneValue(Codec::kQ4, plane.data(), dim, keys, e, c);
            ASSERT_LE(std::fabs(got - row[c]), bound) << dim << " " << row[c] << " slot " << e;
          }
        }
      }
    }
  }
}

TEST_P(PlanesTest, FourBitsOfExtremeRowsStayFinite) {
  const size_t dim = 8;
  const float inf = std::numeric_limits<float>::infinity();
  for (const float x : {3e38f, -3e38f, inf, -inf, std::nanf("")}) {
    for (const bool whole : {true, false}) {
      std::vector<float> row(dim, whole ? x : 1.0f);
      row[5] = x;
      std::vector<uint8_t> plane = Plane(4, dim);
      kernels().encode_v[4](row.data(), dim, 1, dim, 0, plane.data());
      for (size_t c = 0; c < dim; ++c) {
        EXPECT_TRUE(std::isfinite(ref::PlaneValue(Codec::kQ4, plane.data(), dim, false, 0, c)))
            << x << " " << c;
      }
    }
  }
}

TEST_P(PlanesTest, Int8ScalesStayFinite) {
  const size_t dim = 8;
  const std::vector<float> row(dim, 3e38f);
  std::vector<uint8_t> plane = Plane(3, dim);
  kernels().encode_v[3](row.data(), dim, 1, dim, 0, plane.data());
  EXPECT_EQ(ref::PlaneValue(Codec::kQ8, plane.data(), dim, false, 0, 0), 127.0f * 65504.0f);
}

TEST_P(PlanesTest, RowsAtOnceAndOneByOneGiveEqualBytes) {
  for (const size_t dim : kDims) {
    const size_t stride = dim + 3;
    const std::vector<float> rows = Random(64 * stride, 3);
    for (int codec = 0; codec < kDenseCodecs; ++codec) {
      for (const bool keys : {true, false}) {
        SCOPED_TRACE(testing::Message() << CodecName(codec) << " dim " << dim << " keys " << keys);
        const auto encode = (keys ? kernels().encode_k : kernels().encode_v)[codec];
        std::vector<uint8_t> single = Plane(codec, dim);
        for (size_t e = 5; e < 60; ++e) {
          encode(rows.data() + e * stride, stride, 1, dim, e, single.data());
        }
        std::vector<uint8_t> whole = Plane(codec, dim);
        encode(rows.data() + 5 * stride, stride, 55, dim, 5, whole.data());
        EXPECT_EQ(single, whole);
        std::vector<uint8_t> pieces = Plane(codec, dim);
        encode(rows.data() + 22 * stride, stride, 38, dim, 22, pieces.data());
        encode(rows.data() + 5 * stride, stride, 17, dim, 5, pieces.data());
        EXPECT_EQ(single, pieces);
        // Slots outside stay as they were: 0xff.
        for (const size_t e : {size_t{0}, size_t{4}, size_t{60}, size_t{63}}) {
          std::vector<uint8_t> untouched = Plane(codec, dim);
          for (const size_t c : {size_t{0}, dim - 1}) {
            if (codec == 4) {
              EXPECT_EQ(ref::PlaneInteger(Codec::kQ4, whole.data(), dim, keys, e, c), 15);
            }
            const float got =
                ref::PlaneValue(static_cast<Codec>(codec), whole.data(), dim, keys, e, c);
            EXPECT_TRUE(std::isnan(got));
          }
        }
        for (size_t i = whole.size() - kSlack; i < whole.size(); ++i) ASSERT_EQ(whole[i], 0xff);
      }
    }
  }
}

TEST_P(PlanesTest, ExpandsToTheOraclesBits) {
  for (const size_t dim : kDims) {
    const std::vector<float> rows = Random(64 * dim, 4);
    for (const PlaneForm form : AllForms(dim)) {
      for (const bool keys : {true, false}) {
        const std::vector<uint8_t> plane = MakePlane(kernels(), form, dim, keys, rows.data());
        const std::vector<float> expected = ref::Expand(form, plane.data(), dim, keys);
        std::vector<float> out(64 * dim + 1, 7.0f);
        (keys ? kernels().expand_k : kernels().expand_v)[form.index()](plane.data(),
                                                                       form.Shape(dim), out.data());
        EXPECT_TRUE(SameBits(out.data(), expected.data(), expected.size()))
            << form << " dim " << dim << " keys " << keys;
        EXPECT_EQ(out.back(), 7.0f);
      }
    }
  }
}

TEST_P(PlanesTest, AScoreIsOneChainOverAscendingChannelsForAnyNumberOfRows) {
  for (const size_t dim : kDims) {
    const size_t stride = dim + 5;
    const std::vector<float> q = Random(50 * stride, 5), rows = Random(64 * dim, 6);
    for (const PlaneForm form : AllForms(dim)) {
      if (kernels().scores[form.index()] == nullptr) {
        EXPECT_TRUE(IsInteger(form.codec) || IsExpanded(form));
        continue;
      }
      const std::vector<uint8_t> plane = MakePlane(kernels(), form, dim, true, rows.data());
      const std::vector<float> k = ref::Expand(form, plane.data(), dim, true);
      for (const size_t n : {1, 2, 3, 4, 5, 6, 7, 13, 50}) {
        std::vector<float> scores(n * 70);
        kernels().scores[form.index()](q.data(), stride, n, plane.data(), form.Shape(dim),
                                       n % 2 == 0 ? plane.data() : nullptr, scores.data(), 70);
        for (size_t r = 0; r < n; ++r) {
          for (size_t e = 0; e < 64; ++e) {
            float sum = 0;
            for (size_t c = 0; c < dim; ++c) sum = MulAdd(q[r * stride + c], k[c * 64 + e], sum);
            ASSERT_EQ(scores[r * 70 + e], sum)
                << form << " dim " << dim << " rows " << n << " row " << r;
          }
        }
      }
    }
  }
}

// Query rows as the kernels take them.
struct Queries {
  size_t blocks;
  std::vector<int16_t> q;
  std::vector<float> scale, sums;

  Queries(const PlaneKernels& kernels, const float* rows, size_t row_stride, size_t n, size_t dim)
      : blocks((dim + 31) / 32), q(n * blocks * 32, -1), scale(n), sums(n * blocks) {
    for (size_t r = 0; r < n; ++r) {
      kernels.quantize_query(rows + r * row_stride, dim, &q[r * blocks * 32], &sums[r * blocks],
                             &scale[r]);
    }
  }
  QuantizedQueries view() const {
    return {q.data(), scale.data(), sums.data(), blocks * 32, blocks};
  }
};

TEST_P(PlanesTest, QueriesKeepSixteenBitsOfTheirLargestChannel) {
  for (const size_t dim : kDims) {
    std::vector<float> rows = Random(6 * dim, 30);
    for (size_t c = 0; c < dim; ++c) rows[dim + c] *= 1e30f;
    for (size_t c = 0; c < dim; ++c) rows[2 * dim + c] *= 1e-20f;
    std::fill_n(&rows[3 * dim], dim, 0.0f);
    std::fill_n(&rows[4 * dim], dim, 1e-36f);
    rows[5 * dim + dim - 1] = std::numeric_limits<float>::infinity();
    const Queries queries(kernels(), rows.data(), dim, 6, dim);
    for (size_t r = 0; r < 6; ++r) {
      const int16_t* q = &queries.q[r * queries.blocks * 32];
      float largest = 0;
      for (size_t c = 0; c < dim; ++c) largest = std::max(largest, std::fabs(rows[r * dim + c]));
      if (r >= 3) {
        EXPECT_TRUE(r == 5 ? std::isnan(queries.scale[r]) : queries.scale[r] == 0) << r;
        EXPECT_TRUE(std::all_of(q, q + queries.blocks * 32, [](int16_t x) { return x == 0; }));
        continue;
      }
      EXPECT_EQ(queries.scale[r], largest / 32767.0f);
      EXPECT_EQ(std::abs(*std::max_element(
                    q, q + dim, [](int16_t a, int16_t b) { return std::abs(a) < std::abs(b); })),
                32767);
      for (size_t b = 0; b < queries.blocks; ++b) {
        int sum = 0;
        for (size_t c = b * 32; c < b * 32 + 32; ++c) {
          sum += q[c];
          const float x = c < dim ? rows[r * dim + c] : 0;
          ASSERT_LE(std::fabs(static_cast<float>(q[c]) * queries.scale[r] - x),
                    0.501f * queries.scale[r]);
        }
        EXPECT_EQ(queries.sums[r * queries.blocks + b], static_cast<float>(sum));
      }
    }
  }
}

TEST_P(PlanesTest, AnIntegerScoreFoldsExactBlocksInOrderForAnyNumberOfRows) {
  for (const size_t dim : kDims) {
    const size_t stride = dim + 5;
    std::vector<float> rows = Random(64 * dim, 6), q = Random(64 * stride, 5);
    for (size_t c = 0; c < dim; ++c) {  // the largest integers of every sign, and none
      rows[c] = 9;
      rows[dim + c] = -9;
      rows[2 * dim + c] = 0;
      rows[3 * dim + c] = 1e4f * (c % 2 == 0 ? 1.0f : -1.0f);
      rows[4 * dim + c] = 1e9f;  // beyond f16
      q[c] = -3;
      q[stride + c] = 3;
    }
    for (const Codec codec : {Codec::kQ8, Codec::kQ4}) {
      const int index = static_cast<int>(codec);
      std::vector<uint8_t> plane = Plane(index, dim);  // slots from 60 on: NaN scales, all bits
      kernels().encode_k[index](rows.data(), dim, 60, dim, 0, plane.data());
      const auto half = [&](size_t at) {
        uint16_t h = 0;
        std::memcpy(&h, &plane[at], sizeof(h));
        return F16ToF32(h);
      };
      for (const size_t n : {1, 2, 3, 4, 5, 6, 7, 12, 13, 64}) {
        const Queries queries(kernels(), q.data(), stride, n, dim);
        std::vector<float> scores(n * 70, -5.0f);
        kernels().integer_scores[index](queries.view(), n, plane.data(), dim,
                                        n % 2 == 0 ? plane.data() : nullptr, scores.data(), 70);
        for (size_t r = 0; r < n; ++r) {
          for (size_t e = 0; e < 60; ++e) {
            float sum = 0;
            for (size_t b = 0; b < queries.blocks; ++b) {
              int64_t dot = 0;
              for (size_t c = b * 32; c < std::min(dim, b * 32 + 32); ++c) {
                dot += int64_t{queries.q[r * queries.blocks * 32 + c]} *
                       ref::PlaneInteger(codec, plane.data(), dim, true, e, c);
              }
              const size_t scale = ref::PlaneBlock(dim, true, e, b * 32);
              sum = MulAdd(static_cast<float>(dot), half(ScalesAt(codec, dim) + 2 * scale), sum);
              if (codec == Codec::kQ4) {
                sum = MulAdd(half(MinimaAt(dim) + 2 * scale), queries.sums[r * queries.blocks + b],
                             sum);
              }
            }
            ASSERT_EQ(scores[r * 70 + e], sum * queries.scale[r])
                << CodecName(index) << " dim " << dim << " rows " << n << " row " << r << " e "
                << e;
          }
          for (size_t e = 64; e < 70; ++e) ASSERT_EQ(scores[r * 70 + e], -5.0f);
        }
      }
    }
  }
}

TEST_P(PlanesTest, AScoreOfSparseIntegersIsOneExactSum) {
  for (const size_t dim :
       {size_t{8}, size_t{18}, size_t{64}, size_t{80}, size_t{256}, size_t{512}}) {
    for (const size_t keep : {size_t{1}, dim / 3, dim}) {
      const size_t stride = dim + 5;
      std::vector<float> rows = Random(64 * dim, 6), q = Random(64 * stride, 5);
      for (size_t c = 0; c < dim; ++c) {  // the largest sums of either sign, and none
        rows[c] = 9;
        rows[dim + c] = -9;
        rows[2 * dim + c] = 0;
        q[c] = -3;
        q[stride + c] = 3;
        q[2 * stride + c] = 0;
      }
      const PlaneForm form(Codec::kSparseI8, static_cast<uint16_t>(keep));
      const std::vector<uint8_t> plane =
          MakePlane(kernels(), form, dim, true, rows.data(), ~uint64_t{0} >> 1);
      std::vector<uint8_t> ones = plane;  // the same integers with scales of 1
      for (size_t e = 0; e < 64; ++e) {
        const uint16_t one = 0x3c00;
        std::memcpy(&ones[SparseScalesAt(form) + 2 * e], &one, sizeof(one));
      }
      const std::vector<float> integers = ref::Expand(form, ones.data(), dim, true);
      for (const size_t n : {1, 2, 3, 4, 5, 6, 7, 12, 13, 64}) {
        const Queries queries(kernels(), q.data(), stride, n, dim);
        std::vector<float> scores(n * 70, -5.0f);
        kernels().integer_scores[form.index()](queries.view(), n, plane.data(), form.Shape(dim),
                                               n % 2 == 0 ? plane.data() : nullptr, scores.data(),
                                               70);
        for (size_t r = 0; r < n; ++r) {
          for (size_t e = 0; e < 63; ++e) {
            int64_t dot = 0;
            for (size_t c = 0; c < dim; ++c) {
              dot += int64_t{queries.q[r * queries.blocks * 32 + c]} *
                     static_cast<int64_t>(integers[c * 64 + e]);
            }
            uint16_t scale = 0;
            std::memcpy(&scale, &plane[SparseScalesAt(form) + 2 * e], sizeof(scale));
            ASSERT_EQ(scores[r * 70 + e],
                      static_cast<float>(dot) * F16ToF32(scale) * queries.scale[r])
                << form << " dim " << dim << " rows " << n << " row " << r << " e " << e;
          }
          EXPECT_TRUE(std::isnan(scores[r * 70 + 63]));  // a row of NaN
          for (size_t e = 64; e < 70; ++e) ASSERT_EQ(scores[r * 70 + e], -5.0f);
        }
      }
    }
  }
}

TEST_P(PlanesTest, AWeightedSumIsOneChainOverAscendingLiveSlots) {
  std::mt19937_64 rng(7);
  for (const size_t dim : kDims) {
    const size_t padded = (dim + 7) / 8 * 8, stride = padded + 8;
    const std::vector<float> rows = Random(64 * dim, 8), weights = Random(50 * 64, 9);
    for (const PlaneForm form : AllForms(dim)) {
      if (kernels().weighted_sum[form.index()] == nullptr) {
        EXPECT_TRUE(IsExpanded(form));
        continue;
      }
      for (const size_t n : {1, 2, 3, 4, 5, 6, 7, 13, 50}) {
        const uint64_t live = n == 1 ? ~uint64_t{0} : rng() | rng();
        const size_t begin = n % 3 == 0 ? 0 : rng() % 40,
                     end = n == 3 ? 64 : begin + rng() % (65 - begin);
        const std::vector<uint8_t> plane =  // dead slots: NaN
            MakePlane(kernels(), form, dim, false, rows.data(), live);
        const std::vector<float> v = ref::Expand(form, plane.data(), dim, false);
        const std::vector<float> before = Random(n * stride, 10);
        std::vector<float> out = before;
        kernels().weighted_sum[form.index()](weights.data(), 64, n, plane.data(), form.Shape(dim),
                                             begin, end, live, n % 2 == 0 ? plane.data() : nullptr,
                                             out.data(), stride);
        for (size_t r = 0; r < n; ++r) {
          for (size_t c = 0; c < dim; ++c) {
            float sum = before[r * stride + c];
            for (size_t e = begin; e < end; ++e) {
              if (live >> e & 1) sum = MulAdd(weights[r * 64 + e], v[e * dim + c], sum);
            }
            ASSERT_EQ(out[r * stride + c], sum)
                << form << " dim " << dim << " rows " << n << " row " << r;
          }
          EXPECT_TRUE(SameBits(&out[r * stride + padded], &before[r * stride + padded], 8));
        }
      }
    }
  }
}

TEST_P(PlanesTest, MaskedAndNanScoresNeverCountForTheMaximum) {
  std::vector<float> scores = Random(3 * 64, 11);
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  scores[7] = nan;
  scores[64 + 9] = inf;
  scores[64 + 10] = nan;
  const uint64_t visible[3] = {~uint64_t{0}, ~(uint64_t{3} << 9), 0};
  std::vector<float> lanes(3 * 16, -inf);
  std::vector<float> expected(3, -inf);
  for (size_t r = 0; r < 3; ++r) {
    for (size_t e = 0; e < 64; ++e) {
      const float s = scores[r * 64 + e];
      if ((visible[r] >> e & 1) && !std::isnan(s)) expected[r] = std::max(expected[r], s);
    }
  }
  kernels().mask_max(scores.data(), 64, 3, visible, lanes.data());
  for (size_t r = 0; r < 3; ++r) {
    EXPECT_EQ(*std::max_element(&lanes[r * 16], &lanes[r * 16] + 16), expected[r]) << r;
  }
  EXPECT_EQ(scores[64 + 9], -inf);
  EXPECT_EQ(scores[64 + 10], -inf);
  EXPECT_EQ(scores[128], -inf);
}

TEST_P(PlanesTest, WeightsAreSummedEntryAfterEntryForAnyNumberOfRows) {
  const size_t slots = 192, stride = 200;
  std::vector<float> scores = Random(21 * stride, 12, 4);
  const float inf = std::numeric_limits<float>::infinity();
  for (size_t r = 0; r < 21; ++r) {
    for (size_t e = r; e < slots; e += 5) scores[r * stride + e] = -inf;
  }
  std::vector<float> max(21);
  for (size_t r = 0; r < 21; ++r) {
    max[r] = *std::max_element(&scores[r * stride], &scores[r * stride] + slots);
  }
  for (const size_t n : {1, 3, 8, 9, 21}) {
    std::vector<float> weights = scores;
    std::vector<float> sum(n, 0.0f);
    kernels().exp_weights(weights.data(), stride, n, 64, max.data(), sum.data());
    kernels().exp_weights(weights.data() + 64, stride, n, slots - 64, max.data(), sum.data());
    for (size_t r = 0; r < n; ++r) {
      float expected = 0;
      for (size_t e = 0; e < slots; ++e) {
        const float weight = weights[r * stride + e];
        const double exact = std::exp2(double{scores[r * stride + e]} - double{max[r]});
        ASSERT_NEAR(weight, exact, 1e-6 * exact);
        if (weight != 0) expected += weight;
      }
      EXPECT_EQ(sum[r], expected) << n << " rows, row " << r;
    }
  }
}

TEST_P(PlanesTest, MergingRescalesToTheLargerMaximumAndSkipsEmptyParts) {
  const size_t stride = 16, dim = 8;
  const float empty = -std::numeric_limits<float>::infinity();
  const auto record = [](float max, float sum, float value) {
    std::vector<float> r(stride, value);
    r[0] = max;
    r[1] = sum;
    return r;
  };
  std::vector<float> to = record(empty, 0, 0);
  kernels().merge(to.data(), record(2, 3, 5).data(), 1, stride, dim);
  EXPECT_EQ(to[0], 2);
  EXPECT_EQ(to[1], 3);
  EXPECT_EQ(to[8], 5);
  kernels().merge(to.data(), record(empty, 9, std::nanf("")).data(), 1, stride, dim);
  EXPECT_EQ(to[15], 5);
  kernels().merge(to.data(), record(4, 1, 2).data(), 1, stride, dim);
  EXPECT_EQ(to[0], 4);
  EXPECT_EQ(to[1], 3 * 0.25f + 1);
  EXPECT_EQ(to[15], 5 * 0.25f + 2);
  kernels().merge(to.data(), record(-200, 1, 1).data(), 1, stride, dim);
  EXPECT_EQ(to[15], 5 * 0.25f + 2);
}

TEST_P(PlanesTest, KeyGeometryIgnoresDeadSlotsWhateverTheyHold) {
  std::mt19937_64 rng(13);
  for (const size_t dim : kDims) {
    const uint64_t live = rng() | 1;
    std::vector<float> k = Random(64 * dim, 14), weight = Random(64, 15);
    std::vector<float> anchor = Random(dim, 16);
    for (size_t e = 0; e < 64; ++e) {
      if (live >> e & 1) continue;
      weight[e] = std::nanf("");
      for (size_t c = 0; c < dim; ++c) k[c * 64 + e] = std::nanf("");
    }
    for (size_t c = 0; c < dim; ++c) k[c * 64] = 0;  // a zero key

    std::vector<float> inverse(64), dots(64);
    kernels().key_inverse_norms(k.data(), dim, live, inverse.data());
    std::vector<float> expected = anchor;
    kernels().key_dots(k.data(), dim, anchor.data(), dots.data());
    kernels().key_weighted_sum(k.data(), dim, weight.data(), live, anchor.data());
    std::vector<float> dot(64, 0.0f);
    for (size_t e = 0; e < 64; ++e) {
      double square = 0;
      for (size_t c = 0; c < dim; ++c) square += double{k[c * 64 + e]} * double{k[c * 64 + e]};
      if (e == 0 || (live >> e & 1) == 0) {
        EXPECT_EQ(inverse[e], 0.0f) << e;
      } else {
        EXPECT_NEAR(inverse[e], 1 / std::sqrt(square), 1e-5 / std::sqrt(square));
      }
      for (size_t c = 0; c < dim; ++c) {
        dot[e] = MulAdd(k[c * 64 + e], expected[c], dot[e]);
      }
      if (live >> e & 1) {
        EXPECT_EQ(dots[e], dot[e]);
      }
    }
    for (size_t c = 0; c < dim; ++c) {
      for (size_t e = 0; e < 64; ++e) {
        if (live >> e & 1) expected[c] = MulAdd(k[c * 64 + e], weight[e], expected[c]);
      }
    }
    EXPECT_EQ(anchor, expected) << dim;
  }
}

}  // namespace
}  // namespace kvasir
