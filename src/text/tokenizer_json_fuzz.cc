// The files of a Hugging Face tokenizer, mutated: each is read or refused, and what was read
// encodes texts without losing its way. The input is a number of files, separated by zero bytes;
// the first byte of each says which one it is.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/hf_tokenizer.h"

namespace kvasir {
namespace {

constexpr struct {
  char key;
  const char* name;
} kFiles[] = {
    {'t', "tokenizer.json"},
    {'v', "vocab.json"},
    {'m', "merges.txt"},
    {'a', "added_tokens.json"},
    {'s', "special_tokens_map.json"},
    {'c', "tokenizer_config.json"},
    {'g', "generation_config.json"},
    {'k', "config.json"},
    {'j', "chat_template.jinja"},
};

HfTokenizerFiles Split(std::string_view input) {
  HfTokenizerFiles files;
  while (!input.empty()) {
    const size_t end = std::min(input.find('\0'), input.size());
    for (const auto& file : kFiles) {
      if (end > 0 && input[0] == file.key) files[file.name] = input.substr(1, end - 1);
    }
    input.remove_prefix(std::min(end + 1, input.size()));
  }
  return files;
}

void Check(const Tokenizer& tokenizer, std::string_view text) {
  for (const bool special : {false, true}) {
    const std::vector<TokenId> ids = tokenizer.Encode(text, special);
    for (const TokenId id : ids) {
      CHECK(id >= 0 && static_cast<size_t>(id) < tokenizer.vocab_size());
    }
    (void)tokenizer.Decode(ids, special, /*at_start=*/true);
  }
}

}  // namespace
}  // namespace kvasir

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = ReadHfTokenizer(Split(input), "folder");
    for (const TokenId id : tokenizer->ends()) {
      CHECK(id >= 0 && static_cast<size_t>(id) < tokenizer->vocab_size());
    }
    CHECK(!tokenizer->add_bos() || tokenizer->bos() != kNoToken);
    Check(*tokenizer, "a ab  aab\xFF e\u0301 <s>\u2581 12ab<|end|>");
    Check(*tokenizer, input.substr(0, 300));
    Check(*tokenizer, std::string(2000, 'a'));
  } catch (const Error&) {
  }
  return 0;
}
