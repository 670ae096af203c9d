#include "policy/attention_sweep.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/checked.h"
#include "base/error.h"
#include "policy/query_window.h"

namespace kvasir {

namespace {
constexpr float kNothing = -std::numeric_limits<float>::infinity();
constexpr size_t kMaxLanes = 16;  // of PlaneKernels::mask_max
}  // namespace

AttentionSweep::AttentionSweep(const LaneView& lane, const Kernels& kernels,
                               std::span<const uint8_t> counted, ScorerScratch* scratch)
    : lane_(lane),
      kernels_(kernels.planes),
      scratch_(scratch),
      counted_(lane.n_pages),
      // An odd number of cache lines between rows: a power of two would put them into the same
      // sets.
      stride_(columns() + 16) {
  size_t i = 0;
  for (uint32_t p = 0; p < lane.n_pages; ++p) {
    for (uint64_t live = lane.pages[p].live; live != 0; live &= live - 1, ++i) {
      if (counted.empty() || counted[i] != 0) counted_[p] |= live & -live;
    }
  }
  scratch->rows.resize(kTileRows * stride_ + 16);
  matrix_ = reinterpret_cast<float*>(
      RoundUp<uintptr_t>(reinterpret_cast<uintptr_t>(scratch->rows.data()), 64));
}

void AttentionSweep::Scores(const float* q, size_t stride, size_t n) {
  CHECK(n <= kTileRows);
  const size_t dim = lane_.head_dim;
  for (uint32_t p = 0; p < lane_.n_pages; ++p) {
    const PageView& page = lane_.pages[p];
    if (counted_[p] == 0) continue;
    CHECK(page.k != nullptr);
    const uint8_t* plane = page.k;
    PlaneForm form = page.k_form;
    if (kernels_.scores[form.index()] == nullptr) {
      scratch_->plane.resize(dim * kPageEntries);
      kernels_.expand_k[form.index()](plane, form.Shape(dim), scratch_->plane.data());
      plane = reinterpret_cast<const uint8_t*>(scratch_->plane.data());
      form = Codec::kF32;
    }
    kernels_.scores[form.index()](q, stride, n, plane, form.Shape(dim), nullptr,
                                  matrix_ + size_t{p} * kPageEntries, stride_);
  }
}

void AttentionSweep::Softmax(size_t n, std::span<const uint32_t> limit, float* inverse) {
  float lanes[kTileRows * kMaxLanes];
  std::fill_n(lanes, n * kMaxLanes, kNothing);
  uint64_t visible[kTileRows];
  for (uint32_t p = 0; p < lane_.n_pages; ++p) {
    const PageView& page = lane_.pages[p];
    float* const scores = matrix_ + size_t{p} * kPageEntries;
    if (counted_[p] == 0) {
      for (size_t r = 0; r < n; ++r) std::fill_n(scores + r * stride_, kPageEntries, kNothing);
      continue;
    }
    const uint32_t last = page.position(63 - static_cast<uint32_t>(std::countl_zero(page.live)));
    for (size_t r = 0; r < n; ++r) {
      visible[r] = counted_[p];
      if (last <= limit[r]) continue;
      for (uint64_t live = counted_[p]; live != 0; live &= live - 1) {
        const auto slot = static_cast<uint32_t>(std::countr_zero(live));
        if (page.position(slot) > limit[r]) visible[r] &= ~(uint64_t{1} << slot);
      }
    }
    kernels_.mask_max(scores, stride_, n, visible, lanes);
  }
  float max[kTileRows], sum[kTileRows] = {};
  for (size_t r = 0; r < n; ++r) {
    max[r] = *std::max_element(lanes + r * kMaxLanes, lanes + (r + 1) * kMaxLanes);
    if (max[r] == kNothing) max[r] = 0;
  }
  for (uint32_t p = 0; p < lane_.n_pages; ++p) {
    kernels_.exp_weights(matrix_ + size_t{p} * kPageEntries, stride_, n, kPageEntries, max, sum);
  }
  for (size_t r = 0; r < n; ++r) inverse[r] = sum[r] == 0 ? 0 : 1 / sum[r];
}

void AttentionSweep::AddProbabilities(const float* q, size_t stride, size_t n, uint32_t group,
                                      uint32_t first, bool causal, std::span<float> sums) {
  scratch_->sums.assign(columns(), 0);
  for (size_t begin = 0; begin < n; begin += kTileRows) {
    const size_t m = std::min(kTileRows, n - begin);
    uint32_t limit[kTileRows];
    float inverse[kTileRows];
    for (size_t r = 0; r < m; ++r) {
      limit[r] = causal ? first + static_cast<uint32_t>((begin + r) / group) : UINT32_MAX;
    }
    Scores(q + begin * stride, stride, m);
    Softmax(m, {limit, m}, inverse);
    for (size_t r = 0; r < m; ++r) {
      const float* const weights = row(r);
      float* const to = scratch_->sums.data();
      for (size_t c = 0; c < columns(); ++c) to[c] += weights[c] * inverse[r];
    }
  }
  scratch_->inverse.resize(sums.size());
  Gather(scratch_->sums.data(), scratch_->inverse);
  for (size_t i = 0; i < sums.size(); ++i) sums[i] += scratch_->inverse[i];
}

void AttentionSweep::Gather(const float* columns, std::span<float> entries) const {
  size_t i = 0;
  for (uint32_t p = 0; p < lane_.n_pages; ++p) {
    for (uint64_t live = lane_.pages[p].live; live != 0; live &= live - 1) {
      entries[i++] = columns[p * kPageEntries + static_cast<size_t>(std::countr_zero(live))];
    }
  }
  CHECK(i == entries.size());
}

size_t ReadScaledQueries(const QueryWindow& window, uint32_t layer, uint32_t head, uint32_t n,
                         const Kernels& kernels, ScorerScratch* scratch) {
  const size_t dim = window.head_dim();
  const size_t stride = RoundUp<size_t>(dim, 16);
  const float scale = AttentionSweep::kLog2E / std::sqrt(static_cast<float>(dim));
  scratch->dots.resize(size_t{n} * window.group() * stride);
  window.Read(layer, head, n, scale, kernels, &scratch->plane, scratch->dots.data(), stride);
  return stride;
}

void SumProbabilities(const ScoredLane& lane, const QueryWindow& window, ScorerScratch* scratch,
                      std::span<float> sums) {
  AttentionSweep sweep(lane.view, *lane.kernels, {}, scratch);
  const uint32_t n = window.n_rows(lane.layer), group = window.group();
  const size_t stride = ReadScaledQueries(window, lane.layer, lane.head, n, *lane.kernels, scratch);
  std::fill(sums.begin(), sums.end(), 0.0f);
  sweep.AddProbabilities(scratch->dots.data(), stride, size_t{n} * group, group,
                         window.end(lane.layer) - n, /*causal=*/true, sums);
}

size_t EntriesBefore(const ScoredLane& lane, uint32_t window) {
  const uint32_t first = lane.at.position - std::min(lane.at.position, window);
  const auto end = std::lower_bound(lane.positions.begin(), lane.positions.end(), first);
  return static_cast<size_t>(end - lane.positions.begin());
}

uint32_t ReadKernel(const OptionValues& values) {
  const uint64_t kernel = values.Count("kernel");
  if (kernel % 2 == 0) {
    Fail(Code::kUsage,
         "{}: kernel={} must be odd: a score is pooled over as many entries before it as after it",
         values.where(), kernel);
  }
  return static_cast<uint32_t>(kernel);
}

void AveragePool(std::span<float> scores, uint32_t kernel, std::vector<float>* scratch) {
  scratch->assign(scores.begin(), scores.end());
  const size_t radius = kernel / 2;
  for (size_t i = 0; i < scores.size(); ++i) {
    float sum = 0;
    const size_t begin = i - std::min(i, radius);
    const size_t end = std::min(scores.size(), i + radius + 1);
    for (size_t j = begin; j < end; ++j) sum += (*scratch)[j];
    scores[i] = sum / static_cast<float>(kernel);
  }
}

void MaxPool(std::span<float> scores, uint32_t kernel, std::vector<float>* scratch) {
  scratch->assign(scores.begin(), scores.end());
  const size_t radius = kernel / 2;
  for (size_t i = 0; i < scores.size(); ++i) {
    const size_t begin = i - std::min(i, radius);
    const size_t end = std::min(scores.size(), i + radius + 1);
    scores[i] = *std::max_element(scratch->begin() + static_cast<std::ptrdiff_t>(begin),
                                  scratch->begin() + static_cast<std::ptrdiff_t>(end));
  }
}

}  // namespace kvasir
