#include "policy/rpc/rounds.h"

#include <fmt/format.h>

namespace kvasir {

uint64_t RoundSchedule::Rounds(uint64_t t) const {
  return t < uint64_t{params_.every} + params_.window ? 0 : (t - params_.window) / params_.every;
}

uint32_t RoundSchedule::MaxRows(const Progress& before, const Held& held) const {
  if (before.in_prompt()) return before.prompt_end - before.position;
  const uint64_t t = before.position - before.prompt_end;
  const uint64_t next = (Rounds(t) + 1) * params_.every + params_.window;
  return static_cast<uint32_t>(next - t);
}

std::optional<uint64_t> RoundSchedule::Target(const Progress& after, const Held& held) const {
  if (after.in_prompt()) return std::nullopt;
  const uint64_t t = after.position - after.prompt_end;
  const uint64_t rounds = Rounds(t);
  if (rounds == 0 || t != rounds * params_.every + params_.window) return std::nullopt;
  return held.entries - held.lanes * (params_.every - params_.kept());
}

void RoundSchedule::Protect(const Progress& after, std::vector<PositionSpan>* spans) const {
  spans->emplace_back(0, after.prompt_end);
  spans->emplace_back(after.position - params_.window, after.position);
}

Growth RoundSchedule::MaxGrowth(std::string_view name, uint32_t n_layers, uint64_t prompt,
                                uint64_t tokens, uint64_t pinned) const {
  const uint64_t rounds = Rounds(tokens - std::min(prompt, tokens));
  if (rounds == 0) return {.tokens = tokens};
  return {.tokens = tokens,
          .cap = prompt + rounds * params_.kept() + params_.window,
          .rows = uint64_t{params_.every} + params_.window};
}

std::string RoundSchedule::Format() const {
  return fmt::format("every={},window={},ratio={}", params_.every, params_.window, params_.ratio);
}

}  // namespace kvasir
