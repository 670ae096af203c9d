#include "cli/eval_keep.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "cli/eval_text.h"
#include "cli/generate.h"
#include "cli/output.h"
#include "cli/setup.h"
#include "cli/verbs.h"
#include "format/quote.h"

namespace kvasir {

namespace {

// Positions of the live entries of a lane.
using Kept = std::vector<uint32_t>;
// [layer][head].
using KeptLanes = std::vector<std::vector<Kept>>;

// Of a name that is none the policy itself is refused.
bool HasBlock(std::string_view policy) {
  const Traits* const traits = FindPolicy(policy);
  return traits == nullptr || FindOption(traits->options, "block") != nullptr;
}

Kept PositionsOf(const LaneView& lane) {
  Kept positions;
  positions.reserve(lane.n_entries);
  for (uint32_t p = 0; p < lane.n_pages; ++p) {
    const PageView& page = lane.pages[p];
    for (uint32_t slot = 0; slot < page.filled; ++slot) {
      if (page.live >> slot & 1) positions.push_back(page.position(slot));
    }
  }
  return positions;
}

KeptLanes LanesOf(const Engine& engine, const SequenceState& state) {
  const LaneShape& shape = state.lanes->shape();
  KeptLanes kept(shape.n_layers);
  for (uint32_t layer = 0; layer < shape.n_layers; ++layer) {
    for (uint32_t head = 0; head < shape.n_kv_heads; ++head) {
      kept[layer].push_back(PositionsOf(engine.View(state, shape.first_layer + layer, head)));
    }
  }
  return kept;
}

std::string Table(const KeptLanes& kept, size_t tokens, uint64_t bytes) {
  std::string text = fmt::format(
      "{} tokens read, KV {}\n\nentries kept by the KV heads of a layer\n{:>5} {:>8} {:>8}\n",
      tokens, FormatSize(bytes), "layer", "least", "most");
  for (size_t layer = 0; layer < kept.size(); ++layer) {
    const auto [least, most] =
        std::minmax_element(kept[layer].begin(), kept[layer].end(),
                            [](const Kept& a, const Kept& b) { return a.size() < b.size(); });
    text += fmt::format("{:>5} {:>8} {:>8}\n", layer, least->size(), most->size());
  }
  return text;
}

}  // namespace

std::string WithBlock(std::string_view spec, std::string_view block, size_t tokens) {
  const bool whole = block == "whole";
  if (!whole && (block.empty() || block.find_first_not_of("0123456789") != block.npos)) {
    Fail(Code::kUsage, "--block: {}: a number of tokens, or whole", Quoted(block));
  }
  if (spec.empty() || spec == "none") return std::string(spec);  // nothing chooses
  NamedSpec parts = SplitSpec(spec, "--kv-policy");
  if (whole && !HasBlock(parts.name)) return std::string(spec);
  std::erase_if(parts.values, [](const auto& value) { return value.first == "block"; });
  parts.values.emplace_back(
      "block", whole ? fmt::to_string(std::max<size_t>(tokens, 1)) : std::string(block));
  std::string text = parts.name;
  for (size_t i = 0; i < parts.values.size(); ++i) {
    const auto& [key, value] = parts.values[i];
    text += fmt::format("{}{}={}", i == 0 ? ':' : ',', key, value);
  }
  return text;
}

void EvalKeepVerb(const Arguments& args) {
  const OptionValues& values = args.values();
  if (!args.Given("kv-policy")) {
    Fail(Code::kUsage,
         "eval keep: --kv-policy is missing: NAME:key=value,...; kvasir help policies");
  }
  Output output(args);
  OpenedModel opened(args);
  Request request;
  request.tokens = EvalTokens(args, opened);
  const size_t n_tokens = request.tokens.size();
  std::string policy = values.Text("kv-policy");
  if (args.Given("block")) policy = WithBlock(policy, values.Text("block"), n_tokens);
  Session session(args, opened, /*batch=*/false, policy);
  request.max_tokens = 0;
  request.sampling.seed = 0;
  request.keep_state = true;
  const Generation read = Complete(session.engine(), std::move(request), nullptr);
  const KeptLanes kept = LanesOf(session.engine(), *read.state);
  const uint64_t bytes = session.engine().ledger().bytes;
  if (output.json()) {
    output.Json({{"tokens", n_tokens}, {"kept", kept}, {"bytes_end", bytes}});
  } else {
    output.Text(Table(kept, n_tokens, bytes));
  }
  session.PrintNotices();
}

}  // namespace kvasir
