#include "eval/task.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "eval/tasks/tasks.h"

namespace kvasir {

namespace {

// The sample that a length's size is found with; no other has this index.
constexpr uint64_t kProbe = UINT64_MAX;
constexpr int kMostAttempts = 20;

// Occurrences, none counted beyond `enough`.
uint64_t Occurrences(std::string_view text, std::string_view word, uint64_t enough) {
  uint64_t n = 0;
  for (size_t at = text.find(word); at != std::string_view::npos && n < enough;
       at = text.find(word, at + word.size())) {
    ++n;
  }
  return n;
}

bool AnswersOccur(const Draft& draft, uint64_t times) {
  if (times == 0) return true;
  for (const Question& question : draft.questions) {
    for (const std::string& ref : question.refs) {
      if (Occurrences(draft.context, ref, times + 1) != times) return false;
    }
  }
  return true;
}

}  // namespace

std::span<const Task> AllTasks() {
  static const std::vector<Task> tasks = [] {
    std::vector<Task> all;
    for (const auto group : {NeedleTasks(), ListTasks(), RecordTasks(), TraceTasks()}) {
      all.insert(all.end(), group.begin(), group.end());
    }
    return all;
  }();
  return tasks;
}

const Task* FindTask(std::string_view name) {
  const std::span<const Task> tasks = AllTasks();
  const auto found =
      std::find_if(tasks.begin(), tasks.end(), [&](const Task& task) { return task.name == name; });
  return found == tasks.end() ? nullptr : &*found;
}

TaskSampler::TaskSampler(const Task& task, Options options)
    : task_(task), options_(std::move(options)) {
  CHECK(options_.count_tokens && options_.n_samples > 0 && options_.params.prose);
  if (task_.trace()) options_.length = options_.params.steps;
  units_ = task_.trace() ? options_.params.steps : FindUnits();
}

Draft TaskSampler::MakeDraft(uint64_t index, uint64_t units) const {
  Generator generator(
      SampleSeed(task_.suite, task_.name, task_.version, options_.length, index, options_.seed));
  const uint64_t place = index == kProbe ? 0 : index;
  for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
    Draft draft =
        task_.make({options_.params, options_.length, units, place, options_.n_samples}, generator);
    if (AnswersOccur(draft, task_.occurrences)) return draft;
  }
  Fail(Code::kInvalid, "{}: sample {}: the background text holds the answer in {} draws",
       task_.name, index, kMostAttempts);
}

uint64_t TaskSampler::Measure(const Draft& draft, std::vector<uint64_t>* before) const {
  const CountTokens& count = options_.count_tokens;
  const std::string_view context = draft.context;
  uint64_t tokens = 0;
  size_t done = 0;
  // Counted piece by piece, so that the needles' places cost no second count.
  for (const Draft::Mark& needle : draft.needles) {
    // A space belongs to the word behind it.
    const size_t cut =
        needle.begin > 0 && context[needle.begin - 1] == ' ' ? needle.begin - 1 : needle.begin;
    CHECK(cut >= done);
    tokens += count(context.substr(done, cut - done));
    done = cut;
    if (before != nullptr) before->push_back(tokens);
  }
  tokens += count(context.substr(done));
  for (const Question& question : draft.questions) {
    tokens += count(question.text) + count(question.answer_prefix) + MaxNew(draft);
  }
  return tokens + options_.overhead;
}

uint64_t TaskSampler::MaxNew(const Draft& draft) const {
  if (!task_.trace()) return task_.max_new;
  if (options_.params.max_new > 0) return options_.params.max_new;
  return options_.count_tokens(draft.gold) * 2 + 64;
}

// The largest number of units with which the probe fits, by interpolation between a number that
// fits and one that does not. It ends a little below once that costs less than taking away a step.
uint64_t TaskSampler::FindUnits() const {
  const auto tokens_of = [&](uint64_t units) { return Measure(MakeDraft(kProbe, units)); };
  uint64_t fits = task_.min_units, too_many = task_.max_units + 1;
  uint64_t fits_tokens = tokens_of(fits);
  if (fits_tokens > options_.length) {
    Fail(Code::kInvalid, "{}: a length of {} tokens is too short; the smallest sample has {}",
         task_.name, options_.length, fits_tokens);
  }
  uint64_t guess = std::min(fits * 2 + 16, task_.max_units);
  double per_unit = 0;
  while (fits + 1 < too_many) {
    guess = std::clamp(guess, fits + 1, too_many - 1);
    const uint64_t tokens = tokens_of(guess);
    const double slope = (static_cast<double>(tokens) - static_cast<double>(fits_tokens)) /
                         (static_cast<double>(guess) - static_cast<double>(fits));
    per_unit = std::max(slope, 0.05);  // a context of equal tokens for more units cannot be
    if (tokens <= options_.length) {
      fits = guess;
      fits_tokens = tokens;
    } else {
      too_many = guess;
    }
    const double room = static_cast<double>(options_.length - fits_tokens) / per_unit;
    const double good = static_cast<double>(fits) / 256;
    if (room <= good) break;
    // At most half of an open interval, so that a bad slope cannot make the walk long.
    const uint64_t ahead = static_cast<uint64_t>(std::min(room, 1e9));
    guess = fits + ahead;
    if (guess >= too_many) guess = fits + (too_many - fits) / 2;
  }
  return fits;
}

Sample TaskSampler::Make(uint64_t index) const {
  CHECK(index < options_.n_samples);
  for (uint64_t units = units_;;) {
    Draft draft = MakeDraft(index, units);
    std::vector<uint64_t> before;
    const uint64_t tokens = Measure(draft, &before);
    if (task_.trace() || tokens <= options_.length) {
      return Finish(std::move(draft), std::move(before), index);
    }
    if (units <= task_.min_units) {
      Fail(Code::kInvalid, "{}: sample {} has {} tokens at the least, beyond a length of {}",
           task_.name, index, tokens, options_.length);
    }
    const uint64_t step = std::clamp<uint64_t>(units / 64, 1, task_.max_step);
    units = std::max(task_.min_units, units - step);
  }
}

Sample TaskSampler::Finish(Draft draft, std::vector<uint64_t> before, uint64_t index) const {
  Sample sample;
  sample.suite = task_.suite;
  sample.task = task_.name;
  sample.version = task_.version;
  sample.seed = options_.seed;
  sample.length = options_.length;
  sample.index = index;
  sample.metric = task_.metric;
  sample.max_new = MaxNew(draft);
  const uint64_t body = std::max<uint64_t>(draft.body_end - draft.body_begin, 1);
  for (size_t i = 0; i < draft.needles.size(); ++i) {
    Draft::Mark& needle = draft.needles[i];
    // In whole tenths, so that it is the same number everywhere.
    const uint64_t tenths = (needle.begin - draft.body_begin) * 1000 / body;
    sample.needles.push_back({std::move(needle.text), before[i], static_cast<double>(tenths) / 10});
  }
  sample.context = std::move(draft.context);
  sample.questions = std::move(draft.questions);
  sample.distractors = draft.distractors;
  sample.gold = std::move(draft.gold);
  return sample;
}

}  // namespace kvasir
