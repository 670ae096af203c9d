// Bytes as sparse planes: what CheckPlane lets through is read within its bytes and the slack
// behind them, and means the same to every target; what packing makes, it lets through.
#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <vector>

#include "base/error.h"
#include "kernels/ref/planes.h"
#include "kernels/sparse_plane.h"
#include "kernels/table.h"

namespace {

using namespace kvasir;

constexpr size_t kDims[] = {1, 8, 18, 64, 80, 128};

// Takes bytes from the front, zeros at the end.
class Input {
 public:
  explicit Input(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  uint8_t Byte() {
    if (bytes_.empty()) return 0;
    const uint8_t byte = bytes_[0];
    bytes_ = bytes_.subspan(1);
    return byte;
  }
  void Fill(std::vector<uint8_t>* out) {
    for (uint8_t& byte : *out) byte = Byte();
  }
  bool empty() const { return bytes_.empty(); }

 private:
  std::span<const uint8_t> bytes_;
};

// An exact copy with its slack, so that a read beyond is seen.
std::vector<uint8_t> WithSlack(std::span<const uint8_t> plane) {
  std::vector<uint8_t> copy(plane.size() + 64, 0xff);
  std::copy(plane.begin(), plane.end(), copy.begin());
  copy.shrink_to_fit();
  return copy;
}

void CheckSame(const std::vector<float>& a, const std::vector<float>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    const bool both_nan = a[i] != a[i] && b[i] != b[i];
    CHECK(both_nan || std::bit_cast<uint32_t>(a[i]) == std::bit_cast<uint32_t>(b[i]));
  }
}

void Read(PlaneForm form, size_t dim, bool keys, std::span<const uint8_t> plane) {
  const std::vector<uint8_t> bytes = WithSlack(plane);
  const std::vector<float> expected = ref::Expand(form, bytes.data(), dim, keys);
  const PlaneShape shape = form.Shape(dim);
  const size_t i = form.index();
  for (const Kernels* target : AvailableKernels()) {
    const PlaneKernels& kernels = target->planes;
    std::vector<float> out(expected.size());
    (keys ? kernels.expand_k : kernels.expand_v)[i](bytes.data(), shape, out.data());
    CheckSame(out, expected);
    std::vector<float> ones(PaddedDim(dim), 1.0f), sums(PaddedDim(dim)), scores(kPageEntries);
    if (keys && kernels.scores[i] != nullptr) {
      kernels.scores[i](ones.data(), dim, 1, bytes.data(), shape, nullptr, scores.data(), 64);
    }
    if (!keys && kernels.weighted_sum[i] != nullptr) {
      const std::vector<float> weights(kPageEntries, 1.0f);
      kernels.weighted_sum[i](weights.data(), 64, 1, bytes.data(), shape, 0, 64, ~uint64_t{0},
                              nullptr, sums.data(), PaddedDim(dim));
    }
    std::vector<uint32_t> pairs(kPageEntries * PaddedDim(dim));
    if (keys && kernels.pairs.expand_k[i] != nullptr) {
      kernels.pairs.expand_k[i](bytes.data(), shape, nullptr, pairs.data());
    }
    if (!keys && kernels.pairs.expand_v[i] != nullptr) {
      kernels.pairs.expand_v[i](bytes.data(), shape, ~uint64_t{0}, ~uint64_t{0}, nullptr,
                                pairs.data());
    }
    std::vector<uint8_t> moved(plane.size());
    const SparseRows all = {bytes.data(), ~uint64_t{0}};
    TakeRows(kernels, form, dim, keys, {&all, 1}, moved.data());
    CHECK(CheckPlane(form, dim, keys, moved) == nullptr);
    CheckSame(ref::Expand(form, WithSlack(moved).data(), dim, keys), expected);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input({data, size});
  const uint8_t head = input.Byte();
  const bool keys = head & 1, packed = head & 2;
  const auto codec = static_cast<Codec>(kDenseCodecs + (head >> 2) % 3);
  const size_t dim = kDims[input.Byte() % std::size(kDims)];
  const PlaneForm form(codec, static_cast<uint16_t>(1 + input.Byte() % dim));
  std::vector<uint8_t> plane(PlaneBytes(form, dim));
  if (packed) {
    std::vector<uint8_t> dense(PlaneBytes(SparseSource(codec), dim));
    input.Fill(&dense);
    const PlaneKernels& kernels = BestKernels().planes;
    (keys ? kernels.pack_k : kernels.pack_v)[form.index()](WithSlack(dense).data(), form.Shape(dim),
                                                           nullptr, plane.data());
    CHECK(CheckPlane(form, dim, keys, plane) == nullptr);
    while (!input.empty()) {  // then some bytes change
      const size_t high = input.Byte(), low = input.Byte();
      plane[(high << 8 | low) % plane.size()] ^= input.Byte();
    }
  } else {
    input.Fill(&plane);
  }
  if (CheckPlane(form, dim, keys, plane) == nullptr) Read(form, dim, keys, plane);
  return 0;
}
