#include "policy/schedule.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/checked.h"
#include "base/error.h"
#include "policy/budget.h"

namespace kvasir {

uint64_t GridParams::Budget(uint64_t seen, uint64_t pinned) const {
  if (budget > 0) return budget;
  // A product like 0.29 x 100 may fall just short of the whole number it stands for.
  const auto share = static_cast<uint64_t>(std::floor(keep * static_cast<double>(seen) + 1e-6));
  return std::max(share, uint64_t{sink} + recent + pinned + 1);
}

uint32_t GridParams::Recent(uint64_t n) const {
  return std::max(recent, static_cast<uint32_t>(recent_share * static_cast<double>(n)));
}

uint64_t GridParams::Slack(uint64_t n) const {
  return std::min<uint64_t>(slack ? *slack : std::min<uint64_t>(32, n / 16), n - 1);
}

uint64_t GridParams::RowsBetweenCommits(uint64_t n) const {
  return std::max<uint64_t>(block, Slack(n) + 1);
}

GridParams ReadCommonKeys(const OptionValues& values, const PolicyContext& context) {
  GridParams params;
  const auto read = [&](std::string_view name, uint32_t* value) {
    const bool given = FindOption(values.table(), name) != nullptr && values.Has(name);
    if (given) *value = static_cast<uint32_t>(values.Count(name));
    return given;
  };
  read("block", &params.block);
  read("sink", &params.sink);
  read("recent", &params.recent);
  read("every", &params.every);
  read("buffer", &params.buffer);
  read("skip", &params.skip);
  uint32_t slack = 0;
  if (read("slack", &slack)) params.slack = slack;
  params.pins = values.Text("pin") != "none";
  if (params.skip > 0 && params.skip >= context.shape.n_layers) {
    Fail(Code::kUsage, "{}: skip={} leaves no layer to drop from; the model has {} layers",
         values.where(), params.skip, context.shape.n_layers);
  }
  return params;
}

namespace {

uint64_t BudgetFromBytes(const OptionValues& values, const PolicyContext& context) {
  const uint64_t bytes = values.Size("budget");
  const uint64_t row = context.shape.lanes() * PackedEntryBytes(context.shape);
  if (context.shape.lanes() == 0 || bytes < row) {
    Fail(Code::kUsage, "{}: budget={} is less than one entry per lane; one needs {}",
         values.where(), values.Text("budget"), FormatSize(row));
  }
  return std::min<uint64_t>(bytes / row, static_cast<uint64_t>(kBudgetOption.max));
}

uint64_t BudgetFromMemory(const OptionValues& values, const PolicyContext& context,
                          const GridParams& params, const EvidenceBytesOf& evidence_bytes) {
  const Pool pool(context.memory_bytes);
  const auto fits = [&](uint64_t n) {
    const Growth growth = {.tokens = std::numeric_limits<uint32_t>::max(),
                           .cap = n,
                           .rows = params.RowsBetweenCommits(n)};
    Demand demand = MaxDemand(context.shape, growth);
    if (evidence_bytes) demand.AddSide(evidence_bytes(growth));
    return pool.FitsEmpty(demand);
  };
  uint64_t low = uint64_t{params.sink} + params.recent + 1;
  if (!fits(low)) {
    Fail(Code::kUsage, "{}: {} of KV memory hold no sequence of budget={} with block={}",
         values.where(), FormatSize(context.memory_bytes), low, params.block);
  }
  // Largest that fits: `low` does, `high` does not or is not allowed.
  uint64_t high = static_cast<uint64_t>(kBudgetOption.max) + 1;
  while (high - low > 1) {
    const uint64_t middle = low + (high - low) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return low;
}

}  // namespace

void ReadBudget(const OptionValues& values, const PolicyContext& context, GridParams* params,
                const EvidenceBytesOf& evidence_bytes) {
  if (values.Has("budget") && values.Has("keep")) {
    Fail(Code::kUsage, "{}: budget and keep exclude each other", values.where());
  }
  if (values.Has("keep")) {
    params->keep = values.Real("keep");
  } else if (values.Has("budget")) {
    params->budget =
        values.IsSize("budget") ? BudgetFromBytes(values, context) : values.Count("budget");
  } else if (context.memory_bytes > 0) {
    params->budget = BudgetFromMemory(values, context, *params, evidence_bytes);
  } else {
    Fail(Code::kUsage, "{}: needs budget=N or keep=R, or an explicit --kv-memory to derive it from",
         values.where());
  }
}

void CheckBudget(const OptionValues& values, const GridParams& params) {
  if (params.budget == 0) return;
  const uint64_t always = params.Always(params.budget, 0);
  if (always >= params.budget) {
    Fail(Code::kUsage, "{}: sink + recent = {} leave nothing of budget={}; the least is {}",
         values.where(), always, params.budget, always + 1);
  }
  if (params.slack && *params.slack >= params.budget) {
    Fail(Code::kUsage, "{}: slack={} must be below budget={}", values.where(), *params.slack,
         params.budget);
  }
}

std::string FormatParams(const GridParams& params) {
  std::string text = params.budget > 0 ? fmt::format("budget={}", params.budget)
                                       : fmt::format("keep={}", params.keep);
  text += fmt::format(",block={},sink={},pin={},skip={}", params.block, params.sink,
                      params.pins ? "system" : "none", params.skip);
  if (params.budget > 0) {
    text += fmt::format(",slack={}", params.Slack(params.budget));
  } else if (params.slack) {
    text += fmt::format(",slack={}", *params.slack);
  }
  return text;
}

BudgetSchedule::BudgetSchedule(const GridParams& params) : params_(params) {
  CHECK((params.budget > 0) != (params.keep > 0));
}

void BudgetSchedule::Protect(const Progress& after, std::span<const PositionSpan> prompts,
                             std::vector<PositionSpan>* spans) const {
  spans->emplace_back(0, params_.sink);
  const uint32_t recent = params_.Recent(params_.Budget(after.position, 0));
  spans->emplace_back(after.position - std::min(after.position, recent), after.position);
}

Growth BudgetSchedule::MaxGrowth(std::string_view name, uint32_t n_layers, uint64_t prompt,
                                 uint64_t tokens, uint64_t pinned) const {
  if (!params_.pins) pinned = 0;
  const uint64_t budget = params_.Budget(tokens, pinned);
  const uint64_t always = params_.Always(budget, pinned);
  // Whole layers hold every token; what they leave is shared by the others, each of which needs
  // room for its protected entries and one more.
  const uint64_t layers = std::max<uint32_t>(n_layers, 1);
  const uint64_t least =
      DivideUp((layers - params_.skip) * (always + 1) + params_.skip * tokens, layers);
  if (tokens > budget && budget < least) {
    if (params_.skip == 0) {
      Fail(Code::kInvalid,
           "{}: {} protected entries leave nothing of budget={}; the least budget is {}", name,
           always, budget, least);
    }
    Fail(Code::kInvalid,
         "{}: skip={} keeps {} tokens whole, and {} protected entries leave nothing of {}={}; the "
         "least budget is {}",
         name, params_.skip, tokens, always, params_.budget > 0 ? "budget" : "keep's budget",
         budget, least);
  }
  // With whole layers the sum over lanes is bounded, not each lane: rounding every lane up to pages
  // of 64 then takes at most one page more per lane.
  const uint64_t uneven = params_.skip > 0 ? kPageEntries - 1 : 0;
  return {.tokens = tokens, .cap = budget + uneven, .rows = Rows(budget, prompt, tokens)};
}

uint64_t GridSchedule::Rows(uint64_t budget, uint64_t prompt, uint64_t tokens) const {
  return params_.RowsBetweenCommits(budget);
}

uint32_t GridSchedule::MaxRows(const Progress& before, const Held& held) const {
  if (before.in_prompt()) {
    const uint32_t to_grid = params_.block - before.position % params_.block;
    return std::min(to_grid, before.prompt_end - before.position);
  }
  // Up to the first token after which a selection is due.
  const uint64_t most = (params_.Budget(before.position, held.pinned) + 1) * held.lanes;
  const uint64_t rows = most > held.entries ? (most - held.entries) / held.lanes : 0;
  return static_cast<uint32_t>(std::max<uint64_t>(rows, 1));
}

std::optional<uint64_t> GridSchedule::Target(const Progress& after, const Held& held) const {
  const bool was_prompt = after.position <= after.prompt_end;
  const bool on_grid = after.position % params_.block == 0 || after.position == after.prompt_end;
  if (was_prompt && !on_grid) return std::nullopt;
  const uint64_t budget = params_.Budget(after.position, held.pinned);
  if (held.entries <= budget * held.lanes) return std::nullopt;
  return (was_prompt ? budget : budget - params_.Slack(budget)) * held.lanes;
}

uint64_t PromptEndSchedule::Rows(uint64_t budget, uint64_t prompt, uint64_t tokens) const {
  const uint64_t generated = tokens - std::min(prompt, tokens);
  const uint64_t step = params_.every > 0    ? params_.every
                        : params_.buffer > 0 ? params_.buffer
                                             : generated;
  return std::max({prompt, std::min(step, generated), uint64_t{1}});
}

uint32_t PromptEndSchedule::MaxRows(const Progress& before, const Held& held) const {
  if (before.in_prompt()) return before.prompt_end - before.position;
  if (params_.every > 0) {
    return params_.every - (before.position - before.prompt_end) % params_.every;
  }
  if (params_.buffer > 0) {
    const uint64_t most =
        (params_.Budget(before.position, held.pinned) + params_.buffer) * held.lanes;
    const uint64_t rows = most > held.entries ? DivideUp(most - held.entries, held.lanes) : 0;
    return static_cast<uint32_t>(std::clamp<uint64_t>(rows, 1, UINT32_MAX));
  }
  return UINT32_MAX;
}

std::optional<uint64_t> PromptEndSchedule::Target(const Progress& after, const Held& held) const {
  if (after.in_prompt()) return std::nullopt;
  const uint32_t generated = after.position - after.prompt_end;
  const uint64_t budget = params_.Budget(after.position, held.pinned);
  if (held.entries <= budget * held.lanes) return std::nullopt;
  const bool again = (params_.every > 0 && generated % params_.every == 0) ||
                     (params_.buffer > 0 && held.entries >= (budget + params_.buffer) * held.lanes);
  if (generated > 0 && !again) return std::nullopt;
  return budget * held.lanes;
}

std::string PromptEndSchedule::Format() const {
  std::string text = params_.budget > 0 ? fmt::format("budget={}", params_.budget)
                                        : fmt::format("keep={}", params_.keep);
  text += fmt::format(",sink={},pin={},skip={}", params_.sink, params_.pins ? "system" : "none",
                      params_.skip);
  if (params_.every > 0) text += fmt::format(",every={}", params_.every);
  if (params_.buffer > 0) text += fmt::format(",buffer={}", params_.buffer);
  return text;
}

}  // namespace kvasir
