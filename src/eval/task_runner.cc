#include "eval/task_runner.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

#include "base/error.h"
#include "eval/scoring.h"
#include "format/quote.h"
#include "policy/panel.h"

namespace kvasir {

namespace {

using Clock = std::chrono::steady_clock;
double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr std::pair<TaskMode, std::string_view> kModes[] = {{TaskMode::kAgnostic, "agnostic"},
                                                            {TaskMode::kAware, "aware"},
                                                            {TaskMode::kTrace, "trace"},
                                                            {TaskMode::kGold, "gold"}};

constexpr uint32_t kGoldTokens = 24;  // for a final answer

// A case while it runs.
struct Runner {
  const EvalCase* eval_case = nullptr;
  Engine* engine = nullptr;
  std::shared_ptr<const Policy> policy;  // none: whole
  TaskRun* run = nullptr;
};

// A sample's context as a case keeps it.
struct Held {
  std::unique_ptr<SequenceState> state;
  uint64_t peak_bytes = 0;
  uint32_t peak_entries = 0;
  std::optional<uint32_t> first_drop;
};

class TaskRunner {
 public:
  TaskRunner(const TaskSetup& setup, std::span<const EvalCase* const> cases,
             std::span<const Sample> samples, TaskMode mode)
      : setup_(setup), samples_(samples), mode_(mode), runs_(cases.size()) {
    for (size_t i = 0; i < cases.size(); ++i) {
      runs_[i].answers.resize(samples.size());
      Runner runner = {.eval_case = cases[i], .run = &runs_[i]};
      runner.engine = &EngineFor(*cases[i]);
      runner.policy = PolicyFor(*cases[i]);
      runners_.push_back(std::move(runner));
    }
  }

  std::vector<TaskRun> Run(const std::function<void(double)>& on_progress) {
    for (size_t begin = 0; begin < samples_.size(); begin += setup_.jobs) {
      const size_t end = std::min(samples_.size(), begin + setup_.jobs);
      Tokenize(begin, end);
      if (mode_ == TaskMode::kAgnostic) {
        RunAgnostic(begin);
      } else {
        for (Runner& runner : runners_) RunActive(runner, begin);
      }
      if (on_progress) {
        on_progress(static_cast<double>(end) / static_cast<double>(samples_.size()));
      }
    }
    return std::move(runs_);
  }

 private:
  Engine& EngineFor(const EvalCase& c) {
    std::unique_ptr<Engine>& engine = engines_[c.codec];
    if (!engine) {
      EngineOptions options = setup_.common;
      options.policy = "none";
      options.encoding = c.encoding;
      options.max_sequences = 4096;
      engine = std::make_unique<Engine>(setup_.model, &setup_.tokenizer, setup_.kernels,
                                        setup_.workers, options);
    }
    return *engine;
  }
  std::shared_ptr<const Policy> PolicyFor(const EvalCase& c) const {
    return MakePolicy(c.policy, {.memory_bytes = c.kv_memory.value_or(0),
                                 .shape = setup_.model.MainLanes(c.encoding),
                                 .facts = FactsOf(setup_.model.config(), &setup_.model)});
  }

  void Tokenize(size_t begin, size_t end) {
    tokens_.clear();
    for (size_t i = begin; i < end; ++i) {
      std::vector<TaskTokens> of_sample;
      for (const Question& question : samples_[i].questions) {
        of_sample.push_back(setup_.prompts(samples_[i], question));
        if (mode_ == TaskMode::kAgnostic && of_sample.back().context != of_sample[0].context) {
          Fail(Code::kUnsupported,
               "chat template: the question changes what it writes before the context; use --raw");
        }
      }
      tokens_.push_back(std::move(of_sample));
    }
  }

  [[noreturn]] static void Rethrow(const Runner& runner, const Error& error) {
    throw Error(error.code(), fmt::format("case {}: {}", runner.eval_case->label, error.what()));
  }

