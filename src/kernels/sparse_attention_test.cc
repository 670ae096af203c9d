// Attention over packed pages: what the same pages with zeros in place of dropped channels give.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/attention_testing.h"
#include "kernels/ref/planes.h"
#include "kernels/sparse_plane.h"

namespace kvasir {
namespace {

class SparseAttentionTest : public AttentionTest {
 protected:
  bool rounds_to_bf16() const { return compute() == Compute::kFast && kernels().planes.pairs; }
};
INSTANTIATE_TEST_SUITE_P(Targets, SparseAttentionTest, testing::ValuesIn(Arithmetics()),
                         [](const auto& test) {
                           return std::string(test.param.kernels->target) +
                                  (test.param.compute == Compute::kFast ? "_fast" : "");
                         });

constexpr Codec kSparseCodecs[] = {Codec::kSparseBF16, Codec::kSparseF16, Codec::kSparseI8};

// The pages of a lane with packed planes as dense ones.
class Unpacked {
 public:
  // `values_of_i8`: what V planes of int8 become.
  Unpacked(const LaneView& lane, Codec values_of_i8) : lane_(lane) {
    for (uint32_t i = 0; i < lane.n_pages; ++i) {
      PageView page = lane.pages[i];
      page.k = Unpack(page.k, true, Codec::kF32, &page.k_form);
      page.v = Unpack(page.v, false, values_of_i8, &page.v_form);
      pages_.push_back(page);
    }
    lane_.pages = pages_.data();
  }
  const LaneView& view() const { return lane_; }

 private:
  const uint8_t* Unpack(const uint8_t* plane, bool keys, Codec of_i8, PlaneForm* form) {
    if (!IsSparse(form->codec)) return plane;
    const std::vector<float> x = ref::Expand(*form, plane, lane_.head_dim, keys);
    const Codec codec = form->codec == Codec::kSparseI8 ? of_i8 : SparseSource(form->codec);
    planes_.emplace_back(PlaneBytes(codec, lane_.head_dim) + 64);
    uint8_t* out = planes_.back().data();
    for (size_t i = 0; i < x.size(); ++i) {
      const uint16_t half = codec == Codec::kF16 ? F32ToF16(x[i]) : F32ToBF16(x[i]);
      if (codec == Codec::kF32) {
        std::memcpy(out + 4 * i, &x[i], sizeof(float));
      } else {
        std::memcpy(out + 2 * i, &half, sizeof(half));
      }
    }
    *form = codec;
    return out;
  }

