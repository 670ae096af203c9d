// What the normalizer, pre_tokenizer and post_processor of a tokenizer.json mean, in the terms of
// this room. They are recognised as a whole: each combination that real vocabularies use is one of
// our rules, and any other is refused by name.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "text/sentencepiece.h"
#include "text/tokenizer.h"

namespace kvasir {

struct HfPipeline {
  bool byte_level = false;
  std::string pre;                       // byte-level: the pre-tokenizer's name
  bool nfc = false;                      // byte-level
  SentencePieceTokenizer::Rules pieces;  // else
};

// `document`: the whole tokenizer.json. Errors: kUnsupported, kCorrupt; `where` opens them.
HfPipeline ReadHfPipeline(const nlohmann::json& document, const std::string& where);

// The token that the post-processor puts before a text; kNoToken if there is none.
TokenId LeadingToken(const nlohmann::json& document, const std::string& where);

}  // namespace kvasir
