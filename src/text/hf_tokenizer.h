// Tokenizers as Hugging Face folders hold them: tokenizer.json, or vocab.json with merges.txt, and
// beside them files that name special tokens, ends and the chat template.
//
// What is read  Model BPE: byte-level with one of the pre-tokenizers known by name, or over
//               characters with U+2581 for spaces (SentencePiece's vocabularies). Normalizers NFC,
//               Prepend, Replace; pre-tokenizers ByteLevel, Digits, Split, Metaspace; added tokens
//               with all their flags; a post-processor that puts BOS before a text.
// Errors        kUnsupported naming what is not known and what is; kCorrupt for what contradicts
//               itself, naming file and place.
// Cost          Some tens of times the files' size while they are read.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "text/tokenizer.h"

namespace kvasir {

// Contents by name: "tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json",
// "special_tokens_map.json", "tokenizer_config.json", "generation_config.json", "config.json",
// "chat_template.jinja". Others are ignored.
using HfTokenizerFiles = std::map<std::string, std::string_view, std::less<>>;

// `where` opens error messages: the folder.
std::unique_ptr<Tokenizer> ReadHfTokenizer(const HfTokenizerFiles& files, const std::string& where);

}  // namespace kvasir
