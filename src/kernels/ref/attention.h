// Plain-loop oracle of attention: softmax over all visible entries at once, in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention.h"
#include "kernels/ref/planes.h"

namespace kvasir::ref {

// Output of query head `head` of row `row` of a job.
inline std::vector<double> Attention(const AttentionJob& job, uint32_t row, uint32_t head) {
  const size_t dim = job.lane.head_dim;
  const float* q = job.q + row * job.row_stride + head * dim;
  struct Seen {
    size_t v;  // where its values begin
    double score;
  };
  std::vector<Seen> seen;
  std::vector<float> values;
  double max = -std::numeric_limits<double>::infinity();
  for (uint32_t i = 0; i < job.lane.n_pages; ++i) {
    const PageView& page = job.lane.pages[i];
    if (page.k == nullptr) continue;
    const std::vector<float> k = Expand(page.k_form, page.k, dim, true);
    const std::vector<float> v = Expand(page.v_form, page.v, dim, false);
    const size_t page_values = values.size();
    values.insert(values.end(), v.begin(), v.end());
    for (uint32_t slot = 0; slot < page.filled; ++slot) {
      if ((page.live >> slot & 1) == 0) continue;
      const uint64_t own = uint64_t{job.first_position} + row, position = page.position(slot);
      if (position > own || (job.window > 0 && position + job.window <= own)) continue;
      double score = 0;
      for (size_t c = 0; c < dim; ++c) {
        score += double{q[c]} * double{k[c * kPageEntries + slot]};
      }
      seen.push_back({page_values + slot * dim, score * double{job.scale}});
      max = std::max(max, seen.back().score);
    }
  }
  std::vector<double> out(dim, 0.0);
  double sum = 0;
  for (const Seen& s : seen) {
    const double weight = std::exp(s.score - max);
    sum += weight;
    for (size_t c = 0; c < dim; ++c) {
      out[c] += weight * double{values[s.v + c]};
    }
  }
  for (double& x : out) x = sum > 0 ? x / sum : 0;
  return out;
}

}  // namespace kvasir::ref
