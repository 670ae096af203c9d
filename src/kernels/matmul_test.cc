#include "kernels/matmul.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "base/checked.h"
#include "kernels/ref/matmul.h"

namespace kvasir {
namespace {

constexpr DType kAll[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ4_0,   DType::kQ4_1,
                          DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kQ2_K,   DType::kQ3_K,
                          DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS};
static_assert(std::size(kAll) == kDTypes);

bool IsQuantized(DType dtype) { return Info(dtype).block > 1; }
bool IsFused(const Kernels& kernels) { return std::string_view(kernels.target) != "portable"; }

// Owner of a matrix as a file would hold it.
struct Matrix {
  DType dtype;
  size_t rows, cols;
  std::vector<uint8_t> bytes;
  TensorView view() const { return {dtype, rows, cols, bytes.data()}; }
};

void PutHalf(std::vector<uint8_t>& bytes, size_t at, float value) {
  const uint16_t half = F32ToF16(value);
  std::memcpy(&bytes[at], &half, 2);
}

// Where the f16 factors of a block lie.
std::vector<size_t> HalvesOfBlock(DType dtype) {
  switch (dtype) {
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ2_K:
      return {80, 82};
    case DType::kQ3_K:
      return {108};
    case DType::kQ6_K:
      return {208};
    default:
      return {0};
  }
}

// Random bits everywhere, f16 factors of a sensible size.
Matrix RandomMatrix(DType dtype, size_t rows, size_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Matrix m = {dtype, rows, cols,
              std::vector<uint8_t>(rows * cols / Info(dtype).block * Info(dtype).bytes)};
  if (!IsQuantized(dtype)) {
    for (size_t i = 0; i < rows * cols; ++i) {
      const float value = normal(random);
      if (dtype == DType::kF32) {
        std::memcpy(&m.bytes[4 * i], &value, 4);
      } else {
        const uint16_t half = dtype == DType::kF16 ? F32ToF16(value) : F32ToBF16(value);
        std::memcpy(&m.bytes[2 * i], &half, 2);
      }
    }
    return m;
  }
  for (uint8_t& byte : m.bytes) byte = static_cast<uint8_t>(random());
  for (size_t block = 0; block < m.bytes.size(); block += Info(dtype).bytes) {
    for (const size_t at : HalvesOfBlock(dtype))
      PutHalf(m.bytes, block + at, normal(random) * 0.01f);
  }
  return m;
}

struct FloatRows {  // owner
  FloatRows(size_t count, size_t dim)
      : view{nullptr, count, dim, RoundUp<size_t>(dim, kGroup)}, floats(count * view.stride) {
    view.data = floats.data();
  }
  Rows view;
  std::vector<float> floats;
};

// Normal, with outliers in every ninth block of most rows: the blocks that have rests.
FloatRows RandomRows(size_t count, size_t dim, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  FloatRows rows(count, dim);
  for (float& v : rows.floats) v = normal(random);
  for (size_t r = 0; r < count; ++r) {
    for (size_t i = 0; i < dim; ++i) {
      if (r % 4 != 0 && (i / 32 + r / 2) % 9 == 2 && i % 32 == 7) {
        rows.view.row(r)[i] = std::copysign(40.0f, rows.view.row(r)[i]);
      }
    }
  }
  return rows;
}

// Rows as MatMul gives them; padding columns hold what they like.
FloatRows Multiply(const Kernels& kernels, Workers& workers, const PackedMatrix& w, Rows x,
                   Compute compute) {
  FloatRows out(x.count, w.outputs());
  Activations activations(x.count, x.dim);
  activations.Set(kernels, workers, compute, x);
  const MatMulJob job = {&w, nullptr, out.view, false};
  MatMul(kernels, workers, activations, {&job, 1});
  return out;
}

void ExpectEqualBits(const Rows& a, const Rows& b) {
  ASSERT_EQ(a.count, b.count);
  for (size_t r = 0; r < a.count; ++r) {
    ASSERT_EQ(std::memcmp(a.row(r), b.row(r), a.dim * sizeof(float)), 0) << "row " << r;
  }
}

using TargetAndType = std::tuple<const Kernels*, DType>;

std::string NameOf(const testing::TestParamInfo<TargetAndType>& info) {
  std::string name = std::string(std::get<0>(info.param)->target) + "_" +
                     std::string(Info(std::get<1>(info.param)).name);
  return name;
}

class MatMulTest : public testing::TestWithParam<TargetAndType> {
 protected:
  const Kernels& kernels_ = *std::get<0>(GetParam());
  const DType dtype_ = std::get<1>(GetParam());
  Workers workers_{2};

