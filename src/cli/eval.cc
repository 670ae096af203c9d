#include <fmt/chrono.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "cli/eval_cases.h"
#include "cli/files.h"
#include "cli/host.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/setup.h"
#include "cli/verbs.h"
#include "eval/digest.h"
#include "eval/plot.h"
#include "eval/report.h"
#include "eval/text_suite.h"
#include "format/quote.h"
#include "kvasir_commit.h"
#include "server/openai.h"

namespace kvasir {

namespace {

constexpr int kStrictExit = 4;

#ifdef __clang__
constexpr std::string_view kCompiler = "clang " __clang_version__;
#else
constexpr std::string_view kCompiler = "gcc " __VERSION__;
#endif

std::vector<TextSuite> SuitesFrom(const Arguments& args) {
  std::vector<TextSuite> suites;
  for (const std::string& text : args.List("suite")) {
    const NamedSpec spec = SplitSpec(text, "--suite");
    if (spec.name != "ppl") {
      Fail(Code::kUsage, "--suite: unknown suite {}; known is ppl", Quoted(spec.name));
    }
    suites.push_back(ParseTextSuite(spec));
  }
  if (suites.empty()) {
    Fail(Code::kUsage, "eval: --suite is missing, as in --suite ppl:file=TEXT,tokens=2048");
  }
  return suites;
}

std::string ModelDigest(const ModelFile& file) {
  std::vector<std::span<const uint8_t>> pieces;
  for (const MappedFile& mapped : file.files()) pieces.push_back(mapped.bytes());
  std::string digest = Sha256(pieces);
  file.ReleaseMapped();
  return digest;
}

// The report without results.
EvalReport HeadOf(const Arguments& args, const OpenedModel& opened, const Kernels& kernels,
                  const Workers& workers, const std::vector<EvalCase>& cases) {
  const ModelConfig& config = opened.file().config();
  EvalReport report;
  report.commit = KVASIR_COMMIT;
  report.compiler = kCompiler;
  report.simd = kernels.target;
  report.cpu = ProcessorName();
  report.threads = workers.size();
  report.memory_bytes = TotalMemory();
  report.model_file = opened.file().path();
  report.model_sha256 = ModelDigest(opened.file());
  for (const TensorEntry& tensor : opened.file().tensors()) {
    report.params += tensor.view.rows * tensor.view.cols;
  }
  report.layers = config.n_layers;
  report.kv_heads = config.n_kv_heads;
  report.head_dim = config.head_dim;
  report.seed = args.values().Count("seed");
  report.started = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  report.compute = args.values().Text("compute");
  report.cases = cases;
  return report;
}

// Results of an earlier run that --resume names.
class EarlierResults {
 public:
  // No file: none. Errors: those of reading; kInvalid when another program or model made them.
  EarlierResults(const std::string& path, const EvalReport& now) {
    if (path.empty() || !std::filesystem::exists(path)) return;
    earlier_ = ReportFromJson(ReadTextFile(path, "--resume"), path);
    const auto same = [&](std::string_view what, const auto& then, const auto& current) {
      if (then == current) return;
      Fail(Code::kInvalid, "--resume: {}: its {} is {}, now it is {}: name another file", path,
           what, then, current);
    };
    same("build", earlier_->commit, now.commit);
    same("SIMD target", earlier_->simd, now.simd);
    same("model", earlier_->model_sha256, now.model_sha256);
    same("seed", earlier_->seed, now.seed);
    same("arithmetic", earlier_->compute, now.compute);
    same("reference", earlier_->cases[0].codec, now.cases[0].codec);
  }

  // nullptr: to be measured.
  const EvalResult* Find(const EvalCase& c, const std::string& spec,
                         const std::string& digest) const {
    if (!earlier_) return nullptr;
    for (const EvalResult& result : earlier_->results) {
      const EvalCase& then = earlier_->CaseOf(result);
      if (then.label == c.label && then.flags == c.flags && then.codec == c.codec &&
          result.spec == spec && result.samples_sha256 == digest) {
        return &result;
      }
    }
    return nullptr;
  }
  // The canonical policy that it had.
  std::string PolicyOf(const EvalResult& result) const { return earlier_->CaseOf(result).policy; }

 private:
  std::optional<EvalReport> earlier_;
};

// Runs suites one after another; all cases of one read its text together.
class Evaluation {
 public:
  Evaluation(const Arguments& args, OpenedModel& opened, const std::vector<TextSuite>& suites)
      : args_(args),
        opened_(opened),
        kernels_(ChooseKernels(args)),
        workers_(ChooseThreads(args)),
        cases_(EvalCases(args)) {
    const OptionValues& values = args.values();
    common_.context =
        values.Given("ctx-size") ? static_cast<uint32_t>(values.Count("ctx-size")) : 0;
    common_.step_tokens = static_cast<uint32_t>(values.Count("step-tokens"));
    common_.chunk = static_cast<uint32_t>(values.Count("chunk"));
    uint32_t rows = 1;
    for (const TextSuite& suite : suites) {
      rows = std::max(rows, suite.protocol.block);
      CheckPolicies(suite);
    }
    report_ = HeadOf(args, opened, kernels_, workers_, cases_);
    if (values.Given("resume")) resume_path_ = values.Text("resume");
    earlier_ = std::make_unique<EarlierResults>(resume_path_, report_);
    max_rows_ = rows;
  }

  EvalReport Run(const std::vector<TextSuite>& suites) {
    const auto start = std::chrono::steady_clock::now();
    for (const TextSuite& suite : suites) {
      RunText(suite);
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      report_.seconds = seconds.count();
      if (!resume_path_.empty()) WriteFileWhole(resume_path_, DumpJson(ReportJson(report_)) + '\n');
    }
    return report_;
  }

