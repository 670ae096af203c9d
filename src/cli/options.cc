#include "cli/options.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "format/quote.h"

namespace kvasir {

namespace {

constexpr uint32_t kModelVerbs = kRun | kBatch | kServe | kEvalPpl;  // verbs that run a model
constexpr uint32_t kAllVerbs = kModelVerbs | kTokenize | kTemplate | kInspect | kDoctor;
constexpr uint32_t kGenerate = kRun | kBatch | kServe;
constexpr uint32_t kPrinting = (kAllVerbs & ~kServe) | kBenchServe;  // verbs that end with a result

constexpr CliVerb kVerbs[] = {
    {kRun, "run", "-m MODEL [-p TEXT | -f FILE | --messages FILE] [flags]",
     "generate text once, or chat in the terminal when no prompt is given", "model"},
    {kBatch, "batch", "-m MODEL -i IN.jsonl -o OUT.jsonl [flags]",
     "answer a file of OpenAI requests, all of them together under one KV budget", "model"},
    {kServe, "serve", "-m MODEL [--port N] [flags]",
     "answer requests over HTTP in OpenAI's form, all of them together under one KV budget",
     "model"},
    {kEvalPpl, "eval ppl", "-m MODEL (-f FILE | --tokens FILE) [flags]",
     "perplexity of a text: one sequence, every token's loss", "model"},
    {kTokenize, "tokenize", "-m MODEL (-p TEXT | -f FILE | --ids FILE) [flags]",
     "text to token ids, and back", "model"},
    {kTemplate, "template", "-m MODEL --messages FILE [flags]",
     "what a chat template makes of a conversation", "model"},
    {kInspect, "inspect", "FILE [flags]", "what a model file holds, and what is wrong with it",
     "model"},
    {kDoctor, "doctor", "[flags]", "what this machine offers, and the defaults that follow",
     "model"},
    {kBenchServe,
     "bench serve",
     "[--base-url URL] [flags]",
     "load test of a running server, any that speaks OpenAI's routes",
     {}},
};

constexpr double kMaxU32 = 4294967295.0, kMaxU64 = 18446744073709551615.0;
constexpr double kMaxBytes = 9.2e18;
using enum OptionType;

constexpr CliOption kOptions[] = {
    {{.name = "model",
      .help = "GGUF file, Hugging Face folder, or the name of a file in "
              "${KVASIR_MODELS:-~/.cache/kvasir/models}; a short name such as "
              "smollm2 will do"},
     kAllVerbs,
     "m",
     {},
     "PATH|NAME"},

    {{.name = "prompt", .help = "prompt; \"\" is the beginning-of-text token alone"},
     kRun | kTokenize,
     "p",
     {},
     "TEXT"},
    {{.name = "file", .help = "prompt from a file, taken as it is; - reads standard input"},
     kRun | kEvalPpl | kTokenize,
     "f",
     {},
     "FILE"},
    {{.name = "messages",
      .help =
          "conversation from a JSON file: a list of {\"role\",\"content\"}, with tool_calls and "
          "whatever else the template knows"},
     kRun | kTemplate,
     {},
     {},
     "FILE"},
    {{.name = "ask",
      .help = "one question a line about the document given with -f, which is read once"},
     kRun,
     {},
     {},
     "FILE"},
    {{.name = "raw", .type = kSwitch, .help = "do not use the model's chat template"},
     kRun,
     {},
     {},
     {}},
    {{.name = "chat", .type = kSwitch, .help = "use the chat template, also for -f"},
     kRun,
     {},
     "conversation",
     {}},
    {{.name = "chat-template-file", .help = "use this Jinja template instead of the model's own"},
     kGenerate | kTemplate,
     {},
     "chat-template",
     "FILE"},
    {{.name = "tools", .help = "functions that the template tells of: a JSON file with a list"},
     kTemplate,
     {},
     {},
     "FILE"},
    {{.name = "kwargs",
      .help = "further variables of the template, one JSON object, such as "
              "{\"enable_thinking\":false}"},
     kTemplate,
     {},
     "chat-template-kwargs",
     "JSON"},
    {{.name = "now",
      .help =
          "the time that the template is told, as in 2026-01-31T12:00:00, instead of the clock's"},
     kTemplate,
     {},
     {},
     "TIME"},
    {{.name = "no-generation-prompt",
      .type = kSwitch,
      .help = "stop after the last message instead of opening the assistant's turn"},
     kTemplate,
     {},
     {},
     {}},
    {{.name = "tokens", .help = "token ids from a file, separated by white space"},
     kEvalPpl,
     {},
     {},
     "FILE"},
    {{.name = "ids", .help = "turn these token ids into text"}, kTokenize, {}, {}, "FILE"},
    {{.name = "special", .type = kSwitch, .help = "read and print control tokens in the text"},
     kTokenize,
     {},
     {},
     {}},
    {{.name = "input", .help = "requests, one JSON object a line; - reads standard input"},
     kBatch,
     "i",
     {},
     "FILE"},
    {{.name = "tensors", .type = kSwitch, .help = "list every tensor"}, kInspect, {}, {}, {}},
    {{.name = "kv", .help = "print the value of one metadata key"}, kInspect, {}, {}, "KEY"},

    {{.name = "predict",
      .type = kCount,
      .max = kMaxU32,
      .help = "most tokens to generate; without it up to 1024, as context and budget allow"},
     kGenerate,
     "n",
     "n-predict|max-tokens",
     "N"},
    {{.name = "temp",
      .type = kReal,
      .max = 100,
      .value = "0.8",
      .help = "temperature; 0 takes the most likely token"},
     kGenerate,
     {},
     "temperature",
     "X"},
    {{.name = "top-k",
      .type = kCount,
      .max = kMaxU32,
      .value = "40",
      .help = "only the K most likely tokens; 0: all"},
     kGenerate,
     {},
     {},
     "K"},
    {{.name = "top-p",
      .type = kReal,
      .max = 1,
      .value = "0.95",
      .help = "only the most likely tokens that have this much probability together"},
     kGenerate,
     {},
     {},
     "P"},
    {{.name = "min-p",
      .type = kReal,
      .max = 1,
      .value = "0.05",
      .help = "only tokens with this share of the most likely one's probability"},
     kGenerate,
     {},
     {},
     "P"},
    {{.name = "repeat-penalty",
      .type = kReal,
      .min = 0.1,
      .max = 10,
      .value = "1",
      .help = "divides the chance of tokens that occurred in prompt or answer; 1: off"},
     kGenerate,
     {},
     "repetition-penalty",
     "X"},
    {{.name = "presence-penalty",
      .type = kReal,
      .min = -2,
      .max = 2,
      .value = "0",
      .help = "lowers tokens that were generated before, once"},
     kGenerate,
     {},
     {},
     "X"},
    {{.name = "frequency-penalty",
      .type = kReal,
      .min = -2,
      .max = 2,
      .value = "0",
      .help = "lowers tokens that were generated before, each time"},
     kGenerate,
     {},
     {},
     "X"},
    {{.name = "seed",
      .type = kCount,
      .max = kMaxU64,
      .help = "seed of the sampling; without it a random one, which is printed"},
     kModelVerbs,
     "s",
     {},
     "N"},
    {{.name = "stop", .help = "end when this text appears; may be given several times"},
     kGenerate,
     "r",
     "reverse-prompt",
     "TEXT",
     true},
    {{.name = "ignore-eos", .type = kSwitch, .help = "go on past the end-of-text token"},
     kGenerate,
     {},
     {},
     {}},

    {{.name = "kv-memory",
      .type = kSize,
      .min = 4096,
      .max = kMaxBytes,
      .help = "hard budget of the KV cache in bytes (KiB MiB GiB, KB MB GB); without it a quarter "
              "of the memory that is free"},
     kModelVerbs,
     {},
     {},
     "SIZE"},
    {{.name = "kv-policy",
      .help = "what the cache keeps: NAME:key=value,...; kvasir help policies"},
     kModelVerbs,
     {},
     {},
     "SPEC"},
    {{.name = "kv-codec",
      .help = "how entries are stored: f32 f16 bf16 q8, for one side alone with "
              ":for=k or :for=v; may be given several times (default f16)"},
     kModelVerbs,
     {},
     "kv-cache-dtype",
     "SPEC",
     true},
    {{.name = "cache-type-k",
      .help = "codec of the keys under llama.cpp's name: f32 f16 bf16 q8_0"},
     kModelVerbs,
     "ctk",
     {},
     "TYPE"},
    {{.name = "cache-type-v", .help = "codec of the values, likewise"},
     kModelVerbs,
     "ctv",
     {},
     "TYPE"},
    {{.name = "ctx-size",
      .type = kCount,
      .min = 1,
      .max = kMaxU32,
      .help = "longest single sequence, never shared among requests; without it the model's own"},
     kModelVerbs,
     "c",
     "max-model-len",
     "N"},
    {{.name = "step-tokens",
      .type = kCount,
      .min = 1,
      .max = 65536,
      .value = "2048",
      .help = "most rows of all sequences in one pass"},
     kModelVerbs & ~uint32_t{kServe},
     "b",
     "batch-size|max-num-batched-tokens",
     "N"},
    {{.name = "step-tokens",
      .type = kCount,
      .min = 1,
      .max = 65536,
      .value = "512",
      .help = "most rows of all sequences in one pass: who generates waits for no more of others' "
              "prompts"},
     kServe,
     "b",
     "batch-size|max-num-batched-tokens",
     "N"},
    {{.name = "chunk",
      .type = kCount,
      .min = 1,
      .max = 65536,
      .value = "512",
      .help = "most rows of one prompt in one pass"},
     kModelVerbs,
     "ub",
     "ubatch-size",
     "N"},
    {{.name = "parallel",
      .type = kCount,
      .min = 1,
      .max = 4096,
      .value = "32",
      .help = "most sequences that run at once"},
     kBatch | kServe,
     "np",
     "max-num-seqs",
     "N"},
    {{.name = "prefix-cache",
      .value = "on",
      .help = "requests share the prompt tokens they begin with; a number says how many tokens "
              "apart a policy that drops keeps its state (on: 256)"},
     kServe,
     {},
     "cache-prompt|enable-prefix-caching",
     "on|off|N"},
    {{.name = "alias", .help = "name of the model that clients see; without it the file's"},
     kServe,
     "a",
     "served-model-name",
     "NAME"},
    {{.name = "host", .value = "127.0.0.1", .help = "address to listen on"},
     kServe,
     {},
     {},
     "HOST"},
    {{.name = "port",
      .type = kCount,
      .max = 65535,
      .value = "8080",
      .help = "port to listen on; 0 takes a free one, which is printed"},
     kServe,
     {},
     {},
     "N"},
    {{.name = "api-key-file",
      .help = "file with the keys that requests need, one a line; without it nobody is asked"},
     kServe,
     {},
     {},
     "FILE"},
    {{.name = "admin-key-file",
      .help = "likewise for routes of the operator, which do not exist without it"},
     kServe,
     {},
     {},
     "FILE"},
    {{.name = "cors-origin",
      .help = "a web page's origin that may use the server; may be given several times"},
     kServe,
     {},
     "allowed-origins",
     "ORIGIN",
     true},
    {{.name = "insecure", .type = kSwitch, .help = "listen beyond this machine without keys"},
     kServe,
     {},
     {},
     {}},
    {{.name = "max-waiting",
      .type = kCount,
      .min = 1,
      .max = 65536,
      .value = "256",
      .help = "most requests that wait to be admitted; further ones are refused with 429"},
     kServe,
     {},
     {},
     "N"},
    {{.name = "drain-timeout",
      .value = "30s",
      .help = "time that running requests have after SIGTERM, such as 500ms, 30s, 2m"},
     kServe,
     {},
     {},
     "T"},
    {{.name = "compute",
      .type = kChoice,
      .value = "fast",
      .choices = "f32|fast",
      .help = "f32: exact arithmetic, and f32 lanes unless a codec is given; fast: activations of "
              "matrix products in 8 bits"},
     kModelVerbs | kDoctor,
     {},
     {},
     "f32|fast"},
    {{.name = "threads",
      .type = kCount,
      .min = 1,
      .max = 1024,
      .help = "threads; without it the cores this process may use"},
     kModelVerbs | kDoctor,
     "t",
     {},
     "N"},
    {{.name = "simd", .help = "SIMD target, such as portable; without it the best one"},
     kModelVerbs | kDoctor,
     {},
     {},
     "TARGET"},

    {{.name = "base-url", .value = "http://127.0.0.1:8080", .help = "where the server is"},
     kBenchServe,
     {},
     {},
     "URL"},
    {{.name = "endpoint",
      .type = kChoice,
      .value = "/v1/completions",
      .choices = "/v1/completions|/v1/chat/completions",
      .help = "route of the requests, always as streams"},
     kBenchServe,
     {},
     {},
     "ROUTE"},
    {{.name = "model", .help = "the model's name in requests; without it the first one listed"},
     kBenchServe,
     {},
     {},
     "NAME"},
    {{.name = "api-key-file", .help = "file with the key to send"}, kBenchServe, {}, {}, "FILE"},
    {{.name = "dataset",
      .help = "requests from a file, one JSON object a line: {\"prompt\"}, {\"messages\"} or a "
              "line of OpenAI's batch file; without it they are made up"},
     kBenchServe,
     {},
     "dataset-path",
     "FILE"},
    {{.name = "num-prompts",
      .type = kCount,
      .min = 1,
      .max = 1e6,
      .help = "conversations; without it 100, or all of the dataset"},
     kBenchServe,
     {},
     {},
     "N"},
    {{.name = "input-len",
      .type = kCount,
      .min = 1,
      .max = 1e7,
      .value = "512",
      .help = "tokens of a prompt, besides a shared prefix"},
     kBenchServe,
     {},
     "random-input-len",
     "N"},
    {{.name = "output-len",
      .type = kCount,
      .min = 1,
      .max = 1e7,
      .value = "128",
      .help = "most tokens of an answer; as many as that with --ignore-eos"},
     kBenchServe,
     {},
     "random-output-len",
     "N"},
    {{.name = "len-dist",
      .type = kChoice,
      .value = "fixed",
      .choices = "fixed|uniform|lognormal",
      .help = "how both lengths spread: not at all, from half to one and a half, or with a long "
              "tail up to ten times"},
     kBenchServe,
     {},
     {},
     "SHAPE"},
    {{.name = "prefix-len",
      .type = kCount,
      .max = 1e7,
      .help = "tokens before each prompt that requests share"},
     kBenchServe,
     {},
     "random-prefix-len",
     "N"},
    {{.name = "prefix-share",
      .type = kReal,
      .max = 0.99,
      .help = "instead: the share of --input-len that requests share"},
     kBenchServe,
     {},
     {},
     "R"},
    {{.name = "num-prefixes",
      .type = kCount,
      .min = 1,
      .max = 1e6,
      .value = "1",
      .help = "so many groups of requests, with a prefix each"},
     kBenchServe,
     {},
     {},
     "K"},
    {{.name = "turns",
      .type = kCount,
      .min = 1,
      .max = 1000,
      .value = "1",
      .help = "requests of a conversation: each one repeats what was said and adds --input-len"},
     kBenchServe,
     {},
     {},
     "N"},
    {{.name = "request-rate",
      .value = "inf",
      .help = "conversations that arrive per second, at random; inf: all at once"},
     kBenchServe,
     {},
     {},
     "R|inf"},
    {{.name = "burstiness",
      .type = kReal,
      .min = 0.01,
      .max = 1000,
      .value = "1",
      .help = "shape of the arrivals: 1 Poisson, below in bursts, above more even"},
     kBenchServe,
     {},
     {},
     "X"},
    {{.name = "max-concurrency",
      .type = kCount,
      .min = 1,
      .max = 1024,
      .help = "most conversations at once; without it up to 1024"},
     kBenchServe,
     {},
     {},
     "N"},
    {{.name = "num-warmups",
      .type = kCount,
      .max = 1e6,
      .value = "0",
      .help = "requests before the measured ones, one after another"},
     kBenchServe,
     {},
     {},
     "N"},
    {{.name = "temp", .type = kReal, .max = 100, .value = "0", .help = "temperature"},
     kBenchServe,
     {},
     "temperature",
     "X"},
    {{.name = "ignore-eos",
      .type = kSwitch,
      .help = "ask for answers of full length, where the server knows ignore_eos"},
     kBenchServe,
     {},
     {},
     {}},
    {{.name = "timeout",
      .type = kReal,
      .min = 1,
      .max = 1e6,
      .value = "600",
      .help = "seconds without a byte after which a request has failed"},
     kBenchServe,
     {},
     {},
     "S"},
    {{.name = "goodput",
      .help = "count the requests within these limits in ms, as in \"ttft:200 tpot:50\"; also "
              "e2el"},
     kBenchServe,
     {},
     {},
     "LIMITS"},
    {{.name = "percentile-metrics", .value = "ttft,tpot,itl,e2el", .help = "measures to print"},
     kBenchServe,
     {},
     {},
     "LIST"},
    {{.name = "metric-percentiles", .value = "99", .help = "percentiles to print"},
     kBenchServe,
     {},
     {},
     "LIST"},
    {{.name = "server-pid",
      .type = kCount,
      .min = 1,
      .max = kMaxU32,
      .help = "process of a local server, whose memory is watched with that of its children"},
     kBenchServe,
     {},
     {},
     "PID"},
    {{.name = "save-detailed",
      .type = kSwitch,
      .help = "with --json: times and texts of every request too"},
     kBenchServe,
     {},
     {},
     {}},
    {{.name = "seed",
      .type = kCount,
      .max = kMaxU64,
      .help = "seed of prompts, lengths and arrivals; without it a random one, which is printed"},
     kBenchServe,
     {},
     {},
     "N"},

    {{.name = "json", .type = kSwitch, .help = "print exactly one JSON document"},
     kPrinting,
     {},
     {},
     {}},
    {{.name = "output", .help = "write the result to a file, whole or not at all"},
     kPrinting,
     "o",
     {},
     "FILE"},
    {{.name = "verbose", .type = kSwitch, .help = "say more on standard error"},
     kPrinting | kServe,
     "v",
     {},
     {}},
};

constexpr FlagHint kHints[] = {
    {"-ngl|--gpu-layers|--n-gpu-layers|-sm|--split-mode|-ts|--tensor-split|-mg|--main-gpu|-dev|--"
     "device",
     "everything runs on the CPU; leave it out"},
    {"-fa|--flash-attn", "attention never builds a score matrix; leave it out"},
    {"--mlock", "weights are repacked into memory of this process; leave it out"},
    {"--no-mmap|--mmap", "files are always mapped, and weights repacked; leave it out"},
    {"-hf|-hfr|--hf-repo|-hff|--hf-file|-mu|--model-url|-dr|--docker-repo",
     "nothing is downloaded; give a file with -m"},
    {"--cache-ram|-cram", "use --kv-memory SIZE, the one budget of the KV cache"},
    {"--gpu-memory-utilization|--kv-cache-memory-bytes|--swap-space|--cpu-offload-gb",
     "use --kv-memory SIZE, the one budget of the KV cache"},
    {"--kv-offloading-size|--kv-transfer-config",
     "use --kv-memory SIZE, the one budget of the KV cache"},
    {"-nkvo|--no-kv-offload|-kvu|--kv-unified|--swa-full|-dt|--defrag-thold|--block-size",
     "the KV cache is one pool of pages in main memory; leave it out"},
    {"--keep|--context-shift|--no-context-shift",
     "use --kv-policy to say what stays; kvasir help policies lists them"},
    {"-tb|--threads-batch", "use --threads, which serves prompts and decoding alike"},
    {"--numa|--cpu-mask|-C|--prio|--poll", "use --threads, and taskset for the choice of cores"},
    {"--no-warmup|--warmup", "there is no warm-up; leave it out"},
    {"-sys|--system-prompt", "write a system message into the file given with --messages"},
    {"-cnv", "use --chat"},
    {"--api-key|--api-keys|--admin-key",
     "a key on a command line can be read by everybody on the machine; use --api-key-file FILE"},
    {"-no-cnv|--no-conversation", "use --raw"},
    {"-e|--escape|--no-escape", "texts are taken as they are; $'...' of the shell writes escapes"},
    {"--dtype|-q|--quantization|--load-format",
     "weights are used as the file stores them; leave it out"},
    {"-tp|--tensor-parallel-size|-pp|--pipeline-parallel-size",
     "one process on one machine; use --threads"},
    {"--enforce-eager|--trust-remote-code|--jinja|--simple-io|--no-display-prompt|-st|--single-"
     "turn",
     "that is always so here; leave it out"},
};

template <typename F>
void ForEachWord(std::string_view list, F&& f) {
  while (!list.empty()) {
    const size_t bar = list.find('|');
    f(list.substr(0, bar));
    list = bar == std::string_view::npos ? std::string_view() : list.substr(bar + 1);
  }
}

bool ListHas(std::string_view list, std::string_view word) {
  bool has = false;
  ForEachWord(list, [&](std::string_view item) { has |= item == word; });
  return has;
}

// By a flag as typed: "--kv-memory", "-ctk". The verb's own entry, else another verb's; nullptr:
// none.
const CliOption* FindFlag(const CliVerb& verb, std::string_view flag) {
  const bool is_long = flag.starts_with("--");
  const std::string_view name = flag.substr(is_long ? 2 : 1);
  const CliOption* others = nullptr;
  for (const CliOption& option : kOptions) {
    if (is_long ? option.option.name == name || ListHas(option.aliases, name)
                : option.short_form == name) {
      if (option.verbs & verb.bit) return &option;
      if (!others) others = &option;
    }
  }
  return others;
}

[[noreturn]] void RefuseFlag(const CliVerb& verb, std::string_view flag) {
  for (const FlagHint& hint : kHints) {
    if (ListHas(hint.flags, flag)) Fail(Code::kUsage, "{}: {}: {}", verb.name, flag, hint.hint);
  }
  std::vector<std::string> names;
  for (const CliOption& option : kOptions) {
    if ((option.verbs & verb.bit) == 0) continue;
    names.push_back(fmt::format("--{}", option.option.name));
    ForEachWord(option.aliases,
                [&](std::string_view a) { names.push_back(fmt::format("--{}", a)); });
    if (!option.short_form.empty()) names.push_back(fmt::format("-{}", option.short_form));
  }
  const std::vector<std::string_view> views(names.begin(), names.end());
  const std::string_view nearest = Nearest(flag, views);
  if (!nearest.empty()) {
    Fail(Code::kUsage, "{}: unknown flag {}; did you mean {}?", verb.name, Quoted(flag), nearest);
  }
  Fail(Code::kUsage, "{}: unknown flag {}; kvasir help {} lists them", verb.name, Quoted(flag),
       verb.name);
}

std::string VerbsOf(const CliOption& option) {
  std::vector<std::string_view> names;
  for (const CliVerb& verb : kVerbs) {
    if (option.verbs & verb.bit) names.push_back(verb.name);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

std::span<const CliVerb> AllVerbs() { return kVerbs; }
std::span<const CliOption> AllOptions() { return kOptions; }
std::span<const FlagHint> AllHints() { return kHints; }

std::span<const Option> TableOf(const CliVerb& verb) {
  static const std::map<Verb, std::vector<Option>> tables = [] {
    std::map<Verb, std::vector<Option>> made;
    for (const CliVerb& v : kVerbs) {
      for (const CliOption& option : kOptions) {
        if (option.verbs & v.bit) made[v.bit].push_back(option.option);
      }
    }
    return made;
  }();
  return tables.at(verb.bit);
}

Arguments::Arguments(const CliVerb& verb)
    : verb_(&verb), values_(std::string(verb.name), TableOf(verb)) {}

bool Arguments::Given(std::string_view name) const {
  return values_.Given(name) || std::any_of(repeated_.begin(), repeated_.end(),
                                            [&](const auto& value) { return value.first == name; });
}

std::vector<std::string> Arguments::List(std::string_view name) const {
  std::vector<std::string> list;
  for (const auto& [option, value] : repeated_) {
    if (option == name) list.push_back(value);
  }
  return list;
}

void Arguments::Set(const CliOption& option, std::string_view value) {
  if (option.repeatable) {
    repeated_.emplace_back(option.option.name, value);
  } else {
    values_.Set(option.option.name, value);
  }
}

const CliVerb& FindVerb(std::span<const std::string_view> args, size_t* n_words) {
  CHECK(!args.empty());
  std::vector<std::string_view> names;
  for (const CliVerb& verb : kVerbs) {
    const size_t space = verb.name.find(' ');
    const bool two = space != std::string_view::npos;
    if (verb.name.substr(0, space) == args[0] &&
        (!two || (args.size() > 1 && verb.name.substr(space + 1) == args[1]))) {
      *n_words = two ? 2 : 1;
      return verb;
    }
    names.push_back(verb.name.substr(0, space));
  }
  if (args[0] == "eval" || args[0] == "bench") {
    Fail(Code::kUsage, "{}: {}: known is {}", args[0],
         args.size() > 1 ? Quoted(args[1]) : "no measure named",
         args[0] == "eval" ? "ppl" : "serve");
  }
  if (args[0].starts_with("-")) {
    Fail(Code::kUsage, "{}: a verb comes first: one of {}", Quoted(args[0]),
         fmt::join(names, ", "));
  }
  const std::string_view nearest = Nearest(args[0], names);
  if (!nearest.empty()) {
    Fail(Code::kUsage, "unknown verb {}; did you mean {}?", Quoted(args[0]), nearest);
  }
  Fail(Code::kUsage, "unknown verb {}; known are {}", Quoted(args[0]), fmt::join(names, ", "));
}

Arguments ParseArguments(const CliVerb& verb, std::span<const std::string_view> args) {
  Arguments parsed(verb);
  for (const std::string_view arg : args) {
    if (arg == "--help" || arg == "-h") {
      parsed.help_ = true;
      return parsed;
    }
  }
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string_view arg = args[i];
    if (arg.size() < 2 || arg[0] != '-') {
      if (verb.positional.empty() || parsed.Given(verb.positional)) {
        Fail(Code::kUsage, "{}: {}: no flag; a value follows its flag", verb.name, Quoted(arg));
      }
      parsed.values_.Set(verb.positional, arg);
      continue;
    }
    const size_t equals = arg.find('=');
    const std::string_view flag = arg.substr(0, equals);
    const CliOption* option = FindFlag(verb, flag);
    if (!option) RefuseFlag(verb, flag);
    if ((option->verbs & verb.bit) == 0) {
      Fail(Code::kUsage, "{}: {} does not belong here; it is a flag of {}", verb.name, flag,
           VerbsOf(*option));
    }
    if (equals != std::string_view::npos) {
      parsed.Set(*option, arg.substr(equals + 1));
    } else if (option->option.type == OptionType::kSwitch) {
      parsed.Set(*option, "on");
    } else if (i + 1 < args.size()) {
      parsed.Set(*option, args[++i]);
    } else {
      Fail(Code::kUsage, "{}: {} needs a value: {} {}", verb.name, flag, flag, option->metavar);
    }
  }
  return parsed;
}

}  // namespace kvasir