  // Runs requests to their ends, in order.
  std::vector<Generation> Complete(Engine& engine, std::vector<Request> requests) const {
    std::vector<Generation> results(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      requests[i].on_done = [&results, i](Generation g) { results[i] = std::move(g); };
      engine.Submit(std::move(requests[i]));
    }
    engine.RunUntilIdle();
    for (const Generation& result : results) {
      if (result.error) throw *result.error;
    }
    return results;
  }

  std::vector<Held> ReadContexts(Engine& engine,
                                 const std::shared_ptr<const Policy>& policy) const {
    std::vector<Request> requests;
    for (const std::vector<TaskTokens>& tokens : tokens_) {
      Request request;
      request.tokens = tokens[0].context;
      request.max_tokens = 0;
      request.sampling.seed = setup_.seed;
      request.keep_state = true;
      request.track = true;
      request.policy = policy;
      requests.push_back(std::move(request));
    }
    std::vector<Held> held;
    for (Generation& g : Complete(engine, std::move(requests))) {
      held.push_back(
          {std::move(g.state), g.track.peak_bytes, g.track.peak_entries, g.track.first_drop});
    }
    return held;
  }

  void RunAgnostic(size_t begin) {
    for (auto& [encoding, engine] : engines_) {
      std::vector<Runner*> whole, members, alone;
      uint32_t longest = 0;
      for (const std::vector<TaskTokens>& tokens : tokens_) {
        longest = std::max(longest, static_cast<uint32_t>(tokens[0].context.size()));
      }
      // Who chooses at a prompt's end does it before pages are sealed: not of a state that is
      // whole.
      const bool seals_at_end = engine->options().encoding.seals.at_prompt_end;
      for (Runner& runner : runners_) {
        if (runner.engine != engine.get()) continue;
        if (!runner.policy) {
          whole.push_back(&runner);
        } else if (runner.policy->AtPromptEndOnly(longest) && !seals_at_end) {
          members.push_back(&runner);
        } else {
          alone.push_back(&runner);
        }
      }
      if (!whole.empty() || !members.empty()) RunShared(*engine, whole, members, begin);
      for (Runner* runner : alone) {
        try {
          std::vector<Held> held = ReadContexts(*engine, runner->policy);
          Ask(*runner, held, begin);
        } catch (const Error& error) {
          Rethrow(*runner, error);
        }
      }
    }
  }

  void RunShared(Engine& engine, const std::vector<Runner*>& whole,
                 const std::vector<Runner*>& members, size_t begin) {
    std::vector<std::shared_ptr<const Policy>> policies;
    for (const Runner* runner : members) policies.push_back(runner->policy);
    std::vector<Held> held =
        ReadContexts(engine, policies.empty() ? nullptr : std::make_shared<Panel>(policies));
    std::vector<std::unique_ptr<PolicyState>> watchers;
    for (Held& h : held) {
      watchers.push_back(std::move(h.state->policy));
      engine.Freeze(*h.state);
    }
    for (Runner* runner : whole) {
      try {
        // Without what the others recorded.
        for (Held& h : held) {
          if (!members.empty()) h.peak_bytes = engine.Bytes(*h.state) - engine.SideBytes(*h.state);
        }
        Ask(*runner, held, begin);
      } catch (const Error& error) {
        Rethrow(*runner, error);
      }
    }
    for (size_t m = 0; m < members.size(); ++m) {
      Runner& runner = *members[m];
      try {
        std::vector<Held> own(held.size());
        for (size_t i = 0; i < held.size(); ++i) {
          const auto n = static_cast<uint32_t>(held[i].state->tokens.size());
          own[i].state = engine.Compress(*held[i].state, *runner.policy,
                                         static_cast<PanelState&>(*watchers[i]).member(m));
          own[i].peak_bytes = engine.Bytes(*held[i].state) - engine.SideBytes(*held[i].state) +
                              runner.policy->EvidenceBytes(runner.policy->MaxGrowth(n, n, 0));
          own[i].peak_entries = n;
          if (own[i].state->lanes->dropped() > 0) own[i].first_drop = n;
        }
        Ask(runner, own, begin);
      } catch (const Error& error) {
        Rethrow(runner, error);
      }
    }
  }

