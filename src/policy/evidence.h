// Evidence: what one policy records of one sequence between its decisions. A method that needs none
// has none; see query_window.h for the usual one.
//
// Threads  Engine thread; workers may be used inside a call.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>

#include "policy/policy.h"

namespace kvasir {

class Evidence {
 public:
  virtual ~Evidence() = default;
  // As PolicyState::QueryRows and TakeQueries.
  virtual uint32_t QueryRows(uint32_t rows) const = 0;
  virtual void Take(const LayerQueries& queries) = 0;
  // Rows of a pass that it can take before the next Settle.
  virtual uint32_t MaxRows() const { return std::numeric_limits<uint32_t>::max(); }
  // After every pass, before entries are chosen; `due`: some will be.
  virtual void Settle(const KvView& view, bool due, Workers* workers) {}
  // The last prompt has been read and chosen from: what only a prompt's end looks at is not needed.
  virtual void EndPrompts() {}
  // These entries of a lane (view indices, ascending) leave with the plan that is being made.
  virtual void Drop(uint32_t layer, uint32_t head, std::span<const uint32_t> indices) {}
  virtual std::unique_ptr<Evidence> Fork() const = 0;
};

}  // namespace kvasir
