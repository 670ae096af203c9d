// Schedules: after which passes entries are dropped, and down to how many.
//
// GridSchedule (KeyDiff, StreamingLLM, random, ...): in the prompt at absolute multiples of the
// block and at the prompt's end, down to N entries per lane; in generation when a lane would hold
// more than N, down to N - slack, so that one selection serves slack + 1 tokens. Peak entries per
// lane: N + block in the prompt, N + 1 in generation. [contract: policy.grid]
//
// PromptEndSchedule (SnapKV, ...): once, when the prompt has been read, and then, if asked for,
// every so many tokens or when a buffer behind the budget is full. The whole prompt is resident.
//
// The budget is one number over all lanes (N times their count): layers that skip=k leaves whole
// are counted in it, so that the others pay for them. Schedules are immutable and shared.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
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
  double recent_share = 0;        // of N: protects at least so many of the last tokens
  uint32_t every = 0;   // after a prompt's end: generated tokens between two selections; 0: none
  uint32_t buffer = 0;  // or: tokens beyond N that start one

  // N after `seen` tokens, `pinned` entries of which are pinned.
  uint64_t Budget(uint64_t seen, uint64_t pinned) const;
  uint64_t Slack(uint64_t budget) const;  // below `budget`
  // Most rows between two commits: a block, or the tokens one selection serves.
  uint64_t RowsBetweenCommits(uint64_t budget) const;
  // The last tokens that stay under a budget of `n`.
  uint32_t Recent(uint64_t n) const;
  // Entries that stay whatever their score, under a budget of `n`.
  uint64_t Always(uint64_t n, uint64_t pinned) const { return uint64_t{sink} + Recent(n) + pinned; }
};

// A block that no prompt fills: one selection at the prompt's end.
inline constexpr uint32_t kWholePrompt = 1 << 24;

// Common keys of a grid policy. Methods list these in their tables, and add their own.
inline constexpr Option kBudgetOption = {
    .name = "budget",
    .type = OptionType::kCountOrSize,
    .min = 1,
    .max = 1 << 24,
    .help =
        "Entries kept per lane, or bytes per sequence (1GiB); follows from an explicit "
        "--kv-memory if absent."};
inline constexpr Option kKeepOption = {
    .name = "keep",
    .type = OptionType::kReal,
    .min = 0.001,
    .max = 1,
    .help = "Fraction of the tokens seen that is kept, instead of a budget."};
inline constexpr Option kBlockOption = {.name = "block",
                                        .type = OptionType::kCount,
                                        .min = 1,
                                        .max = kWholePrompt,
                                        .value = "128",
                                        .help =
                                            "Prompt tokens between two selections, at absolute "
                                            "multiples, or whole: one at its end; part of "
                                            "the cache key."};
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

// Reads the common keys that the method's table has, except budget and keep.
GridParams ReadCommonKeys(const OptionValues& values, const PolicyContext& context);
// Sets budget or keep from the values, or the budget from the context's memory: the largest N whose
// lanes, for an endless sequence, fit an empty pool of that size beside what is recorded of it.
// Errors: kUsage.
using EvidenceBytesOf = std::function<uint64_t(const Growth&)>;
void ReadBudget(const OptionValues& values, const PolicyContext& context, GridParams* params,
                const EvidenceBytesOf& evidence_bytes = {});
// Errors: kUsage when sink + recent or slack leave nothing of a fixed budget.
void CheckBudget(const OptionValues& values, const GridParams& params);
// "budget=2048,block=128,sink=0,pin=system,skip=0,slack=32", as MakePolicy reads it.
std::string FormatParams(const GridParams& params);

// What a sequence holds when a schedule is asked.
struct Held {
  uint64_t entries = 0;  // of all lanes
  uint64_t lanes = 0;
  uint64_t pinned = 0;         // entries of a lane that are pinned
  uint64_t prompt_tokens = 0;  // rows read so far that were prompt, of all turns
};

class Schedule {
 public:
  virtual ~Schedule() = default;
  // Most rows of the next pass: up to the next point where entries may have to go.
  virtual uint32_t MaxRows(const Progress& before, const Held& held) const = 0;
  // Entries that all lanes together may keep after this pass; none when nothing is to be dropped.
  virtual std::optional<uint64_t> Target(const Progress& after, const Held& held) const = 0;
  // Positions that stay at such a point, whatever was pinned. `prompts`: those of all turns.
  virtual void Protect(const Progress& after, std::span<const PositionSpan> prompts,
                       std::vector<PositionSpan>* spans) const = 0;
  // As Policy::MaxGrowth; `name` and `n_layers` are the policy's.
  virtual Growth MaxGrowth(std::string_view name, uint32_t n_layers, uint64_t prompt,
                           uint64_t tokens, uint64_t pinned) const = 0;
  // "budget=2048,block=128,...", as MakePolicy reads it.
  virtual std::string Format() const = 0;
  virtual uint32_t block() const { return 1; }
  // As Policy::AtPromptEndOnly; a grid whose block holds the prompt has its only point there.
  virtual bool AtPromptEndOnly(uint32_t prompt) const { return true; }
  // Whether it selects at every block of a prompt, not at its end alone.
  virtual bool in_prompt() const { return false; }
  virtual bool pins() const = 0;
  virtual uint32_t skip() const { return 0; }  // first layers that keep everything
};

// What schedules with a budget share.
class BudgetSchedule : public Schedule {
 public:
  explicit BudgetSchedule(const GridParams& params);
  void Protect(const Progress& after, std::span<const PositionSpan> prompts,
               std::vector<PositionSpan>* spans) const override;
  Growth MaxGrowth(std::string_view name, uint32_t n_layers, uint64_t prompt, uint64_t tokens,
                   uint64_t pinned) const override;
  bool pins() const override { return params_.pins; }
  uint32_t skip() const override { return params_.skip; }
  const GridParams& params() const { return params_; }

 protected:
  // Most rows between two commits.
  virtual uint64_t Rows(uint64_t budget, uint64_t prompt, uint64_t tokens) const = 0;
  const GridParams params_;
};

class GridSchedule final : public BudgetSchedule {
 public:
  using BudgetSchedule::BudgetSchedule;
  uint32_t MaxRows(const Progress& before, const Held& held) const override;
  std::optional<uint64_t> Target(const Progress& after, const Held& held) const override;
  std::string Format() const override { return FormatParams(params_); }
  uint32_t block() const override { return params_.block; }
  bool in_prompt() const override { return true; }
  bool AtPromptEndOnly(uint32_t prompt) const override { return params_.block >= prompt; }

 private:
  uint64_t Rows(uint64_t budget, uint64_t prompt, uint64_t tokens) const override;
};

class PromptEndSchedule final : public BudgetSchedule {
 public:
  using BudgetSchedule::BudgetSchedule;
  uint32_t MaxRows(const Progress& before, const Held& held) const override;
  std::optional<uint64_t> Target(const Progress& after, const Held& held) const override;
  std::string Format() const override;

 private:
  uint64_t Rows(uint64_t budget, uint64_t prompt, uint64_t tokens) const override;
};

}  // namespace kvasir
