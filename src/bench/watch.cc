#include "bench/watch.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <system_error>
#include <vector>

namespace kvasir::bench {

namespace {

constexpr auto kPause = std::chrono::milliseconds(200);

std::string ReadAll(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream bytes;
  bytes << in.rdbuf();
  return bytes.str();
}

// A line "NAME:  123 kB" of /proc/PID/status, in bytes.
std::optional<uint64_t> StatusLine(std::string_view status, std::string_view name) {
  size_t at = status.find(name);
  if (at == std::string_view::npos) return std::nullopt;
  at = status.find_first_of("0123456789", at);
  if (at == std::string_view::npos) return std::nullopt;
  uint64_t value = 0;
  std::from_chars(status.data() + at, status.data() + status.size(), value);
  return name == "PPid:" ? value : value * 1024;
}

// Children of every process, as they are now.
std::multimap<uint32_t, uint32_t> Children() {
  std::multimap<uint32_t, uint32_t> children;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename();
    uint32_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error != std::errc() || end != name.data() + name.size()) continue;
    if (const auto parent = StatusLine(ReadAll(entry.path() / "status"), "PPid:")) {
      children.emplace(static_cast<uint32_t>(*parent), pid);
    }
  }
  return children;
}

void Raise(std::optional<uint64_t>& peak, uint64_t value) {
  peak = std::max(peak.value_or(0), value);
}

}  // namespace

std::optional<double> MetricSum(std::string_view text, std::string_view name,
                                std::string_view label) {
  std::optional<double> sum;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    if (!line.starts_with(name)) continue;
    std::string_view rest = line.substr(name.size());
    if (rest.starts_with('{')) {
      const size_t close = rest.rfind('}');
      if (close == std::string_view::npos) continue;
      if (rest.substr(0, close).find(label) == std::string_view::npos) continue;
      rest.remove_prefix(close + 1);
    } else if (!rest.starts_with(' ') || !label.empty()) {
      continue;
    }
    const size_t digits = rest.find_first_not_of(" \t");
    if (digits == std::string_view::npos) continue;
    double value = 0;
    const auto [stop, error] =
        std::from_chars(rest.data() + digits, rest.data() + rest.size(), value);
    if (error == std::errc()) sum = sum.value_or(0) + value;
  }
  return sum;
}

std::optional<ProcessMemory> MemoryOfTree(uint32_t pid) {
  const std::multimap<uint32_t, uint32_t> children = Children();
  std::optional<ProcessMemory> memory;
  std::vector<uint32_t> left = {pid};
  while (!left.empty()) {
    const uint32_t next = left.back();
    left.pop_back();
    const std::string status = ReadAll("/proc/" + std::to_string(next) + "/status");
    const auto resident = StatusLine(status, "VmRSS:");
    if (resident) {
      if (!memory) memory.emplace();
      memory->resident_bytes += *resident;
      memory->max_ever_bytes += StatusLine(status, "VmHWM:").value_or(*resident);
    }
    const auto [from, to] = children.equal_range(next);
    for (auto child = from; child != to; ++child) left.push_back(child->second);
  }
  return memory;
}

void ServerWatch::Counter::See(std::optional<double> value) {
  if (!value) return;
  if (!first) first = value;
  last = value;
}

std::optional<uint64_t> ServerWatch::Counter::Difference() const {
  if (!first) return std::nullopt;
  return static_cast<uint64_t>(std::max(0.0, *last - *first));
}

ServerWatch::ServerWatch(const Client& client, uint32_t pid) : client_(client), pid_(pid) {
  Look();  // counters begin before the load does
  thread_ = std::thread([this] { Run(); });
}

ServerWatch::~ServerWatch() {
  if (thread_.joinable()) Stop();
}

void ServerWatch::Run() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, kPause, [this] { return stopping_; })) {
    lock.unlock();
    Look();
    lock.lock();
  }
}

void ServerWatch::Look() {
  if (pid_ != 0) {
    if (const std::optional<ProcessMemory> memory = MemoryOfTree(pid_)) {
      Raise(seen_.resident_peak_bytes, memory->resident_bytes);
      Raise(seen_.resident_max_ever_bytes, memory->max_ever_bytes);
    }
  }
  if (!has_metrics_) return;
  const std::optional<std::string> text = client_.Get("/metrics");
  if (!text) {
    // A server without metrics is not asked again; one that is only busy has shown some before.
    has_metrics_ = kv_bytes_looks_ > 0 || seen_.kv_usage_peak || queried_.first;
    return;
  }
  const auto running = MetricSum(*text, "kvasir_kv_bytes", "state=\"running\"");
  if (running) {
    const double held =
        *running + MetricSum(*text, "kvasir_kv_bytes", "state=\"snapshots\"").value_or(0);
    Raise(seen_.kv_bytes_peak, static_cast<uint64_t>(held));
    kv_bytes_sum_ += held;
    ++kv_bytes_looks_;
  }
  auto usage = MetricSum(*text, "vllm:kv_cache_usage_perc");
  if (!usage) usage = MetricSum(*text, "vllm:gpu_cache_usage_perc");
  if (usage) seen_.kv_usage_peak = std::max(seen_.kv_usage_peak.value_or(0), *usage);
  evicted_.See(MetricSum(*text, "kvasir_kv_evicted_entries_total"));
  queried_.See(MetricSum(*text, "vllm:prefix_cache_queries_total"));
  hit_.See(MetricSum(*text, "vllm:prefix_cache_hits_total"));
}

Sightings ServerWatch::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
  Look();
  if (kv_bytes_looks_ > 0) {
    seen_.kv_bytes_mean =
        static_cast<uint64_t>(kv_bytes_sum_ / static_cast<double>(kv_bytes_looks_));
  }
  seen_.evicted_entries = evicted_.Difference();
  seen_.prefix_queried_tokens = queried_.Difference();
  seen_.prefix_hit_tokens = hit_.Difference();
  return seen_;
}

}  // namespace kvasir::bench
