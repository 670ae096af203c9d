#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/files.h"
#include "cli/output.h"
#include "cli/setup.h"
#include "cli/verbs.h"

namespace kvasir {

namespace {

void TextOf(const Arguments& args, const Tokenizer& tokenizer, Output& output) {
  const std::string path = args.values().Text("ids");
  const std::vector<int32_t> ids = ParseTokenIds(ReadTextFile(path, "--ids"), path);
  const std::string text = tokenizer.Decode(ids, args.values().On("special"));
  if (output.json()) {
    const nlohmann::ordered_json document = {{"text", text}};
    output.Json(document);
  } else {
    output.Text(text);
  }
}

}  // namespace

void TokenizeVerb(const Arguments& args) {
  if (args.Given("prompt") + args.Given("file") + args.Given("ids") != 1) {
    Fail(Code::kUsage, "tokenize: give one of -p TEXT, -f FILE and --ids FILE");
  }
  Output output(args);
  OpenedModel opened(args);
  const Tokenizer& tokenizer = opened.NeedTokenizer();
  if (args.Given("ids")) return TextOf(args, tokenizer, output);

  const std::string text = args.Given("prompt")
                               ? args.values().Text("prompt")
                               : ReadTextFile(args.values().Text("file"), "--file");
  std::vector<TokenId> tokens;
  if (tokenizer.add_bos() && tokenizer.bos() != kNoToken) tokens.push_back(tokenizer.bos());
  const std::vector<TokenId> ids = tokenizer.Encode(text, args.values().On("special"));
  tokens.insert(tokens.end(), ids.begin(), ids.end());
  if (output.json()) {
    const nlohmann::ordered_json document = {{"tokens", tokens}};
    output.Json(document);
  } else {
    output.Text(fmt::format("{}\n", fmt::join(tokens, " ")));
  }
}

}  // namespace kvasir
