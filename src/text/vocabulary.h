// The tables of tokenizer.ggml.* as a GGUF file holds them, checked against each other.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "format/metadata.h"
#include "text/tokenizer.h"

namespace kvasir {

// Values as GGUF numbers them.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct Vocabulary {
  std::vector<std::string> texts;  // as the file spells them
  std::vector<TokenType> types;    // one for each text
  TokenId bos = kNoToken, eos = kNoToken, unknown = kNoToken;
  std::vector<TokenId> ends;  // ascending
  bool add_bos = false;
  std::string chat_template;

  // `add_bos_default`: what the tokenizer's model does when the file does not say.
  static Vocabulary FromGguf(const Metadata& metadata, bool add_bos_default);
};

}  // namespace kvasir