  Request Pattern(const Sample& sample, size_t question, uint32_t run) const {
    Request request;
    request.max_tokens = static_cast<uint32_t>(sample.max_new);
    request.track = true;
    request.sampling.seed = setup_.seed * 1000003 + sample.index * 1009 + question * 31 + run;
    request.sampling.temperature = 0;
    if (setup_.runs > 1) {
      request.sampling.temperature = 0.6f;
      request.sampling.top_p = 0.95f;
    }
    return request;
  }

  // All questions of the samples at hand, each as often as answers are sampled, under one case.
  // `complete(request, i, q)` adds what is read to a request for question q of sample begin + i.
  template <typename F>
  void Answer(Runner& runner, size_t begin, const F& complete) {
    std::vector<Request> requests;
    for (size_t i = 0; i < tokens_.size(); ++i) {
      for (size_t q = 0; q < tokens_[i].size(); ++q) {
        for (uint32_t r = 0; r < setup_.runs; ++r) {
          requests.push_back(Pattern(samples_[begin + i], q, r));
          complete(requests.back(), i, q);
        }
      }
    }
    const Clock::time_point start = Clock::now();
    const std::vector<Generation> results = Complete(*runner.engine, std::move(requests));
    runner.run->seconds += Since(start);
    for (const Generation& g : results) runner.run->tokens += static_cast<double>(g.tokens.size());
    size_t next = 0;
    for (size_t i = 0; i < tokens_.size(); ++i) {
      const size_t n = tokens_[i].size() * setup_.runs;
      AddAnswers(samples_[begin + i], std::span(results).subspan(next, n),
                 &runner.run->answers[begin + i]);
      next += n;
    }
  }

  // Every question from the state its context left.
  void Ask(Runner& runner, std::vector<Held>& held, size_t begin) {
    for (size_t i = 0; i < held.size(); ++i) {
      // What chooses entries is done; what chooses reads does so as long as tokens are generated.
      const Policy* const policy = runner.policy.get();
      if (!policy || !policy->traits().hides) held[i].state->policy = nullptr;
      if (!held[i].state->lanes->frozen()) runner.engine->Freeze(*held[i].state);
      TaskAnswer& answer = runner.run->answers[begin + i];
      answer.peak_bytes = held[i].peak_bytes;
      answer.peak_entries = held[i].peak_entries;
      answer.first_drop = held[i].first_drop;
    }
    Answer(runner, begin, [&](Request& request, size_t i, size_t q) {
      request.tokens = tokens_[i][q].question;
      request.fork_of = held[i].state.get();
    });
  }

  // Prompts read and answered under the policy, which acts throughout.
  void RunActive(Runner& runner, size_t begin) {
    try {
      Answer(runner, begin, [&](Request& request, size_t i, size_t q) {
        request.tokens = Joined(tokens_[i][q]);
        request.forced = tokens_[i][q].forced;
        if (mode_ == TaskMode::kGold) request.max_tokens = kGoldTokens;
        request.policy = runner.policy;
      });
    } catch (const Error& error) {
      Rethrow(runner, error);
    }
  }

  static std::vector<int32_t> Joined(const TaskTokens& tokens) {
    std::vector<int32_t> joined = tokens.context;
    joined.insert(joined.end(), tokens.question.begin(), tokens.question.end());
    return joined;
  }

