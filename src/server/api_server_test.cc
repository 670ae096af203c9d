#include "server/api_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/testing.h"
#include "format/json.h"

namespace kvasir {
namespace {

using ::testing::HasSubstr;

HttpReply Call(std::span<const HttpRoute> routes, const std::string& method,
               const std::string& path, const std::string& body = {}) {
  for (const HttpRoute& route : routes) {
    if (route.method == method && route.path == path) {
      return route.handler({method, path, body, "127.0.0.1", [] { return false; }});
    }
  }
  ADD_FAILURE() << path;
  return {};
}

std::string Header(const HttpReply& reply, std::string_view name) {
  for (const auto& [key, value] : reply.headers) {
    if (key == name) return value;
  }
  return "absent";
}

nlohmann::json Document(const HttpReply& reply) { return ParseJson(reply.body, "reply"); }

class ApiServerTest : public ::testing::Test {
 protected:
  ApiServerTest()
      : raw_(tokenizer_, nullptr),
        metrics_({.model_name = "tiny",
                  .version = "1",
                  .simd = "x",
                  .context = 512,
                  .routes = ApiServer::Paths()}),
        api_("tiny", "1.2.3") {
    EngineOptions options;
    options.kv_memory = 8 << 20;
    options.encoding = {.k = Codec::kF32, .v = Codec::kF32};
    engine_ = std::make_unique<Engine>(model_, &tokenizer_, BestKernels(), workers_, options);
    loop_ = std::make_unique<EngineLoop>(*engine_, EngineLoopOptions{}, &metrics_);
    routes_ = api_.Routes();
  }
  void Open() {
    ApiDefaults defaults;
    defaults.vocabulary = testing::kVocabulary;
    api_.Open({.loop = *loop_,
               .metrics = metrics_,
               .tokenizer = tokenizer_,
               .raw = raw_,
               .chat = raw_,
               .defaults = defaults,
               .context = 512,
               .policy = "none",
               .codec = "f32"});
  }

  testing::TinyModel model_;
  const testing::LetterTokenizer tokenizer_;
  const PromptBuilder raw_;
  Workers workers_{1};
  std::unique_ptr<Engine> engine_;
  Metrics metrics_;
  std::unique_ptr<EngineLoop> loop_;
  ApiServer api_;
  std::vector<HttpRoute> routes_;
};

TEST_F(ApiServerTest, SaysThatItLoadsUntilItIsOpen) {
  HttpReply reply = Call(routes_, "GET", "/health");
  EXPECT_EQ(reply.status, 503);
  EXPECT_THAT(reply.body, HasSubstr("loading"));
  reply = Call(routes_, "POST", "/v1/completions", R"({"prompt":[1]})");
  EXPECT_EQ(reply.status, 503);
  EXPECT_NE(Header(reply, "Retry-After"), "absent");
  EXPECT_EQ(Document(reply)["error"]["type"], "unavailable_error");
  EXPECT_EQ(Document(Call(routes_, "GET", "/version"))["version"], "1.2.3");
  Open();
  EXPECT_EQ(Call(routes_, "GET", "/health").status, 200);
  loop_->BeginDrain();
  reply = Call(routes_, "GET", "/health");
  EXPECT_EQ(reply.status, 503);
  EXPECT_THAT(reply.body, HasSubstr("draining"));
  EXPECT_EQ(Call(routes_, "POST", "/v1/completions", R"({"prompt":[1]})").status, 503);
}

TEST_F(ApiServerTest, AsksForTheKeysThatRoutesNeed) {
  for (const HttpRoute& route : routes_) {
    const HttpAccess expected = route.path == "/health" || route.path == "/version"
                                    ? HttpAccess::kOpen
                                : route.path == "/reset_prefix_cache" ? HttpAccess::kAdmin
                                                                      : HttpAccess::kKey;
    EXPECT_EQ(route.access, expected) << route.path;
  }
}

TEST_F(ApiServerTest, NamesIgnoredFieldsThatAreSafeInAHeader) {
  Open();
  std::string body = R"({"prompt":[1],"max_tokens":1)";
  for (int i = 10; i < 40; ++i) body += fmt::format(R"(,"x{}":1)", i);
  HttpReply reply = Call(routes_, "POST", "/v1/completions", body + "}");
  const std::string names = Header(reply, "x-kvasir-ignored");
  EXPECT_EQ(std::count(names.begin(), names.end(), ','), 15);
  reply = Call(routes_, "POST", "/v1/completions",
               R"({"prompt":[1],"max_tokens":1,"a\r\nb":1,"é":1,"":1,"a b":1,"ok.1_A":1})");
  EXPECT_EQ(Header(reply, "x-kvasir-ignored"), "ok.1_A");
}

TEST_F(ApiServerTest, CountsWhatItRefuses) {
  Open();
  HttpReply reply = Call(routes_, "POST", "/v1/completions", "{");
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(Document(reply)["error"]["type"], "invalid_request_error");
  EXPECT_EQ(Call(routes_, "POST", "/v1/completions", R"({"prompt":[40]})").status, 400);
  EXPECT_EQ(Call(routes_, "POST", "/detokenize", R"({"tokens":[1.5]})").status, 400);
  EXPECT_THAT(metrics_.Text(loop_->snapshot()),
              HasSubstr("kvasir_rejected_total{reason=\"invalid_request\"} 3\n"));
}

TEST_F(ApiServerTest, RefusesAPromptBeyondTheContextInOpenAisWords) {
  Open();
  std::string ids = "1";
  for (int i = 0; i < 512; ++i) ids += ",1";
  const HttpReply reply =
      Call(routes_, "POST", "/v1/completions", fmt::format(R"({{"prompt":[{}]}})", ids));
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(Document(reply)["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(Document(reply)["error"]["param"], "prompt");
}

}  // namespace
}  // namespace kvasir
