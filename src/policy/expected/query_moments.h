// Mean and covariance of queries before RoPE, per query head, over all rows seen; and the rows of
// the last positions, for moments of what is recent.
//
// Rows come after RoPE and are turned back. The first few tokens are left out: their queries are
// not like the others.
#pragma once

#include <memory>
#include <vector>

#include "policy/query_window.h"

namespace kvasir {

struct Moments {
  std::vector<float> mean;        // [head_dim]
  std::vector<float> covariance;  // [head_dim][head_dim], divided by the number of rows
};

class QueryMoments final : public Evidence {
 public:
  // `first`: positions below are left out. `recent`: rows kept for OfRecent; `again`: somebody asks
  // for that behind the prompt, where sums over all rows are not asked for.
  QueryMoments(const LaneShape& shape, const ModelFacts& facts, uint32_t first, uint32_t recent,
               bool again);
  static uint64_t Bytes(const LaneShape& shape, uint32_t n_heads, uint32_t recent);

  uint32_t QueryRows(uint32_t rows) const override { return prompts_ended_ && !again_ ? 0 : rows; }
  void EndPrompts() override { prompts_ended_ = true; }
  void Take(const LayerQueries& queries) override;
  std::unique_ptr<Evidence> Fork() const override { return std::make_unique<QueryMoments>(*this); }

  // Of all rows, or of the last ones; of query head g of KV head `head`.
  Moments OfAll(uint32_t layer, uint32_t head, uint32_t g) const;
  Moments OfRecent(uint32_t layer, uint32_t head, uint32_t g, const Kernels& kernels) const;
  uint32_t group() const { return window_.group(); }

 private:
  struct Sums {
    uint64_t n = 0;
    std::vector<float> rows;      // [n_heads][head_dim]
    std::vector<float> products;  // [n_heads][head_dim][stride]
  };
  // Turns one head of a row back; `row` counts within the positions of Angles.
  void TurnBack(const float* head, const float* cos, const float* sin, float* out) const;
  void Angles(uint32_t first_position, uint32_t n);
  void AddHead(const LayerQueries& queries, uint32_t skip, uint32_t head, Sums* sums) const;

  LaneShape shape_;
  std::vector<float> inverse_frequencies_;
  bool interleaved_;
  uint32_t n_heads_, first_;
  bool again_, prompts_ended_ = false;
  size_t stride_;
  QueryWindow window_;
  std::vector<Sums> layers_;
  // Angles of the rows at hand: the layers of a pass share them.
  uint32_t angles_first_ = 0, angles_n_ = 0;
  std::vector<float> cos_, sin_;
};

}  // namespace kvasir
