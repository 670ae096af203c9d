// Sparse planes: which channels stay, their bytes, and what kernels make of them.
#include "kernels/ref/sparse.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/ref/planes.h"
#include "kernels/sparse_plane.h"
#include "kernels/table.h"
#include "kernels/testing.h"

namespace kvasir {
namespace {

constexpr size_t kDims[] = {8, 18, 32, 64, 80, 96, 128, 256};
constexpr Codec kSparseCodecs[] = {Codec::kSparseBF16, Codec::kSparseF16, Codec::kSparseI8};

// Forms of a dimension: two budgets of the paper, one channel, all of them, an odd number.
std::vector<PlaneForm> Forms(size_t dim) {
  std::vector<PlaneForm> forms;
  for (const Codec codec : kSparseCodecs) {
    for (const size_t keep : {size_t{KeptChannels(dim, 500)}, size_t{KeptChannels(dim, 700)},
                              size_t{1}, dim, dim / 2 + 1}) {
      forms.push_back({codec, static_cast<uint16_t>(keep)});
    }
  }
  return forms;
}

std::string Describe(PlaneForm form, size_t dim, bool keys) {
  return "codec " + std::to_string(static_cast<int>(form.codec)) + " dim " + std::to_string(dim) +
         " keep " + std::to_string(form.keep) + (keys ? " keys" : " values");
}

// A dense 16-bit plane that a sparse form is packed from. Rows 0 to 15 hold what is hard: ties,
// zeros of both signs, denormals, rows of one value.
std::vector<uint8_t> Dense(Codec sparse, size_t dim, bool keys, uint32_t seed) {
  std::vector<float> rows = Random(64 * dim, seed);
  for (size_t c = 0; c < dim; ++c) {
    rows[0 * dim + c] = 0;
    rows[1 * dim + c] = -0.0f;
    rows[2 * dim + c] = c % 2 == 0 ? 1.0f : -1.0f;
    rows[3 * dim + c] = static_cast<float>(c / 3 % 4) * (c % 2 == 0 ? 0.25f : -0.25f);
    rows[4 * dim + c] = c % 5 == 0 ? 1e-40f : c % 5 == 1 ? -6e-8f : 0.0f;
    rows[5 * dim + c] = c == dim - 1 ? 3.0f : 0.0f;  // fewer than are kept
    rows[6 * dim + c] *= 1e4f;
    rows[7 * dim + c] *= 1e-6f;
    rows[8 * dim + c] = 127.0f;  // a scale without rounding
    rows[9 * dim + c] = static_cast<float>(c) + 0.5f;
  }
  std::vector<uint8_t> plane(64 * dim * 2 + 64);
  for (size_t e = 0; e < 64; ++e) {
    for (size_t c = 0; c < dim; ++c) {
      const float x = rows[e * dim + c];
      const uint16_t bits = SparseSource(sparse) == Codec::kF16 ? F32ToF16(x) : F32ToBF16(x);
      std::memcpy(&plane[2 * (keys ? c * 64 + e : e * dim + c)], &bits, 2);
    }
  }
  return plane;
}

void Put(std::vector<uint8_t>* dense, size_t dim, bool keys, size_t e, size_t c, uint16_t bits) {
  std::memcpy(&(*dense)[2 * (keys ? c * 64 + e : e * dim + c)], &bits, 2);
}

// The dense plane with zeros where nothing is kept, as f32.
std::vector<float> Masked(PlaneForm form, const std::vector<uint8_t>& dense, size_t dim, bool keys,
                          const std::vector<bool>& kept) {
  std::vector<float> x = ref::Expand(SparseSource(form.codec), dense.data(), dim, keys);
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t e = keys ? i % 64 : i / dim, c = keys ? i / 64 : i % dim;
    if (!kept[e * dim + c]) x[i] = 0;
  }
  return x;
}

bool SameBits(const float* a, const float* b, size_t n) {
  return std::memcmp(a, b, n * sizeof(float)) == 0;
}

class SparseTest : public testing::TestWithParam<const Kernels*> {
 protected:
  const PlaneKernels& kernels() const { return GetParam()->planes; }

