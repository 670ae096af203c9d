#include "cli/eval_text.h"

#include "base/error.h"
#include "cli/files.h"

namespace kvasir {

std::vector<int32_t> EvalTokens(const Arguments& args, OpenedModel& opened) {
  if (args.Given("file") == args.Given("tokens")) {
    Fail(Code::kUsage, "{}: give a text with -f FILE, or token ids with --tokens FILE",
         args.verb().name);
  }
  if (args.Given("tokens")) {
    const std::string path = args.values().Text("tokens");
    const std::vector<int32_t> ids = ParseTokenIds(ReadTextFile(path, "--tokens"), path);
    CheckTokenIds(ids, opened.file().config().vocab_size, path);
    return ids;
  }
  const std::string text = ReadTextFile(args.values().Text("file"), "--file");
  return opened.Prompts(args, /*chat=*/false).Plain(text).tokens;
}

}  // namespace kvasir
