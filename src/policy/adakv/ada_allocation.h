// Ada-KV's spread over the heads of a layer (arXiv 2407.11550): heads whose entries score higher
// get more.
//
// With b candidates per head on average, the best n_heads * b candidates of the layer are counted
// by head; head h gets (1 - floor) * count_h + floor * b, rounded so that the layer's sum stays.
// compat=kvpress follows the package kvpress instead: the best int(floor * N) entries of every head
// are safe, the rest of the layer's budget goes to the best of all others.
#pragma once

#include <memory>
#include <string>

#include "base/options.h"
#include "policy/allocation.h"

namespace kvasir {

class AdaAllocation final : public Allocation {
 public:
  enum class Compat : uint8_t { kPaper, kKvpress };
  AdaAllocation(double floor, Compat compat) : floor_(floor), compat_(compat) {}
  bool uneven() const override { return true; }
  bool by_score() const override { return true; }
  // Every layer the same, however its heads differ.
  void OverLayers(std::span<LaneShare> lanes, uint32_t heads, uint64_t target) const override;
  void OverHeads(std::span<const LaneScores> scores, std::span<LaneShare> lanes) const override;

 private:
  double floor_;
  Compat compat_;
};

inline constexpr Option kCompatOption = {
    .name = "compat",
    .type = OptionType::kChoice,
    .value = "paper",
    .choices = "paper|kvpress",
    .help =
        "Count the best candidates by head (the paper), or keep floor * N of every head and let "
        "the others compete (the package kvpress)."};

// From the keys `floor` and, where the table has it, `compat`; adds them to `spec`.
std::unique_ptr<Allocation> MakeAdaAllocation(const OptionValues& values, std::string* spec);

}  // namespace kvasir
