// Plain-loop oracle of attention: softmax over all visible entries at once, in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention.h"
#include "kernels/ref/planes.h"

namespace kvasir::ref {

// The K and V planes of a lane's pages as f32: K [dim][64], V [64][dim].
struct ExpandedLane {
  std::vector<std::vector<float>> k, v;

  explicit ExpandedLane(const LaneView& lane) : k(lane.n_pages), v(lane.n_pages) {
    for (uint32_t i = 0; i < lane.n_pages; ++i) {
      const PageView& page = lane.pages[i];
      if (page.k == nullptr) continue;
      k[i] = Expand(page.k_form, page.k, lane.head_dim, true);
      v[i] = Expand(page.v_form, page.v, lane.head_dim, false);
    }
  }
};

// Output of query head `head` of row `row` of a job over `planes`, its lane's.
inline std::vector<double> Attention(const AttentionJob& job, const ExpandedLane& planes,
                                     uint32_t row, uint32_t head) {
  const size_t dim = job.lane.head_dim;
  const float* q = job.q + row * job.row_stride + head * dim;
  struct Seen {
    const float* v;
    double score;
  };
  std::vector<Seen> seen;
  double max = -std::numeric_limits<double>::infinity();
  for (uint32_t i = 0; i < job.lane.n_pages; ++i) {
    const PageView& page = job.lane.pages[i];
    for (uint32_t slot = 0; slot < page.filled && page.k != nullptr; ++slot) {
      if ((page.live >> slot & 1) == 0) continue;
      const uint64_t own = uint64_t{job.first_position} + row, position = page.position(slot);
      if (position > own || (job.window > 0 && position + job.window <= own)) continue;
      double score = 0;
      for (size_t c = 0; c < dim; ++c) {
        score += double{q[c]} * double{planes.k[i][c * kPageEntries + slot]};
      }
      seen.push_back({&planes.v[i][slot * dim], score * double{job.scale}});
      max = std::max(max, seen.back().score);
    }
  }
  std::vector<double> out(dim, 0.0);
  double sum = 0;
  for (const Seen& s : seen) {
    const double weight = std::exp(s.score - max);
    sum += weight;
    for (size_t c = 0; c < dim; ++c) out[c] += weight * double{s.v[c]};
  }
  for (double& x : out) x = sum > 0 ? x / sum : 0;
  return out;
}

}  // namespace kvasir::ref
