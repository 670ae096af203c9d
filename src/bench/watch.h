// What the server holds while it is under load: asked five times a second, from outside.
//
// KV       /metrics of this engine (bytes, entries dropped, prefix tokens) and of vLLM (share of
// the
//          cache, prefix tokens). Counters are differences between start and end.
// Memory   /proc of a local server's process and all its descendants, as a sum.
// Threads  One of its own between construction and Stop.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "bench/client.h"

namespace kvasir::bench {

// What was seen; nothing where the server does not tell.
struct Sightings {
  std::optional<uint64_t> kv_bytes_peak, kv_bytes_mean;
  std::optional<double> kv_usage_peak;  // share of the cache, as vLLM gives it
  std::optional<uint64_t> evicted_entries, prefix_queried_tokens, prefix_hit_tokens;
  std::optional<uint64_t> resident_peak_bytes;      // while it was watched
  std::optional<uint64_t> resident_max_ever_bytes;  // VmHWM: since the processes began
};

class ServerWatch {
 public:
  // `pid` 0: memory is not looked at. The client must outlive it.
  ServerWatch(const Client& client, uint32_t pid);
  ~ServerWatch();
  ServerWatch(const ServerWatch&) = delete;
  ServerWatch& operator=(const ServerWatch&) = delete;

  Sightings Stop();

 private:
  void Run();
  void Look();

  const Client& client_;
  const uint32_t pid_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  Sightings seen_;
  // The watch's thread alone, until it has ended.
  bool has_metrics_ = true;
  double kv_bytes_sum_ = 0;
  uint64_t kv_bytes_looks_ = 0;
  struct Counter {
    std::optional<double> first, last;
    void See(std::optional<double> value);
    std::optional<uint64_t> Difference() const;
  };
  Counter evicted_, queried_, hit_;
  std::thread thread_;
};

// Sum of the samples of one Prometheus series whose labels contain `label` (such as
// state="running"; empty: all). Nothing when there is none.
std::optional<double> MetricSum(std::string_view text, std::string_view name,
                                std::string_view label = {});

struct ProcessMemory {
  uint64_t resident_bytes = 0, max_ever_bytes = 0;
};
// Of a process and its descendants; nothing when it does not exist.
std::optional<ProcessMemory> MemoryOfTree(uint32_t pid);

}  // namespace kvasir::bench
