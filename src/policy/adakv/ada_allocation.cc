#include "policy/adakv/ada_allocation.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "policy/budget.h"

namespace kvasir {

namespace {

struct Candidate {
  float score;
  uint32_t head, index;
};

// The best first; ties to the lower index, then the lower head.
bool Better(const Candidate& a, const Candidate& b) {
  if (a.score != b.score) return a.score > b.score;
  return a.index != b.index ? a.index < b.index : a.head < b.head;
}

// How many of the best `n` candidates each head has.
std::vector<uint64_t> CountBest(std::vector<Candidate>& candidates, size_t n, size_t heads) {
  n = std::min(n, candidates.size());
  std::nth_element(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(n),
                   candidates.end(), Better);
  std::vector<uint64_t> counts(heads, 0);
  for (size_t i = 0; i < n; ++i) ++counts[candidates[i].head];
  return counts;
}

}  // namespace

void AdaAllocation::OverLayers(std::span<LaneShare> lanes, uint32_t heads, uint64_t target) const {
  const size_t n_layers = lanes.size() / heads;
  std::vector<uint64_t> capacities(n_layers, 0);
  for (size_t i = 0; i < lanes.size(); ++i) capacities[i / heads] += lanes[i].entries;
  const std::vector<double> weights(n_layers, 1.0);
  const std::vector<uint64_t> totals = Spread(weights, capacities, target);
  for (size_t l = 0; l < n_layers; ++l) {
    Allocation::OverLayers(lanes.subspan(l * heads, heads), heads, totals[l]);
  }
}

void AdaAllocation::OverHeads(std::span<const LaneScores> scores,
                              std::span<LaneShare> lanes) const {
  uint64_t total = 0;
  for (const LaneShare& lane : lanes) total += lane.keep - std::min(lane.keep, lane.always);
  std::vector<Candidate> candidates;
  std::vector<uint64_t> safe(lanes.size(), 0);
  for (uint32_t h = 0; h < scores.size(); ++h) {
    std::vector<Candidate> of_head;
    for (uint32_t i = 0; i < scores[h].scores.size(); ++i) {
      if (scores[h].is_protected[i] == 0) of_head.push_back({scores[h].scores[i], h, i});
    }
    if (compat_ == Compat::kKvpress) {
      const auto floor = static_cast<uint64_t>(floor_ * static_cast<double>(lanes[h].keep));
      safe[h] = std::min<uint64_t>(floor - std::min(floor, lanes[h].always), of_head.size());
      const auto end = of_head.begin() + static_cast<std::ptrdiff_t>(safe[h]);
      std::nth_element(of_head.begin(), end, of_head.end(), Better);
      of_head.erase(of_head.begin(), end);
    }
    candidates.insert(candidates.end(), of_head.begin(), of_head.end());
  }
  if (compat_ == Compat::kKvpress) {
    uint64_t rest = total;
    for (const uint64_t n : safe) rest -= std::min(rest, n);
    const std::vector<uint64_t> counts = CountBest(candidates, rest, lanes.size());
    for (size_t h = 0; h < lanes.size(); ++h) lanes[h].keep = lanes[h].always + safe[h] + counts[h];
    return;
  }
  const std::vector<uint64_t> counts = CountBest(candidates, total, lanes.size());
  std::vector<double> weights;
  std::vector<uint64_t> capacities;
  const double even = static_cast<double>(total) / static_cast<double>(lanes.size());
  for (size_t h = 0; h < lanes.size(); ++h) {
    weights.push_back((1 - floor_) * static_cast<double>(counts[h]) + floor_ * even);
    capacities.push_back(lanes[h].entries - lanes[h].always);
  }
  const std::vector<uint64_t> spread = Spread(weights, capacities, total);
  for (size_t h = 0; h < lanes.size(); ++h) lanes[h].keep = lanes[h].always + spread[h];
}

std::unique_ptr<Allocation> MakeAdaAllocation(const OptionValues& values, std::string* spec) {
  const double floor = values.Real("floor");
  const bool has_compat = FindOption(values.table(), kCompatOption.name) != nullptr;
  const std::string compat = has_compat ? values.Text("compat") : "paper";
  *spec += fmt::format(",floor={}", floor);
  if (has_compat) *spec += fmt::format(",compat={}", compat);
  return std::make_unique<AdaAllocation>(
      floor, compat == "kvpress" ? AdaAllocation::Compat::kKvpress : AdaAllocation::Compat::kPaper);
}

}  // namespace kvasir
