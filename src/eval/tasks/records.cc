// Pairs of uuids in one JSON object (R.KV of InfiniteBench, arXiv 2402.13718): no prose, nothing
// said twice, every pair looks alike, so that neither position nor likelihood helps to keep the
// right one.
#include <utility>

#include "base/error.h"
#include "eval/tasks/tasks.h"

namespace kvasir {

namespace {

Draft MakeRecords(const DraftRequest& request, Generator& generator) {
  const uint64_t n = request.units;
  const uint64_t n_questions = std::min(std::max<uint64_t>(request.params.questions, 1), n);
  // Sample i of m asks for pair floor(i n / m); further questions go round from there.
  std::vector<bool> asked(n);
  std::vector<uint64_t> order;
  for (uint64_t q = 0; q < n_questions; ++q) {
    const uint64_t pair = (request.index * n / request.n_samples + q * n / n_questions) % n;
    order.push_back(pair);
    asked[pair] = true;
  }
  std::vector<std::string> keys, values;
  DraftBuilder builder;
  builder.Add("Below is a JSON object. Keep its pairs in mind: a value will be asked for.\n\n{");
  builder.BeginBody();
  for (uint64_t i = 0; i < n; ++i) {
    keys.push_back(generator.Uuid());
    values.push_back(generator.Uuid());
    if (i > 0) builder.Add(", ");
    const std::string pair = fmt::format("\"{}\": \"{}\"", keys[i], values[i]);
    asked[i] ? builder.AddNeedle(pair) : builder.Add(pair);
  }
  builder.draft().body_end = builder.draft().context.size();
  builder.Add("}\n");
  builder.draft().distractors = n - n_questions;
  for (const uint64_t pair : order) {
    builder.draft().questions.push_back(
        {fmt::format(
             "Which value does the key \"{}\" have in the JSON object? Reply with the value "
             "only.",
             keys[pair]),
         fmt::format("The value of the key \"{}\" is \"", keys[pair]),
         {values[pair]}});
  }
  return std::move(builder.draft());
}

constexpr Task kTasks[] = {
    {.suite = "rkv_json",
     .name = "rkv_json",
     .metric = Metric::kExact,
     .max_new = 50,
     .min_units = 2,
     .max_step = 25,
     .occurrences = 1,
     .make = MakeRecords},
};

}  // namespace

std::span<const Task> RecordTasks() { return kTasks; }

}  // namespace kvasir
