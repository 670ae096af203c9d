// One request inside the engine: what it asked for, where it stands, and its text so far.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/prefix_index.h"
#include "engine/stop_matcher.h"

namespace kvasir {

struct Engine::Prefix {
  LaneSetHandle* lanes = nullptr;  // null: there is none
  uint32_t length = 0;
  bool cut = false;                     // of lanes that dropped nothing, where a policy begins anew
  const PolicyState* policy = nullptr;  // goes on from this one
  Snapshot* snapshot = nullptr;         // whose lanes they are, if it is a snapshot's
};

struct Engine::Sequence {
  using Time = std::chrono::steady_clock::time_point;

  RequestId id = 0;
  Request request;
  std::unique_ptr<SequenceState> state;  // none until admitted, and while parked
  std::vector<int32_t> known;            // all tokens so far: prefix, prompt, generated
  bool resumed = false;                  // goes on from an earlier turn's lanes
  bool publishes = false;                // others may begin with its lanes
  bool waits = false;                    // for a prefix that somebody is reading
  uint32_t prefix = 0;       // tokens that others or an earlier turn have put into the lanes
  uint32_t cached = 0;       // of the prompt, at the first admission
  uint32_t prompt_end = 0;   // end of the prompt in `known`
  uint32_t granted_end = 0;  // positions that the lanes have room for
  uint32_t max_new = 0;      // most tokens to generate
  const char* limit = "max_tokens";  // what max_new came from

  std::unique_ptr<Sampler> sampler;
  std::unique_ptr<StreamDecoder> decoder;
  StopMatcher stops;
  std::optional<int32_t> sampled;  // by the pass that just ran
  std::vector<TokenLogprob> logprobs, prompt_logprobs;
  std::optional<Error> error;
  size_t shown = 0;                // bytes of text handed out
  size_t shown_logprobs = 0;       // log probabilities handed out
  std::optional<size_t> text_end;  // where a stop string cuts the text
  uint32_t n_parked = 0;
  KvTrack track;
  Time tracked;  // last
  Time submitted, admitted, first_token;

  uint32_t position() const { return static_cast<uint32_t>(state->tokens.size()); }
  bool in_prompt() const { return position() < prompt_end; }
  uint32_t end() const { return static_cast<uint32_t>(known.size()); }
  uint32_t n_forced() const { return static_cast<uint32_t>(request.forced.size()); }
  uint32_t n_generated() const { return end() - prompt_end - n_forced(); }
  uint32_t last_position() const { return prompt_end + n_forced() + max_new; }
  // Reads the token that was sampled last, and nothing it read before.
  bool decodes() const { return !in_prompt() && end() - position() == 1; }
  // Tokens that go into the lanes next.
  std::span<const int32_t> Next(uint32_t n) const {
    return std::span(known).subspan(position(), n);
  }
};

template <typename F>
bool Engine::WithRoom(const Demand& demand, const Snapshot* keep, F&& attempt) {
  if (attempt()) return true;
  // Nothing is dropped in vain.
  if (!prefixes_ || !store_.Fits(demand, store_.HeldByFrozen())) return false;
  while (prefixes_->DropLeastUseful(keep)) {
    if (attempt()) return true;
  }
  return false;
}

}  // namespace kvasir