  // The lengths of K to test: around tiles of 16 blocks and real models' widths.
  std::vector<size_t> Lengths() const {
    if (!IsQuantized(dtype_)) return {1, 7, 32, 64, 257, 576};
    if (Info(dtype_).block == 256) return {256, 512, 768, 1536};
    return {32, 64, 576, 1536};
  }
};

INSTANTIATE_TEST_SUITE_P(Targets, MatMulTest,
                         testing::Combine(testing::ValuesIn(AvailableKernels().begin(),
                                                            AvailableKernels().end()),
                                          testing::ValuesIn(kAll)),
                         NameOf);

class QuantizedMatMulTest : public MatMulTest {};  // float weights always multiply exactly

INSTANTIATE_TEST_SUITE_P(Targets, QuantizedMatMulTest,
                         testing::Combine(testing::ValuesIn(AvailableKernels().begin(),
                                                            AvailableKernels().end()),
                                          testing::ValuesIn(std::begin(kAll) + 3, std::end(kAll))),
                         NameOf);

// A row with a single 1 reads one column of the weights back.
TEST_P(MatMulTest, ExactProductWithUnitRowsGivesTheWeightsBack) {
  for (const size_t outputs : {1, 16, 37}) {
    const size_t k = Lengths()[1];
    const Matrix m = RandomMatrix(dtype_, outputs, k, 1);
    const PackedMatrix packed = PackedMatrix::Pack(m.view(), workers_);
    FloatRows unit(k, k);
    for (size_t i = 0; i < k; ++i) unit.view.row(i)[i] = 1;
    const FloatRows out = Multiply(kernels_, workers_, packed, unit.view, Compute::kExact);
    for (size_t o = 0; o < outputs; ++o) {
      const std::vector<float> expected = ref::ExpandRow(m.view(), o);
      for (size_t i = 0; i < k; ++i) ASSERT_EQ(out.view.row(i)[o], expected[i]) << o << ", " << i;
    }
  }
}

TEST_P(MatMulTest, ExactProductIsOneMulAddChainInAscendingK) {
  for (const size_t k : Lengths()) {
    const Matrix m = RandomMatrix(dtype_, 37, k, 2);
    const PackedMatrix packed = PackedMatrix::Pack(m.view(), workers_);
    const FloatRows x = RandomRows(8, k, 3);
    const FloatRows out = Multiply(kernels_, workers_, packed, x.view, Compute::kExact);
    double error = 0, power = 0;
    for (size_t o = 0; o < m.rows; ++o) {
      const std::vector<float> w = ref::ExpandRow(m.view(), o);
      for (size_t r = 0; r < x.view.count; ++r) {
        const float value = out.view.row(r)[o];
        ASSERT_EQ(value, ref::ExactElement(w, x.view.row(r), IsFused(kernels_))) << k;
        const double product = ref::Dot(w, x.view.row(r));
        error += (value - product) * (value - product);
        power += product * product;
      }
    }
    EXPECT_LT(error / power, 1e-11) << k;
  }
}

TEST_P(QuantizedMatMulTest, FastProductEqualsPlainIntegerArithmetic) {
  for (const size_t k : Lengths()) {
    const Matrix m = RandomMatrix(dtype_, 37, k, 4);
    const PackedMatrix packed = PackedMatrix::Pack(m.view(), workers_);
    const FloatRows x = RandomRows(8, k, 5);
    const FloatRows out = Multiply(kernels_, workers_, packed, x.view, Compute::kFast);
    double error = 0, power = 0;
    for (size_t r = 0; r < x.view.count; ++r) {
      const ref::QuantizedRow q = ref::Quantize(x.view.row(r), k);
      for (size_t o = 0; o < m.rows; ++o) {
        const float value = out.view.row(r)[o];
        ASSERT_EQ(value, ref::FastElement(dtype_, m.view().row(o), q, IsFused(kernels_)))
            << "k " << k << ", row " << r << ", output " << o;
        const double product = ref::Dot(ref::ExpandRow(m.view(), o), x.view.row(r));
        error += (value - product) * (value - product);
        power += product * product;
      }
    }
    EXPECT_LT(error / power, 1e-3) << k;  // int8 activations: half a step of 1 / 127 of the maximum
    EXPECT_GT(error, 0) << k;
  }
}

// The rest quantizes what the first term left of an outlier's block, whose error would dwarf that
// of the others.
TEST_P(QuantizedMatMulTest, RestsHoldWhatOutliersRoundAway) {
  const size_t k = 1536;
  const Matrix m = RandomMatrix(dtype_, 37, k, 4);
  const PackedMatrix packed = PackedMatrix::Pack(m.view(), workers_);
  const FloatRows x = RandomRows(8, k, 5);
  const FloatRows exact = Multiply(kernels_, workers_, packed, x.view, Compute::kExact);
  const FloatRows fast = Multiply(kernels_, workers_, packed, x.view, Compute::kFast);
  double with = 0, without = 0;
  for (size_t r = 0; r < x.view.count; ++r) {
    ref::QuantizedRow q = ref::Quantize(x.view.row(r), k);
    if (r % 4 == 0) continue;  // without outliers
    EXPECT_GE(q.n_rests, 5u) << r;
    EXPECT_LE(q.n_rests, 6u) << r;
    q.blocks.resize(k / 32);
    for (size_t o = 0; o < m.rows; ++o) {
      const double value = exact.view.row(r)[o];
      with += std::pow(fast.view.row(r)[o] - value, 2);
      without +=
          std::pow(ref::FastElement(dtype_, m.view().row(o), q, IsFused(kernels_)) - value, 2);
    }
  }
  EXPECT_LT(std::sqrt(with), std::sqrt(without) / 3);
}

TEST_P(QuantizedMatMulTest, RowsWithRestsHaveTheSameBitsInAnyPassAndAddToTheStream) {
  const size_t k = Lengths().back();
  const Matrix m = RandomMatrix(dtype_, 53, k, 6);
  const PackedMatrix packed = PackedMatrix::Pack(m.view(), workers_);
  const FloatRows x = RandomRows(200, k, 7);
  const auto multiply = [&](Workers& workers, Rows rows) {
    return Multiply(kernels_, workers, packed, rows, Compute::kFast);
  };
  Workers one(1);
  const FloatRows all = multiply(workers_, x.view);
  ExpectEqualBits(multiply(one, x.view).view, all.view);
  for (const size_t n : {1, 2, 3, 67}) {
    ExpectEqualBits(multiply(workers_, x.view.Slice(60, n)).view, all.view.Slice(60, n));
  }
  FloatRows stream = RandomRows(200, m.rows, 8), expected = RandomRows(200, m.rows, 8);
  const FloatRows bias = RandomRows(1, m.rows, 9);
  for (size_t r = 0; r < 200; ++r) {
    for (size_t o = 0; o < m.rows; ++o) {
      expected.view.row(r)[o] += all.view.row(r)[o] + bias.view.row(0)[o];
    }
  }
  Activations activations(200, k);
  activations.Set(kernels_, workers_, Compute::kFast, x.view);
  const MatMulJob job = {&packed, bias.view.row(0), stream.view, true};
  MatMul(kernels_, workers_, activations, {&job, 1});
  ExpectEqualBits(stream.view, expected.view);
}

// [contract: rows.equal]
TEST_P(MatMulTest, ARowHasTheSameBitsWhoeverSharesItsPass) {
  for (const Compute compute : {Compute::kExact, Compute::kFast}) {
    for (const size_t k : {Lengths()[1], Lengths().back()}) {
      const Matrix m = RandomMatrix(dtype_, 53, k, 6);
      const PackedMatrix packed = PackedMatrix::Pack(m.view(), workers_);
      const FloatRows x = RandomRows(512, k, 7);
      const FloatRows all = Multiply(kernels_, workers_, packed, x.view, compute);
      for (const size_t n : {1, 2, 3, 4, 5, 6, 7, 8, 64, 67}) {
        // Every row for small n, the first and last stretch else.
        for (size_t row = 0; row + n <= 512; row += n < 8 ? n + 29 : 512 - n) {
          const FloatRows some =
              Multiply(kernels_, workers_, packed, x.view.Slice(row, n), compute);
          ExpectEqualBits(some.view, all.view.Slice(row, n));
        }
      }
    }
  }
}

TEST_P(MatMulTest, ThreadsDoNotChangeBits) {
  for (const Compute compute : {Compute::kExact, Compute::kFast}) {
    const size_t k = Lengths().back();
    const Matrix m = RandomMatrix(dtype_, 1000, k, 8);
    const PackedMatrix packed = PackedMatrix::Pack(m.view(), workers_);
    for (const size_t n : {1, 70}) {
      const FloatRows x = RandomRows(n, k, 9);
      Workers one(1), three(3);
      const FloatRows expected = Multiply(kernels_, one, packed, x.view, compute);
      ExpectEqualBits(Multiply(kernels_, workers_, packed, x.view, compute).view, expected.view);
      ExpectEqualBits(Multiply(kernels_, three, packed, x.view, compute).view, expected.view);
    }
  }
}

// Weights and activations at their ends: 16-bit partial sums must not saturate.
TEST_P(QuantizedMatMulTest, LargestIntegersDoNotOverflow) {
  const size_t k = Lengths().back();
  for (const uint8_t fill : {0x00, 0xff, 0x7f, 0x80, 0x0f, 0xf0}) {
    Matrix m = RandomMatrix(dtype_, 17, k, 10);
    for (size_t i = 0; i < m.bytes.size(); ++i) m.bytes[i] = fill;
    for (size_t block = 0; block < m.bytes.size(); block += Info(dtype_).bytes) {
      for (const size_t at : HalvesOfBlock(dtype_)) PutHalf(m.bytes, block + at, 0.5f);
    }
    const PackedMatrix packed = PackedMatrix::Pack(m.view(), workers_);
    FloatRows x(9, k);
    for (size_t r = 0; r < 9; ++r) {
      for (size_t i = 0; i < k; ++i)
        x.view.row(r)[i] = r % 3 == 0 ? 1.f : r % 3 == 1 ? -1.f : i % 2 ? 1.f : -1.f;
    }
    const FloatRows out = Multiply(kernels_, workers_, packed, x.view, Compute::kFast);
    const FloatRows one = Multiply(kernels_, workers_, packed, x.view.Slice(0, 1), Compute::kFast);
    ExpectEqualBits(one.view, out.view.Slice(0, 1));
    for (size_t r = 0; r < 9; ++r) {
      const ref::QuantizedRow q = ref::Quantize(x.view.row(r), k);
      ASSERT_EQ(std::abs(q.blocks[0].q[0]), 127);
      ASSERT_EQ(out.view.row(r)[16],
                ref::FastElement(dtype_, m.view().row(16), q, IsFused(kernels_)))
          << "fill " << int{fill} << ", row " << r;
    }
  }
}

TEST_P(MatMulTest, BiasIsAddedToTheProductAndTheSumToTheStream) {
  const size_t k = Lengths().back();
  const Matrix a = RandomMatrix(dtype_, 100, k, 11), b = RandomMatrix(dtype_, 37, k, 12);
  const PackedMatrix packed_a = PackedMatrix::Pack(a.view(), workers_);
  const PackedMatrix packed_b = PackedMatrix::Pack(b.view(), workers_);
  for (const size_t n : {1, 7, 100}) {
    const FloatRows x = RandomRows(n, k, 13);
    const FloatRows product_a = Multiply(kernels_, workers_, packed_a, x.view, Compute::kFast);
    const FloatRows product_b = Multiply(kernels_, workers_, packed_b, x.view, Compute::kFast);
    const std::vector<float> bias = RandomRows(1, 37, 14).floats;
    FloatRows out_a(n, 100), out_b = RandomRows(n, 37, 15);
    out_a.view.count = out_b.view.count = n;
    const FloatRows stream = out_b;
    out_b.view.data = out_b.floats.data();
    Activations activations(n, k);
    activations.Set(kernels_, workers_, Compute::kFast, x.view);
    const MatMulJob jobs[] = {{&packed_a, nullptr, out_a.view, false},
                              {&packed_b, bias.data(), out_b.view, true}};
    MatMul(kernels_, workers_, activations, jobs);
    ExpectEqualBits(out_a.view, product_a.view);
    for (size_t r = 0; r < n; ++r) {
      for (size_t o = 0; o < 37; ++o) {
        const float old = stream.floats[r * stream.view.stride + o];
        ASSERT_EQ(out_b.view.row(r)[o], old + (product_b.view.row(r)[o] + bias[o]));
      }
    }
  }
}

class KernelsTest : public testing::TestWithParam<const Kernels*> {
 protected:
  const Kernels& kernels_ = *GetParam();
  Workers workers_{2};
};

INSTANTIATE_TEST_SUITE_P(Targets, KernelsTest,
                         testing::ValuesIn(AvailableKernels().begin(), AvailableKernels().end()),
                         [](const auto& info) { return std::string(info.param->target); });

TEST_P(KernelsTest, QuantizesBlocksToTheNearestEvenOf127Steps) {
  constexpr size_t kK = 32 * 64;
  FloatRows x = RandomRows(2, kK, 16);
  float* row = x.view.row(1);
  for (size_t i = 0; i < 32; ++i) row[i] = 0;                                   // zero
  for (size_t i = 32; i < 64; ++i) row[i] = static_cast<float>(i) * 0.5f - 24;  // ties
  row[63] = 127;
  for (size_t i = 64; i < 96; ++i) row[i] *= 1e-38f;    // counts as zero
  for (size_t i = 128; i < 160; ++i) row[i] *= 1e-30f;  // tiny
  for (const float huge : {1.0f, 1e37f}) {              // squares beyond f32: no rests
    for (size_t i = 96; i < 128; ++i) row[i] *= huge;
    Activations activations(2, kK);
    activations.Set(kernels_, workers_, Compute::kFast, x.view);
    const QuantizedRows q = activations.quantized()->From(1);
    const ref::QuantizedRow expected = ref::Quantize(row, kK);
    ASSERT_EQ(*q.n_rests, expected.n_rests);
    EXPECT_EQ(expected.n_rests > 0, huge == 1);
    for (size_t i = 0; i < expected.blocks.size(); ++i) {
      const ref::QuantizedBlock& block = expected.blocks[i];
      const bool rest = i >= q.blocks;
      const size_t at = rest ? i - q.blocks : i;
      const int8_t* bytes = (rest ? q.rest_q : q.q) + at * 32;
      EXPECT_THAT(std::vector<int>(bytes, bytes + 32), testing::ElementsAreArray(block.q)) << i;
      EXPECT_EQ((rest ? q.rest_scale : q.scale)[at], block.scale) << i;
      EXPECT_EQ((rest ? q.rest_scaled_sum : q.scaled_sum)[at], block.scaled_sum) << i;
      const int32_t halves = (rest ? q.rest_half_sums : q.half_sums)[at];
      EXPECT_EQ(static_cast<int16_t>(halves), std::accumulate(bytes, bytes + 16, 0)) << i;
      EXPECT_EQ(halves >> 16, std::accumulate(bytes + 16, bytes + 32, 0)) << i;
      EXPECT_EQ((rest ? q.rest_starts : q.starts)[at], -128 * std::accumulate(bytes, bytes + 32, 0))
          << i;
      if (rest) {
        EXPECT_EQ(q.rest_block[at], block.block);
      }
    }
    EXPECT_EQ(q.scale[0], 0);
    EXPECT_EQ(q.scale[2], 0);
    EXPECT_GT(q.scale[4], 0);
  }
}

TEST_P(KernelsTest, ABlockThatIsNotFiniteMakesItsOutputsNaN) {
  const Matrix m = RandomMatrix(DType::kQ4_1, 16, 96, 17);
  const PackedMatrix packed = PackedMatrix::Pack(m.view(), workers_);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    FloatRows x = RandomRows(2, 96, 18);
    x.view.row(0)[40] = bad;
    const FloatRows out = Multiply(kernels_, workers_, packed, x.view, Compute::kFast);
    for (size_t o = 0; o < 16; ++o) {
      EXPECT_TRUE(std::isnan(out.view.row(0)[o]));
      EXPECT_TRUE(std::isfinite(out.view.row(1)[o]));
    }
  }
}

TEST_P(KernelsTest, KThatIsNoMultipleOf32TakesTheExactPath) {
  const Matrix m = RandomMatrix(DType::kF16, 20, 45, 20);  // bf16 has a fast path on avx512
  const PackedMatrix packed = PackedMatrix::Pack(m.view(), workers_);
  const FloatRows x = RandomRows(3, 45, 21);
  ExpectEqualBits(Multiply(kernels_, workers_, packed, x.view, Compute::kFast).view,
                  Multiply(kernels_, workers_, packed, x.view, Compute::kExact).view);
}

// [contract: rows.equal] One chain over activations rounded to bf16, where the target has it.
TEST_P(KernelsTest, FastBF16ProductIsOneChainOverRoundedActivations) {
  if (kernels_.matmul.fast_float[static_cast<size_t>(PackedKind::kBF16)] == nullptr) {
    GTEST_SKIP() << kernels_.target << " multiplies bf16 weights exactly";
  }
  for (const size_t k : {1, 2, 31, 96, 576, 1100}) {
    const Matrix m = RandomMatrix(DType::kBF16, 53, k, 24);
    const PackedMatrix packed = PackedMatrix::Pack(m.view(), workers_);
    const FloatRows x = RandomRows(70, k, 25);
    const FloatRows out = Multiply(kernels_, workers_, packed, x.view, Compute::kFast);
    for (size_t r = 0; r < x.view.count; ++r) {
      std::vector<float> rounded(x.view.row(r), x.view.row(r) + k);
      for (float& v : rounded) v = BF16ToF32(F32ToBF16(v));
      for (size_t o = 0; o < m.rows; ++o) {
        ASSERT_EQ(out.view.row(r)[o],
                  ref::ExactElement(ref::ExpandRow(m.view(), o), rounded.data(), true))
            << k << ", row " << r << ", output " << o;
      }
    }
    for (const size_t n : {1, 2, 3, 9, 64}) {
      const FloatRows some =
          Multiply(kernels_, workers_, packed, x.view.Slice(5, n), Compute::kFast);
      ExpectEqualBits(some.view, out.view.Slice(5, n));
    }
  }
}

TEST(PackedMatrixTest, RefusesRowsThatAreNoWholeBlocks) {
  Workers workers(1);
  const Matrix m = RandomMatrix(DType::kQ4_K, 16, 256, 22);
  for (const auto& [rows, cols] : {std::pair<size_t, size_t>{16, 32}, {0, 256}, {16, 0}}) {
    try {
      PackedMatrix::Pack({DType::kQ4_K, rows, cols, m.bytes.data()}, workers);
      ADD_FAILURE() << rows << " x " << cols;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kCorrupt);
    }
  }
}