  // Packed by the target's kernel; 64 bytes behind the plane stay as they were.
  std::vector<uint8_t> Pack(PlaneForm form, const std::vector<uint8_t>& dense, size_t dim,
                            bool keys, const float* weights = nullptr,
                            size_t* broken = nullptr) const {
    std::vector<uint8_t> plane(PlaneBytes(form, dim) + 64, 0xab);
    const size_t n = (keys ? kernels().pack_k : kernels().pack_v)[form.index()](
        dense.data(), form.Shape(dim), weights, plane.data());
    if (broken != nullptr) *broken = n;
    for (size_t i = 0; i < 64; ++i) EXPECT_EQ(plane[plane.size() - 64 + i], 0xab);
    plane.resize(plane.size() - 64);
    return plane;
  }
  std::vector<float> Expand(PlaneForm form, const std::vector<uint8_t>& plane, size_t dim,
                            bool keys) const {
    std::vector<uint8_t> with_slack = plane;
    with_slack.resize(plane.size() + 64, 0xff);
    std::vector<float> out(64 * dim + 1, 7.0f);
    (keys ? kernels().expand_k : kernels().expand_v)[form.index()](with_slack.data(),
                                                                   form.Shape(dim), out.data());
    EXPECT_EQ(out.back(), 7.0f);
    out.pop_back();
    return out;
  }
};

INSTANTIATE_TEST_SUITE_P(Targets, SparseTest, testing::ValuesIn(AvailableKernels()),
                         [](const auto& target) { return std::string(target.param->target); });

TEST(SparsePlane, CountsKeptChannelsInIntegers) {
  EXPECT_EQ(KeptChannels(128, 500), 64);
  EXPECT_EQ(KeptChannels(128, 700), 40);
  EXPECT_EQ(KeptChannels(64, 500), 32);
  EXPECT_EQ(KeptChannels(64, 700), 20);
  EXPECT_EQ(KeptChannels(80, 700), 24);
  EXPECT_EQ(KeptChannels(128, 950), 8);
  EXPECT_EQ(KeptChannels(5, 100), 5);
}

TEST(SparsePlane, BytesAreThoseOfTheTable) {
  const auto bytes = [](Codec codec, uint16_t keep, size_t dim) {
    return PlaneBytes({codec, keep}, dim);
  };
  EXPECT_EQ(bytes(Codec::kSparseBF16, 64, 128), 9216u);
  EXPECT_EQ(bytes(Codec::kSparseF16, 40, 128), 6144u);
  EXPECT_EQ(bytes(Codec::kSparseBF16, 32, 64), 4608u);
  EXPECT_EQ(bytes(Codec::kSparseF16, 20, 64), 3072u);
  EXPECT_EQ(bytes(Codec::kSparseI8, 64, 128), 5248u);
  EXPECT_EQ(bytes(Codec::kSparseI8, 40, 128), 3712u);
  EXPECT_EQ(bytes(Codec::kSparseI8, 32, 64), 2688u);
  EXPECT_EQ(bytes(Codec::kSparseI8, 20, 64), 1920u);
  for (const size_t dim : kDims) {
    for (const PlaneForm form : Forms(dim)) {
      const bool i8 = form.codec == Codec::kSparseI8;
      EXPECT_EQ(PlaneBytes(form, dim),
                64 * (form.keep * (i8 ? 1u : 2u) + 8 * ((dim + 63) / 64)) + (i8 ? 128u : 0u));
    }
  }
}

TEST_P(SparseTest, PacksToTheOraclesBytesAndBackToTheMaskedRow) {
  for (const size_t dim : kDims) {
    for (const PlaneForm form : Forms(dim)) {
      for (const bool keys : {true, false}) {
        SCOPED_TRACE(Describe(form, dim, keys));
        const std::vector<uint8_t> dense = Dense(form.codec, dim, keys, 1);
        std::vector<bool> kept;
        const std::vector<uint8_t> expected =
            ref::Pack(form, dense.data(), dim, keys, nullptr, &kept);
        size_t broken = 9;
        const std::vector<uint8_t> plane = Pack(form, dense, dim, keys, nullptr, &broken);
        ASSERT_EQ(plane, expected);
        EXPECT_EQ(broken, 0u);
        EXPECT_EQ(CheckPlane(form, dim, keys, plane), nullptr);

        const std::vector<float> out = Expand(form, plane, dim, keys);
        const std::vector<float> values = ref::Expand(form, plane.data(), dim, keys);
        ASSERT_TRUE(SameBits(out.data(), values.data(), out.size()));
        const std::vector<float> masked = Masked(form, dense, dim, keys, kept);
        for (size_t i = 0; i < out.size(); ++i) {
          if (form.codec == Codec::kSparseI8) {
            const size_t e = keys ? i % 64 : i / dim;
            uint16_t scale = 0;
            std::memcpy(&scale, &plane[SparseScalesAt(form) + 2 * e], 2);
            ASSERT_LE(std::fabs(out[i] - masked[i]), F16ToF32(scale) / 2) << masked[i];
          } else {
            ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(masked[i]));
          }
        }
      }
    }
  }
}

