#include "policy/rpc/rounds.h"

#include <fmt/format.h>

#include <algorithm>

namespace kvasir {

uint64_t RoundSchedule::Rounds(uint64_t t) const {
  return t < uint64_t{params_.every} + params_.window ? 0 : (t - params_.window) / params_.every;
}

uint64_t RoundSchedule::Generated(const Progress& at, const Held& held) const {
  return at.position - (params_.goes_on ? held.prompt_tokens : at.prompt_end);
}

uint32_t RoundSchedule::MaxRows(const Progress& before, const Held& held) const {
  if (before.in_prompt()) return before.prompt_end - before.position;
  const uint64_t t = Generated(before, held);
  const uint64_t next = (Rounds(t) + 1) * params_.every + params_.window;
  return static_cast<uint32_t>(next - t);
}

std::optional<uint64_t> RoundSchedule::Target(const Progress& after, const Held& held) const {
  // A prompt's end generates nothing, though an earlier turn may have ended with a round.
  if (after.position <= after.prompt_end) return std::nullopt;
  const uint64_t t = Generated(after, held);
  const uint64_t rounds = Rounds(t);
  if (rounds == 0 || t != rounds * params_.every + params_.window) return std::nullopt;
  return held.entries - held.lanes * (params_.every - params_.kept());
}

void RoundSchedule::Protect(const Progress& after, std::span<const PositionSpan> prompts,
                            std::vector<PositionSpan>* spans) const {
  if (params_.goes_on) {
    spans->insert(spans->end(), prompts.begin(), prompts.end());
  } else {
    spans->emplace_back(0, after.prompt_end);
  }
  spans->emplace_back(after.position - std::min(after.position, params_.window), after.position);
}

// Where earlier turns count, a turn of g tokens begins with at most as many entries as its prompt
// has positions, fires at most floor(g / P) + 1 rounds, the k-th by its token k P + R, and each
// leaves P - T fewer: a commit leaves at most prompt + k T + R.
Growth RoundSchedule::MaxGrowth(std::string_view name, uint32_t n_layers, uint64_t prompt,
                                uint64_t tokens, uint64_t pinned) const {
  const uint64_t generated = tokens - std::min(prompt, tokens);
  uint64_t rounds = Rounds(generated);
  if (params_.goes_on) rounds = generated / params_.every + 1;
  if (rounds == 0) return {.tokens = tokens};
  return {.tokens = tokens,
          .cap = prompt + rounds * params_.kept() + params_.window,
          .rows = uint64_t{params_.every} + params_.window};
}

std::string RoundSchedule::Format() const {
  return fmt::format("every={},window={},ratio={}", params_.every, params_.window, params_.ratio);
}

}  // namespace kvasir
