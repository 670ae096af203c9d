// A run as text and as JSON: the block and the keys that `vllm bench serve` prints, and ours
// behind.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/stats.h"
#include "bench/watch.h"

namespace kvasir::bench {

// What the run was about.
struct Setting {
  std::string base_url, endpoint, model;
  size_t conversations = 0;
  uint64_t seed = 0;
  double rate = 0;  // 0: all at once
  double burstiness = 1;
  size_t max_concurrency = 0;  // 0: unlimited
  std::string tokens_by;       // what prompts were measured with: "server", "words", "dataset"
  std::vector<Measure> measures;
  std::vector<double> percents;
};

std::string BlockText(const Setting& setting, const Results& results, const Sightings& seen);
// With `detailed` the times and texts of every request.
nlohmann::ordered_json ResultJson(const Setting& setting, const Results& results,
                                  const Sightings& seen, const LoadRun* detailed);

}  // namespace kvasir::bench
