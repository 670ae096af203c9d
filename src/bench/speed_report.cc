#include "bench/speed_report.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/options.h"

namespace kvasir::bench {

namespace {

constexpr double kMiB = 1048576.0;

using Line = std::vector<std::string>;

// Of the machine's limit: bytes read for decoding, int8 operations of the matrices for prompts.
// Nothing where the test mixes both or the limit is not known.
std::optional<double> LimitShare(const SpeedResult& result, const ModelSize& size,
                                 const std::optional<Limits>& limits) {
  if (!limits) return std::nullopt;
  const double read = ReadPerSecond(result, size), ops = OpsPerSecond(result, size);
  if (read > 0) return read / 1e9 / limits->read_gb_s;
  if (ops > 0 && limits->int8_gop_s > 0) return ops / 1e9 / limits->int8_gop_s;
  return std::nullopt;
}

std::vector<double> TokensPerSecond(const SpeedResult& result) {
  std::vector<double> rates;
  for (size_t i = 0; i < result.seconds.size(); ++i) rates.push_back(result.ts(i));
  return rates;
}

std::string Aligned(const std::vector<Line>& lines, size_t first_right) {
  std::vector<size_t> widths(lines[0].size());
  // The sign in "t/s" cells takes two bytes and one column.
  const auto columns = [](const std::string& cell) {
    return static_cast<size_t>(
        std::count_if(cell.begin(), cell.end(), [](char c) { return (c & 0xC0) != 0x80; }));
  };
  for (const Line& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], columns(line[i]));
  }
  std::string text;
  for (size_t l = 0; l < lines.size(); ++l) {
    for (size_t i = 0; i < widths.size(); ++i) {
      const std::string& cell = lines[l][i];
      const std::string space(widths[i] - columns(cell), ' ');
      text += i < first_right ? "| " + cell + space + " " : "| " + space + cell + " ";
    }
    text += "|\n";
    if (l > 0) continue;
    for (size_t i = 0; i < widths.size(); ++i) {
      text += fmt::format("|{:-<{}}{}", "", widths[i] + 1, i < first_right ? '-' : ':');
    }
    text += "|\n";
  }
  return text;
}

std::string CsvCell(const nlohmann::ordered_json& value) {
  const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  if (!value.is_string() && text.find(',') == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + '"';
}

std::string TimeText(double seconds) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(static_cast<std::time_t>(seconds)));
}

}  // namespace

std::string ParamsText(uint64_t n_params) {
  const double n = static_cast<double>(n_params);
  if (n >= 1e9) return fmt::format("{:.2f} B", n / 1e9);
  if (n >= 1e6) return fmt::format("{:.2f} M", n / 1e6);
  return fmt::format("{:.2f} K", n / 1e3);
}

std::string SpeedTable(const SpeedSetting& setting, const ModelSize& size,
                       const std::vector<SpeedResult>& results,
                       const std::optional<Limits>& limits) {
  Line head = {"model", "size", "params", "backend", "threads", "kv-type"};
  if (!setting.dense()) head.push_back("policy");
  const size_t first_right = head.size() + 1;
  head.insert(head.end(), {"test", "t/s", "KV MiB"});
  if (!setting.dense()) head.push_back("B/tok");
  if (limits) head.push_back("% of limit");
  std::vector<Line> lines = {head};
  for (const SpeedResult& result : results) {
    const Spread spread = SpreadOf(TokensPerSecond(result));
    Line line = {setting.model_type, FormatSize(setting.file_bytes),  ParamsText(setting.n_params),
                 setting.simd,       std::to_string(setting.threads), setting.codec};
    if (!setting.dense()) line.push_back(setting.policy_text);
    line.push_back(Name(result.test));
    line.push_back(fmt::format("{:.2f} ± {:.2f}", spread.mean, spread.deviation));
    line.push_back(fmt::format("{:.1f}", static_cast<double>(result.kv_peak_bytes) / kMiB));
    if (!setting.dense()) line.push_back(fmt::format("{:.0f}", result.kv_bytes_per_token()));
    if (limits) {
      const std::optional<double> share = LimitShare(result, size, limits);
      line.push_back(share ? fmt::format("{:.0f}", 100 * *share) : "");
    }
    lines.push_back(line);
  }
  std::string text = results.empty() ? "" : Aligned(lines, first_right);
  if (limits) {
    if (!text.empty()) text += '\n';
    text += fmt::format(
        "Limits of this machine: read {:.1f} GB/s, f32 {:.0f} GFLOP/s, bf16 {}, int8 {}, "
        "fork and join {:.4f} ms\n",
        limits->read_gb_s, limits->f32_gflop_s,
        limits->bf16_gflop_s > 0 ? fmt::format("{:.0f} GFLOP/s", limits->bf16_gflop_s) : "none",
        limits->int8_gop_s > 0 ? fmt::format("{:.0f} GOP/s", limits->int8_gop_s) : "none",
        limits->ms_fork_join);
  }
  return text;
}

