// A text read by the dense model and by cases, pass by pass in turns, with every token given.
//
// stream   one text, state carried to the end; scored are the tokens after the first drop
// windows  pieces of `window` tokens, state restarts; scored is the second half of each
// forced   the first `prompt` tokens are prompt, the others are read as if they had been generated;
//          scored are those after the first drop
// A case that drops nothing has all tokens scored (in `forced` all but the prompt).
//
// Memory   Logits of one pass of the dense model and one of a case: 2 x block rows.
// Cost     A forward pass over the text for the dense model and for every case, and two
//          exponentials per row and vocabulary entry for every case.
// Errors   Those of Scoring and Compare, with the case's label.
// Threads  Everything runs on the caller's and its workers; the engines share one model.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/workers.h"
#include "engine/engine.h"
#include "eval/quality.h"

namespace kvasir {

enum class TextMode : uint8_t { kStream, kWindows, kForced };
std::string_view Name(TextMode mode);

struct TextProtocol {
  TextMode mode = TextMode::kStream;
  uint32_t block = 32;         // most rows of a pass
  uint32_t window = 512;       // of kWindows
  uint32_t prompt = 0;         // of kForced
  std::optional<int32_t> bos;  // the first token of each window is replaced by it
};

// One way of reading, alone on an engine of its own.
struct TextCase {
  Engine* engine = nullptr;
  std::string_view label;
};

// What became of it.
struct TextRun {
  std::vector<TokenFigures> tokens;    // that have a target, in order
  std::optional<uint32_t> first_drop;  // tokens of the text or window that were read by then
  bool drops_in_range = false;  // some scored row was computed without an entry that dense has
  MemoryFigures memory;         // ratios to dense included
};

// The dense run first, then one for each case. Fewer tokens than a window: kInvalid.
std::vector<TextRun> ReadText(const TextCase& dense, std::span<const TextCase> cases,
                              Workers& workers, std::span<const int32_t> tokens,
                              const TextProtocol& protocol,
                              const std::function<void(double fraction)>& on_progress = {});

}  // namespace kvasir