  LaneView lane_;
  std::vector<PageView> pages_;
  std::vector<std::vector<uint8_t>> planes_;
};

TEST_P(SparseAttentionTest, HasTheBitsOfDensePagesWithZeros) {
  uint32_t seed = 1;
  for (const size_t dim : {32, 64, 80, 96, 128, 256}) {
    for (const uint32_t group : {1, 2, 4, 7, 8}) {
      const Entries entries(dim, Sparse(200, 0, 2, ++seed), 9);  // half of the slots are dead
      for (const Codec codec : kSparseCodecs) {
        const PlaneForm form(codec, KeptChannels(dim, group % 2 == 0 ? 500 : 700));
        // Integer keys are exact only where nothing is rounded.
        const bool integers = codec == Codec::kSparseI8 && compute() == Compute::kFast;
        const Lane lane(kernels(), entries, Layout::kAligned, integers ? Codec::kF32 : form, form);
        const Unpacked dense(lane.view(), rounds_to_bf16() ? Codec::kBF16 : Codec::kF32);
        for (const uint32_t rows : {1u, 30u / group}) {
          const Queries queries(dim, rows, group, entries.positions.back() - 5);
          const std::vector<float> got = Attend(lane.view(), queries);
          EXPECT_TRUE(SameBits(got, Attend(dense.view(), queries)))
              << form << " dim " << dim << " group " << group << " rows " << rows;
          for (size_t r = 0; r < rows; ++r) {  // and no dead row, which holds NaN
            ASSERT_TRUE(std::isfinite(got[r * queries.stride()]));
          }
        }
      }
    }
  }
}

TEST_P(SparseAttentionTest, HeadsTogetherHaveTheBitsOfHeadsAlone) {
  for (const size_t dim : {64, 80}) {
    for (const PlaneForm form : AllForms(dim)) {
      const Entries entries(dim, Range(0, 300), 3);
      const Lane lane(kernels(), entries, Layout::kAligned, form, form);
      for (const uint32_t group : {2, 4, 7, 8}) {
        for (const uint32_t rows : {1u, 5u}) {
          const Queries together(dim, rows, group, 290);
          const std::vector<float> all = Attend(lane.view(), together);
          for (uint32_t g = 0; g < group; ++g) {
            Queries alone(dim, rows, 1, 290);
            for (uint32_t r = 0; r < rows; ++r) {
              std::copy_n(&together.q[r * together.stride() + g * dim], dim,
                          &alone.q[r * alone.stride()]);
            }
            const std::vector<float> one = Attend(lane.view(), alone);
            for (uint32_t r = 0; r < rows; ++r) {
              ASSERT_EQ(0, std::memcmp(&one[r * alone.stride()],
                                       &all[r * together.stride() + g * dim], dim * sizeof(float)))
                  << form << " group " << group << " head " << g << " row " << r;
            }
          }
        }
      }
    }
  }
}

TEST_P(SparseAttentionTest, MovedRowsKeepTheirBits) {
  const size_t dim = 80;
  const Entries entries(dim, Sparse(260, 0, 3, 5), 6);
  for (const Codec codec : kSparseCodecs) {
    const PlaneForm form(codec, 24);
    const Lane lane(kernels(), entries, Layout::kAligned, form, form);
    // All packed pages become full ones; the dense tail stays.
    std::vector<PageView> pages;
    std::vector<std::vector<uint8_t>> planes;
    std::vector<std::vector<uint32_t>> positions;
    const LaneView from = lane.view();
    std::vector<SparseRows> k, v;
    std::vector<uint32_t> at;
    const auto flush = [&] {
      PageView page;
      page.k_form = page.v_form = form;
      for (const bool keys : {true, false}) {
        planes.emplace_back(PlaneBytes(form, dim) + 64, 0xff);
        TakeRows(kernels().planes, form, dim, keys, keys ? k : v, planes.back().data());
        (keys ? page.k : page.v) = planes.back().data();
      }
      page.filled = static_cast<uint8_t>(at.size());
      page.live = ~uint64_t{0} >> (64 - at.size());
      at.resize(64);
      positions.push_back(at);
      page.positions = positions.back().data();
      pages.push_back(page);
      k.clear();
      v.clear();
      at.clear();
    };
    for (uint32_t i = 0; i + 1 < from.n_pages; ++i) {
      const PageView& page = from.pages[i];
      for (uint32_t slot = 0; slot < 64; ++slot) {
        if ((page.live >> slot & 1) == 0) continue;
        k.push_back({page.k, uint64_t{1} << slot});
        v.push_back({page.v, uint64_t{1} << slot});
        at.push_back(page.position(slot));
        if (at.size() == 64) flush();
      }
    }
    if (!at.empty()) flush();
    ASSERT_LT(pages.size() + 1, from.n_pages);
    pages.push_back(from.pages[from.n_pages - 1]);
    const LaneView moved = {pages.data(), static_cast<uint32_t>(pages.size()), from.n_entries,
                            static_cast<uint32_t>(dim)};
    for (const uint32_t rows : {1u, 20u}) {
      const Queries queries(dim, rows, 2, entries.positions.back() - 10);
      EXPECT_TRUE(SameBits(Attend(moved, queries), Attend(from, queries))) << form;
    }
  }
}

// Keys of models with large biases: a few channels win in every row.
TEST_P(SparseAttentionTest, LargeKeyBiasesKeepScoresFiniteAndTheirMaximum) {
  const size_t dim = 128;
  Entries entries(dim, Range(0, 256), 7);
  const Queries queries(dim, 1, 4, 255);
  for (size_t i = 0; i < 256; ++i) {
    for (const size_t c : {3, 40, 41, 127}) entries.k[i * dim + c] += 1e3f;
    for (size_t c = 0; c < dim; ++c) entries.v[i * dim + c] = c == i % dim ? 1.0f : 0.0f;
  }
  for (uint32_t g = 0; g < 4; ++g) {  // one key per head that its query points at
    for (size_t c = 0; c < dim; ++c) {
      entries.k[(20 + 50 * g) * dim + c] += 8 * queries.q[g * dim + c];
    }
  }
  for (const Codec codec : kSparseCodecs) {
    const PlaneForm form(codec, 64);
    const Lane lane(kernels(), entries, Layout::kAligned, form, Codec::kF32);
    std::vector<float> out;
    const AttentionJob job = queries.Job(lane.view(), 0, 1, &out);
    const std::vector<float> got = Attend(lane.view(), queries);
    const ref::ExpandedLane planes(lane.view());
    for (uint32_t g = 0; g < 4; ++g) {
      const std::vector<double> expected = ref::Attention(job, planes, 0, g);
      const float* of_head = &got[g * dim];
      EXPECT_TRUE(std::all_of(of_head, of_head + dim, [](float x) { return std::isfinite(x); }));
      EXPECT_EQ(std::max_element(of_head, of_head + dim) - of_head,
                std::max_element(expected.begin(), expected.end()) - expected.begin())
          << form << " head " << g;
    }
  }
}

}  // namespace
}  // namespace kvasir