TEST(PackedMatrixTest, TakesTheBytesItsRecordsSay) {
  Workers workers(2);
  const auto bytes = [&](DType dtype) {
    return PackedMatrix::Pack(RandomMatrix(dtype, 33, 256, 23).view(), workers).bytes();
  };
  EXPECT_EQ(bytes(DType::kBF16), 3 * 16 * 256 * 2);
  EXPECT_EQ(bytes(DType::kQ4_0), 3 * 8 * 288);
  EXPECT_EQ(bytes(DType::kQ4_1), 3 * 8 * 320);
  EXPECT_EQ(bytes(DType::kQ8_0), 3 * 8 * 544);
  EXPECT_EQ(bytes(DType::kQ4_K), 3 * 2368);
  EXPECT_EQ(bytes(DType::kQ6_K), 3 * 3360);
  EXPECT_EQ(bytes(DType::kQ3_K), 3 * 3360);
  EXPECT_EQ(bytes(DType::kQ2_K), 3 * 1344);
  EXPECT_EQ(bytes(DType::kQ5_1), 3 * 8 * 448);
  EXPECT_EQ(bytes(DType::kQ5_K), 3 * 8 * 448);
  EXPECT_EQ(bytes(DType::kIQ4_XS), 3 * 8 * 320);
}

}  // namespace
}  // namespace kvasir
