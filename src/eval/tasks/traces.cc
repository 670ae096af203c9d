// Short prompts with long solutions: the model writes its steps, and later steps need earlier ones.
//
// A prompt has the rules, two small solved examples (without which small models do not find the
// form), the problem, and what to write: one line per step and a last line "answer: ...", which
// scoring.h finds. `units` is the number of steps.
#include <array>
#include <utility>

#include "base/error.h"
#include "eval/tasks/tasks.h"

namespace kvasir {

namespace {

struct Problem {
  std::string text;   // whole lines
  std::string steps;  // whole lines, the solution but for its last one
  std::string answer;
};

struct TraceRules {
  std::string_view rules, question;
  Problem (*draw)(uint64_t steps, const TaskParams& params, Generator& generator);
};

std::string Solution(const Problem& problem) {
  return fmt::format("{}answer: {}\n", problem.steps, problem.answer);
}

template <const TraceRules& kTrace>
Draft MakeTrace(const DraftRequest& request, Generator& generator) {
  DraftBuilder builder;
  builder.Add(kTrace.rules);
  for (const uint64_t steps : {3, 4}) {
    const Problem example = kTrace.draw(steps, request.params, generator);
    builder.Add(fmt::format("\n\nExample problem:\n{}Example solution:\n{}", example.text,
                            Solution(example)));
  }
  Problem problem = kTrace.draw(request.units, request.params, generator);
  problem.text.pop_back();  // EndBody ends the line
  builder.Add("\n\nProblem:\n").BeginBody().Add(problem.text).EndBody();
  builder.draft().gold = Solution(problem);
  builder.draft().questions.push_back({fmt::format(fmt::runtime(kTrace.question), request.units),
                                       "Solution:\n",
                                       {std::move(problem.answer)}});
  return std::move(builder.draft());
}

// As many as a suite may ask for. Words, since small models mix up single letters.
constexpr std::array<std::string_view, 26> kRegisterNames = {
    "red",  "blue", "green", "gold", "pink", "black", "white", "brown", "gray",
    "lime", "navy", "teal",  "rose", "sand", "wood",  "iron",  "stone", "glass",
    "salt", "snow", "rain",  "wind", "fire", "moon",  "star",  "sea"};

// Latest value per register, often written long ago. Values stay from 0 to 99 by the choice of what
// is added or taken away, so that no rule about overflow stands between memory and answer; and they
// are said in one form everywhere, so that small models find them.
Problem DrawRegs(uint64_t n, const TaskParams& params, Generator& generator) {
  const uint64_t m = params.registers;
  const auto name = [](uint64_t r) { return kRegisterNames[r]; };
  std::vector<uint64_t> values(m);
  const auto all = [&] {
    std::string text;
    for (uint64_t r = 0; r < m; ++r) {
      text += fmt::format("{}{} is {}", r > 0 ? ", " : "", name(r), values[r]);
    }
    return text;
  };
  for (uint64_t& value : values) value = generator.Below(100);
  Problem problem;
  problem.text = fmt::format("Start: {}\n", all());
  for (uint64_t i = 1; i <= n; ++i) {
    const uint64_t target = generator.Below(m), source = generator.Below(m);
    const uint64_t before = values[source], after = generator.Below(100);
    const char sign = after < before ? '-' : '+';
    const uint64_t change = after < before ? before - after : after - before;
    problem.text +=
        fmt::format("update {}: {} = {} {} {}\n", i, name(target), name(source), sign, change);
    problem.steps += fmt::format("update {}: {} = {} {} {}; {} is {}, {} {} {} = {}, so {} is {}\n",
                                 i, name(target), name(source), sign, change, name(source), before,
                                 before, sign, change, after, name(target), after);
    values[target] = after;
  }
  problem.answer = all();
  return problem;
}

// The prompt's list and the last value. The factors share no divisor with 100, so that every start
// leads to another end.
Problem DrawChain(uint64_t n, const TaskParams& params, Generator& generator) {
  constexpr std::array<uint64_t, 3> kFactors = {3, 7, 9};
  const uint64_t factor = generator.OneOf(kFactors);
  uint64_t x = generator.Below(100);
  Problem problem;
  problem.text = fmt::format("Each time multiply by {}. x0 is {}.\n", factor, x);
  for (uint64_t i = 1; i <= n; ++i) {
    const uint64_t b = generator.Below(100), product = factor * x, next = product + b;
    problem.text += fmt::format("b{} is {}\n", i, b);
    problem.steps +=
        fmt::format("{} * {} = {}, b{} is {}, {} + {} = {}, keep {}, so x{} is {}\n", factor, x,
                    product, i, b, product, b, next, next % 100, i, next % 100);
    x = next % 100;
  }
  problem.answer = fmt::format("x{} is {}", n, x);
  return problem;
}

// The values stand nowhere but in the model's own output; the line of one step is asked for again
// at the end.
Problem DrawSelfRecall(uint64_t n, const TaskParams& params, Generator& generator) {
  uint64_t value = generator.Between(10, 99);
  const std::array<uint64_t, 2> adds = {generator.Between(2, 9), generator.Between(2, 9)};
  const uint64_t asked = generator.Between(1, n);
  Problem problem;
  problem.text = fmt::format(
      "Begin at {}, odd steps add {}, even steps add {}. Steps: {}. Line to repeat: step {}.\n",
      value, adds[0], adds[1], n, asked);
  for (uint64_t i = 1; i <= n; ++i) {
    const uint64_t add = adds[(i + 1) % 2];
    const std::string line = fmt::format("step {}: {} + {} = {}", i, value, add, value + add);
    problem.steps += line + "\n";
    value += add;
    if (i == asked) problem.answer = line;
  }
  return problem;
}

// The prompt's digits and the carry.
Problem DrawLongAdd(uint64_t n, const TaskParams& params, Generator& generator) {
  std::array<std::string, 2> numbers;
  for (std::string& number : numbers) {
    for (uint64_t i = 0; i < n; ++i) {
      number += static_cast<char>('0' + (i == 0 ? generator.Between(1, 9) : generator.Below(10)));
    }
  }
  Problem problem;
  for (const std::string& number : numbers) {  // apart, so that every digit is a token
    problem.text += fmt::format("{}\n", fmt::join(number, " "));
  }
  int carry = 0;
  for (uint64_t i = 0; i < n; ++i) {
    const int a = numbers[0][n - 1 - i] - '0', b = numbers[1][n - 1 - i] - '0';
    const int total = a + b + carry;
    problem.steps += fmt::format("column {}: {} + {} + {} = {}\n", i + 1, a, b, carry, total);
    problem.answer += static_cast<char>('0' + total % 10);
    carry = total / 10;
  }
  if (carry > 0) problem.answer += '1';
  std::reverse(problem.answer.begin(), problem.answer.end());
  return problem;
}

constexpr TraceRules kRegs = {"Registers hold numbers. Updates change them one after the other.",
                              "Write the solution in the form of the examples: one line for each "
                              "of the {} updates, then a last line "
                              "\"answer:\" with all registers.",
                              DrawRegs};
constexpr TraceRules kChain = {
    "A sequence of numbers begins with x0. The next number is the last one multiplied and plus the "
    "next b "
    "of the list; only its last two digits are kept.",
    "Write the solution in the form of the examples: one line for each of the {} numbers, then a "
    "last "
    "line \"answer:\" with the last number.",
    DrawChain};
constexpr TraceRules kSelfRecall = {
    "Count in uneven steps: odd and even steps add different numbers. At the end the line of one "
    "step is repeated.",
    "Write the solution in the form of the examples: one line for each of the {} steps, then a "
    "last line \"answer:\" with the line to repeat.",
    DrawSelfRecall};
constexpr TraceRules kLongAdd = {
    "Two numbers are added column by column, beginning with their last digits. A line has both "
    "digits "
    "of a column, the carry and their sum.",
    "Write the solution in the form of the examples: one line for each of the {} columns, then a "
    "last "
    "line \"answer:\" with the whole sum.",
    DrawLongAdd};

template <const TraceRules& kTrace>
constexpr Task TraceTask(std::string_view name, uint32_t version) {
  return {.suite = "trace",
          .name = name,
          .version = version,
          .metric = Metric::kAnswer,
          .make = MakeTrace<kTrace>};
}

constexpr Task kTasks[] = {
    TraceTask<kRegs>("regs", 2),
    TraceTask<kChain>("chain", 2),
    TraceTask<kSelfRecall>("selfrecall", 2),
    TraceTask<kLongAdd>("longadd", 1),
};

}  // namespace

std::span<const Task> TraceTasks() { return kTasks; }

}  // namespace kvasir
