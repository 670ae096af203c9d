// Text to token ids and back.
//
// A Tokenizer is immutable and shared by all threads. Encode never fails on text: bytes that are no
// UTF-8 survive a round trip in byte-level vocabularies, unless the vocabulary lacks a token for
// the byte (smollm2's lacks 15 that UTF-8 hardly uses and 6 control characters): such a byte is
// dropped, as other implementations do. Special tokens ("<|im_end|>") are recognised in text only
// where `special` asks for it; a user's text never turns into control tokens by accident.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/metadata.h"

namespace kvasir {

using TokenId = int32_t;
inline constexpr TokenId kNoToken = -1;

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // From the tokenizer.ggml.* keys of a GGUF file: models "gpt2" (byte-level BPE) and "llama"
  // (SentencePiece-style). Errors: kUnsupported naming what is known, kCorrupt for tables that
  // contradict each other.
  static std::unique_ptr<Tokenizer> FromGguf(const Metadata& metadata);
  // From the files of a Hugging Face folder (hf_tokenizer.h). Errors: as above, kNotFound when the
  // folder has neither tokenizer.json nor vocab.json with merges.txt.
  static std::unique_ptr<Tokenizer> FromFolder(const std::string& path);

  // Ids of `text`, without BOS or EOS. `special`: recognise control tokens written out in the text.
  // `prefix_space`: SentencePiece vocabularies put a space before the text (their own rule; ignored
  // elsewhere); false where a text continues another one.
  virtual std::vector<TokenId> Encode(std::string_view text, bool special,
                                      bool prefix_space = true) const = 0;
  // The same ids, given to `sink` some ten thousand at a time: for texts that memory does not hold.
  using Sink = std::function<void(std::span<const TokenId>)>;
  virtual void EncodeTo(std::string_view text, bool special, const Sink& sink) const {
    sink(Encode(text, special));
  }
  // Bytes of one token; empty for control tokens unless `special`.
  virtual std::string Piece(TokenId id, bool special) const = 0;

  // Bytes of the ids joined. A leading space that the vocabulary's own prefix rule added is dropped
  // when the first id is BOS or `at_start` is set.
  virtual std::string Decode(std::span<const TokenId> ids, bool special = false,
                             bool at_start = false) const = 0;

  virtual size_t vocab_size() const = 0;
  virtual bool IsControl(TokenId id) const = 0;

  TokenId bos() const { return bos_; }
  TokenId eos() const { return eos_; }
  // Ids that end a generation: EOS, end of turn, whatever the vocabulary calls it.
  const std::vector<TokenId>& ends() const { return ends_; }
  bool IsEnd(TokenId id) const;
  // The model's own rule: whether texts begin with BOS.
  bool add_bos() const { return add_bos_; }
  std::string_view name() const { return name_; }                    // "gpt2/smollm", "llama"
  std::string_view chat_template() const { return chat_template_; }  // empty if the file has none

 protected:
  TokenId bos_ = kNoToken, eos_ = kNoToken;
  std::vector<TokenId> ends_;
  bool add_bos_ = false;
  std::string name_, chat_template_;
};

// Turns a stream of ids into text that never ends inside a UTF-8 character: bytes of an unfinished
// character are held back until the character is whole or can no longer become one.
class StreamDecoder {
 public:
  // `at_start`: the first id opens a text (its prefix space is dropped).
  explicit StreamDecoder(const Tokenizer& tokenizer, bool at_start = false)
      : tokenizer_(tokenizer), at_start_(at_start) {}
  // Text that became whole with this id; may be empty, and is for an id outside the vocabulary.
  std::string Push(TokenId id);
  // Whole text so far.
  const std::string& text() const { return text_; }

 private:
  const Tokenizer& tokenizer_;
  bool at_start_;
  bool first_ = true;
  std::string pending_, text_;
};

}  // namespace kvasir
