#include "server/answer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"

namespace kvasir {

namespace {
// How soon a client that left is noticed while nothing is written.
constexpr std::chrono::milliseconds kLookForClient{100};
}  // namespace

Answer::Answer(EngineLoop& loop, const Tokenizer& tokenizer, ApiRequest request, ApiEcho echo,
               EngineRequests requests, std::chrono::milliseconds quiet)
    : loop_(loop),
      tokenizer_(tokenizer),
      request_(std::move(request)),
      echo_(std::move(echo)),
      format_(request_, echo_),
      quiet_(quiet),
      prompts_(std::move(requests.prompts)),
      done_(requests.requests.size()),
      opened_(requests.requests.size()),
      n_logprobs_(requests.requests.size()),
      logprobs_(requests.requests.size(),
                LogprobFormat(request_.route, tokenizer, request_.logprobs.value_or(0))) {
  tickets_ = loop_.Submit(std::move(requests.requests), events_, request_.stream);
}

Answer::~Answer() {
  if (n_done_ < tickets_.size()) loop_.Cancel(tickets_);
}

std::optional<GenerationEvent> Answer::Next(std::chrono::milliseconds wait) {
  std::optional<GenerationEvent> event =
      first_ ? std::exchange(first_, std::nullopt) : events_->Next(wait);
  if (event && event->done) ++n_done_;
  return event;
}

nlohmann::ordered_json Answer::Whole(const std::function<bool()>& gone) {
  while (n_done_ < tickets_.size()) {
    std::optional<GenerationEvent> event = Next(kLookForClient);
    if (!event) {
      if (gone && gone()) Fail(Code::kCancelled, "the client left before the answer");
      continue;
    }
    if (!event->done) continue;
    if (event->done->error) throw *event->done->error;
    done_[event->choice] = std::move(*event->done);
  }
  return ApiResponse(request_, echo_, prompts_, done_, tokenizer_);
}

void Answer::AwaitFirst(const std::function<bool()>& gone) {
  const auto deadline = std::chrono::steady_clock::now() + quiet_;
  while (!first_ && std::chrono::steady_clock::now() < deadline) {
    first_ = events_->Next(std::min(kLookForClient, quiet_));
    if (!first_ && gone && gone()) Fail(Code::kCancelled, "the client left before the answer");
  }
  if (first_ && first_->done && first_->done->error) throw *first_->done->error;
}

std::string Answer::Logprobs(size_t choice, std::span<const TokenLogprob> logprobs) {
  if (!request_.logprobs) return "null";
  logprobs_[choice].Add(logprobs);
  n_logprobs_[choice] += logprobs.size();
  return DumpJson(logprobs_[choice].Take());
}

bool Answer::WriteEvent(HttpStream& stream, GenerationEvent event) {
  const size_t i = event.choice;
  std::string bytes;
  if (!opened_[i]) {
    opened_[i] = true;
    bytes = format_.Role(i);
  }
  if (!event.done) {
    bytes += format_.Text(i, event.text, Logprobs(i, event.logprobs));
    return stream.Write(bytes);
  }
  Generation& generation = done_[i] = std::move(*event.done);
  // Tokens without text of their own: a stop text, or the end of a character that never came.
  const std::span<const TokenLogprob> all = generation.logprobs;
  const auto rest = all.subspan(std::min(n_logprobs_[i], all.size()));
  const bool last = n_done_ == tickets_.size();
  bytes +=
      format_.Finish(i, rest.empty() ? "null" : Logprobs(i, rest), generation,
                     last ? std::span<const Generation>(done_) : std::span<const Generation>());
  return stream.Write(bytes);
}

std::optional<Error> Answer::Stream(HttpStream& stream) {
  auto written = std::chrono::steady_clock::now();
  if (!first_ && !stream.Write(StreamFormat::kKeepAlive)) return std::nullopt;
  while (n_done_ < tickets_.size()) {
    std::optional<GenerationEvent> event = Next(std::min(kLookForClient, quiet_));
    const auto now = std::chrono::steady_clock::now();
    if (!event) {
      if (stream.gone()) return std::nullopt;
      if (now - written < quiet_) continue;
      if (!stream.Write(StreamFormat::kKeepAlive)) return std::nullopt;
    } else if (event->done && event->done->error) {
      const Error error = *event->done->error;
      stream.Write(StreamFormat::Failure(error));
      return error;
    } else if (!WriteEvent(stream, std::move(*event))) {
      return std::nullopt;
    }
    written = now;
  }
  if (request_.include_usage && !stream.Write(format_.Usage(done_))) return std::nullopt;
  stream.Write(StreamFormat::kDone);
  return std::nullopt;
}

}  // namespace kvasir
