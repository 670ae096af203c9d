// From divergences token by token to the figures of a row.
//
// Intervals come from resampling groups of neighbouring tokens, of the differences of losses and
// not of the two perplexities (evaluation of paired text: neighbours are no independent samples).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eval/divergence.h"
#include "eval/report.h"

namespace kvasir {

// A token that was predicted by both.
struct TokenFigures {
  uint32_t position = 0;  // of the target in the text
  uint32_t group = 0;     // tokens of one group are neighbours and resampled together
  bool scored = false;
  Divergence divergence;
};

// Of those that are `scored`, or of all. CHECKs that there is one.
QualityFigures Summarize(std::span<const TokenFigures> tokens, bool only_scored);
// By position: [1, 2), [2, 4), [4, 8) ...; ranges without tokens are left out.
std::vector<QualityBucket> Buckets(std::span<const TokenFigures> tokens);

}  // namespace kvasir
