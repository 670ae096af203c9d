#include "policy/schedule.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "policy/budget.h"

namespace kvasir {

uint64_t GridParams::Budget(uint64_t seen, uint64_t pinned) const {
  if (budget > 0) return budget;
  // A product like 0.29 x 100 may fall just short of the whole number it stands for.
  const auto share = static_cast<uint64_t>(std::floor(keep * static_cast<double>(seen) + 1e-6));
  return std::max(share, uint64_t{sink} + recent + pinned + 1);
}

uint64_t GridParams::Slack(uint64_t n) const {
  return std::min<uint64_t>(slack ? *slack : std::min<uint64_t>(32, n / 16), n - 1);
}

uint64_t GridParams::RowsBetweenCommits(uint64_t n) const {
  return std::max<uint64_t>(block, Slack(n) + 1);
}

GridParams ReadCommonKeys(const OptionValues& values, const BudgetContext& context) {
  GridParams params;
  params.block = static_cast<uint32_t>(values.Count("block"));
  params.sink = static_cast<uint32_t>(values.Count("sink"));
  if (values.Has("recent")) params.recent = static_cast<uint32_t>(values.Count("recent"));
  params.pins = values.Text("pin") != "none";
  params.skip = static_cast<uint32_t>(values.Count("skip"));
  if (values.Has("slack")) params.slack = static_cast<uint32_t>(values.Count("slack"));
  if (params.skip > 0 && params.skip >= context.shape.n_layers) {
    Fail(Code::kUsage, "{}: skip={} leaves no layer to drop from; the model has {} layers",
         values.where(), params.skip, context.shape.n_layers);
  }
  return params;
}

namespace {

uint64_t BudgetFromBytes(const OptionValues& values, const BudgetContext& context) {
  const uint64_t bytes = values.Size("budget");
  const uint64_t row = context.shape.lanes() * PackedEntryBytes(context.shape);
  if (context.shape.lanes() == 0 || bytes < row) {
    Fail(Code::kUsage, "{}: budget={} is less than one entry per lane; one needs {}",
         values.where(), values.Text("budget"), FormatSize(row));
  }
  return std::min<uint64_t>(bytes / row, static_cast<uint64_t>(kBudgetOption.max));
}

uint64_t BudgetFromMemory(const OptionValues& values, const BudgetContext& context,
                          const GridParams& params) {
  const Pool pool(context.memory_bytes);
  const auto fits = [&](uint64_t n) {
    return pool.FitsEmpty(MaxDemand(context.shape, {.tokens = std::numeric_limits<uint32_t>::max(),
                                                    .cap = n,
                                                    .rows = params.RowsBetweenCommits(n)}));
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

void ReadBudget(const OptionValues& values, const BudgetContext& context, GridParams* params) {
  if (values.Has("budget") && values.Has("keep")) {
    Fail(Code::kUsage, "{}: budget and keep exclude each other", values.where());
  }
  if (values.Has("keep")) {
    params->keep = values.Real("keep");
  } else if (values.Has("budget")) {
    params->budget =
        values.IsSize("budget") ? BudgetFromBytes(values, context) : values.Count("budget");
  } else if (context.memory_bytes > 0) {
    params->budget = BudgetFromMemory(values, context, *params);
  } else {
    Fail(Code::kUsage, "{}: needs budget=N or keep=R, or an explicit --kv-memory to derive it from",
         values.where());
  }
}

void CheckBudget(const OptionValues& values, const GridParams& params) {
  if (params.budget == 0) return;
  const uint64_t always = uint64_t{params.sink} + params.recent;
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

uint32_t Schedule::MaxRows(const Progress& before, uint64_t entries, uint64_t lanes) const {
  if (before.in_prompt()) {
    const uint32_t to_grid = params_.block - before.position % params_.block;
    return std::min(to_grid, before.prompt_end - before.position);
  }
  // Up to the first token after which a selection is due.
  const uint64_t most = (params_.Budget(before.position, pinned_) + 1) * lanes;
  const uint64_t rows = most > entries ? (most - entries) / lanes : 0;
  return static_cast<uint32_t>(std::max<uint64_t>(rows, 1));
}

std::optional<uint64_t> Schedule::Target(const Progress& after, uint64_t entries,
                                         uint64_t lanes) const {
  const bool was_prompt = after.position <= after.prompt_end;
  const bool on_grid = after.position % params_.block == 0 || after.position == after.prompt_end;
  if (was_prompt && !on_grid) return std::nullopt;
  const uint64_t budget = params_.Budget(after.position, pinned_);
  if (entries <= budget * lanes) return std::nullopt;
  return (was_prompt ? budget : budget - params_.Slack(budget)) * lanes;
}

}  // namespace kvasir
