// The routes: what a path means, and nothing of sockets or of the engine's inside.
//
// The table exists before the model does: until Open every route but /version says that the server
// is loading. Errors of a request become OpenAI's error body here.
//
// Threads  Handlers run on connection threads; Open from the thread that starts the server, once.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "server/answer.h"
#include "server/engine_loop.h"
#include "server/http.h"
#include "server/metrics.h"
#include "server/openai.h"
#include "server/prompt.h"
#include "server/requests.h"

namespace kvasir {

// A model that answers. What is referred to outlives the server.
struct ApiModel {
  EngineLoop& loop;
  Metrics& metrics;
  const Tokenizer& tokenizer;
  const PromptBuilder& raw;   // prompts of texts
  const PromptBuilder& chat;  // and of conversations
  ApiDefaults defaults;
  uint32_t context = 0;
  bool pins = false;          // the policy keeps system text
  std::string policy, codec;  // whole specs
  uint64_t lanes = 1;         // of a sequence
};

class ApiServer {
 public:
  // `model_name`: what clients see.
  ApiServer(std::string model_name, std::string version);

  void Open(const ApiModel& model);
  std::vector<HttpRoute> Routes();
  // Counts an answer that has left.
  void Log(const HttpLogLine& line);
  // Paths of the table, for metrics.
  static std::vector<std::string> Paths();

 private:
  HttpReply Chat(const HttpRequest& request) { return Generate(ApiRoute::kChat, request); }
  HttpReply Completions(const HttpRequest& request) {
    return Generate(ApiRoute::kCompletions, request);
  }
  HttpReply Generate(ApiRoute route, const HttpRequest& request);
  HttpReply Models(const HttpRequest& request);
  HttpReply Health(const HttpRequest& request);
  HttpReply Version(const HttpRequest& request);
  HttpReply Tokenize(const HttpRequest& request);
  HttpReply Detokenize(const HttpRequest& request);
  HttpReply ApplyTemplate(const HttpRequest& request);
  HttpReply MetricsText(const HttpRequest& request);
  HttpReply Kv(const HttpRequest& request);
  HttpReply ResetPrefixCache(const HttpRequest& request);

  struct Row;
  static const Row kRows[];

  // Errors: kUnavailable before Open.
  const ApiModel& model() const;
  HttpReply Refusal(const Error& error);
  ApiEcho Echo(const ApiModel& model);

  const std::string model_name_, version_;
  const uint64_t started_s_;
  const std::string run_id_;
  std::unique_ptr<const ApiModel> owned_;
  std::atomic<const ApiModel*> model_{nullptr};
  std::atomic<uint64_t> n_answers_{0};
};

}  // namespace kvasir
