// A plan: what a policy wants changed, as plain data. It prints, parses back and replays; the store
// commits it completely or not at all.
//
// Text form, one operation a line:
//   drop layer=0 head=1: 3 4 9
//   drop layer=0 head=all: 3 4 9
//   protect: 0 32
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvasir {

inline constexpr int32_t kAllHeads = -1;

// Entries to drop from one lane, or from all lanes of a layer that hold the same positions.
// Indices count live entries in view order (ascending position) and are strictly ascending.
struct DropOp {
  uint32_t layer = 0;
  int32_t head = kAllHeads;
  std::vector<uint32_t> indices;
  bool operator==(const DropOp&) const = default;
};

// Positions [begin, end) are never dropped from now on.
struct ProtectOp {
  uint32_t begin = 0, end = 0;
  bool operator==(const ProtectOp&) const = default;
};

struct Plan {
  std::vector<DropOp> drops;
  std::vector<ProtectOp> protects;

  bool empty() const { return drops.empty() && protects.empty(); }
  void Clear();
  std::string ToText() const;
  static Plan FromText(std::string_view text);  // Errors: kInvalid with the line
  bool operator==(const Plan&) const = default;
};

}  // namespace kvasir
