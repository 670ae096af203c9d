#include "bench/report.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <cctype>
#include <ctime>
#include <nlohmann/json.hpp>

namespace kvasir::bench {

namespace {

constexpr double kMiB = 1048576.0;

void Line(std::string& out, std::string_view label, uint64_t value) {
  out += fmt::format("{:<40} {:<10}\n", label, value);
}

void Line(std::string& out, std::string_view label, double value) {
  out += fmt::format("{:<40} {:<10.2f}\n", label, value);
}

std::string Upper(std::string_view name) {
  std::string upper(name);
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return upper;
}

void LatencySection(std::string& out, Measure measure, const Summary& summary,
                    const std::vector<double>& percents) {
  const std::string name = Upper(Name(measure));
  out += fmt::format("{:-^50}\n", Title(measure));
  Line(out, fmt::format("Mean {} (ms):", name), summary.mean);
  Line(out, fmt::format("Median {} (ms):", name), summary.median);
  for (size_t i = 0; i < percents.size(); ++i) {
    Line(out, fmt::format("P{} {} (ms):", percents[i], name), summary.percentiles[i]);
  }
}

double Share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

void MemorySection(std::string& out, const Results& results, const Sightings& seen) {
  std::string lines;
  const auto mebibytes = [&](std::string_view label, const std::optional<uint64_t>& bytes) {
    if (bytes) Line(lines, label, static_cast<double>(*bytes) / kMiB);
  };
  if (results.cached_tokens) {
    Line(lines, "Cached input tokens:", *results.cached_tokens);
    Line(lines, "Cached share (%):", 100 * Share(*results.cached_tokens, results.input_tokens));
  }
  mebibytes("Peak KV cache (MiB):", seen.kv_bytes_peak);
  mebibytes("Mean KV cache (MiB):", seen.kv_bytes_mean);
  if (seen.kv_usage_peak) Line(lines, "Peak KV cache usage (%):", 100 * *seen.kv_usage_peak);
  if (seen.evicted_entries) Line(lines, "Evicted KV entries:", *seen.evicted_entries);
  mebibytes("Peak server memory (MiB):", seen.resident_peak_bytes);
  if (!lines.empty()) out += fmt::format("{:-^50}\n", "Cache and Memory") + lines;
}

// 2026-01-31T12:00:00Z
std::string Now() { return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr))); }

template <typename T>
nlohmann::ordered_json OrNull(const std::optional<T>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
}

void AddLatency(nlohmann::ordered_json& json, const Setting& setting, const Results& results) {
  for (const Measure measure : setting.measures) {
    const Summary& s = results.latency.at(measure);
    const std::string_view name = Name(measure);
    json[fmt::format("mean_{}_ms", name)] = s.mean;
    json[fmt::format("median_{}_ms", name)] = s.median;
    json[fmt::format("std_{}_ms", name)] = s.deviation;
    for (size_t i = 0; i < setting.percents.size(); ++i) {
      json[fmt::format("p{}_{}_ms", setting.percents[i], name)] = s.percentiles[i];
    }
  }
}

void AddRequests(nlohmann::ordered_json& json, const LoadRun& run) {
  for (const char* key : {"start_times", "input_lens", "output_lens", "ttfts", "itls", "e2els",
                          "generated_texts", "errors"}) {
    json[key] = nlohmann::ordered_json::array();
  }
  for (const Record& r : run.records) {
    json["start_times"].push_back(r.start);
    json["input_lens"].push_back(r.input_tokens);
    json["output_lens"].push_back(r.output_tokens);
    json["ttfts"].push_back(r.ttft);
    json["itls"].push_back(r.itl);
    json["e2els"].push_back(r.latency);
    json["generated_texts"].push_back(r.text);
    json["errors"].push_back(r.ok() ? "" : r.failure + ": " + r.message);
  }
}

}  // namespace

