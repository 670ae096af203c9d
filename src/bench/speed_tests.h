// What a speed test does: tests and lists of numbers as llama-bench names and reads them.
//
// "pp512" reads 512 tokens, "tg128" generates 128, "pp512+tg128" does one after the other; each
// begins behind `depth` tokens that are in the cache already ("@ d8192"), in so many sequences at
// once ("x8").
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvasir::bench {

struct SpeedTest {
  uint32_t n_prompt = 0, n_gen = 0;  // not both 0
  uint32_t depth = 0;
  uint32_t parallel = 1;

  // Tokens that count for tokens per second.
  uint64_t tokens() const { return (uint64_t{n_prompt} + n_gen) * parallel; }
  // Positions that one of its sequences comes to.
  uint64_t positions() const { return uint64_t{depth} + n_prompt + n_gen + 1; }
  bool operator==(const SpeedTest&) const = default;
};
std::string Name(const SpeedTest& test);

// Items separated by commas: a number, "first-last", "first-last+step", "first-last*factor" (the
// last one included where the steps meet it). Errors: kUsage naming `what`; more than 1,000
// numbers.
std::vector<uint32_t> ParseNumbers(std::string_view text, std::string_view what);

// The tests of -p, -n and -pg ("P,N") at every depth, in that order; 0 in a list asks for nothing.
// Errors: kUsage.
std::vector<SpeedTest> MakeSpeedTests(std::string_view prompts, std::string_view gens,
                                      const std::vector<std::string>& pairs,
                                      std::string_view depths, uint32_t parallel);

}  // namespace kvasir::bench
