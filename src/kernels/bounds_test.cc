// No kernel reads more than 64 bytes behind a plane: planes stand before a page that may not be
// touched.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "kernels/pair_kernels.h"
#include "kernels/sparse_plane.h"
#include "kernels/table.h"
#include "kernels/testing.h"

namespace kvasir {
namespace {

constexpr size_t kSlack = 64;

// `bytes` and the slack behind them, then memory that faults.
class Guarded {
 public:
  explicit Guarded(const std::vector<uint8_t>& plane, size_t bytes) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t room = (bytes + kSlack + page - 1) / page * page;
    size_ = room + page;
    memory_ = static_cast<uint8_t*>(
        mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory_ == MAP_FAILED) std::abort();
    mprotect(memory_ + room, page, PROT_NONE);
    at_ = memory_ + room - kSlack - bytes;
    std::memcpy(at_, plane.data(), std::min(plane.size(), bytes));
  }
  ~Guarded() { munmap(memory_, size_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  uint8_t* data() const { return at_; }

 private:
  uint8_t *memory_, *at_;
  size_t size_;
};

class BoundsTest : public testing::TestWithParam<const Kernels*> {
 protected:
  const PlaneKernels& kernels() const { return GetParam()->planes; }

  void ReadKeys(PlaneForm form, size_t dim, const uint8_t* plane) const {
    const PlaneShape shape = form.Shape(dim);
    const size_t i = form.index(), blocks = CodecBlocks(dim);
    std::vector<float> page(64 * dim), q = Random(20 * PaddedDim(dim), 1), scores(20 * 64);
    std::vector<int16_t> q_int(20 * blocks * 32);
    std::vector<float> sums(20 * blocks), scale(20);
    for (size_t r = 0; r < 20; ++r) {
      kernels().quantize_query(&q[r * PaddedDim(dim)], dim, &q_int[r * blocks * 32],
                               &sums[r * blocks], &scale[r]);
    }
    kernels().expand_k[i](plane, shape, page.data());
    for (const size_t n : {1, 2, 4, 7, 20}) {
      if (kernels().scores[i] != nullptr) {
        kernels().scores[i](q.data(), PaddedDim(dim), n, plane, shape, plane, scores.data(), 64);
      }
      if (kernels().integer_scores[i] != nullptr) {
        kernels().integer_scores[i]({q_int.data(), scale.data(), sums.data(), blocks * 32, blocks},
                                    n, plane, shape, plane, scores.data(), 64);
      }
    }
    const PairKernels& pairs = kernels().pairs;
    std::vector<uint32_t> queries(20 * PairedDim(dim)), expanded(64 * PairedDim(dim));
    if (pairs.expand_k[i] != nullptr) pairs.expand_k[i](plane, shape, plane, expanded.data());
    for (const size_t n : {1, 4, 11}) {
      if (pairs.scores_in_place[i] == nullptr) continue;
      pairs.scores_in_place[i](queries.data(), PairedDim(dim), n, plane, shape, plane,
                               scores.data(), 64);
    }
  }

  void ReadValues(PlaneForm form, size_t dim, const uint8_t* plane) const {
    const PlaneShape shape = form.Shape(dim);
    const size_t i = form.index(), padded = PaddedDim(dim);
    std::vector<float> page(64 * dim), weights = Random(20 * 64, 2), out(20 * padded);
    kernels().expand_v[i](plane, shape, page.data());
    for (const size_t n : {1, 2, 4, 7, 20}) {
      if (kernels().weighted_sum[i] == nullptr) continue;
      kernels().weighted_sum[i](weights.data(), 64, n, plane, shape, 0, 64, ~uint64_t{0}, plane,
                                out.data(), padded);
    }
    const PairKernels& pairs = kernels().pairs;
    std::vector<uint32_t> pair_weights(20 * 32), expanded(32 * padded);
    for (const uint64_t live : {~uint64_t{0}, uint64_t{1} << 63, uint64_t{7} << 60}) {
      if (pairs.expand_v[i] != nullptr) {
        pairs.expand_v[i](plane, shape, live, live, plane, expanded.data());
      }
      for (const size_t n : {1, 4, 11}) {
        if (pairs.sums_in_place[i] == nullptr) continue;
        pairs.sums_in_place[i](pair_weights.data(), 32, n, plane, shape, live, live, plane,
                               out.data(), padded);
      }
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Targets, BoundsTest, testing::ValuesIn(AvailableKernels()),
                         [](const auto& target) { return std::string(target.param->target); });

TEST_P(BoundsTest, PlanesAreReadUpToTheSlackBehindThem) {
  for (const size_t dim : {8, 18, 32, 64, 80, 96, 128, 256, 512}) {
    const std::vector<float> rows = Random(64 * dim, 3);
    std::vector<PlaneForm> forms = AllForms(dim);
    for (const Codec codec : {Codec::kSparseBF16, Codec::kSparseF16, Codec::kSparseI8}) {
      forms.emplace_back(codec, uint16_t{1});
    }
    for (const PlaneForm form : forms) {
      for (const bool keys : {true, false}) {
        const Guarded plane(MakePlane(kernels(), form, dim, keys, rows.data()),
                            PlaneBytes(form, dim));
        keys ? ReadKeys(form, dim, plane.data()) : ReadValues(form, dim, plane.data());
      }
    }
  }
}

TEST_P(BoundsTest, PackingAndMovingWriteTheirPlaneAlone) {
  for (const size_t dim : {8, 18, 64, 80, 128, 512}) {
    const std::vector<float> rows = Random(64 * dim, 4), weights(dim, 1.0f);
    for (const PlaneForm form : AllForms(dim)) {
      if (!IsSparse(form.codec)) continue;
      for (const bool keys : {true, false}) {
        const PlaneForm source = SparseSource(form.codec);
        const size_t bytes = PlaneBytes(form, dim);
        const Guarded dense(MakePlane(kernels(), source, dim, keys, rows.data()),
                            PlaneBytes(source, dim));
        std::vector<uint8_t> written(bytes + kSlack, 0x5a);
        const auto pack = (keys ? kernels().pack_k : kernels().pack_v)[form.index()];
        pack(dense.data(), form.Shape(dim), weights.data(), written.data());
        const Guarded plane(written, bytes);
        for (size_t i = bytes; i < written.size(); ++i) ASSERT_EQ(written[i], 0x5a);
        std::fill(written.begin(), written.end(), 0x5a);
        const SparseRows from[] = {{plane.data(), uint64_t{9} << 60}, {plane.data(), 0xff}};
        if (keys) {
          kernels().take_k[form.index()](from, 2, form.Shape(dim), written.data());
        } else {
          TakeRows(kernels(), form, dim, keys, from, written.data());
        }
        for (size_t i = bytes; i < written.size(); ++i) ASSERT_EQ(written[i], 0x5a);
      }
    }
  }
}

}  // namespace
}  // namespace kvasir
