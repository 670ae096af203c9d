// Short prompts with long solutions: the model writes its steps, and later steps need earlier ones.
//
// Every prompt asks for one line per step and a last line "answer: ...", which scoring.h finds; the
// reference solution has exactly this form. `units` is the number of steps.
#include <array>
#include <utility>

#include "base/error.h"
#include "eval/tasks/tasks.h"

namespace kvasir {

namespace {

Draft Trace(std::string problem, std::string question, std::string gold_steps, std::string answer) {
  Draft draft;
  draft.context = std::move(problem);
  draft.body_end = draft.context.size();
  draft.gold = fmt::format("{}answer: {}\n", gold_steps, answer);
  draft.questions.push_back({std::move(question), "", {std::move(answer)}});
  return draft;
}

// Latest value per register, often written long ago.
Draft MakeRegs(const DraftRequest& request, Generator& generator) {
  const uint64_t m = request.params.registers, n = request.units;
  const auto name = [](uint64_t r) { return static_cast<char>('A' + r); };
  std::vector<uint64_t> values(m);
  std::string problem =
      "Registers hold whole numbers from 0 to 99; results are taken modulo 100.\n"
      "Start:";
  for (uint64_t r = 0; r < m; ++r) {
    values[r] = generator.Below(100);
    problem += fmt::format(" {}={}", name(r), values[r]);
  }
  problem += "\nUpdates, in order:\n";
  std::string gold;
  for (uint64_t i = 1; i <= n; ++i) {
    const uint64_t target = generator.Below(m);
    const uint64_t source = generator.Below(m);
    const uint64_t add = generator.Between(1, 99);
    problem += fmt::format("{}. {} = {} + {}\n", i, name(target), name(source), add);
    const uint64_t sum = values[source] + add;
    gold += fmt::format("{}. {} = {} + {} = {}\n", i, name(target), values[source], add, sum % 100);
    values[target] = sum % 100;
  }
  std::string answer;
  for (uint64_t r = 0; r < m; ++r) {
    answer += fmt::format("{}{}={}", r > 0 ? " " : "", name(r), values[r]);
  }
  return Trace(
      std::move(problem),
      fmt::format("Write one line per update with the register's new value, like this: "
                  "1. A = 40 + 7 = 47\nThen write all registers in a last line, like this: "
                  "answer: A=1 B=2\nGive all {} registers in order of their names.",
                  m),
      gold, answer);
}

// The prompt's list and the last value.
Draft MakeChain(const DraftRequest& request, Generator& generator) {
  constexpr uint64_t kModulus = 97;  // prime: no factor is ever lost
  const uint64_t n = request.units, factor = generator.Between(2, 9);
  uint64_t x = generator.Below(kModulus);
  std::string problem = fmt::format(
      "A sequence starts with x0 = {}. Each next number is ({} * the last one + b) modulo {}, "
      "where "
      "b is taken from this list:\n",
      x, factor, kModulus);
  std::string gold;
  for (uint64_t i = 1; i <= n; ++i) {
    const uint64_t b = generator.Below(kModulus);
    problem += fmt::format("b{} = {}\n", i, b);
    const uint64_t before = factor * x + b;
    gold += fmt::format("x{} = {} * {} + {} = {} mod {} = {}\n", i, factor, x, b, before, kModulus,
                        before % kModulus);
    x = before % kModulus;
  }
  return Trace(
      std::move(problem),
      fmt::format("Compute x1 to x{} in one line each, like this: x1 = 3 * 5 + 90 = 105 mod "
                  "{} = 8\nThen write x{} in a last line, like this: answer: 8",
                  n, kModulus, n),
      gold, fmt::format("{}", x));
}

// The values stand nowhere but in the model's own output; one of them is asked for at the end.
Draft MakeSelfRecall(const DraftRequest& request, Generator& generator) {
  const uint64_t n = request.units;
  const uint64_t start = generator.Below(100);
  const std::array<uint64_t, 2> adds = {generator.Between(11, 89), generator.Between(11, 89)};
  const uint64_t asked = generator.Between(1, n);
  std::string gold;
  uint64_t value = start, recalled = 0;
  for (uint64_t i = 1; i <= n; ++i) {
    value = (value + adds[(i + 1) % 2]) % 100;
    gold += fmt::format("step {}: {}\n", i, value);
    if (i == asked) recalled = value;
  }
  return Trace(
      fmt::format("Count in uneven steps. Begin at {}. Odd steps add {}, even steps add {}; of "
                  "every result only the last two digits are kept.\n",
                  start, adds[0], adds[1]),
      fmt::format("Write the results of steps 1 to {}, one per line, like this: step 1: 42\n"
                  "Then repeat which value step {} had in a last line, like this: answer: 42",
                  n, asked),
      gold, fmt::format("{}", recalled));
}

// The prompt's digits and the carry.
Draft MakeLongAdd(const DraftRequest& request, Generator& generator) {
  const uint64_t n = request.units;
  std::array<std::string, 2> numbers;
  for (std::string& number : numbers) {
    for (uint64_t i = 0; i < n; ++i) {
      number += static_cast<char>('0' + (i == 0 ? generator.Between(1, 9) : generator.Below(10)));
    }
  }
  std::string gold, sum;
  int carry = 0;
  for (uint64_t i = 0; i < n; ++i) {
    const int a = numbers[0][n - 1 - i] - '0', b = numbers[1][n - 1 - i] - '0';
    const int total = a + b + carry;
    gold += fmt::format("column {}: {} + {} + {} = {}\n", i + 1, a, b, carry, total);
    sum += static_cast<char>('0' + total % 10);
    carry = total / 10;
  }
  if (carry > 0) sum += '1';
  std::reverse(sum.begin(), sum.end());
  return Trace(
      fmt::format("Add two numbers column by column.\n{}\n{}\n", numbers[0], numbers[1]),
      "Begin with the last digits. Write one line per column with both digits and the carry, "
      "like this: column 1: 7 + 5 + 0 = 12\nThen write the whole sum in a last line, like "
      "this: answer: 12",
      gold, sum);
}

constexpr Task TraceTask(std::string_view name, Draft (*make)(const DraftRequest&, Generator&)) {
  return {.suite = "trace", .name = name, .metric = Metric::kAnswer, .make = make};
}

constexpr Task kTasks[] = {
    TraceTask("regs", MakeRegs),
    TraceTask("chain", MakeChain),
    TraceTask("selfrecall", MakeSelfRecall),
    TraceTask("longadd", MakeLongAdd),
};

}  // namespace

std::span<const Task> TraceTasks() { return kTasks; }

}  // namespace kvasir
