// The server under test, as a client of OpenAI's routes sees it.
//
// Every request has a connection of its own, so that no kept connection that the server has dropped
// meanwhile counts as its failure; opening it is part of the times, as it is for users.
//
// Threads  All functions from any thread.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "bench/answer.h"
#include "bench/prompts.h"

namespace kvasir::bench {

struct ClientOptions {
  std::string base_url;  // http:// or https://, a path behind it if need be
  std::string endpoint = "/v1/completions";
  std::string model;  // in every request; empty: the first the server lists
  std::string api_key;
  std::optional<double> temperature = 0;
  bool ignore_eos = false;
  double timeout_s = 600;  // without a byte
};

using Clock = std::chrono::steady_clock;

class Client {
 public:
  // Errors: kUsage for a base URL that is none.
  explicit Client(ClientOptions options);

  Route route() const { return route_; }
  const ClientOptions& options() const { return options_; }

  // Finds the server there, and the model's name where none was given.
  // Errors: kUnavailable when it cannot be reached or lists no model, one line with what to do.
  void Connect();
  // How the server counts tokens (/tokenize of vLLM, llama.cpp and this engine, /extras/tokenize of
  // llama-cpp-python); empty when it does not tell. The client must outlive it.
  CountTokens Counter() const;
  // The body of a GET, or nothing when there is none.
  std::optional<std::string> Get(const std::string& path) const;

  // Body of a request for `turn` after what was said in its conversation.
  class Dialogue {
   public:
    explicit Dialogue(const Client& client) : client_(client) {}
    nlohmann::json Ask(const Turn& turn);
    void Answered(const std::string& text);

   private:
    const Client& client_;
    std::string text_;  // completions: everything so far
    nlohmann::json messages_ = nlohmann::json::array();
  };

  // One request from connection to end. Never throws: whatever goes wrong is in the record.
  Record Stream(const nlohmann::json& body, Clock::time_point run_start) const;

 private:
  struct Reply {
    int status = 0;  // 0: no answer
    std::string body, error;
  };
  Reply Send(const char* method, const std::string& path, const std::string& body,
             double timeout_s) const;
  std::optional<size_t> Count(const std::string& path, const char* key,
                              const std::string& text) const;

  ClientOptions options_;
  Route route_;
  std::string origin_, path_;  // of base_url
};

}  // namespace kvasir::bench
