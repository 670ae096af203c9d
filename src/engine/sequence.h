// One request inside the engine: what it asked for, where it stands, and its text so far.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/stop_matcher.h"

namespace kvasir {

struct Engine::Sequence {
  using Time = std::chrono::steady_clock::time_point;

  RequestId id = 0;
  Request request;
  std::unique_ptr<SequenceState> state;  // empty lanes until admitted
  uint32_t prefix = 0;      // tokens that a parent or an earlier turn has put into the lanes
  uint32_t prompt_end = 0;  // prefix + prompt
  uint32_t max_new = 0;     // most tokens to generate
  const char* limit = "max_tokens";  // what max_new came from

  std::unique_ptr<Sampler> sampler;
  std::unique_ptr<StreamDecoder> decoder;
  StopMatcher stops;
  std::vector<int32_t> generated;
  int32_t pending = -1;            // sampled, not yet in the lanes
  std::optional<int32_t> sampled;  // by the pass that just ran
  std::optional<Error> error;
  size_t shown = 0;                // bytes of text handed out
  std::optional<size_t> text_end;  // where a stop string cuts the text
  Time admitted, first_token;

  uint32_t position() const { return static_cast<uint32_t>(state->tokens.size()); }
  bool in_prompt() const { return position() < prompt_end; }
  // Tokens that go into the lanes next, at most `n`.
  std::span<const int32_t> Next(uint32_t n) const {
    if (!in_prompt()) return {&pending, 1};
    return std::span(request.tokens).subspan(position() - prefix, n);
  }
};

}  // namespace kvasir
