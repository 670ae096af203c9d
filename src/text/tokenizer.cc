#include "text/tokenizer.h"

#include <algorithm>
#include <string_view>

#include "base/error.h"
#include "text/byte_bpe.h"
#include "text/hf_tokenizer.h"
#include "text/hf_tokenizer_folder.h"
#include "text/sentencepiece.h"
#include "text/utf8.h"

namespace kvasir {

std::unique_ptr<Tokenizer> Tokenizer::FromGguf(const Metadata& metadata) {
  const std::string& model = metadata.String("tokenizer.ggml.model");
  if (model == "gpt2") return ByteBpeTokenizer::FromGguf(metadata);
  if (model == "llama") return SentencePieceTokenizer::FromGguf(metadata);
  Fail(Code::kUnsupported, "tokenizer.ggml.model: unknown tokenizer \"{}\"; known are gpt2, llama",
       model);
}

std::unique_ptr<Tokenizer> Tokenizer::FromFolder(const std::string& path) {
  const HfTokenizerFolder folder(path);
  return ReadHfTokenizer(folder.files(), folder.path());
}

bool Tokenizer::IsEnd(TokenId id) const { return std::ranges::binary_search(ends_, id); }

std::string StreamDecoder::Push(TokenId id) {
  // A model may have more tokens than its vocabulary has texts for; those say nothing.
  if (id >= 0 && static_cast<size_t>(id) < tokenizer_.vocab_size()) {
    pending_ += tokenizer_.Decode({&id, 1}, /*special=*/false, at_start_);
  }
  // What Decode does for a whole list: the space after an opening BOS goes too.
  at_start_ = first_ && id == tokenizer_.bos();
  first_ = false;

  size_t whole = 0;
  while (whole < pending_.size() && !IsUnfinishedUtf8(std::string_view(pending_).substr(whole))) {
    whole += Utf8UnitLength(std::string_view(pending_).substr(whole));
  }
  std::string text = pending_.substr(0, whole);
  pending_.erase(0, whole);
  text_ += text;
  return text;
}

}  // namespace kvasir
