// Encodings: the form of planes over a page's life. Rows are appended in an open form; a page that
// has left a window of recent entries is sealed into another one.
//
// A seal is a pure function of position: the page of positions [64 j, 64 j + 64) is sealed when its
// lane has seen 64 (j + 1) + W tokens, after the attention of the last of them. So a query at
// position p reads it sealed iff p >= 64 (j + 1) + W, whatever the passes were cut into
// [contract: seal.position].
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/plane.h"

namespace kvasir {

// Planes of one kind (K or V) in one layer.
struct PlaneLife {
  PlaneForm open;    // that rows are appended in
  PlaneForm sealed;  // that a page takes when it is sealed; the same: none
  // Of sparse keys: an element counts by what the last queries made of its channel.
  bool by_query = false;
  bool seals() const { return !(open == sealed); }
  bool operator==(const PlaneLife&) const = default;
};

struct LayerForms {
  PlaneLife k, v;
  bool seals() const { return k.seals() || v.seals(); }
  bool operator==(const LayerForms&) const = default;
};

// Queries are counted in blocks of so many positions; windows are multiples of it.
inline constexpr uint32_t kQueryBlock = 32;

// When pages are sealed, and how; the same for all lanes of a set.
struct SealRule {
  uint32_t recent = 0;         // W, a multiple of 32; 0: nothing is sealed
  bool at_prompt_end = false;  // nothing before the prompt's end
  bool by_row = false;         // a row is pruned in place as soon as it leaves the window
  bool by_query = false;       // some layer's keys are chosen by queries, which append brings

  // Positions below are sealed once `n` tokens were seen; a multiple of 64.
  uint32_t End(uint64_t n) const {
    if (recent == 0 || n < recent) return 0;
    return static_cast<uint32_t>((n - recent) / kPageEntries * kPageEntries);
  }
  // Most pages that are not sealed, at any moment: attention of a block of rows comes before the
  // seal, so that up to W + 64 entries are open, from a multiple of 64 on.
  uint64_t OpenPages() const { return (uint64_t{recent} + 2 * kPageEntries - 1) / kPageEntries; }
  bool operator==(const SealRule&) const = default;
};

// How planes of some layers are kept: what one --kv-codec says.
struct EncodingRule {
  static constexpr uint32_t kLastLayer = UINT32_MAX;

  bool keys = true, values = true;
  uint32_t first_layer = 0, last_layer = kLastLayer;
  Codec codec = Codec::kF16;
  uint32_t recent = 0;       // 0: rows are encoded as they arrive
  Codec open = Codec::kF16;  // with a window: the form inside it
  uint32_t thousandths = 0;  // of a sparse codec: removed, if keep is 0
  uint16_t keep = 0;         // of a sparse codec: channels that stay of every row
  bool by_query = false;     // of sparse keys: as in PlaneLife

  bool Covers(uint32_t layer) const { return first_layer <= layer && layer <= last_layer; }
  bool operator==(const EncodingRule&) const = default;
};

struct Encoding {
  Codec k = Codec::kF16, v = Codec::kF16;  // dense, of what no rule names
  std::vector<EncodingRule> rules;         // each plane of each layer is named by at most one
  SealRule seals;                          // of rules with a window

  bool operator==(const Encoding&) const = default;
};

// The forms of `n_layers` layers of heads of `head_dim` channels, and no more of the seal rule than
// they need. Layers with a sliding window of up to kShortWindow positions (window(layer), 0: none)
// hold little and are never sealed. Errors: kUsage (layers that are not there, more channels kept
// than there are).
inline constexpr uint32_t kShortWindow = 1024;
struct LayerEncodings {
  std::vector<LayerForms> layers;
  SealRule seals;
};
LayerEncodings ResolveEncoding(const Encoding& encoding, uint32_t n_layers, uint32_t head_dim,
                               const std::function<uint32_t(uint32_t layer)>& window);

}  // namespace kvasir
