#include "bench/speed_tests.h"

#include <fmt/format.h>

#include <charconv>

#include "base/error.h"
#include "format/quote.h"

namespace kvasir::bench {

namespace {

constexpr uint64_t kMaxNumber = 100'000'000;
constexpr size_t kMaxNumbers = 1000;

[[noreturn]] void Refuse(std::string_view text, std::string_view what) {
  Fail(Code::kUsage,
       "{}: {}: numbers up to {} are expected, as in 512, or 0,8192, or 128-512+128, or 128-8192*2",
       what, Quoted(text), kMaxNumber);
}

// Takes the number that `text` begins with.
uint64_t TakeNumber(std::string_view& text, std::string_view item, std::string_view what) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value > kMaxNumber) Refuse(item, what);
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

void AddItem(std::string_view item, std::string_view what, std::vector<uint32_t>* numbers) {
  std::string_view rest = item;
  const uint64_t first = TakeNumber(rest, item, what);
  uint64_t last = first, step = 1;
  char sign = '+';
  if (!rest.empty() && rest[0] == '-') {
    rest.remove_prefix(1);
    last = TakeNumber(rest, item, what);
    if (!rest.empty() && (rest[0] == '+' || rest[0] == '*')) {
      sign = rest[0];
      rest.remove_prefix(1);
      step = TakeNumber(rest, item, what);
    }
  }
  if (!rest.empty() || last < first) Refuse(item, what);
  const bool stands = sign == '+' ? step == 0 : step < 2 || first == 0;
  if (stands) Fail(Code::kUsage, "{}: {}: its steps lead nowhere", what, Quoted(item));
  for (uint64_t n = first; n <= last; n = sign == '+' ? n + step : n * step) {
    if (numbers->size() == kMaxNumbers) {
      Fail(Code::kUsage, "{}: {}: more than {} numbers; take larger steps", what, Quoted(item),
           kMaxNumbers);
    }
    numbers->push_back(static_cast<uint32_t>(n));
  }
}

}  // namespace

std::string Name(const SpeedTest& test) {
  std::string name;
  if (test.n_prompt > 0) name += fmt::format("pp{}", test.n_prompt);
  if (test.n_gen > 0) name += fmt::format("{}tg{}", name.empty() ? "" : "+", test.n_gen);
  if (test.parallel > 1) name += fmt::format(" x{}", test.parallel);
  if (test.depth > 0) name += fmt::format(" @ d{}", test.depth);
  return name;
}

std::vector<uint32_t> ParseNumbers(std::string_view text, std::string_view what) {
  std::vector<uint32_t> numbers;
  for (;;) {
    const size_t comma = text.find(',');
    AddItem(text.substr(0, comma), what, &numbers);
    if (comma == std::string_view::npos) return numbers;
    text.remove_prefix(comma + 1);
  }
}

std::vector<SpeedTest> MakeSpeedTests(std::string_view prompts, std::string_view gens,
                                      const std::vector<std::string>& pairs,
                                      std::string_view depths, uint32_t parallel) {
  std::vector<SpeedTest> at_zero;
  for (const uint32_t n : ParseNumbers(prompts, "--n-prompt")) {
    if (n > 0) at_zero.push_back({.n_prompt = n});
  }
  for (const uint32_t n : ParseNumbers(gens, "--n-gen")) {
    if (n > 0) at_zero.push_back({.n_gen = n});
  }
  for (const std::string& pair : pairs) {
    const std::vector<uint32_t> two = ParseNumbers(pair, "--prompt-gen");
    if (two.size() != 2 || two[0] == 0 || two[1] == 0) {
      Fail(Code::kUsage, "--prompt-gen: {}: two numbers above 0 are expected, as in 512,128",
           Quoted(pair));
    }
    at_zero.push_back({.n_prompt = two[0], .n_gen = two[1]});
  }
  std::vector<SpeedTest> tests;
  for (const uint32_t depth : ParseNumbers(depths, "--n-depth")) {
    for (SpeedTest test : at_zero) {
      test.depth = depth;
      test.parallel = parallel;
      tests.push_back(test);
    }
  }
  return tests;
}

}  // namespace kvasir::bench
