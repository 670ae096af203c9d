#include "engine/scoring.h"

#include <algorithm>

#include "base/error.h"
#include "engine/sequence.h"

namespace kvasir {

Scoring::Scoring(Engine& engine, std::span<const int32_t> tokens, uint32_t prompt_end)
    : engine_(engine), sequence_(std::make_unique<Engine::Sequence>()) {
  if (tokens.empty()) Fail(Code::kInvalid, "text: empty: give at least one token");
  if (tokens.size() > engine.context_) {
    Fail(Code::kInvalid,
         "text: {} tokens are more than the context of {}: shorten it or raise --ctx-size",
         tokens.size(), engine.context_);
  }
  CHECK(prompt_end > 0 && prompt_end <= tokens.size());
  Engine::Sequence& s = *sequence_;
  s.known.assign(tokens.begin(), tokens.end());
  s.prompt_end = prompt_end;
  s.max_new = s.end() - prompt_end;
  s.request.max_tokens = s.max_new;
  const Demand demand = engine.DemandFor(s, s.end());
  if (!engine.store_.FitsEmpty(demand)) engine.RefuseBudget(s, demand);
  s.request.sampling.seed = 0;
  CHECK_MSG(engine.Admit(s), "Scoring needs the engine for itself");
}

Scoring::~Scoring() = default;

uint32_t Scoring::position() const { return sequence_->position(); }
bool Scoring::done() const { return position() == sequence_->end(); }
const LaneSet& Scoring::lanes() const { return *sequence_->state->lanes; }

std::optional<PassReads> Scoring::reads() const {
  const PolicyState* const policy = sequence_->state->policy.get();
  return policy ? policy->reads() : std::nullopt;
}

void Scoring::Pass(uint32_t most_rows, const Sink& sink) {
  CHECK(!done() && most_rows > 0);
  Engine::Sequence& s = *sequence_;
  const uint32_t rows = engine_.RowsFor(s, std::min(most_rows, engine_.model_.max_rows()));
  const uint32_t first = s.position();
  AppendCursor cursor = engine_.store_.Append(s.state->lanes, rows);
  Segment segment{s.Next(rows), &cursor, WantLogits::kAll};
  Engine::Sequence* const member = &s;
  engine_.Forward(
      {&member, 1}, {&segment, 1},
      [&](size_t, uint32_t row, std::span<const float> logits) { sink(first + row, logits); });
  engine_.Advance(s, rows);
}

}  // namespace kvasir
