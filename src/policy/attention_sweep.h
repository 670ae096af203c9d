// Attention probabilities of recorded query rows over the entries a lane holds now, in f32 on rows
// as the codec returns them. What methods make of them differs: who is in the normaliser, what is
// reduced first.
//
// Order of sums  A score is one FMA chain over ascending channels; a normaliser is summed over
//                entries by position; rows ascending, heads of a row ascending.
// Cost           Each K page is read once per kTileRows (row, head) pairs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/table.h"
#include "policy/retention.h"

namespace kvasir {

class AttentionSweep {
 public:
  static constexpr size_t kTileRows = 64;
  // Base-2 logarithms of weights: scores of queries times this over sqrt(head_dim).
  static constexpr float kLog2E = 1.44269504088896340736f;

  // `counted`: one byte per entry in view order; only those are in the normaliser. Empty: all.
  // References must outlive the sweep; `scratch->rows` is taken.
  AttentionSweep(const LaneView& lane, const Kernels& kernels, std::span<const uint8_t> counted,
                 ScorerScratch* scratch);

  // Scores of n <= kTileRows query rows (already scaled), rows `stride` apart, for all slots.
  void Scores(const float* q, size_t stride, size_t n);
  // Their rows, columns() floats each: slot e of page p at column 64 p + e. Dead slots hold
  // anything.
  float* row(size_t r) { return matrix_ + r * stride_; }
  size_t columns() const { return size_t{lane_.n_pages} * kPageEntries; }
  // Rows become softmax weights, not normalised: row r counts entries at positions up to limit[r].
  // inverse[r] is 1 / its sum, 0 where nothing counts.
  void Softmax(size_t n, std::span<const uint32_t> limit, float* inverse);

  // sums[i] += the probabilities of all rows for entry i (view order). Row r of a tile of
  // `group` heads sits at position first + r / group; `causal`: it sees entries up to there.
  void AddProbabilities(const float* q, size_t stride, size_t n, uint32_t group, uint32_t first,
                        bool causal, std::span<float> sums);
  // The entries of one row in view order.
  void Gather(const float* columns, std::span<float> entries) const;

 private:
  const LaneView& lane_;
  const PlaneKernels& kernels_;
  ScorerScratch* scratch_;
  std::vector<uint64_t> counted_;  // live entries in the normaliser, by page
  size_t stride_;
  float* matrix_;
};

// The recorded rows of a lane: the last `n`, scaled for AttentionSweep, into scratch->dots. Row r,
// head g at index r * group + g; returns the stride.
size_t ReadScaledQueries(const class QueryWindow& window, uint32_t layer, uint32_t head, uint32_t n,
                         const Kernels& kernels, ScorerScratch* scratch);

// The probabilities that the recorded rows of a lane gave its entries (causal), summed over rows
// and query heads.
void SumProbabilities(const ScoredLane& lane, const class QueryWindow& window,
                      ScorerScratch* scratch, std::span<float> sums);
// Entries in front of the last `window` positions.
size_t EntriesBefore(const ScoredLane& lane, uint32_t window);

// The key `kernel` of a method that pools. Errors: kUsage when it is even.
uint32_t ReadKernel(const OptionValues& values);
// Zero-padded average over 2 * radius + 1 neighbours (the divisor counts the padding), or maximum;
// over `scores` in order.
void AveragePool(std::span<float> scores, uint32_t kernel, std::vector<float>* scratch);
void MaxPool(std::span<float> scores, uint32_t kernel, std::vector<float>* scratch);

}  // namespace kvasir
