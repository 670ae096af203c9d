// A text read pass by pass with every token given: what likelihoods are measured on.
//
// Positions below `prompt_end` are prompt, the others are read as if they had been generated, so a
// policy acts on them by the rules it has for either. No pass straddles a point of its schedule.
//
// Errors   The constructor's: kInvalid (empty, longer than the context), kBudget.
// Threads  The engine's. Other requests must not run on it meanwhile.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "engine/engine.h"

namespace kvasir {

class Scoring {
 public:
  // The logits after the token at `position`.
  using Sink = std::function<void(uint32_t position, std::span<const float> logits)>;

  // `engine` must outlive this.
  Scoring(Engine& engine, std::span<const int32_t> tokens, uint32_t prompt_end);
  ~Scoring();

  uint32_t position() const;  // tokens read
  bool done() const;
  // Reads the next tokens, `most_rows` of them or as many as policy and model take at once; what
  // the policy drops then is gone when it returns. CHECKs that there are any.
  void Pass(uint32_t most_rows, const Sink& sink);

  const LaneSet& lanes() const;  // as the last pass left them
  // Of the last pass; none if its policy chose nothing.
  std::optional<PassReads> reads() const;

 private:
  Engine& engine_;
  std::unique_ptr<Engine::Sequence> sequence_;
};

}  // namespace kvasir
