#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/files.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/setup.h"
#include "cli/verbs.h"
#include "eval/perplexity.h"

namespace kvasir {

namespace {

std::vector<int32_t> TokensFrom(const Arguments& args, OpenedModel& opened) {
  if (args.Given("file") == args.Given("tokens")) {
    Fail(Code::kUsage, "eval ppl: give a text with -f FILE, or token ids with --tokens FILE");
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

}  // namespace

void EvalPplVerb(const Arguments& args) {
  Output output(args);
  OpenedModel opened(args);
  const std::vector<int32_t> tokens = TokensFrom(args, opened);
  Session session(args, opened, /*batch=*/false);
  Perplexity result;
  {
    ProgressBar bar("reading text");
    result = MeasurePerplexity(session.engine(), session.workers(), tokens, [&](uint32_t done) {
      bar.Update(static_cast<double>(done) / static_cast<double>(tokens.size()));
    });
  }
  if (output.json()) {
    nlohmann::ordered_json document = {
        {"tokens", tokens},
        {"nll", result.nll},
        {"mean_nll", result.mean_nll},
        {"ppl", result.ppl},
        {"top1", result.top1},
        {"kv", KvJson(session, session.engine(),
                      {tokens.size(), result.entries, result.entries_dropped, result.bytes_end})},
        {"memory", MemoryJson()},
    };
    output.Json(document);
  } else {
    output.Text(fmt::format("perplexity {:.4f} ({:.6f} nats a token, {} tokens), KV peak {}\n",
                            result.ppl, result.mean_nll, result.nll.size(),
                            FormatSize(session.engine().ledger().bytes_peak)));
  }
  session.PrintNotices();
}

}  // namespace kvasir