TEST_P(SparseTest, BrokenRowsStayVisiblyBroken) {
  for (const size_t dim : {size_t{32}, size_t{80}, size_t{128}}) {
    for (const PlaneForm form : Forms(dim)) {
      for (const bool keys : {true, false}) {
        SCOPED_TRACE(Describe(form, dim, keys));
        const bool f16 = form.codec == Codec::kSparseF16;
        const uint16_t infinity = f16 ? 0x7c00 : 0x7f80;
        std::vector<uint8_t> dense = Dense(form.codec, dim, keys, 2);
        Put(&dense, dim, keys, 20, dim - 1, infinity | 1);           // the smallest NaN
        Put(&dense, dim, keys, 21, dim / 2, infinity | 0x8000);      // -infinity
        Put(&dense, dim, keys, 22, dim / 3, f16 ? 0x7bff : 0x7e00);  // 65504, 4e37: beyond a scale
        Put(&dense, dim, keys, 23, 0, 0xffff);
        Put(&dense, dim, keys, 23, dim - 1, infinity);
        std::vector<bool> kept;
        const std::vector<uint8_t> expected =
            ref::Pack(form, dense.data(), dim, keys, nullptr, &kept);
        EXPECT_TRUE(kept[20 * dim + dim - 1] && kept[21 * dim + dim / 2] && kept[23 * dim]);
        size_t broken = 0;
        const std::vector<uint8_t> plane = Pack(form, dense, dim, keys, nullptr, &broken);
        ASSERT_EQ(plane, expected);
        EXPECT_EQ(broken, form.codec == Codec::kSparseI8 ? 4u : 0u);
        EXPECT_EQ(CheckPlane(form, dim, keys, plane), nullptr);
        const std::vector<float> out = Expand(form, plane, dim, keys);
        const std::vector<float> values = ref::Expand(form, plane.data(), dim, keys);
        for (size_t i = 0; i < out.size(); ++i) {
          ASSERT_TRUE(out[i] == values[i] || (std::isnan(out[i]) && std::isnan(values[i])));
        }
        EXPECT_FALSE(std::isfinite(out[keys ? (dim - 1) * 64 + 20 : 20 * dim + dim - 1]));
        EXPECT_FALSE(std::isfinite(out[keys ? dim / 2 * 64 + 21 : 21 * dim + dim / 2]));
        for (size_t c = 0; c < dim; ++c) {
          EXPECT_TRUE(std::isfinite(out[keys ? c * 64 + 19 : 19 * dim + c]));
        }
      }
    }
  }
}

TEST_P(SparseTest, WeightsDecideWhatARowKeepsNotWhatItIsWorth) {
  for (const size_t dim : kDims) {
    std::vector<float> weights = Random(dim, 3);
    for (float& w : weights) w = std::fabs(w);
    weights[0] = 0;
    weights[dim - 1] = 1e30f;
    for (const PlaneForm form : Forms(dim)) {
      for (const bool keys : {true, false}) {
        SCOPED_TRACE(Describe(form, dim, keys));
        const std::vector<uint8_t> dense = Dense(form.codec, dim, keys, 4);
        std::vector<bool> kept;
        const std::vector<uint8_t> expected =
            ref::Pack(form, dense.data(), dim, keys, weights.data(), &kept);
        ASSERT_EQ(Pack(form, dense, dim, keys, weights.data()), expected);
      }
    }
  }
}

