// What a sequence holds over time, from readings of the ledger and of its lanes after every pass.
//
// Entries are counted token by token: inside a pass every row adds one to each lane, and what is
// dropped after the pass is gone from its last row on. Bytes are the ledger's, whole pages.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/engine.h"
#include "engine/scoring.h"
#include "eval/report.h"

namespace kvasir {

class UsageMeter {
 public:
  // Peaks of `engine` begin anew.
  explicit UsageMeter(Engine& engine);

  // A pass that took `lanes` from `position` tokens and `entries` entries to where they are now.
  // `reads`: what its attention read, if not all.
  void AddPass(const LaneSet& lanes, uint32_t position, uint64_t entries,
               const std::optional<PassReads>& reads = {});
  // While the last sequence is still there; `bytes_ratio` is left to whoever knows the other case.
  MemoryFigures Figures(const LaneSet& lanes) const;

 private:
  Engine& engine_;
  uint64_t tokens_ = 0, logical_sum_ = 0, live_sum_ = 0;
  double byte_tokens_ = 0;
  std::optional<PassReads> reads_;  // of the last pass
};

}  // namespace kvasir
