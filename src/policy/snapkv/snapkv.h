// SnapKV (arXiv 2404.14469): when the prompt has been read, keep what its last queries attend to.
//
// With the w last queries of the prompt: probabilities over all entries (causal inside the window),
// summed over the window's rows, mean over the query heads of a KV head, pooled over neighbours in
// view order. The N - w best entries before the window stay, and the window. Nothing is dropped in
// generation unless every=P runs it again every P tokens. The whole prompt is resident until then;
// block=B selects on a grid instead, which bounds memory and is not the authors'.
//
// One scorer, three allocations: snapkv (every lane the same), pyramidkv (lower layers more), adakv
// (heads of a layer compete).
//
// Evidence  The last w query rows.
#pragma once

#include <memory>

#include "policy/retention.h"

namespace kvasir {

extern const Traits kSnapKvTraits;
std::unique_ptr<Policy> MakeSnapKv(const OptionValues& values, const PolicyContext& context);

// The method under another name: what its table of options says, with this allocation.
std::unique_ptr<Policy> MakeSnapKvWith(const Traits& traits, const OptionValues& values,
                                       const PolicyContext& context, std::string_view allocation);

// Keys of the family.
inline constexpr Option kWindowOption = {
    .name = "window",
    .type = OptionType::kCount,
    .min = 1,
    .max = 4096,
    .value = "64",
    .help = "Last queries of the prompt that judge the others; their entries stay."};
inline constexpr Option kKernelOption = {
    .name = "kernel",
    .type = OptionType::kCount,
    .min = 1,
    .max = 255,
    .value = "5",
    .help = "Entries that a score is pooled over, odd: survivors keep their neighbours."};
inline constexpr Option kPoolOption = {.name = "pool",
                                       .type = OptionType::kChoice,
                                       .value = "avg",
                                       .choices = "avg|max",
                                       .help = "Average (zeros beyond the ends count) or maximum."};
inline constexpr Option kEveryOption = {
    .name = "every",
    .type = OptionType::kCount,
    .max = 1 << 24,
    .value = "0",
    .help = "Generated tokens between two further selections; 0: none."};
inline constexpr Option kSnapBlockOption = {
    .name = "block",
    .type = OptionType::kCount,
    .min = 1,
    .max = kWholePrompt,
    .help =
        "Select in the prompt too, at multiples of so many tokens: memory stays within budget + "
        "block. Without it once, at the prompt's end."};
inline constexpr Option kBetaOption = {
    .name = "beta",
    .type = OptionType::kReal,
    .min = 1,
    .max = 1000,
    .value = "20",
    .help = "The highest layer gets 1 / beta of the mean, the lowest so much more."};
inline constexpr Option kFloorOption = {
    .name = "floor",
    .type = OptionType::kReal,
    .min = 0,
    .max = 1,
    .value = "0.5",
    .help = "Part of the mean that every head gets, whatever its scores."};

class SnapKvScorer final : public Scorer {
 public:
  enum class Pool : uint8_t { kAverage, kMax };
  SnapKvScorer(uint32_t n_heads, uint32_t window, uint32_t kernel, Pool pool)
      : n_heads_(n_heads), window_(window), kernel_(kernel), pool_(pool) {}
  // Sums over the window's rows; entries of the window itself get the sums of what saw them.
  float Score(const ScoredLane& lane, ScorerScratch* scratch,
              std::span<float> scores) const override;
  void Shape(const ScoredLane& lane, ScorerScratch* scratch,
             std::span<float> scores) const override;
  std::unique_ptr<Evidence> NewEvidence(const LaneShape& shape) const override;
  uint64_t EvidenceBytes(const LaneShape& shape, const Growth& growth) const override;
  std::optional<uint32_t> rows_to_see() const override { return window_; }

 private:
  uint32_t n_heads_, window_, kernel_;
  Pool pool_;
};

}  // namespace kvasir
