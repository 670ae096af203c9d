// Speed results as people and scripts read them: llama-bench's table and keys, with what the cache
// took and, where the machine's limits were measured, the share of them.
//
// Threads  Pure functions.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/limits.h"
#include "bench/speed.h"

namespace kvasir::bench {

// What all rows of a run share.
struct SpeedSetting {
  std::string commit, cpu, simd;
  std::string model_file;   // as given, or the shape's name
  std::string model_type;   // "llama 135M Q4_1"
  uint64_t file_bytes = 0;  // of the tensors
  uint64_t n_params = 0;
  size_t threads = 0;
  uint32_t batch = 0, chunk = 0;  // rows of a pass, of one prompt in a pass
  std::string type_k, type_v;     // llama.cpp's names
  std::string policy = "none";    // canonical spec
  std::string policy_text;        // as typed, for people
  std::string codec;              // "f16", "k=f16,v=q8"
  std::string label = "dense";    // of the case
  bool dense() const { return label == "dense"; }
};

// "123.45 M", "1.24 B".
std::string ParamsText(uint64_t n_params);

// Markdown, columns aligned; `limits` adds the share of them.
std::string SpeedTable(const SpeedSetting& setting, const ModelSize& size,
                       const std::vector<SpeedResult>& results,
                       const std::optional<Limits>& limits);
nlohmann::ordered_json SpeedJson(const SpeedSetting& setting, const ModelSize& size,
                                 const SpeedResult& result, const std::optional<Limits>& limits);
nlohmann::ordered_json LimitsJson(const Limits& limits);
// A head line and one line a row; lists are left out.
std::string SpeedCsv(const std::vector<nlohmann::ordered_json>& rows);

}  // namespace kvasir::bench