TEST(SparsePlane, CheckRefusesWhatPackingNeverMakes) {
  for (const size_t dim : {size_t{18}, size_t{64}, size_t{80}, size_t{128}}) {
    for (const PlaneForm form : Forms(dim)) {
      for (const bool keys : {true, false}) {
        SCOPED_TRACE(Describe(form, dim, keys));
        std::vector<bool> kept;
        const std::vector<uint8_t> good =
            ref::Pack(form, Dense(form.codec, dim, keys, 5).data(), dim, keys, nullptr, &kept);
        ASSERT_EQ(CheckPlane(form, dim, keys, good), nullptr);
        std::mt19937 rng(6);
        for (int i = 0; i < 20; ++i) {  // any single bit of a bitmap
          std::vector<uint8_t> bad = good;
          const size_t at = SparseBitmapsAt(form);
          bad[at + rng() % (bad.size() - at)] ^= static_cast<uint8_t>(1u << rng() % 8);
          EXPECT_NE(CheckPlane(form, dim, keys, bad), nullptr);
        }
        if (form.codec != Codec::kSparseI8) continue;
        for (const uint16_t scale : {uint16_t{0x8001}, uint16_t{0x7c00}, uint16_t{0xfe00}}) {
          std::vector<uint8_t> bad = good;
          std::memcpy(&bad[SparseScalesAt(form) + 2 * 63], &scale, 2);
          EXPECT_NE(CheckPlane(form, dim, keys, bad), nullptr) << scale;
        }
        std::vector<uint8_t> bad = good;
        bad[SparseScalesAt(form) - 1] = 0x80;
        EXPECT_NE(CheckPlane(form, dim, keys, bad), nullptr);
      }
    }
  }
}

TEST_P(SparseTest, RowsMoveAsTheyAre) {
  std::mt19937_64 rng(7);
  for (const size_t dim : {size_t{18}, size_t{64}, size_t{80}, size_t{128}}) {
    for (const PlaneForm form : Forms(dim)) {
      for (const bool keys : {true, false}) {
        SCOPED_TRACE(Describe(form, dim, keys));
        std::vector<std::vector<uint8_t>> planes;
        std::vector<std::vector<float>> values;
        std::vector<bool> kept;
        for (uint32_t i = 0; i < 3; ++i) {
          planes.push_back(ref::Pack(form, Dense(form.codec, dim, keys, 8 + i).data(), dim, keys,
                                     nullptr, &kept));
          values.push_back(ref::Expand(form, planes[i].data(), dim, keys));
          planes[i].resize(planes[i].size() + 64, 0xff);  // slack behind it
        }
        const uint64_t all = ~uint64_t{0}, some = rng() & rng();
        const std::vector<SparseRows> cases[] = {
            {{planes[0].data(), all}},
            {{planes[1].data(), some}, {planes[0].data(), all << 60}, {planes[2].data(), 0x11}},
            {{planes[2].data(), ~all << 1}, {planes[1].data(), uint64_t{1} << 63}},
            {}};
        for (const std::vector<SparseRows>& rows : cases) {
          std::vector<uint8_t> out(PlaneBytes(form, dim), 0xcd);
          TakeRows(kernels(), form, dim, keys, rows, out.data());
          EXPECT_EQ(CheckPlane(form, dim, keys, out), nullptr);
          const std::vector<float> got = ref::Expand(form, out.data(), dim, keys);
          const auto at = [&](size_t slot, size_t c) {
            return keys ? c * 64 + slot : slot * dim + c;
          };
          std::vector<float> expected(64 * dim, 0.0f);
          size_t to = 0;
          for (const SparseRows& from : rows) {
            const size_t plane = from.plane == planes[0].data()   ? 0
                                 : from.plane == planes[1].data() ? 1
                                                                  : 2;
            for (size_t slot = 0; slot < 64; ++slot) {
              if ((from.slots >> slot & 1) == 0) continue;
              for (size_t c = 0; c < dim; ++c) expected[at(to, c)] = values[plane][at(slot, c)];
              ++to;
            }
          }
          EXPECT_TRUE(SameBits(got.data(), expected.data(), got.size()));
          // Onto one of the planes themselves.
          std::vector<uint8_t> target = planes[1];
          std::vector<SparseRows> again = rows;
          for (SparseRows& from : again) {
            if (from.plane == planes[1].data()) from.plane = target.data();
          }
          TakeRows(kernels(), form, dim, keys, again, target.data());
          target.resize(out.size());
          EXPECT_EQ(target, out);
          if (rows.size() == 1) {
            EXPECT_EQ(0, std::memcmp(out.data(), planes[0].data(), out.size()));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace kvasir