  void AddAnswers(const Sample& sample, std::span<const Generation> results,
                  TaskAnswer* answer) const {
    CHECK(results.size() == sample.questions.size() * setup_.runs);
    const double share = 1.0 / static_cast<double>(results.size());
    for (size_t k = 0; k < results.size(); ++k) {
      const Generation& g = results[k];
      const Question& question = sample.questions[k / setup_.runs];
      // What opens the answer belongs to it.
      std::string text = question.answer_prefix + g.text;
      if (mode_ == TaskMode::kGold) text = GoldBegin(sample) + g.text;
      answer->score += share * Score(sample.metric, question.refs, text);
      if (k == 0) answer->output = g.text;
      answer->generated += share * static_cast<double>(g.tokens.size());
      answer->seconds += share * g.timings.predicted_ms / 1000;
      answer->capped |= g.stop_reason == StopReason::kLength &&
                        (sample.metric != Metric::kAnswer || !FindAnswer(text));
      if (g.entries > answer->entries) {
        answer->entries = g.entries;
        answer->live_bytes = g.live_bytes;
        answer->logical = g.entries + g.entries_dropped;
      }
      answer->end_bytes = std::max(answer->end_bytes, g.bytes_end);
      answer->peak_bytes = std::max(answer->peak_bytes, g.track.peak_bytes);
      answer->peak_entries = std::max(answer->peak_entries, g.track.peak_entries);
      answer->byte_seconds += share * g.track.byte_seconds;
      answer->pass_bytes += g.track.bytes;
      answer->pass_logical += g.track.logical;
      answer->pass_live += g.track.live;
      answer->passes += g.track.passes;
      if (g.reads) answer->read_bytes = std::max(answer->read_bytes, g.reads->bytes);
      if (!answer->first_drop) answer->first_drop = g.track.first_drop;
    }
  }

  const TaskSetup& setup_;
  const std::span<const Sample> samples_;
  const TaskMode mode_;
  std::vector<TaskRun> runs_;
  std::map<std::string, std::unique_ptr<Engine>> engines_;  // by encoding
  std::vector<Runner> runners_;
  std::vector<std::vector<TaskTokens>> tokens_;  // of the samples at hand, by question
};

}  // namespace

std::string GoldBegin(const Sample& sample) {
  const std::optional<AnswerPlace> place = FindAnswer(sample.gold);
  if (!place) {
    Fail(Code::kInvalid, "--mode gold: {} {} has no reference solution with a final answer",
         sample.task, sample.index);
  }
  // A space before the answer belongs to its first token.
  std::string begin = sample.gold.substr(0, place->begin);
  while (!begin.empty() && begin.back() == ' ') begin.pop_back();
  return begin;
}

std::string_view Name(TaskMode mode) {
  for (const auto& [value, name] : kModes) {
    if (value == mode) return name;
  }
  return "";
}

TaskMode ParseTaskMode(std::string_view text) {
  for (const auto& [value, name] : kModes) {
    if (name == text) return value;
  }
  Fail(Code::kUsage, "--mode: unknown mode {}; known are agnostic, aware, trace, gold",
       Quoted(text));
}

std::vector<TaskRun> RunTask(const TaskSetup& setup, std::span<const EvalCase* const> cases,
                             std::span<const Sample> samples, TaskMode mode,
                             const std::function<void(double fraction)>& on_progress) {
  return TaskRunner(setup, cases, samples, mode).Run(on_progress);
}

EvalResult TaskResult(const TaskRow& row, const EvalCase& c, const EvalCase& dense,
                      const TaskRun& run, std::span<const double> dense_scores,
                      std::span<const double> dense_generated, const LaneShape& shape) {
  const std::vector<TaskAnswer>& answers = run.answers;
  CHECK(!answers.empty() && answers.size() == dense_scores.size());
  const auto n = static_cast<double>(answers.size());
  EvalResult result;
  result.case_label = c.label;
  result.suite = row.suite;
  result.task = row.task;
  result.mode = Name(row.mode);
  result.spec = row.spec;
  result.length = row.length;
  result.n = answers.size();
  result.runs = row.runs;
  result.samples_sha256 = row.samples_sha256;

  ScoreFigures score;
  std::vector<double> differences, lengths, ratios;
  double hits = 0, seconds = 0, tokens = 0, capped = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    hits += answers[i].score;
    tokens += answers[i].generated;
    seconds += answers[i].seconds;
    capped += answers[i].capped ? 1 : 0;
    lengths.push_back(answers[i].generated);
    differences.push_back(answers[i].score - dense_scores[i]);
    score.lost += differences.back() < 0 ? 1 : 0;
    score.gained += differences.back() > 0 ? 1 : 0;
    if (dense_generated[i] > 0) ratios.push_back(answers[i].generated / dense_generated[i]);
  }
  score.score = {hits / n, Wilson(hits, answers.size())};
  score.delta = PairedBootstrap(differences);
  score.mcnemar_p = McNemar(score.lost, score.gained);
  result.score = score;
  result.generated = tokens / n;
  if (run.seconds > 0) {
    result.tok_s = run.tokens / run.seconds;
  }

