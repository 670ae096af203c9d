// One streamed answer: what is made of its events, and when they came.
//
// A token's time is that of the first piece of text that shows it: the chunk with the role, the
// chunk that only ends the answer and the one with the usage carry no token. Where the server tells
// the usage its counts are taken; else each piece of text counts as a token.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/prompts.h"
#include "bench/sse.h"

namespace kvasir::bench {

// What became of one request. Times in seconds.
struct Record {
  std::string failure;      // kind: "connect", "http 429", ...; empty: it was answered
  std::string message;      // of the failure
  double start = 0;         // since the start of the run
  double ttft = 0;          // time to the first token; 0: there was none
  double latency = 0;       // to the last token, or to the end of an answer without one
  std::vector<double> itl;  // from one piece of text to the next
  uint64_t input_tokens = 0, output_tokens = 0;
  bool has_usage = false;
  std::optional<uint64_t> cached_tokens;  // of the prompt, out of a prefix cache
  std::string text;

  bool ok() const { return failure.empty(); }
};

// Reads the events of one answer into a record.
class AnswerReader {
 public:
  AnswerReader(Route route, Record& record) : route_(route), record_(record) {}

  // `seconds`: since the request went out. False: the answer is over, or broken off by an error,
  // which stands in the record then.
  bool Take(const SseEvent& event, double seconds);
  // The connection ended: an answer that was not complete becomes a failure.
  void End(double seconds);
  bool complete() const { return done_ || finished_; }

 private:
  bool TakeError(const nlohmann::json& error);
  void TakeUsage(const nlohmann::json& usage);
  void TakeChoice(const nlohmann::json& choice, double seconds);

  Route route_;
  Record& record_;
  uint64_t pieces_ = 0;
  bool finished_ = false;  // a finish reason came
  bool done_ = false;      // [DONE] came
};

// The line that names an error in a body of any server: error.message, error, message, detail; the
// beginning of the body otherwise.
std::string ErrorMessage(std::string_view body);

}  // namespace kvasir::bench
