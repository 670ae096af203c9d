#include "cli/generate.h"

#include <csignal>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/error.h"
#include "cli/progress.h"
#include "server/openai.h"

namespace kvasir {

namespace {
volatile std::sig_atomic_t interrupted = 0;
void OnInterrupt(int) { interrupted = 1; }
}  // namespace

InterruptGuard::InterruptGuard() {
  interrupted = 0;
  std::signal(SIGINT, OnInterrupt);
}
InterruptGuard::~InterruptGuard() { std::signal(SIGINT, SIG_DFL); }

bool Interrupted() {
  const bool was = interrupted != 0;
  interrupted = 0;
  return was;
}

Request RequestFrom(const OptionValues& values, const std::vector<std::string>& stops) {
  Request request;
  request.sampling = SamplingFrom(values);
  if (values.Given("predict")) request.max_tokens = static_cast<uint32_t>(values.Count("predict"));
  request.stop = stops;
  for (const std::string& stop : stops) {
    if (stop.empty()) Fail(Code::kUsage, "--stop: empty: give at least one character");
  }
  request.ignore_eos = values.On("ignore-eos");
  return request;
}

void Pin(const Engine& engine, const Prompt& prompt, Request* request) {
  if (engine.policy() && engine.policy()->pins()) request->pinned = prompt.system;
}

Generation Complete(Engine& engine, Request request, Output* stream) {
  ProgressBar bar("reading prompt");
  request.on_prompt = [&](uint32_t done, uint32_t total) {
    bar.Update(static_cast<double>(done) / total);
    if (done == total) bar.Clear();
  };
  if (stream)
    request.on_text = [stream](const Piece& piece) { stream->Stream(std::string(piece.text)); };
  std::optional<Generation> result;
  request.on_done = [&](Generation generation) { result = std::move(generation); };
  const RequestId id = engine.Submit(std::move(request));
  while (!result) {
    if (Interrupted()) {
      engine.Cancel(id);
    } else {
      CHECK(engine.Step());
    }
  }
  if (result->error) throw *result->error;
  return std::move(*result);
}

std::string LengthNote(const Generation& generation) {
  if (generation.stop_reason != StopReason::kLength || generation.stop_detail == "max_tokens") {
    return {};
  }
  return fmt::format("stopped after {} tokens: {}", generation.tokens.size(),
                     generation.stop_detail == "context" ? "the context is full (--ctx-size)"
                     : generation.stop_detail == "KV budget"
                         ? "the KV budget is full (--kv-memory, --kv-policy)"
                         : "no length was asked for (-n N)");
}

nlohmann::ordered_json KvOf(const Session& session, const Engine& engine,
                            const Generation& generation) {
  KvUse use;
  use.positions = generation.state ? generation.state->tokens.size()
                                   : generation.prompt_tokens + generation.tokens.size();
  use.entries_kept = generation.entries;
  use.entries_dropped = generation.entries_dropped;
  const Ledger ledger = engine.ledger();
  use.bytes_end = ledger.bytes;
  use.bytes_side = ledger.bytes_side;
  return KvJson(session, engine, use);
}

}  // namespace kvasir
