#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "bench/client.h"
#include "bench/load.h"
#include "bench/prompts.h"
#include "bench/report.h"
#include "bench/runner.h"
#include "bench/stats.h"
#include "bench/watch.h"
#include "cli/files.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/verbs.h"
#include "engine/sampler.h"
#include "format/quote.h"

namespace kvasir {

namespace {

// Requests a second; 0: all at once.
double RateFrom(const OptionValues& values) {
  const std::string text = values.Text("request-rate");
  if (text == "inf") return 0;
  char* end = nullptr;
  const double rate = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(rate > 0 && rate <= 1e6)) {
    Fail(Code::kUsage, "bench serve: --request-rate {}: expected a number above 0, or inf",
         Quoted(text));
  }
  return rate;
}

std::string KeyFrom(const OptionValues& values) {
  if (!values.Given("api-key-file")) return {};
  const std::string path = values.Text("api-key-file");
  std::string key = ReadTextFile(path, "--api-key-file");
  key.resize(std::min(key.size(), key.find_first_of("\r\n")));
  if (key.empty()) Fail(Code::kUsage, "--api-key-file {}: the first line is empty", path);
  return key;
}

bench::LengthShape ShapeFrom(const OptionValues& values) {
  const std::string name = values.Text("len-dist");
  if (name == "uniform") return bench::LengthShape::kUniform;
  return name == "lognormal" ? bench::LengthShape::kLogNormal : bench::LengthShape::kFixed;
}

bench::PromptOptions PromptsFrom(const OptionValues& values, uint64_t seed) {
  bench::PromptOptions options;
  if (values.Given("num-prompts")) options.conversations = values.Count("num-prompts");
  options.turns = static_cast<uint32_t>(values.Count("turns"));
  options.input_tokens = static_cast<uint32_t>(values.Count("input-len"));
  options.output_tokens = static_cast<uint32_t>(values.Count("output-len"));
  options.shape = ShapeFrom(values);
  options.prefixes = static_cast<uint32_t>(values.Count("num-prefixes"));
  options.seed = seed;
  if (values.Given("prefix-len") && values.Given("prefix-share")) {
    Fail(Code::kUsage, "bench serve: --prefix-len and --prefix-share say the same; give one");
  }
  if (values.Given("prefix-len")) {
    options.prefix_tokens = static_cast<uint32_t>(values.Count("prefix-len"));
  } else if (values.Given("prefix-share")) {
    options.prefix_tokens =
        static_cast<uint32_t>(options.input_tokens * values.Real("prefix-share"));
    options.input_tokens -= options.prefix_tokens;
  }
  if (options.prefix_tokens == 0 && values.Given("num-prefixes")) {
    Fail(Code::kUsage, "bench serve: --num-prefixes needs --prefix-len or --prefix-share");
  }
  return options;
}

std::vector<bench::Conversation> FromDataset(const OptionValues& values, bench::Route route) {
  for (const char* flag : {"input-len", "len-dist", "prefix-len", "prefix-share", "num-prefixes",
                           "turns", "num-warmups"}) {
    if (values.Given(flag)) {
      Fail(Code::kUsage, "bench serve: --{} is for made-up prompts; leave it out with --dataset",
           flag);
    }
  }
  const std::string path = values.Text("dataset");
  const size_t wanted = values.Given("num-prompts") ? values.Count("num-prompts") : SIZE_MAX;
  std::vector<bench::Conversation> conversations =
      bench::ParseDataset(ReadTextFile(path, "--dataset"), path, route,
                          static_cast<uint32_t>(values.Count("output-len")), wanted);
  if (wanted != SIZE_MAX && conversations.size() < wanted) {
    Fail(Code::kInvalid, "--dataset {}: holds {} requests; --num-prompts wants {}", path,
         conversations.size(), wanted);
  }
  return conversations;
}

// A server that answers no warm-up will answer nothing else.
void WarmUp(const bench::Client& client, const bench::PromptOptions& options, size_t n,
            const bench::CountTokens& count) {
  if (n == 0) return;
  ProgressBar bar("warming up");
  const bench::LoadRun run =
      bench::RunLoad(client, bench::MakeWarmups(options, n, count), std::vector<double>(n, 0.0),
                     /*places=*/1, [&](double share) { bar.Update(share); });
  const bench::Record& first = run.records.front();
  if (!first.ok()) {
    Fail(Code::kUnavailable, "bench serve: the first warm-up failed: {}: {}", first.failure,
         first.message);
  }
}

}  // namespace

void BenchServeVerb(const Arguments& args) {
  std::signal(SIGPIPE, SIG_IGN);  // a server that hangs up is a failed request
  Output output(args);
  const OptionValues& values = args.values();
  const uint64_t seed = values.Given("seed") ? values.Count("seed") : RandomSeed();
  const bench::PromptOptions prompts = PromptsFrom(values, seed);
  const bench::Goals goals =
      values.Given("goodput") ? bench::ParseGoals(values.Text("goodput")) : bench::Goals();
  bench::Setting setting;
  setting.base_url = values.Text("base-url");
  setting.endpoint = values.Text("endpoint");
  setting.seed = seed;
  setting.rate = RateFrom(values);
  setting.burstiness = values.Real("burstiness");
  if (values.Given("max-concurrency")) setting.max_concurrency = values.Count("max-concurrency");
  setting.measures = bench::ParseMeasures(values.Text("percentile-metrics"));
  setting.percents = bench::ParsePercentiles(values.Text("metric-percentiles"));

  bench::ClientOptions options;
  options.base_url = setting.base_url;
  options.endpoint = setting.endpoint;
  if (values.Given("model")) options.model = values.Text("model");
  options.api_key = KeyFrom(values);
  options.temperature = values.Real("temp");
  options.ignore_eos = values.On("ignore-eos");
  options.timeout_s = values.Real("timeout");
  bench::Client client(options);

  std::vector<bench::Conversation> conversations;
  if (args.Given("dataset")) conversations = FromDataset(values, client.route());
  client.Connect();
  setting.model = client.options().model;
  bench::CountTokens count;
  setting.tokens_by = "dataset";
  if (conversations.empty()) {
    count = client.Counter();
    setting.tokens_by = count ? "server" : "words";
    ProgressBar bar("making prompts");
    conversations = bench::MakePrompts(prompts, count, [&](double share) { bar.Update(share); });
  }
  setting.conversations = conversations.size();
  if (!values.Given("seed") && !args.Given("dataset")) Note(fmt::format("seed {}", seed));
  if (setting.tokens_by == "words") {
    Note(
        "the server has no /tokenize: a word is taken for a token; the result counts what it says");
  }
  WarmUp(client, prompts, values.Count("num-warmups"), count);

  bench::ServerWatch watch(
      client, values.Given("server-pid") ? static_cast<uint32_t>(values.Count("server-pid")) : 0);
  bench::LoadRun run;
  {
    ProgressBar bar("requests");
    run = bench::RunLoad(client, conversations,
                         bench::ArrivalTimes(conversations.size(), setting.rate, setting.burstiness,
                                             bench::Random(seed, 6)),
                         setting.max_concurrency, [&](double share) { bar.Update(share); });
  }
  const bench::Sightings seen = watch.Stop();
  const bench::Results results = bench::Evaluate(run, setting.percents, goals);
  if (output.json()) {
    output.Json(
        bench::ResultJson(setting, results, seen, values.On("save-detailed") ? &run : nullptr));
  } else {
    output.Text(bench::BlockText(setting, results, seen));
  }
  if (results.completed == 0) {
    Fail(Code::kUnavailable, "bench serve: all {} requests failed; first: {}: {}", results.requests,
         run.records.front().failure, run.records.front().message);
  }
}

}  // namespace kvasir
