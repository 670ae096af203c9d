// The schedule and the budget that grid policies share (KeyDiff, StreamingLLM, random, ...).
//
// In the prompt a plan is made at absolute multiples of the block and at the prompt's end, down to
// N entries per lane. In generation it is made when a lane would hold more than N, down to N -
// slack, so that one selection serves slack + 1 tokens. Peak entries per lane: N + block in the
// prompt, N + 1 in generation. [contract: policy.grid]
//
// The budget is one number over all lanes (N times their count): layers that skip=k leaves whole
// are counted in it, so that the others pay for them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/options.h"
#include "policy/policy.h"

namespace kvasir {

struct GridParams {
  uint64_t budget = 0;  // N; 0 when `keep` is set
  double keep = 0;      // fraction kept: N grows with the sequence
  uint32_t block = 128;
  uint32_t sink = 0;
  uint32_t recent = 0;
  bool pins = true;
  uint32_t skip = 0;
  std::optional<uint32_t> slack;  // none: min(32, N / 16)

  // N after `seen` tokens, `pinned` entries of which are pinned.
  uint64_t Budget(uint64_t seen, uint64_t pinned) const;
  uint64_t Slack(uint64_t budget) const;  // below `budget`
  // Most rows between two commits: a block, or the tokens one selection serves.
  uint64_t RowsBetweenCommits(uint64_t budget) const;
};

// Common keys of a grid policy. Methods list these in their tables, and add their own.
inline constexpr Option kBudgetOption = {
    .name = "budget",
    .type = OptionType::kCountOrSize,
    .min = 1,
    .max = 1 << 24,
    .help =
        "Entries kept per lane, or bytes per sequence (1GiB); follows from an explicit "
        "--kv-memory if absent. Peak is budget + block."};
inline constexpr Option kKeepOption = {
    .name = "keep",
    .type = OptionType::kReal,
    .min = 0.001,
    .max = 1,
    .help = "Fraction of the tokens seen that is kept, instead of a budget."};
inline constexpr Option kBlockOption = {
    .name = "block",
    .type = OptionType::kCount,
    .min = 1,
    .max = 1 << 24,
    .value = "128",
    .help = "Prompt tokens between two selections, at absolute multiples; part of the cache key."};
constexpr Option SinkOption(std::string_view value) {
  return {.name = "sink",
          .type = OptionType::kCount,
          .max = 65536,
          .value = value,
          .help = "First tokens of the sequence that always stay; counted in the budget."};
}
inline constexpr Option kRecentOption = {
    .name = "recent",
    .type = OptionType::kCount,
    .max = 1 << 24,
    .value = "0",
    .help = "Last tokens that always stay; counted in the budget."};
inline constexpr Option kPinOption = {
    .name = "pin",
    .type = OptionType::kChoice,
    .value = "system",
    .choices = "system|none",
    .help = "Spans that always stay, counted in the budget: system text and what a request pins."};
inline constexpr Option kSkipOption = {
    .name = "skip",
    .type = OptionType::kCount,
    .max = 1024,
    .value = "0",
    .help = "First layers that keep everything; counted, so that the other layers keep fewer."};
constexpr Option SlackOption(std::string_view value) {
  return {.name = "slack",
          .type = OptionType::kCount,
          .max = 4096,
          .value = value,
          .help =
              "In generation drop to budget - slack at once, so that one selection serves "
              "slack + 1 tokens; min(32, budget / 16) if absent."};
}

// Reads the common keys except budget and keep.
GridParams ReadCommonKeys(const OptionValues& values, const BudgetContext& context);
// Sets budget or keep from the values, or the budget from the context's memory: the largest N whose
// lanes, for an endless sequence, fit an empty pool of that size. Errors: kUsage.
void ReadBudget(const OptionValues& values, const BudgetContext& context, GridParams* params);
// Errors: kUsage when sink + recent or slack leave nothing of a fixed budget.
void CheckBudget(const OptionValues& values, const GridParams& params);
// "budget=2048,block=128,sink=0,pin=system,skip=0,slack=32", as MakePolicy reads it.
std::string FormatParams(const GridParams& params);

// The schedule of one sequence.
class Schedule {
 public:
  Schedule(const GridParams& params, uint64_t pinned) : params_(params), pinned_(pinned) {}

  // Most rows of the next pass; `entries` is the sum over `lanes` lanes.
  uint32_t MaxRows(const Progress& before, uint64_t entries, uint64_t lanes) const;
  // Entries that all lanes together may keep after this pass; none when nothing is to be dropped.
  std::optional<uint64_t> Target(const Progress& after, uint64_t entries, uint64_t lanes) const;

 private:
  GridParams params_;
  uint64_t pinned_;
};

}  // namespace kvasir
