#include "eval/suite.h"

#include <algorithm>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/options.h"

namespace kvasir {

namespace {

// Keys, each defined once; a suite takes some of them.
constexpr Option kLen = {
    .name = "len", .value = "4096", .help = "tokens of a sample with its answer; several with |"};
constexpr Option kN = {.name = "n",
                       .type = OptionType::kCount,
                       .min = 1,
                       .max = 1'000'000,
                       .value = "100",
                       .help = "samples per task and length"};
constexpr Option kProse = {.name = "prose", .help = "a text file in place of the built-in prose"};

constexpr Option Questions(std::string_view value) {
  return {.name = "questions",
          .type = OptionType::kCount,
          .min = 1,
          .max = 1000,
          .value = value,
          .help = "asked one by one, of one context"};
}

constexpr Option kRuler[] = {
    {.name = "tasks",
     .value = "offline",
     .help = "names with | between them; offline: all built in"},
    kLen,
    kN,
    Questions("1"),
    {.name = "chains",
     .type = OptionType::kCount,
     .min = 1,
     .max = 16,
     .value = "1",
     .help = "of vt; RULER has 1"},
    {.name = "hops",
     .type = OptionType::kCount,
     .min = 1,
     .max = 64,
     .value = "4",
     .help = "of vt; RULER has 4"},
    kProse,
};
constexpr Option kFacts[] = {
    kLen,
    kN,
    {.name = "facts",
     .type = OptionType::kCount,
     .min = 1,
     .max = 40,
     .value = "8",
     .help = "in the text"},
    Questions("4"),
    kProse,
};
constexpr Option kRecords[] = {kLen, kN, Questions("1")};
constexpr Option kKeys[] = {kLen, kN};
constexpr Option kTrace[] = {
    {.name = "task", .value = "regs", .help = "names with | between them"},
    kN,
    {.name = "samples",
     .type = OptionType::kCount,
     .min = 1,
     .max = 1000,
     .value = "1",
     .help = "answers per problem"},
    {.name = "steps",
     .type = OptionType::kCount,
     .min = 1,
     .max = 100'000,
     .value = "24",
     .help = "updates, numbers or digits"},
    {.name = "registers",
     .type = OptionType::kCount,
     .min = 1,
     .max = 26,
     .value = "4",
     .help = "of regs"},
    {.name = "max_new",
     .type = OptionType::kCount,
     .max = 1'000'000,
     .value = "0",
     .help = "tokens per answer; 0: twice the reference solution and 64"},
};

struct Suite {
  std::string_view name;
  std::span<const Option> options;
};
constexpr Suite kSuites[] = {
    {"ruler", kRuler},  {"facts", kFacts}, {"rkv_json", kRecords},
    {"passkey", kKeys}, {"number", kKeys}, {"trace", kTrace},
};
constexpr std::string_view kFile = "file";

bool Takes(const OptionValues& values, std::string_view key) {
  return std::any_of(values.table().begin(), values.table().end(),
                     [&](const Option& option) { return option.name == key; });
}

std::vector<std::string> SplitBars(std::string_view text) {
  std::vector<std::string> items;
  for (;;) {
    const size_t bar = text.find('|');
    items.emplace_back(text.substr(0, bar));
    if (bar == std::string_view::npos) return items;
    text.remove_prefix(bar + 1);
  }
}

[[noreturn]] void RefuseName(const std::string& where, std::string_view what, std::string_view name,
                             std::span<const std::string_view> known) {
  const std::string_view nearest = Nearest(name, known);
  if (!nearest.empty()) {
    Fail(Code::kUsage, "{}: unknown {} \"{}\"; did you mean {}?", where, what, name, nearest);
  }
  Fail(Code::kUsage, "{}: unknown {} \"{}\"; known are {}", where, what, name,
       fmt::join(known, ", "));
}

std::vector<const Task*> TasksOf(std::string_view suite) {
  std::vector<const Task*> tasks;
  for (const Task& task : AllTasks()) {
    if (task.suite == suite) tasks.push_back(&task);
  }
  return tasks;
}

std::vector<const Task*> ChosenTasks(std::string_view suite, const OptionValues& values,
                                     std::string_view key) {
  const std::vector<const Task*> all = TasksOf(suite);
  const std::string chosen = values.Text(key);
  if (chosen == "offline") return all;
  std::vector<std::string_view> names;
  for (const Task* task : all) names.push_back(task->name);
  std::vector<const Task*> tasks;
  for (const std::string& name : SplitBars(chosen)) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) RefuseName(values.where(), "task", name, names);
    const Task* const task = all[static_cast<size_t>(found - names.begin())];
    if (std::find(tasks.begin(), tasks.end(), task) != tasks.end()) {
      Fail(Code::kUsage, "{}: {}: {} is given twice", values.where(), key, name);
    }
    tasks.push_back(task);
  }
  return tasks;
}