nlohmann::ordered_json SpeedJson(const SpeedSetting& setting, const ModelSize& size,
                                 const SpeedResult& result, const std::optional<Limits>& limits) {
  std::vector<double> samples_ns;
  for (const double s : result.seconds) samples_ns.push_back(std::round(s * 1e9));
  const std::vector<double> samples_ts = TokensPerSecond(result);
  const Spread ns = SpreadOf(samples_ns), ts = SpreadOf(samples_ts);
  const auto whole = [](double value) { return static_cast<uint64_t>(std::llround(value)); };
  std::vector<uint64_t> whole_ns;
  for (const double n : samples_ns) whole_ns.push_back(whole(n));
  nlohmann::ordered_json row = {
      {"case", setting.label},
      {"build_commit", setting.commit},
      {"cpu_info", setting.cpu},
      {"backends", setting.simd},
      {"model_filename", setting.model_file},
      {"model_type", setting.model_type},
      {"model_size", setting.file_bytes},
      {"model_n_params", setting.n_params},
      {"n_batch", setting.batch},
      {"n_ubatch", setting.chunk},
      {"n_threads", setting.threads},
      {"type_k", setting.type_k},
      {"type_v", setting.type_v},
      {"n_prompt", result.test.n_prompt},
      {"n_gen", result.test.n_gen},
      {"n_depth", result.test.depth},
      {"n_parallel", result.test.parallel},
      {"test", Name(result.test)},
      {"test_time", TimeText(result.started)},
      {"avg_ns", whole(ns.mean)},
      {"stddev_ns", whole(ns.deviation)},
      {"avg_ts", ts.mean},
      {"stddev_ts", ts.deviation},
      {"samples_ns", whole_ns},
      {"samples_ts", samples_ts},
      {"policy_ns", whole(SpreadOf(result.policy_seconds).mean * 1e9)},
      {"kv_policy", setting.policy},
      {"kv_codec", setting.codec},
      {"kv_peak_bytes", result.kv_peak_bytes},
      {"kv_bytes_per_token", result.kv_bytes_per_token()},
      {"read_bytes_per_step", result.kv_read_bytes},
      {"weight_bytes", size.weight_bytes},
  };
  if (const std::optional<double> share = LimitShare(result, size, limits)) {
    row["limit_share"] = *share;
  }
  return row;
}

nlohmann::ordered_json LimitsJson(const Limits& limits) {
  return {{"limits",
           {{"read_gb_s", limits.read_gb_s},
            {"f32_gflop_s", limits.f32_gflop_s},
            {"bf16_gflop_s", limits.bf16_gflop_s},
            {"int8_gop_s", limits.int8_gop_s},
            {"ms_fork_join", limits.ms_fork_join}}}};
}

std::string SpeedCsv(const std::vector<nlohmann::ordered_json>& rows) {
  std::string text;
  if (rows.empty()) return text;
  // A share of the limit is there for some tests only.
  std::vector<std::string> keys;
  for (const auto& row : rows) {
    for (const auto& [key, value] : row.items()) {
      if (!value.is_array() && std::find(keys.begin(), keys.end(), key) == keys.end()) {
        keys.push_back(key);
      }
    }
  }
  text = fmt::format("{}\n", fmt::join(keys, ","));
  for (const auto& row : rows) {
    std::vector<std::string> cells;
    for (const std::string& key : keys) {
      cells.push_back(row.contains(key) ? CsvCell(row[key]) : "");
    }
    text += fmt::format("{}\n", fmt::join(cells, ","));
  }
  return text;
}

}  // namespace kvasir::bench
