#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/eval_text.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/setup.h"
#include "cli/verbs.h"
#include "eval/perplexity.h"

namespace kvasir {

void EvalPplVerb(const Arguments& args) {
  Output output(args);
  OpenedModel opened(args);
  const std::vector<int32_t> tokens = EvalTokens(args, opened);
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
                      {tokens.size(), result.entries, result.entries_dropped, result.bytes_end,
                       result.bytes_side})},
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
