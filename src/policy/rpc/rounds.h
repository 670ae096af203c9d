// RPC's schedule: a round after every P generated tokens, R tokens late.
#pragma once

#include <string>

#include "policy/schedule.h"

namespace kvasir {

struct RpcParams {
  uint32_t every = 4096;  // P
  uint32_t window = 32;   // R
  double ratio = 4;       // c
  bool goes_on = false;   // later turns count on: what was written before stays a candidate
  uint32_t kept() const { return static_cast<uint32_t>(every / ratio); }  // T
};

// With t tokens generated so far, round n fires when t = n P + R. Its candidates are the survivors
// of the round before and P newer entries; n T stay, so each round drops P - T. The prompt and the
// last R entries are no candidates.
//
// A later turn counts anew, and all that was there is prompt; or t goes on over turns, and only
// what was given as prompt is none of the candidates.
class RoundSchedule final : public Schedule {
 public:
  explicit RoundSchedule(const RpcParams& params) : params_(params) {}
  uint32_t MaxRows(const Progress& before, const Held& held) const override;
  std::optional<uint64_t> Target(const Progress& after, const Held& held) const override;
  void Protect(const Progress& after, std::span<const PositionSpan> prompts,
               std::vector<PositionSpan>* spans) const override;
  Growth MaxGrowth(std::string_view name, uint32_t n_layers, uint64_t prompt, uint64_t tokens,
                   uint64_t pinned) const override;
  std::string Format() const override;
  bool pins() const override { return false; }  // the prompt stays anyway

  // Rounds that have fired when t tokens have been generated.
  uint64_t Rounds(uint64_t t) const;

 private:
  uint64_t Generated(const Progress& at, const Held& held) const;  // t

  RpcParams params_;
};

}  // namespace kvasir
