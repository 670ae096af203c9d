// Numbers out of records: means and percentiles as numpy gives them, throughput, goodput.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/runner.h"

namespace kvasir::bench {

// The four measures, in the order they are printed.
enum class Measure : uint8_t { kTtft, kTpot, kItl, kE2el };
inline constexpr Measure kMeasures[] = {Measure::kTtft, Measure::kTpot, Measure::kItl,
                                        Measure::kE2el};
std::string_view Name(Measure measure);   // "ttft"
std::string_view Title(Measure measure);  // "Time to First Token"

// "ttft,tpot": errors kUsage.
std::vector<Measure> ParseMeasures(std::string_view list);
// "50,99.9": errors kUsage.
std::vector<double> ParsePercentiles(std::string_view list);

// Limits in milliseconds that a request must keep all of to count as good.
using Goals = std::map<Measure, double>;
// "ttft:200 tpot:50", also with commas. Errors: kUsage. Of the measures, itl is none of a request.
Goals ParseGoals(std::string_view text);

// `sorted` ascending, `percent` in [0, 100], linear between neighbours; 0 for no values.
double Percentile(const std::vector<double>& sorted, double percent);

// Of one measure, in milliseconds.
struct Summary {
  size_t n = 0;
  double mean = 0, median = 0,
         deviation = 0;             // deviation of the values themselves, not an estimate
  std::vector<double> percentiles;  // those asked for
};
Summary Summarize(std::vector<double> values, const std::vector<double>& percents);

struct Results {
  size_t requests = 0, completed = 0, failed = 0;
  double seconds = 0;
  uint64_t input_tokens = 0, output_tokens = 0;
  std::optional<uint64_t> cached_tokens;                     // nothing when no answer told
  double request_rate = 0, output_rate = 0, total_rate = 0;  // per second
  std::optional<double> good_rate;                           // with goals
  double output_rate_peak = 0;  // most tokens in one second after the start
  size_t concurrency_peak = 0;
  size_t without_usage = 0;  // answers whose tokens were counted by pieces of text
  std::map<Measure, Summary> latency;
  struct Failure {
    size_t n = 0;
    std::string message;  // the first one's
  };
  std::map<std::string, Failure> failures;  // by kind
};
Results Evaluate(const LoadRun& run, const std::vector<double>& percents, const Goals& goals);

}  // namespace kvasir::bench
