#include <fmt/chrono.h>

#include <algorithm>
#include <chrono>
#include <cmath>
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
#include "eval/check.h"
#include "eval/digest.h"
#include "eval/plot.h"
#include "eval/report.h"
#include "eval/suite.h"
#include "eval/task_runner.h"
#include "eval/text_suite.h"
#include "format/quote.h"
#include "kvasir_commit.h"
#include "server/openai.h"

namespace kvasir {

namespace {

constexpr int kCheckExit = 3, kStrictExit = 4;

#ifdef __clang__
constexpr std::string_view kCompiler = "clang " __clang_version__;
#else
constexpr std::string_view kCompiler = "gcc " __VERSION__;
#endif

// One of --suite: a text, or generated tasks.
struct Suite {
  std::string typed;
  std::optional<TextSuite> text;
  std::optional<SuiteSpec> tasks;
};

std::vector<Suite> SuitesFrom(const Arguments& args) {
  std::vector<Suite> suites;
  for (const std::string& typed : args.List("suite")) {
    Suite suite = {.typed = typed};
    if (typed.starts_with("ppl:") || typed == "ppl") {
      suite.text = ParseTextSuite(SplitSpec(typed, "--suite"));
    } else {
      suite.tasks = ParseSuite(typed, "--suite");
    }
    suites.push_back(std::move(suite));
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
  // Of the dense case on a run of samples, by index; empty if they are not all there.
  std::vector<const EvalSample*> Samples(std::string_view label, const TaskRow& row,
                                         uint64_t n) const {
    std::vector<const EvalSample*> found;
    if (!earlier_) return found;
    for (const EvalSample& sample : earlier_->samples) {
      if (sample.case_label == label && sample.task == row.task && sample.length == row.length &&
          sample.mode == Name(row.mode)) {
        found.push_back(&sample);
      }
    }
    if (found.size() != n) found.clear();
    return found;
  }
  // The canonical policy that it had.
  std::string PolicyOf(const EvalResult& result) const { return earlier_->CaseOf(result).policy; }

 private:
  std::optional<EvalReport> earlier_;
};

// Runs suites one after another; all cases of one read its text together.
class Evaluation {
 public:
  Evaluation(const Arguments& args, OpenedModel& opened, const std::vector<Suite>& suites)
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
    for (const Suite& suite : suites) {
      rows = std::max(rows, suite.text ? suite.text->protocol.block : common_.step_tokens);
      CheckPolicies(suite.text ? suite.text->protocol.block : 0);
    }
    report_ = HeadOf(args, opened, kernels_, workers_, cases_);
    if (values.Given("resume")) resume_path_ = values.Text("resume");
    earlier_ = std::make_unique<EarlierResults>(resume_path_, report_);
    max_rows_ = rows;
  }

  EvalReport Run(const std::vector<Suite>& suites) {
    for (const Suite& suite : suites) {
      if (suite.text) {
        RunText(*suite.text);
        Save();
      } else {
        RunTasks(suite);
      }
    }
    return report_;
  }

 private:
  void Save() {
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start_;
    report_.seconds = seconds.count();
    if (!resume_path_.empty()) WriteFileWhole(resume_path_, DumpJson(ReportJson(report_)) + '\n');
  }

  // What contradicts itself is refused before weights are read. `block`: 0 leaves policies alone.
  void CheckPolicies(uint32_t block) const {
    const ModelConfig& config = opened_.file().config();
    for (const EvalCase& c : cases_) {
      const EngineOptions options = OptionsFor(c, common_, block);
      try {
        MakePolicy(options.policy,
                   {.memory_bytes = options.kv_memory_explicit ? options.kv_memory : 0,
                    .shape = LanesOf(config, c.encoding),
                    .facts = FactsOf(config)});
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

  void NeedModel() {
    if (model_) return;
    model_ = LoadModel(args_, opened_, kernels_, workers_, max_rows_);
    common_.kv_memory = DefaultKvMemory();
  }

  // Prompts in the model's template, or raw.
  TaskPrompts PromptsFor(const PromptBuilder& prompts, TaskMode mode) {
    const Tokenizer& tokenizer = opened_.NeedTokenizer();
    return [&prompts, &tokenizer, mode](const Sample& sample, const Question& question) {
      const std::string& context = sample.context;
      TaskTokens tokens;
      if (mode == TaskMode::kGold) tokens.forced = tokenizer.Encode(GoldBegin(sample), false);
      if (mode == TaskMode::kTrace || mode == TaskMode::kGold || context.empty()) {
        const std::string text = context + question.text;
        tokens.question =
            (prompts.has_template() ? prompts.Chat({{"user", text}}) : prompts.Plain(text)).tokens;
      } else {
        CutPrompt cut =
            prompts.has_template()
                ? prompts.ChatCut({{"user", context + question.text}}, 0, context.size())
                : prompts.PlainCut(context, question.text);
        tokens.context = std::move(cut.head.tokens);
        tokens.question = std::move(cut.tail);
      }
      const std::vector<TokenId> prefix = tokenizer.Encode(question.answer_prefix, false);
      tokens.question.insert(tokens.question.end(), prefix.begin(), prefix.end());
      return tokens;
    };
  }

  // Tokens of the template around a question.
  uint64_t TemplateTokens(const PromptBuilder& prompts) const {
    return prompts.has_template() ? prompts.Chat({{"user", "x"}}).tokens.size() : 1;
  }

  void RunTasks(const Suite& suite) {
    const SuiteSpec& spec = *suite.tasks;
    const PromptBuilder prompts =
        opened_.Prompts(args_, !args_.values().On("raw") && opened_.HasTemplate(args_));
    std::vector<TaskMode> modes;
    for (const std::string& mode : args_.List("mode")) modes.push_back(ParseTaskMode(mode));
    if (!spec.path.empty()) {
      const std::vector<Sample> samples = ReadSamples(spec.path);
      if (modes.empty()) modes.push_back(TaskMode::kAgnostic);
      for (const TaskMode mode : modes) RunSamples(suite, samples, mode, prompts);
      return;
    }
    const Tokenizer& tokenizer = opened_.NeedTokenizer();
    for (const SuiteSpec::Run& run : spec.runs) {
      const TaskSampler sampler(*run.task, {.params = spec.params,
                                            .length = run.length,
                                            .seed = report_.seed,
                                            .n_samples = spec.n,
                                            .overhead = TemplateTokens(prompts),
                                            .count_tokens = [&tokenizer](std::string_view text) {
                                              return tokenizer.Encode(text, false).size();
                                            }});
      std::vector<Sample> samples;
      for (uint64_t i = 0; i < spec.n; ++i) samples.push_back(sampler.Make(i));
      if (args_.Given("dump")) {
        const std::string folder = args_.values().Text("dump");
        std::filesystem::create_directories(folder);
        const std::string stem = fmt::format("{}/{}-{}", folder, run.task->name, run.length);
        WriteSamples(samples, stem + ".jsonl");
        if (!run.task->trace()) WriteTokens(samples, prompts, stem + ".ids.jsonl");
      }
      report_.generators[std::string(run.task->name)] = run.task->version;
      std::vector<TaskMode> own = modes;
      if (own.empty()) own.push_back(run.task->trace() ? TaskMode::kTrace : TaskMode::kAgnostic);
      for (const TaskMode mode : own) RunSamples(suite, samples, mode, prompts);
    }
  }

  // The samples as the ids that are read here, so that other programs can be asked the same.
  void WriteTokens(const std::vector<Sample>& samples, const PromptBuilder& prompts,
                   const std::string& path) {
    const TaskPrompts tokens_of = PromptsFor(prompts, TaskMode::kAgnostic);
    std::string lines;
    for (const Sample& sample : samples) {
      nlohmann::ordered_json questions = nlohmann::ordered_json::array();
      std::vector<int32_t> context;
      for (const Question& question : sample.questions) {
        TaskTokens tokens = tokens_of(sample, question);
        context = std::move(tokens.context);
        questions.push_back({{"ids", tokens.question}, {"refs", question.refs}});
      }
      const nlohmann::ordered_json line = {
          {"context_ids", context}, {"questions", questions}, {"max_new", sample.max_new}};
      lines += DumpJson(line) + '\n';
    }
    WriteFileWhole(path, lines);
  }

  // One row for each case; those of an earlier run are taken over.
  void RunSamples(const Suite& suite, const std::vector<Sample>& samples, TaskMode mode,
                  const PromptBuilder& prompts) {
    const TaskRow row = {.suite = suite.tasks->name,
                         .task = samples[0].task,
                         .spec = suite.typed,
                         .mode = mode,
                         .length = samples[0].length,
                         .runs = static_cast<uint32_t>(suite.tasks->samples),
                         .samples_sha256 = SamplesDigest(samples)};
    std::map<std::string, EvalResult> results;  // by case
    std::vector<const EvalCase*> missing;
    std::vector<double> dense_scores, dense_generated;
    for (size_t i = 0; i < cases_.size(); ++i) {
      const EvalResult* const result = earlier_->Find(cases_[i], row.spec, row.samples_sha256);
      const auto before = earlier_->Samples(cases_[i].label, row, samples.size());
      if (result && result->mode == Name(mode) && !before.empty()) {
        results[cases_[i].label] = *result;
        report_.cases[i].policy = earlier_->PolicyOf(*result);
        for (const EvalSample* sample : before) {
          report_.samples.push_back(*sample);
          if (i > 0) continue;
          dense_scores.push_back(sample->score);
          dense_generated.push_back(static_cast<double>(sample->tokens));
        }
      } else {
        missing.push_back(&cases_[i]);
      }
    }
    if (!missing.empty()) {
      NeedModel();
      const TaskSetup setup = {.model = *model_,
                               .tokenizer = opened_.NeedTokenizer(),
                               .kernels = kernels_,
                               .workers = workers_,
                               .prompts = PromptsFor(prompts, mode),
                               .common = common_,
                               .jobs = static_cast<uint32_t>(args_.values().Count("jobs")),
                               .runs = row.runs,
                               .seed = report_.seed};
      std::vector<TaskRun> runs;
      {
        ProgressBar bar(fmt::format("{} {} {}", row.task, row.length, Name(mode)));
        runs =
            RunTask(setup, missing, samples, mode, [&](double fraction) { bar.Update(fraction); });
      }
      for (size_t i = 0; i < missing.size(); ++i) {
        AddRun(row, *missing[i], runs[i], samples, &dense_scores, &dense_generated, &results);
      }
    }
    const double dense_end = static_cast<double>(results.at(cases_[0].label).memory.kv_end_bytes);
    for (const EvalCase& c : cases_) {
      EvalResult& result = results.at(c.label);
      if (result.memory.kv_end_bytes > 0) {
        result.memory.bytes_ratio = dense_end / static_cast<double>(result.memory.kv_end_bytes);
      }
      report_.results.push_back(result);
    }
    Save();
  }

  // The dense case comes first: others are compared with it.
  void AddRun(const TaskRow& row, const EvalCase& c, const TaskRun& run,
              const std::vector<Sample>& samples, std::vector<double>* dense_scores,
              std::vector<double>* dense_generated, std::map<std::string, EvalResult>* results) {
    for (size_t s = 0; s < samples.size(); ++s) {
      const TaskAnswer& answer = run.answers[s];
      if (c.reference) {
        dense_scores->push_back(answer.score);
        dense_generated->push_back(answer.generated);
      }
      report_.samples.push_back({.case_label = c.label,
                                 .task = row.task,
                                 .mode = std::string(Name(row.mode)),
                                 .length = row.length,
                                 .index = samples[s].index,
                                 .score = answer.score,
                                 .output = answer.output,
                                 .tokens = static_cast<uint64_t>(std::llround(answer.generated))});
    }
    EvalCase canonical = c;
    const LaneShape shape = LanesOf(opened_.file().config(), c.encoding);
    if (const auto policy = MakePolicy(c.policy, {.memory_bytes = c.kv_memory.value_or(0),
                                                  .shape = shape,
                                                  .facts = FactsOf(opened_.file().config())})) {
      canonical.policy = policy->Spec();
    }
    report_.cases[static_cast<size_t>(&c - cases_.data())].policy = canonical.policy;
    (*results)[c.label] =
        TaskResult(row, canonical, cases_[0], run, *dense_scores, *dense_generated, shape);
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
    NeedModel();
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
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::unique_ptr<Model> model_;  // none until something has to be measured
  std::vector<std::unique_ptr<Engine>> engines_;
};

}  // namespace

int EvalVerb(const Arguments& args) {
  Output output(args);
  const std::vector<Suite> suites = SuitesFrom(args);
  std::vector<EvalCheck> checks;
  if (args.Given("check")) {
    const std::string path = args.values().Text("check");
    checks = ParseChecks(ReadTextFile(path, "--check"), path, EvalCases(args));
  }
  OpenedModel opened(args);
  const EvalReport report = Evaluation(args, opened, suites).Run(suites);
  if (output.json()) {
    output.Json(ReportJson(report));
  } else {
    output.Text(ReportTables(report));
  }
  if (args.Given("plot")) WriteFileWhole(args.values().Text("plot"), PlotSvg(report));
  const std::vector<std::string> failed = FailedChecks(checks, report);
  for (const std::string& line : failed) Note(line);
  if (!failed.empty()) return kCheckExit;
  const bool inactive = std::any_of(report.results.begin(), report.results.end(),
                                    [](const EvalResult& result) { return result.inactive; });
  return inactive && args.values().On("strict") ? kStrictExit : 0;
}

}  // namespace kvasir
