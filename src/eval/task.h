// Generated tasks: a question whose answer is known, made from a seed.
//
// A task makes a draft of so many units (sentences, lines, words); TaskSampler finds the number of
// units that fills a length and checks each draft. All wording is ours: tasks of the suite "ruler"
// follow the rules of NVIDIA/RULER (arXiv 2404.06654), not its text, and their scores are
// RULER-like.
//
// Invariant  A sample depends on task, parameters, length, overhead, index, seed and on how many
//            tokens the counter finds; not on other samples, threads or the machine.
// Cost       A sampler counts some ten texts of its length once; a sample one or two.
// Threads    Make is const; the counter must bear calls from all threads that make samples.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/generator.h"
#include "eval/sample.h"
#include "eval/words.h"

namespace kvasir {

// Of all tasks together; which of them a suite takes stands in suite.cc.
struct TaskParams {
  uint64_t questions = 1;         // asked one by one, of one context
  uint64_t chains = 1, hops = 4;  // vt
  uint64_t facts = 8;             // facts
  uint64_t steps = 24;            // of traces
  uint64_t registers = 4;         // regs
  uint64_t max_new = 0;           // of traces: 0 gives twice the reference solution and 64
  std::shared_ptr<const Prose> prose = std::make_shared<Prose>();
};

struct DraftRequest {
  const TaskParams& params;
  uint64_t length = 0;  // tokens; of traces: steps
  uint64_t units = 0;
  uint64_t index = 0, n_samples = 1;  // for tasks that sweep a place over all samples
};

// A sample whose tokens were not counted yet.
struct Draft {
  struct Mark {
    std::string text;
    size_t begin = 0;  // byte of the context
  };
  std::string context;
  size_t body_begin = 0, body_end = 0;  // the haystack in the context
  std::vector<Question> questions;
  std::vector<Mark> needles;
  uint64_t distractors = 0;
  std::string gold;
};

struct Task {
  std::string_view suite, name;
  uint32_t version = 1;  // raised by every change of wording or rules
  Metric metric = Metric::kAll;
  uint64_t max_new = 0;  // 0: a trace, which has no length in tokens
  uint64_t min_units = 1, max_units = UINT32_MAX;
  // Units to take away when a sample does not fit: a 64th of them, at most this.
  uint64_t max_step = 1;
  uint64_t occurrences = 0;  // of each reference in the context; 0: other rules, not checked
  // Errors: kInvalid for parameters that cannot go together.
  Draft (*make)(const DraftRequest& request, Generator& generator) = nullptr;

  bool trace() const { return max_new == 0; }
};

std::span<const Task> AllTasks();
const Task* FindTask(std::string_view name);  // null when there is none

using CountTokens = std::function<size_t(std::string_view)>;

class TaskSampler {
 public:
  struct Options {
    TaskParams params;
    uint64_t length = 0;  // tokens of the whole; traces take params.steps instead
    uint64_t seed = 0;
    uint64_t n_samples = 1;  // samples 0 ... n_samples - 1 will be made
    uint64_t overhead = 0;   // tokens of the chat template around a question
    CountTokens count_tokens;
  };
  // Errors: kInvalid when the length is too short for the task, naming what it takes.
  TaskSampler(const Task& task, Options options);

  Sample Make(uint64_t index) const;
  uint64_t units() const { return units_; }  // that a sample starts from

 private:
  Draft MakeDraft(uint64_t index, uint64_t units) const;
  // Tokens of everything, those to be generated included. `before`: of the context in front of each
  // needle.
  uint64_t Measure(const Draft& draft, std::vector<uint64_t>* before = nullptr) const;
  uint64_t MaxNew(const Draft& draft) const;
  uint64_t FindUnits() const;
  Sample Finish(Draft draft, std::vector<uint64_t> before, uint64_t index) const;

  const Task& task_;
  Options options_;
  uint64_t units_ = 0;
};

// For one sample. Making several of a kind, keep the sampler: finding the size is the larger part.
inline Sample MakeSample(const Task& task, TaskSampler::Options options, uint64_t index) {
  return TaskSampler(task, std::move(options)).Make(index);
}

}  // namespace kvasir
