// Samples of generated tasks answered under several cases.
//
// Modes
//   agnostic  The context alone is read under the case's policy, then every question goes on from
//   that
//             state by itself. The policy acts on the context; what a question and its answer
//             append stays.
//   aware     Context and question are one prompt, for each question anew; the policy goes on while
//   the
//             answer is written.
//   gold      A problem whose reference solution is read as if it had been generated; only the
//   final
//             answer is asked for.
//   trace     A problem without a context; the policy acts while the answer is written.
//
// Policies that act at a prompt's end alone share one dense pass over each context (Panel,
// Compress) in `agnostic`; the others read it for themselves. Samples run `jobs` at a time, which
// changes no answer.
//
// Bytes of a case are those its lanes would have alone: peaks are what it held before it dropped.
// Times    The answers of a case are made by themselves: `seconds` are its own.
// Threads  Everything runs on the caller's and its workers; the engines share one model.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/workers.h"
#include "engine/engine.h"
#include "eval/case.h"
#include "eval/report.h"
#include "eval/sample.h"

namespace kvasir {

enum class TaskMode : uint8_t { kAgnostic, kAware, kTrace, kGold };
std::string_view Name(TaskMode mode);
// Errors: kUsage.
TaskMode ParseTaskMode(std::string_view text);

// Tokens of a context, and of a question with all that stands between it and the answer.
struct TaskTokens {
  std::vector<int32_t> context, question;
  std::vector<int32_t> forced;  // of a reference solution, up to its answer
};
using TaskPrompts = std::function<TaskTokens(const Sample& sample, const Question& question)>;

// A sample's reference solution up to where its answer begins. Errors: kInvalid when there is none.
std::string GoldBegin(const Sample& sample);

struct TaskSetup {
  Model& model;
  const Tokenizer& tokenizer;
  const Kernels& kernels;
  Workers& workers;
  TaskPrompts prompts;
  EngineOptions common;  // without a policy
  uint32_t jobs = 8;     // samples at a time
  uint32_t runs = 1;     // answers sampled to each question; above 1 at temperature 0.6, top-p 0.95
  uint64_t seed = 1;
};

// One case on one sample, means over its questions and runs.
struct TaskAnswer {
  double score = 0;
  std::string output;                    // of the first question
  double generated = 0;                  // tokens
  double seconds = 0;                    // of one answer
  bool capped = false;                   // some answer came to no final line before the limit
  uint64_t logical = 0;                  // entries that a dense cache would hold at the end
  uint64_t entries = 0, live_bytes = 0;  // that there are
  uint64_t peak_bytes = 0, end_bytes = 0;
  uint32_t peak_entries = 0;
  double byte_seconds = 0;
  // Sums over the passes in which it answered.
  double pass_bytes = 0, pass_logical = 0, pass_live = 0;
  uint32_t passes = 0;
  uint64_t read_bytes = 0;  // of the last step, where a policy chose what is read
  std::optional<uint32_t> first_drop;
};

struct TaskRun {
  std::vector<TaskAnswer> answers;  // by sample
  double seconds = 0;               // in which this case answered, questions read included
  double tokens = 0;                // that it generated then
};

// In the order of `cases`. Errors: kBudget when samples do not fit, with the case's label.
std::vector<TaskRun> RunTask(const TaskSetup& setup, std::span<const EvalCase* const> cases,
                             std::span<const Sample> samples, TaskMode mode,
                             const std::function<void(double fraction)>& on_progress = {});

// What a row says of a task.
struct TaskRow {
  std::string suite, task, spec;
  TaskMode mode = TaskMode::kAgnostic;
  uint64_t length = 0;
  uint32_t runs = 1;
  std::string samples_sha256;
};
// The row of a case; `dense_scores` and `dense_generated` by sample.
EvalResult TaskResult(const TaskRow& row, const EvalCase& c, const EvalCase& dense,
                      const TaskRun& run, std::span<const double> dense_scores,
                      std::span<const double> dense_generated, const LaneShape& shape);

}  // namespace kvasir