  MemoryFigures& memory = result.memory;
  double end = 0, logical = 0, live = 0, live_bytes = 0, read = 0, pass_bytes = 0, pass_logical = 0,
         pass_live = 0, passes = 0;
  for (const TaskAnswer& answer : answers) {
    memory.kv_peak_bytes = std::max(memory.kv_peak_bytes, answer.peak_bytes);
    memory.peak_entries = std::max(memory.peak_entries, answer.peak_entries);
    end += static_cast<double>(answer.end_bytes) / n;
    logical += static_cast<double>(answer.logical) / n;
    live += static_cast<double>(answer.entries) / n;
    live_bytes += static_cast<double>(answer.live_bytes) / n;
    read += static_cast<double>(answer.read_bytes) / n;
    pass_bytes += answer.pass_bytes;
    pass_logical += answer.pass_logical;
    pass_live += answer.pass_live;
    passes += answer.passes;
    if (answer.first_drop && (!result.first_drop || *answer.first_drop < *result.first_drop)) {
      result.first_drop = answer.first_drop;
    }
  }
  memory.kv_end_bytes = static_cast<uint64_t>(end);
  memory.kv_mean_bytes = passes > 0 ? pass_bytes / passes : end;
  memory.live_entries = static_cast<uint64_t>(live);
  memory.logical_entries = static_cast<uint64_t>(logical);
  memory.ratio_end = live > 0 ? logical / live : 1;
  memory.ratio_mean = pass_live > 0 ? pass_logical / pass_live : memory.ratio_end;
  memory.kv_live_bytes = static_cast<uint64_t>(live_bytes);
  memory.read_bytes_per_step = read > 0 ? static_cast<uint64_t>(read) : memory.kv_live_bytes;
  memory.bytes_per_token = logical > 0 ? end * static_cast<double>(shape.lanes()) / logical : 0;
  result.inactive = !c.reference && !result.first_drop && !c.Encodes(dense);
  result.nominal_ratio = NominalRatio(c.policy, row.length);

  if (row.mode == TaskMode::kTrace) {
    TraceFigures trace;
    trace.tokens_mean = tokens / n;
    std::sort(lengths.begin(), lengths.end());
    trace.tokens_p50 = Quantile(lengths, 0.5);
    trace.capped = capped / n;
    double ratio = 0;
    for (const double r : ratios) ratio += r / static_cast<double>(ratios.size());
    trace.len_ratio = ratios.empty() ? 1 : ratio;
    trace.seconds_mean = seconds / n;
    if (hits > 0) trace.s_per_correct = run.seconds / hits;
    trace.tok_s = result.tok_s.value_or(0);
    for (const TaskAnswer& answer : answers) trace.kv_byte_seconds += answer.byte_seconds;
    result.trace = trace;
  }
  return result;
}

}  // namespace kvasir