std::string BlockText(const Setting& setting, const Results& results, const Sightings& seen) {
  std::string out = fmt::format("{:=^50}\n", " Serving Benchmark Result ");
  Line(out, "Successful requests:", results.completed);
  Line(out, "Failed requests:", results.failed);
  if (setting.max_concurrency > 0) {
    Line(out, "Maximum request concurrency:", setting.max_concurrency);
  }
  if (setting.rate > 0) Line(out, "Request rate configured (RPS):", setting.rate);
  Line(out, "Benchmark duration (s):", results.seconds);
  Line(out, "Total input tokens:", results.input_tokens);
  Line(out, "Total generated tokens:", results.output_tokens);
  Line(out, "Request throughput (req/s):", results.request_rate);
  if (results.good_rate) Line(out, "Request goodput (req/s):", *results.good_rate);
  Line(out, "Output token throughput (tok/s):", results.output_rate);
  Line(out, "Peak output token throughput (tok/s):", results.output_rate_peak);
  Line(out, "Peak concurrent requests:", results.concurrency_peak);
  Line(out, "Total Token throughput (tok/s):", results.total_rate);
  for (const Measure measure : setting.measures) {
    LatencySection(out, measure, results.latency.at(measure), setting.percents);
  }
  MemorySection(out, results, seen);
  if (!results.failures.empty()) {
    out += fmt::format("{:-^50}\n", "Failures");
    for (const auto& [kind, failure] : results.failures) {
      Line(out, kind + ":", failure.n);
      out += "  " + failure.message + "\n";
    }
  }
  return out + std::string(50, '=') + "\n";
}

nlohmann::ordered_json ResultJson(const Setting& setting, const Results& results,
                                  const Sightings& seen, const LoadRun* detailed) {
  nlohmann::ordered_json json = {
      {"date", Now()},
      {"endpoint_type", "openai"},
      {"base_url", setting.base_url},
      {"endpoint", setting.endpoint},
      {"model_id", setting.model},
      {"num_prompts", setting.conversations},
      {"seed", setting.seed},
      {"request_rate", "inf"},
      {"burstiness", setting.burstiness},
      {"max_concurrency", nullptr},
      {"duration", results.seconds},
      {"completed", results.completed},
      {"failed", results.failed},
      {"total_input_tokens", results.input_tokens},
      {"total_output_tokens", results.output_tokens},
      {"request_throughput", results.request_rate},
      {"request_goodput", OrNull(results.good_rate)},
      {"output_throughput", results.output_rate},
      {"total_token_throughput", results.total_rate},
      {"max_output_tokens_per_s", results.output_rate_peak},
      {"max_concurrent_requests", results.concurrency_peak},
  };
  if (setting.rate > 0) json["request_rate"] = setting.rate;
  if (setting.max_concurrency > 0) json["max_concurrency"] = setting.max_concurrency;
  AddLatency(json, setting, results);
  json["requests"] = results.requests;
  json["tokens_by"] = setting.tokens_by;
  json["without_usage"] = results.without_usage;
  json["cached_tokens"] = OrNull(results.cached_tokens);
  json["cached_share"] = nullptr;
  if (results.cached_tokens) {
    json["cached_share"] = Share(*results.cached_tokens, results.input_tokens);
  }
  json["kv"] = {{"bytes_peak", OrNull(seen.kv_bytes_peak)},
                {"bytes_mean", OrNull(seen.kv_bytes_mean)},
                {"usage_peak", OrNull(seen.kv_usage_peak)},
                {"evicted_entries", OrNull(seen.evicted_entries)},
                {"prefix_queried_tokens", OrNull(seen.prefix_queried_tokens)},
                {"prefix_hit_tokens", OrNull(seen.prefix_hit_tokens)}};
  json["server_memory"] = {{"resident_peak_bytes", OrNull(seen.resident_peak_bytes)},
                           {"resident_max_ever_bytes", OrNull(seen.resident_max_ever_bytes)}};
  json["failures"] = nlohmann::ordered_json::array();
  for (const auto& [kind, failure] : results.failures) {
    json["failures"].push_back(
        {{"kind", kind}, {"count", failure.n}, {"first_message", failure.message}});
  }
  if (detailed) AddRequests(json, *detailed);
  return json;
}

}  // namespace kvasir::bench
