#include "policy/expected/query_moments.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "base/error.h"

namespace kvasir {

QueryMoments::QueryMoments(const LaneShape& shape, const ModelFacts& facts, uint32_t first,
                           uint32_t recent, bool again)
    : shape_(shape),
      inverse_frequencies_(facts.inverse_frequencies),
      interleaved_(facts.interleaved),
      n_heads_(facts.n_heads),
      first_(first),
      again_(again),
      stride_(RoundUp<size_t>(shape.head_dim, 16)),
      window_(shape, facts.n_heads, recent),
      layers_(shape.n_layers) {
  CHECK(inverse_frequencies_.size() == shape.head_dim / 2);
  for (Sums& sums : layers_) {
    sums.rows.resize(size_t{n_heads_} * shape.head_dim);
    sums.products.resize(size_t{n_heads_} * shape.head_dim * stride_);
  }
}

uint64_t QueryMoments::Bytes(const LaneShape& shape, uint32_t n_heads, uint32_t recent) {
  const uint64_t per_head =
      uint64_t{shape.head_dim} * (1 + RoundUp<uint64_t>(shape.head_dim, 16)) * sizeof(float);
  return uint64_t{shape.n_layers} * n_heads * per_head + QueryWindow::Bytes(shape, n_heads, recent);
}

void QueryMoments::Angles(uint32_t first_position, uint32_t n) {
  if (angles_first_ == first_position && angles_n_ == n) return;
  const size_t pairs = inverse_frequencies_.size();
  cos_.resize(n * pairs);
  sin_.resize(n * pairs);
  for (uint32_t r = 0; r < n; ++r) {
    for (size_t i = 0; i < pairs; ++i) {
      const float angle = static_cast<float>(first_position + r) * inverse_frequencies_[i];
      cos_[r * pairs + i] = std::cos(angle);
      sin_[r * pairs + i] = std::sin(angle);
    }
  }
  angles_first_ = first_position;
  angles_n_ = n;
}

void QueryMoments::TurnBack(const float* head, const float* cos, const float* sin,
                            float* out) const {
  const size_t pairs = inverse_frequencies_.size();
  for (size_t i = 0; i < pairs; ++i) {
    const size_t a = interleaved_ ? 2 * i : i, b = interleaved_ ? 2 * i + 1 : i + pairs;
    out[a] = head[a] * cos[i] + head[b] * sin[i];
    out[b] = head[b] * cos[i] - head[a] * sin[i];
  }
}

// Sums of rows and of their outer products, 64 rows at a time: the products are a weighted sum of
// rows, each weight a channel of the row itself.
void QueryMoments::AddHead(const LayerQueries& queries, uint32_t skip, uint32_t head,
                           Sums* sums) const {
  const size_t dim = shape_.head_dim, pairs = inverse_frequencies_.size();
  std::vector<float> rows(kPageEntries * dim + 16), columns(dim * kPageEntries);
  float* const mean = sums->rows.data() + head * dim;
  for (uint32_t begin = skip; begin < queries.rows.count; begin += kPageEntries) {
    const auto n = std::min<size_t>(kPageEntries, queries.rows.count - begin);
    for (size_t r = 0; r < n; ++r) {
      float* const row = rows.data() + r * dim;
      TurnBack(queries.rows.row(begin + r) + head * dim, cos_.data() + (begin + r) * pairs,
               sin_.data() + (begin + r) * pairs, row);
      for (size_t c = 0; c < dim; ++c) {
        mean[c] += row[c];
        columns[c * kPageEntries + r] = row[c];
      }
    }
    queries.kernels->planes.weighted_sum[static_cast<size_t>(Codec::kF32)](
        columns.data(), kPageEntries, dim, reinterpret_cast<const uint8_t*>(rows.data()), dim, 0, n,
        ~uint64_t{0}, nullptr, sums->products.data() + head * dim * stride_, stride_);
  }
}

void QueryMoments::Take(const LayerQueries& queries) {
  window_.Take(queries);
  if (prompts_ended_) return;
  const auto n = static_cast<uint32_t>(queries.rows.count);
  const uint32_t skip = std::min(n, first_ - std::min(first_, queries.first_position));
  if (skip == n) return;
  Angles(queries.first_position, n);
  Sums& sums = layers_.at(queries.layer - shape_.first_layer);
  sums.n += n - skip;
  const auto add = [&](size_t head, size_t) {
    AddHead(queries, skip, static_cast<uint32_t>(head), &sums);
  };
  if (queries.workers == nullptr || n < 16) {
    for (uint32_t head = 0; head < n_heads_; ++head) add(head, 0);
  } else {
    queries.workers->Run(n_heads_, add);
  }
}

Moments QueryMoments::OfAll(uint32_t layer, uint32_t head, uint32_t g) const {
  const Sums& sums = layers_.at(layer - shape_.first_layer);
  const size_t dim = shape_.head_dim, query_head = size_t{head} * group() + g;
  const float n = static_cast<float>(std::max<uint64_t>(sums.n, 1));
  Moments moments = {.mean = std::vector<float>(dim), .covariance = std::vector<float>(dim * dim)};
  for (size_t c = 0; c < dim; ++c) moments.mean[c] = sums.rows[query_head * dim + c] / n;
  const float* const products = sums.products.data() + query_head * dim * stride_;
  for (size_t a = 0; a < dim; ++a) {
    for (size_t b = 0; b < dim; ++b) {
      moments.covariance[a * dim + b] =
          products[a * stride_ + b] / n - moments.mean[a] * moments.mean[b];
    }
  }
  return moments;
}

Moments QueryMoments::OfRecent(uint32_t layer, uint32_t head, uint32_t g,
                               const Kernels& kernels) const {
  const uint32_t n = window_.n_rows(layer), first = window_.end(layer) - n;
  const size_t dim = shape_.head_dim, pairs = inverse_frequencies_.size();
  std::vector<float> scratch, rows(size_t{n} * group() * dim), row(dim), cos(pairs), sin(pairs);
  window_.Read(layer, head, n, 1, kernels, &scratch, rows.data(), dim);
  std::vector<double> mean(dim), products(dim * dim);
  for (uint32_t r = 0; r < n; ++r) {
    for (size_t i = 0; i < pairs; ++i) {
      const float angle = static_cast<float>(first + r) * inverse_frequencies_[i];
      cos[i] = std::cos(angle);
      sin[i] = std::sin(angle);
    }
    TurnBack(rows.data() + (size_t{r} * group() + g) * dim, cos.data(), sin.data(), row.data());
    for (size_t a = 0; a < dim; ++a) {
      mean[a] += double{row[a]} / n;
      for (size_t b = 0; b < dim; ++b) products[a * dim + b] += double{row[a]} * double{row[b]} / n;
    }
  }
  Moments moments = {.mean = std::vector<float>(dim), .covariance = std::vector<float>(dim * dim)};
  for (size_t a = 0; a < dim; ++a) {
    moments.mean[a] = static_cast<float>(mean[a]);
    for (size_t b = 0; b < dim; ++b) {
      moments.covariance[a * dim + b] =
          static_cast<float>(products[a * dim + b] - mean[a] * mean[b]);
    }
  }
  return moments;
}

}  // namespace kvasir
