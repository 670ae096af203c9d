// One request body on its way through the engine: submitted, followed, and answered whole or as a
// stream.
//
// Invariants  A call that ends, however it ends, leaves nothing of itself in the engine.
//             The status code is decided before the first byte: a stream begins with the first
//             event of the engine, or after `quiet` without one.
// Threads     One connection thread.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "server/engine_loop.h"
#include "server/http.h"
#include "server/openai.h"
#include "server/requests.h"
#include "server/stream_format.h"
#include "text/tokenizer.h"

namespace kvasir {

class Answer {
 public:
  // Proxies close connections that are silent for much longer.
  static constexpr std::chrono::seconds kQuiet{15};

  // Submits. `quiet`: the longest silence of a stream. Errors: EngineLoop::Submit's.
  Answer(EngineLoop& loop, const Tokenizer& tokenizer, ApiRequest request, ApiEcho echo,
         EngineRequests requests, std::chrono::milliseconds quiet = kQuiet);
  ~Answer();  // cancels what has not ended
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;

  // Waits for all choices. Errors: the engine's, kCancelled when the client leaves.
  nlohmann::ordered_json Whole(const std::function<bool()>& gone);

  // Waits until a stream can begin. Errors: as Whole.
  void AwaitFirst(const std::function<bool()>& gone);
  // Writes it, to its end or until the client leaves. Says how it ended: an error that came after
  // the first byte, which the client has been told.
  std::optional<Error> Stream(HttpStream& stream);

 private:
  // The next event within `wait`, or nothing.
  std::optional<GenerationEvent> Next(std::chrono::milliseconds wait);
  bool WriteEvent(HttpStream& stream, GenerationEvent event);
  std::string Logprobs(size_t choice, std::span<const TokenLogprob> logprobs);

  EngineLoop& loop_;
  const Tokenizer& tokenizer_;
  const ApiRequest request_;
  const ApiEcho echo_;
  const StreamFormat format_;
  const std::chrono::milliseconds quiet_;
  std::vector<Prompt> prompts_;
  std::shared_ptr<EventQueue> events_ = std::make_shared<EventQueue>();
  std::vector<EngineLoop::Ticket> tickets_;
  std::vector<Generation> done_;    // by choice
  std::vector<bool> opened_;        // streams: the role was sent
  std::vector<size_t> n_logprobs_;  // streams: tokens whose log probabilities were sent
  std::vector<LogprobFormat> logprobs_;
  size_t n_done_ = 0;
  std::optional<GenerationEvent> first_;
};

}  // namespace kvasir
