#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "kernels/attention_testing.h"

namespace kvasir {
namespace {

INSTANTIATE_TEST_SUITE_P(Targets, AttentionTest, testing::ValuesIn(Arithmetics()),
                         [](const auto& test) {
                           return std::string(test.param.kernels->target) +
                                  (test.param.compute == Compute::kFast ? "_fast" : "");
                         });

// One form of every codec.
std::vector<PlaneForm> FormsOfCodecs(size_t dim) {
  std::vector<PlaneForm> forms;
  for (const PlaneForm form : AllForms(dim)) {
    if (forms.empty() || forms.back().codec != form.codec) forms.push_back(form);
  }
  return forms;
}

TEST(Parts, AreTheNarrowestWithAtMostSixtyFiveBeforeAPosition) {
  EXPECT_EQ(PartShift(0), 9u);
  EXPECT_EQ(PartShift(32768 + 511), 9u);
  EXPECT_EQ(PartShift(32768 + 512), 10u);
  EXPECT_EQ(PartShift(65 * 1024 - 1), 10u);
  EXPECT_EQ(PartShift(65 * 1024), 11u);
  EXPECT_EQ(PartShift(0xffffffffu), 26u);
}

TEST_P(AttentionTest, MatchesThePlainLoopsForEveryPairOfCodecs) {
  for (const size_t dim : {8, 20, 40, 64, 80, 128}) {
    const Entries entries(dim, Range(0, 230), 1);
    for (const PlaneForm k : FormsOfCodecs(dim)) {
      for (const PlaneForm v : FormsOfCodecs(dim)) {
        const Lane lane(kernels(), entries, Layout::kAligned, k, v);
        // Few rows read planes as they are, many expand them.
        EXPECT_LT(Error(lane.view(), Queries(dim, 1, 3, 229)), Bound())
            << dim << " " << k << " " << v;
        EXPECT_LT(Error(lane.view(), Queries(dim, 30, 2, 200)), Bound())
            << dim << " " << k << " " << v;
      }
    }
  }
}

TEST_P(AttentionTest, ExactJobsReadIntegerKeysAsTheValuesTheyStandFor) {
  const Entries entries(40, Range(0, 300), 40);
  for (const Codec codec : {Codec::kQ8, Codec::kQ4}) {
    const Lane lane(kernels(), entries, Layout::kAligned, codec, Codec::kF32);
    Entries same = entries;  // as f32
    for (size_t i = 0; i < same.positions.size(); ++i) {
      for (size_t c = 0; c < 40; ++c) {
        const PageView& page = lane.view().pages[i / 64];
        same.k[i * 40 + c] = ref::PlaneValue(codec, page.k, 40, true, i % 64, c);
      }
    }
    const Lane floats(kernels(), same, Layout::kAligned, Codec::kF32, Codec::kF32);
    for (const uint32_t rows : {1u, 40u}) {
      const Queries queries(40, rows, 3, 250);
      EXPECT_EQ(SameBits(Attend(lane.view(), queries), Attend(floats.view(), queries)),
                compute() == Compute::kExact);
    }
  }
}

TEST_P(AttentionTest, MatchesThePlainLoopsOverManyParts) {
  const Entries entries(16, Sparse(3000, 0, 30, 3), 2);
  const Lane lane(kernels(), entries, Layout::kHoles, Codec::kF16, Codec::kQ8);
  EXPECT_LT(Error(lane.view(), Queries(16, 3, 2, 40000)), Bound());
  EXPECT_LT(Error(lane.view(), Queries(16, 3, 2, 200000)), Bound());
}

TEST_P(AttentionTest, TheLayoutOfPagesDoesNotChangeBits) {
  const std::pair<Entries, uint32_t> cases[] = {
      {Entries(64, Range(0, 700), 4), 690},
      {Entries(40, Sparse(500, 100, 3, 5), 6), 1600},
      {Entries(64, Sparse(400, 5, 80, 7), 8), 33270},  // the part width changes inside the rows
      {Entries(64, Sparse(900, 5, 1000, 9), 10), 1000000},
  };
  for (const auto& [entries, first] : cases) {
    for (const auto& [k, v] : {std::pair(Codec::kF16, Codec::kF16),
                               {Codec::kQ8, Codec::kBF16},
                               {Codec::kQ4, Codec::kQ4}}) {
      for (const uint32_t rows : {1, 40}) {
        const Queries queries(entries.dim, rows, 3, first);
        const Lane aligned(kernels(), entries, Layout::kAligned, k, v);
        const std::vector<float> expected = Attend(aligned.view(), queries);
        for (const Layout layout : {Layout::kPacked, Layout::kHoles, Layout::kSingles}) {
          if (layout == Layout::kSingles && rows > 1 && first > 1000) continue;  // slow
          const Lane lane(kernels(), entries, layout, k, v);
          EXPECT_TRUE(SameBits(Attend(lane.view(), queries), expected))
              << "first " << first << " rows " << rows << " layout " << static_cast<int>(layout);
        }
      }
    }
  }
}

TEST_P(AttentionTest, ARowHasTheSameBitsAloneAndInAnyBlock) {
  const uint32_t first = 480;
  for (const uint32_t group : {1, 3, 7}) {
    const size_t dim = group == 3 ? 80 : 64;
    for (const PlaneForm form : FormsOfCodecs(dim)) {
      const Entries entries(dim, Range(0, first + 90), 11);
      const Lane lane(kernels(), entries, Layout::kAligned, form, form);
      const Queries queries(dim, 90, group, first);
      const std::vector<float> all = Attend(lane.view(), queries);
      for (const uint32_t n : {1, 3, 16, 64}) {
        for (uint32_t row = 0; row + n <= 90; row += n == 1 ? 1 : 13) {
          const std::vector<float> got = Attend(lane.view(), queries, row, n);
          for (uint32_t r = 0; r < n; ++r) {
            ASSERT_EQ(0, std::memcmp(&got[r * queries.stride()], &all[(row + r) * queries.stride()],
                                     group * dim * sizeof(float)))
                << "group " << group << " rows " << n << " row " << row + r;
          }
        }
      }
    }
  }
}

TEST_P(AttentionTest, AWindowHidesWhatLiesBehindIt) {
  const Entries dense(40, Range(0, 700), 31), sparse(40, Sparse(600, 0, 4, 32), 33);
  const Lane aligned(kernels(), dense, Layout::kAligned, Codec::kF16, Codec::kQ8);
  const Lane holes(kernels(), sparse, Layout::kHoles, Codec::kF32, Codec::kF32);
  for (const uint32_t window : {1u, 2u, 7u, 64u, 100u, 513u, 5000u}) {
    for (const uint32_t rows : {1u, 90u}) {
      EXPECT_LT(Error(aligned.view(), Queries(40, rows, 3, 600, window)), Bound()) << window;
      EXPECT_LT(Error(holes.view(), Queries(40, rows, 2, 2000, window)), Bound()) << window;
    }
  }
}

TEST_P(AttentionTest, ARowBehindAWindowHasTheSameBitsAnywhere) {
  const Entries entries(64, Range(0, 600), 34);
  for (const uint32_t window : {3u, 30u, 65u, 200u, 530u}) {
    const Queries queries(64, 70, 3, 530, window);
    const Lane lane(kernels(), entries, Layout::kAligned, Codec::kF16, Codec::kF16);
    const Lane packed(kernels(), entries, Layout::kPacked, Codec::kF16, Codec::kF16);
    const std::vector<float> all = Attend(lane.view(), queries);
    EXPECT_TRUE(SameBits(Attend(packed.view(), queries), all)) << window;
    EXPECT_TRUE(SameBits(Attend(packed.view(), queries, 0, 70, 3), all)) << window;
    for (uint32_t r = 0; r < 70; ++r) {
      // Alone, and where what it does not see is really gone.
      const uint32_t own = 530 + r, lowest = own + 1 - std::min(window, own + 1);
      Entries seen(64, Range(lowest, own + 1), 1);
      std::copy_n(&entries.k[lowest * 64], seen.k.size(), seen.k.begin());
      std::copy_n(&entries.v[lowest * 64], seen.v.size(), seen.v.begin());
      const Lane rest(kernels(), seen, Layout::kHoles, Codec::kF16, Codec::kF16);
      for (const LaneView& view : {lane.view(), rest.view()}) {
        const std::vector<float> got = Attend(view, queries, r, 1);
        ASSERT_EQ(0, std::memcmp(got.data(), &all[r * queries.stride()], 3 * 64 * sizeof(float)))
            << window << " " << r;
      }
    }
  }
}

TEST_P(AttentionTest, ADecodedTokenSeesWhatItsPrefillRowSees) {
  const uint32_t first = 500;
  const Entries all(64, Range(0, first + 24), 12);
  const Lane whole(kernels(), all, Layout::kAligned, Codec::kF16, Codec::kQ8);
  const Queries queries(64, 24, 3, first);
  const std::vector<float> prefill = Attend(whole.view(), queries);
  for (uint32_t r = 0; r < 24; ++r) {
    Entries until = all;  // the lane as it was when row r came
    until.positions.resize(first + r + 1);
    const Lane lane(kernels(), until, Layout::kAligned, Codec::kF16, Codec::kQ8);
    const std::vector<float> decode = Attend(lane.view(), queries, r, 1);
    ASSERT_EQ(0, std::memcmp(decode.data(), &prefill[r * queries.stride()], 3 * 64 * sizeof(float)))
        << r;
  }
}

TEST_P(AttentionTest, RowsKeepTheirBitsAcrossPartBorders) {
  for (const uint32_t border : {512u, 1024u, 65u * 512, 33u * 1024, 65u * 1024, 65u * 2048}) {
    const Entries entries(16, Sparse(700, border > 3000 ? border - 2500 : 0, 4, 13), 14);
    const Lane lane(kernels(), entries, Layout::kPacked, Codec::kF16, Codec::kF16);
    const Queries queries(16, 40, 2, border - 20);
    const std::vector<float> all = Attend(lane.view(), queries);
    for (uint32_t r = 0; r < 40; ++r) {
      const std::vector<float> got = Attend(lane.view(), queries, r, 1);
      ASSERT_EQ(0, std::memcmp(got.data(), &all[r * queries.stride()], 32 * sizeof(float)))
          << border << " " << r;
    }
    EXPECT_LT(Error(lane.view(), queries), Bound()) << border;
  }
}

TEST_P(AttentionTest, ThreadsDoNotChangeBits) {
  const Entries longest(64, Range(0, 3000), 15), middle(64, Sparse(900, 0, 3, 16), 17),
      little(64, Range(0, 20), 18);
  const Lane a(kernels(), longest, Layout::kAligned, Codec::kF16, Codec::kF16);
  const Lane b(kernels(), middle, Layout::kHoles, Codec::kQ8, Codec::kQ8);
  const Lane c(kernels(), little, Layout::kPacked, Codec::kF32, Codec::kBF16);
  for (const uint32_t rows : {1u, 5u, 70u}) {
    const Queries queries(64, rows, 3, 2930);
    std::vector<std::vector<float>> expected;
    for (const size_t threads : {1, 2, 3, 3}) {  // twice: whoever comes last merges
      Workers workers(threads);
      AttentionScratch scratch(threads, 3, 64, compute());
      std::vector<std::vector<float>> out(3);
      const AttentionJob jobs[] = {queries.Job(a.view(), 0, rows, &out[0]),
                                   queries.Job(b.view(), 0, rows, &out[1]),
                                   queries.Job(c.view(), 0, rows, &out[2])};
      Attention(kernels(), workers, jobs, scratch);
      if (expected.empty()) expected = out;
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_TRUE(SameBits(out[i], expected[i])) << threads << " threads, job " << i;
      }
    }
  }
}

TEST_P(AttentionTest, PartsWithMorePagesThanScratchHaveTheSameBits) {
  // 48 rows leave room for 23 pages' scores; here a part has 100 pages of one entry.
  const Entries entries(16, Sparse(100, 0, 4, 19), 20);
  const Lane singles(kernels(), entries, Layout::kSingles, Codec::kF16, Codec::kF16);
  const Lane packed(kernels(), entries, Layout::kPacked, Codec::kF16, Codec::kF16);
  const Queries queries(16, 48, 1, 300);
  EXPECT_TRUE(SameBits(Attend(singles.view(), queries), Attend(packed.view(), queries)));
  // And wide parts of ordinary pages: 2,048 positions.
  const Entries dense(8, Range(80000, 84200), 21);
  const Lane aligned(kernels(), dense, Layout::kAligned, Codec::kF16, Codec::kF16);
  const Queries many(8, 60, 1, 84140);
  const std::vector<float> all = Attend(aligned.view(), many);
  for (const uint32_t r : {0u, 31u, 59u}) {
    const std::vector<float> got = Attend(aligned.view(), many, r, 1);
    EXPECT_EQ(0, std::memcmp(got.data(), &all[r * many.stride()], 8 * sizeof(float))) << r;
  }
}

TEST_P(AttentionTest, TheLastPositionsDoNotOverflow) {
  const uint32_t end = std::numeric_limits<uint32_t>::max();
  std::vector<uint32_t> positions = Sparse(100, 0, 40000000, 22);
  positions.erase(
      std::find_if(positions.begin(), positions.end(), [&](uint32_t p) { return p > end - 200; }),
      positions.end());
  ASSERT_TRUE(std::is_sorted(positions.begin(), positions.end()));
  for (uint32_t i = 0; i < 128; ++i) positions.push_back(end - 127 + i);
  const Entries entries(16, positions, 23);
  const Lane lane(kernels(), entries, Layout::kPacked, Codec::kF32, Codec::kF32);
  const Lane aligned(kernels(), entries, Layout::kAligned, Codec::kF32, Codec::kF32);
  const Queries queries(16, 70, 1, end - 69);
  EXPECT_LT(Error(lane.view(), queries), Bound());
  EXPECT_TRUE(SameBits(Attend(lane.view(), queries), Attend(aligned.view(), queries)));
}

TEST_P(AttentionTest, ARowThatSeesNothingYieldsZeros) {
  const Entries entries(8, Range(100, 140), 24);
  const Lane lane(kernels(), entries, Layout::kPacked, Codec::kF16, Codec::kF16);
  const Queries queries(8, 20, 2, 90);
  const std::vector<float> out = Attend(lane.view(), queries);
  for (uint32_t r = 0; r < 20; ++r) {
    for (size_t i = 0; i < 16; ++i) {
      EXPECT_EQ(out[r * queries.stride() + i] == 0, r < 10) << r;
    }
  }
  const std::vector<float> nothing = Attend(LaneView{nullptr, 0, 0, 8}, queries);
  EXPECT_EQ(nothing[0], 0.0f);
}

TEST_P(AttentionTest, PagesWithoutKeysAndDeadPagesAreSkipped) {
  const Entries entries(8, Range(0, 256), 25);
  Lane lane(kernels(), entries, Layout::kAligned, Codec::kF16, Codec::kF16);
  lane.pages()[1].k = nullptr;
  lane.pages()[2].live = 0;
  Entries rest = entries;
  const auto cut = [](auto& x, size_t begin, size_t end) {
    x.erase(x.begin() + static_cast<ptrdiff_t>(begin), x.begin() + static_cast<ptrdiff_t>(end));
  };
  cut(rest.positions, 64, 192);
  cut(rest.k, 64 * 8, 192 * 8);
  cut(rest.v, 64 * 8, 192 * 8);
  const Lane expected(kernels(), rest, Layout::kPacked, Codec::kF16, Codec::kF16);
  const Queries queries(8, 30, 1, 240);
  EXPECT_TRUE(SameBits(Attend(lane.view(), queries), Attend(expected.view(), queries)));
}

TEST_P(AttentionTest, ALaterEntryNeverTouchesAnEarlierRow) {
  for (const Codec codec : {Codec::kF32, Codec::kF16, Codec::kBF16}) {
    Entries entries(8, Range(0, 40), 26);
    const Queries queries(8, 32, 1, 8);
    const Lane before(kernels(), entries, Layout::kAligned, codec, codec);
    const std::vector<float> expected = Attend(before.view(), queries);
    for (size_t c = 0; c < 8; ++c) {  // entry 25 overflowed
      entries.k[25 * 8 + c] = std::nanf("");
      entries.v[25 * 8 + c] = std::numeric_limits<float>::infinity();
    }
    const Lane after(kernels(), entries, Layout::kAligned, codec, codec);
    for (const auto& [first, n] : {std::pair(0u, 32u), {13u, 6u}}) {
      const std::vector<float> got = Attend(after.view(), queries, first, n);
      for (uint32_t r = first; r < 25 - 8; ++r) {
        EXPECT_EQ(0, std::memcmp(&got[(r - first) * queries.stride()],
                                 &expected[r * queries.stride()], 32))
            << r << " in a block of " << n;
      }
      EXPECT_TRUE(std::isnan(got[(18 - first) * queries.stride()]));
    }
  }
}

}  // namespace
}  // namespace kvasir
