// What is asked: conversations, made up from a seed or read from a file.
//
// Invariants  Made-up texts share with each other exactly what the options say: the words right
//             after a shared prefix, and the first words of different prefixes, differ between
//             conversations, so that a prefix cache finds nothing else.
//             The same options, seed and token counts make the same texts.
// Cost        With a server that counts tokens some three calls for each text.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/load.h"

namespace kvasir::bench {

enum class Route : uint8_t { kCompletions, kChat };

// One request of a conversation: either a text that is added to it, or a whole body from a file.
struct Turn {
  std::string text;
  nlohmann::json body;        // null: `text` counts
  uint32_t input_tokens = 0;  // of `text`, prefix included, as far as known
  std::optional<uint32_t> max_tokens;
};

struct Conversation {
  std::vector<Turn> turns;
};

// Tokens of a text as the server counts them.
using CountTokens = std::function<size_t(const std::string&)>;

struct PromptOptions {
  size_t conversations = 100;
  uint32_t turns = 1;
  uint32_t input_tokens = 512, output_tokens = 128;  // of a turn
  LengthShape shape = LengthShape::kFixed;           // of both
  uint32_t prefix_tokens = 0;                        // shared, before the first turn's own text
  uint32_t prefixes = 1;                             // groups with a prefix each
  uint64_t seed = 0;
};

// Without `count` a word is taken for a token. `progress` is told the share done.
std::vector<Conversation> MakePrompts(const PromptOptions& options, const CountTokens& count,
                                      const std::function<void(double)>& progress);

// Conversations of one request each with the shape of `options`, for warming up: they share nothing
// with those of MakePrompts.
std::vector<Conversation> MakeWarmups(const PromptOptions& options, size_t n,
                                      const CountTokens& count);

// One request a line: {"prompt"} or {"messages"}, with "max_tokens" or "output_len" if wanted and
// any other field of the route; or a line of OpenAI's batch file, whose "body" is that. A prompt
// may go to the chat route, as a user's message. At most `limit` lines are taken. Errors: kInvalid
// naming the line.
std::vector<Conversation> ParseDataset(std::string_view text, const std::string& where, Route route,
                                       uint32_t output_tokens, size_t limit);

// The words that texts are made of; all different.
std::vector<std::string_view> PromptWords();

}  // namespace kvasir::bench
