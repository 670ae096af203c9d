// The tokenizer of a Hugging Face folder as GGUF's keys, for readers of such files: this program
// and llama.cpp.
//
// Byte-level vocabularies are written ("gpt2" in GGUF). What the keys cannot say is refused, but
// for Unicode normalization (NFC), which no writer of GGUF files states and every reader leaves
// out.
//
// Errors   Those of ReadHfTokenizer; kUnsupported for other vocabularies.
// Threads  No state: any.
#pragma once

#include <string>

#include "format/metadata.h"

namespace kvasir {

// Adds tokenizer.* for a model of `vocab_size` tokens; rows of its embedding that no token names
// are called "[PAD…]" and unused. A folder without a tokenizer says so ("none"); then the result is
// false.
bool AddTokenizerKeys(const std::string& folder, uint32_t vocab_size, Metadata* keys);

}  // namespace kvasir