std::vector<uint64_t> Lengths(const OptionValues& values) {
  constexpr Option kOne[] = {
      {.name = "len", .type = OptionType::kCount, .min = 64, .max = 16 << 20}};
  std::vector<uint64_t> lengths;
  for (const std::string& item : SplitBars(values.Text("len"))) {
    OptionValues one(values.where(), kOne);
    one.Set("len", item);
    lengths.push_back(one.Count("len"));
  }
  return lengths;
}

void ReadParams(const OptionValues& values, SuiteSpec* spec) {
  const auto count = [&](std::string_view key, uint64_t* value) {
    if (Takes(values, key)) *value = values.Count(key);
  };
  count("samples", &spec->samples);
  count("questions", &spec->params.questions);
  count("chains", &spec->params.chains);
  count("hops", &spec->params.hops);
  count("facts", &spec->params.facts);
  count("steps", &spec->params.steps);
  count("registers", &spec->params.registers);
  count("max_new", &spec->params.max_new);
  if (Takes(values, "facts") && spec->params.questions > spec->params.facts) {
    Fail(Code::kUsage, "{}: questions={}: there are only {} facts to ask for", values.where(),
         spec->params.questions, spec->params.facts);
  }
  if (Takes(values, "prose") && values.Given("prose")) {
    const std::string path = values.Text("prose");
    const MappedFile file(path);
    const auto bytes = file.bytes();
    spec->params.prose = std::make_shared<Prose>(
        std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()), path);
  }
}

}  // namespace

std::vector<std::string_view> TaskSuites() {
  std::vector<std::string_view> names;
  for (const Suite& suite : kSuites) names.push_back(suite.name);
  names.push_back(kFile);
  return names;
}

bool IsTaskSuite(std::string_view name) {
  const std::vector<std::string_view> names = TaskSuites();
  return std::find(names.begin(), names.end(), name) != names.end();
}

SuiteSpec ParseSuite(std::string_view spec, std::string_view where) {
  SuiteSpec parsed;
  if (spec == kFile || spec.starts_with("file:")) {
    parsed.name = kFile;
    parsed.path = spec.substr(std::min(spec.size(), kFile.size() + 1));
    if (parsed.path.empty()) Fail(Code::kUsage, "{}: \"{}\": expected file:PATH", where, spec);
    return parsed;
  }
  const NamedSpec parts = SplitSpec(spec, where);
  const auto* const suite = std::find_if(std::begin(kSuites), std::end(kSuites),
                                         [&](const Suite& s) { return s.name == parts.name; });
  if (suite == std::end(kSuites)) {
    RefuseName(std::string(where), "suite", parts.name, TaskSuites());
  }
  parsed.name = parts.name;
  OptionValues values(fmt::format("{} {}", where, parts.name), suite->options);
  for (const auto& [key, value] : parts.values) values.Set(key, value);
  parsed.n = values.Count("n");
  ReadParams(values, &parsed);
  const std::string_view key = Takes(values, "tasks") ? "tasks" : "task";
  const std::vector<const Task*> tasks =
      Takes(values, key) ? ChosenTasks(suite->name, values, key) : TasksOf(suite->name);
  const std::vector<uint64_t> lengths =
      Takes(values, "len") ? Lengths(values) : std::vector<uint64_t>{0};
  for (const Task* task : tasks) {
    for (const uint64_t length : lengths) parsed.runs.push_back({task, length});
  }
  return parsed;
}

}  // namespace kvasir
