// What a monitor scrapes: vLLM's names where they mean something here, and our own.
//
// Every series exists from the start, and label values come from configuration and from fixed lists
// of ours, never from a request. The names are listed in docs/serving.md; a test holds the two
// together.
//
// Cost     A scrape copies every series; an observation is a lock that is hardly ever contended.
// Threads  All functions from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"

namespace kvasir {

struct EngineSnapshot;

// What is known of the server before its first request.
struct MetricsInfo {
  std::string model_name, version, simd;
  uint32_t context = 0;             // tokens
  uint32_t block_tokens = 0;        // a stored prefix may end at multiples of so many tokens
  uint64_t blocks = 0;              // that the budget holds
  std::vector<std::string> routes;  // paths that requests are counted under
};

class Metrics {
 public:
  explicit Metrics(const MetricsInfo& info);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // A pass ended.
  void StepDone(const EngineStats& stats);
  // A piece of text came so long after the one before.
  void PieceAfter(double seconds);
  // `seconds`: from the request's arrival to its end.
  void GenerationDone(const Generation& generation, double seconds);
  // An answer left the server. `route`: one of MetricsInfo's, or anything else.
  void AnswerDone(std::string_view route, int status);
  // A request was refused.
  void Refused(Code code);

  // The text form, with the state of the snapshot.
  std::string Text(const EngineSnapshot& snapshot);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvasir
