#include "bench/stats.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "format/quote.h"

namespace kvasir::bench {

namespace {

// The words of a list with commas or spaces.
std::vector<std::string_view> Words(std::string_view list) {
  std::vector<std::string_view> words;
  while (!list.empty()) {
    const size_t end = list.find_first_of(", ");
    if (end != 0) words.push_back(list.substr(0, end));
    list = end == std::string_view::npos ? std::string_view() : list.substr(end + 1);
  }
  return words;
}

std::optional<double> Number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) {
    return std::nullopt;
  }
  return value;
}

std::optional<Measure> FindMeasure(std::string_view name) {
  for (const Measure measure : kMeasures) {
    if (Name(measure) == name) return measure;
  }
  return std::nullopt;
}

// Time per token after the first; nothing for an answer of one token.
std::optional<double> Tpot(const Record& record) {
  if (record.output_tokens < 2 || record.ttft == 0) return std::nullopt;
  return (record.latency - record.ttft) / static_cast<double>(record.output_tokens - 1);
}

bool IsGood(const Record& record, const Goals& goals) {
  const auto keeps = [&](Measure measure, double seconds) {
    const auto goal = goals.find(measure);
    return goal == goals.end() || seconds * 1000 <= goal->second;
  };
  return keeps(Measure::kTtft, record.ttft) && keeps(Measure::kTpot, Tpot(record).value_or(0)) &&
         keeps(Measure::kE2el, record.latency);
}

// Most answers under way at one time.
size_t ConcurrencyPeak(const std::vector<Record>& records) {
  std::vector<std::pair<double, int>> changes;
  for (const Record& r : records) {
    if (!r.ok()) continue;
    changes.emplace_back(r.start, 1);
    changes.emplace_back(r.start + r.latency, -1);
  }
  std::sort(changes.begin(), changes.end());  // an end comes before a start at the same time
  int now = 0, peak = 0;
  for (const auto& [time, change] : changes) peak = std::max(peak, now += change);
  return static_cast<size_t>(peak);
}

// Most pieces of text in one of the whole seconds of the run.
double OutputRatePeak(const std::vector<Record>& records) {
  std::map<uint64_t, uint64_t> pieces;
  for (const Record& r : records) {
    if (!r.ok() || r.ttft == 0) continue;
    double time = r.start + r.ttft;
    ++pieces[static_cast<uint64_t>(time)];
    for (const double gap : r.itl) ++pieces[static_cast<uint64_t>(time += gap)];
  }
  uint64_t peak = 0;
  for (const auto& [second, n] : pieces) peak = std::max(peak, n);
  return static_cast<double>(peak);
}

}  // namespace

std::string_view Name(Measure measure) {
  constexpr std::string_view kNames[] = {"ttft", "tpot", "itl", "e2el"};
  return kNames[static_cast<size_t>(measure)];
}

std::string_view Title(Measure measure) {
  constexpr std::string_view kTitles[] = {"Time to First Token",
                                          "Time per Output Token (excl. 1st token)",
                                          "Inter-token Latency", "End-to-end Latency"};
  return kTitles[static_cast<size_t>(measure)];
}

std::vector<Measure> ParseMeasures(std::string_view list) {
  std::vector<Measure> measures;
  for (const std::string_view word : Words(list)) {
    const std::optional<Measure> measure = FindMeasure(word);
    if (!measure) {
      Fail(Code::kUsage, "--percentile-metrics: {}: expected some of ttft, tpot, itl, e2el",
           Quoted(word));
    }
    measures.push_back(*measure);
  }
  return measures;
}

std::vector<double> ParsePercentiles(std::string_view list) {
  std::vector<double> percents;
  for (const std::string_view word : Words(list)) {
    const std::optional<double> percent = Number(word);
    if (!percent || *percent < 0 || *percent > 100) {
      Fail(Code::kUsage, "--metric-percentiles: {}: expected numbers from 0 to 100", Quoted(word));
    }
    percents.push_back(*percent);
  }
  return percents;
}

Goals ParseGoals(std::string_view text) {
  Goals goals;
  for (const std::string_view word : Words(text)) {
    const size_t colon = word.find(':');
    const std::optional<Measure> measure = FindMeasure(word.substr(0, colon));
    const std::optional<double> limit =
        colon == std::string_view::npos ? std::nullopt : Number(word.substr(colon + 1));
    if (!measure || *measure == Measure::kItl || !limit || *limit < 0) {
      Fail(Code::kUsage, "--goodput: {}: expected ttft:MS, tpot:MS or e2el:MS", Quoted(word));
    }
    goals[*measure] = *limit;
  }
  return goals;
}

double Percentile(const std::vector<double>& sorted, double percent) {
  if (sorted.empty()) return 0;
  const double rank = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(rank);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (rank - static_cast<double>(low));
}

Summary Summarize(std::vector<double> values, const std::vector<double>& percents) {
  Summary summary;
  summary.n = values.size();
  std::sort(values.begin(), values.end());
  for (const double percent : percents) summary.percentiles.push_back(Percentile(values, percent));
  if (values.empty()) return summary;
  const auto n = static_cast<double>(values.size());
  summary.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  summary.median = Percentile(values, 50);
  double squares = 0;
  for (const double value : values) squares += (value - summary.mean) * (value - summary.mean);
  summary.deviation = std::sqrt(squares / n);
  return summary;
}

Results Evaluate(const LoadRun& run, const std::vector<double>& percents, const Goals& goals) {
  Results results;
  results.requests = run.records.size();
  results.seconds = run.seconds;
  std::map<Measure, std::vector<double>> values;
  size_t good = 0;
  for (const Record& r : run.records) {
    if (!r.ok()) {
      Results::Failure& failure = results.failures[r.failure];
      if (failure.n++ == 0) failure.message = r.message;
      ++results.failed;
      continue;
    }
    ++results.completed;
    good += IsGood(r, goals);
    results.input_tokens += r.input_tokens;
    results.output_tokens += r.output_tokens;
    results.without_usage += !r.has_usage;
    if (r.cached_tokens) {
      results.cached_tokens = results.cached_tokens.value_or(0) + *r.cached_tokens;
    }
    if (r.ttft > 0) values[Measure::kTtft].push_back(r.ttft * 1000);
    if (const auto tpot = Tpot(r)) values[Measure::kTpot].push_back(*tpot * 1000);
    for (const double gap : r.itl) values[Measure::kItl].push_back(gap * 1000);
    values[Measure::kE2el].push_back(r.latency * 1000);
  }
  for (const Measure measure : kMeasures) {
    results.latency[measure] = Summarize(std::move(values[measure]), percents);
  }
  const auto per_second = [&](double n) { return run.seconds > 0 ? n / run.seconds : 0; };
  results.request_rate = per_second(static_cast<double>(results.completed));
  results.output_rate = per_second(static_cast<double>(results.output_tokens));
  results.total_rate =
      per_second(static_cast<double>(results.input_tokens + results.output_tokens));
  if (!goals.empty()) results.good_rate = per_second(static_cast<double>(good));
  results.output_rate_peak = OutputRatePeak(run.records);
  results.concurrency_peak = ConcurrencyPeak(run.records);
  return results;
}

}  // namespace kvasir::bench