 private:
  // What contradicts itself is refused before weights are read.
  void CheckPolicies(const TextSuite& suite) const {
    for (const EvalCase& c : cases_) {
      const EngineOptions options = OptionsFor(c, common_, suite.protocol.block);
      try {
        MakePolicy(options.policy, {options.kv_memory_explicit ? options.kv_memory : 0,
                                    ShapeOf(opened_.file().config(), {c.k_codec, c.v_codec})});
      } catch (const Error& error) {
        throw Error(error.code(), fmt::format("case {}: {}", c.label, error.what()));
      }
    }
  }

  std::vector<int32_t> TokensOf(const TextSuite& suite) {
    const std::string text = ReadTextFile(suite.file, "--suite ppl");
    std::vector<int32_t> tokens = opened_.Prompts(args_, /*chat=*/false).Plain(text).tokens;
    size_t wanted = suite.tokens;
    if (wanted == 0) {
      wanted = tokens.size();
      if (suite.protocol.mode != TextMode::kWindows) {
        const uint32_t context =
            common_.context > 0 ? common_.context : opened_.file().config().context_length;
        wanted = std::min<size_t>(wanted, context);
      }
    }
    if (tokens.size() < wanted) {
      Fail(Code::kInvalid, "--suite ppl: {} has {} tokens, tokens={} are asked for", suite.file,
           tokens.size(), wanted);
    }
    tokens.resize(wanted);
    return tokens;
  }

  Engine& MakeEngine(const EvalCase& c, uint32_t block) {
    engines_.push_back(std::make_unique<Engine>(*model_, opened_.tokenizer(), kernels_, workers_,
                                                OptionsFor(c, common_, block)));
    return *engines_.back();
  }

  void RunText(const TextSuite& suite) {
    const std::vector<int32_t> tokens = TokensOf(suite);
    const std::string digest = TokensDigest(tokens);
    std::map<std::string, EvalResult> results;  // by case
    std::vector<const EvalCase*> missing;
    for (EvalCase& c : report_.cases) {
      if (const EvalResult* result = earlier_->Find(c, suite.Spec(), digest)) {
        results[c.label] = *result;
        c.policy = earlier_->PolicyOf(*result);
      } else {
        missing.push_back(&cases_[static_cast<size_t>(&c - report_.cases.data())]);
      }
    }
    if (!missing.empty()) Measure(suite, tokens, digest, missing, &results);
    for (const EvalCase& c : report_.cases) report_.results.push_back(results.at(c.label));
  }

  void Measure(const TextSuite& suite, const std::vector<int32_t>& tokens,
               const std::string& digest, const std::vector<const EvalCase*>& missing,
               std::map<std::string, EvalResult>* results) {
    if (!model_) {
      model_ = LoadModel(args_, opened_, kernels_, workers_, max_rows_);
      common_.kv_memory = DefaultKvMemory();
    }
    TextProtocol protocol = suite.protocol;
    const Tokenizer& tokenizer = opened_.NeedTokenizer();
    if (tokenizer.add_bos() && tokenizer.bos() != kNoToken) protocol.bos = tokenizer.bos();
    engines_.clear();
    const EvalCase& dense = cases_[0];
    const TextCase reference{&MakeEngine(dense, 0), dense.label};
    std::vector<const EvalCase*> others;
    std::vector<TextCase> read;
    for (const EvalCase* c : missing) {
      if (c->reference) continue;
      others.push_back(c);
      read.push_back({&MakeEngine(*c, protocol.block), c->label});
    }
    std::vector<TextRun> runs;
    {
      ProgressBar bar(fmt::format("ppl {}", Name(protocol.mode)));
      runs = ReadText(reference, read, workers_, tokens, protocol,
                      [&](double fraction) { bar.Update(fraction); });
    }
    others.insert(others.begin(), &dense);
    for (size_t i = 0; i < others.size(); ++i) {
      EvalCase c = *others[i];
      if (const Policy* policy = engines_[i]->policy()) c.policy = policy->Spec();
      report_.cases[static_cast<size_t>(others[i] - cases_.data())].policy = c.policy;
      EvalResult& result = (*results)[c.label];
      result = TextResult(suite, c, dense, runs[i], tokens.size());
      result.samples_sha256 = digest;
    }
    engines_.clear();
  }

  const Arguments& args_;
  OpenedModel& opened_;
  const Kernels& kernels_;
  Workers workers_;
  std::vector<EvalCase> cases_;  // as asked for
  EngineOptions common_;
  EvalReport report_;  // its cases have canonical policies once they ran
  std::string resume_path_;
  std::unique_ptr<EarlierResults> earlier_;
  uint32_t max_rows_ = 1;
  std::unique_ptr<Model> model_;  // none until something has to be measured
  std::vector<std::unique_ptr<Engine>> engines_;
};

}  // namespace

int EvalVerb(const Arguments& args) {
  Output output(args);
  const std::vector<TextSuite> suites = SuitesFrom(args);
  OpenedModel opened(args);
  const EvalReport report = Evaluation(args, opened, suites).Run(suites);
  if (output.json()) {
    output.Json(ReportJson(report));
  } else {
    output.Text(ReportTables(report));
  }
  if (args.Given("plot")) WriteFileWhole(args.values().Text("plot"), PlotSvg(report));
  const bool inactive = std::any_of(report.results.begin(), report.results.end(),
                                    [](const EvalResult& result) { return result.inactive; });
  return inactive && args.values().On("strict") ? kStrictExit : 0;
}

}  // namespace kvasir
