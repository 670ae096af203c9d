// What every vocabulary has, whatever file it came from, checked against each other.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "format/metadata.h"
#include "text/added_tokens.h"
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
  std::vector<AddedToken> added;   // matched whole in text
  TokenId bos = kNoToken, eos = kNoToken, unknown = kNoToken;
  std::vector<TokenId> ends;  // ascending
  bool add_bos = false;
  std::string chat_template;

  // From tokenizer.ggml.*. `add_bos_default`: what the tokenizer's model does when the file does
  // not say.
  static Vocabulary FromGguf(const Metadata& metadata, bool add_bos_default);

  size_t size() const { return texts.size(); }
  // Makes `ends` complete: EOS, the control tokens whose names say that nothing follows, in order.
  void FinishEnds();
};

// Ids by text; of equal texts the first one counts. Refers to the vocabulary's texts.
class TokenIndex {
 public:
  explicit TokenIndex(const Vocabulary& vocabulary);
  TokenId Find(std::string_view text) const;

 private:
  std::unordered_map<std::string_view, TokenId> ids_;
};

// The byte that a token "<0x41>" stands for; -1 if it is not spelled like that.
int ByteOfToken(std::string_view text);

}  // namespace kvasir
