// The client and the run against a server in this process, whose answers and delays are known.
#include "bench/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "bench/runner.h"
#include "bench/stats.h"
#include "bench/watch.h"

namespace kvasir::bench {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using testing::AllOf;
using testing::Ge;
using testing::HasSubstr;
using testing::Lt;

// What the server does with a request: decided by the "prompt" or the last message.
class FakeServer {
 public:
  FakeServer() {
    server_.new_task_queue = [] { return new httplib::ThreadPool(64); };
    server_.Get("/v1/models", [](const httplib::Request&, httplib::Response& res) {
      res.set_content(R"({"data":[{"id":"fake"}]})", "application/json");
    });
    server_.Get("/metrics", [this](const httplib::Request&, httplib::Response& res) {
      res.set_content(fmt::format("kvasir_kv_bytes{{state=\"running\"}} {}\n"
                                  "kvasir_kv_bytes{{state=\"snapshots\"}} 100\n"
                                  "vllm:prefix_cache_hits_total {}\n",
                                  1000 * running_, 50 * answered_),
                      "text/plain");
    });
    server_.Post("/tokenize", [](const httplib::Request& req, httplib::Response& res) {
      const json body = json::parse(req.body);  // like llama.cpp: knows "content" alone
      json tokens = json::array();
      if (body.contains("content")) tokens = std::vector<int>(body["content"].size() ? 5 : 0);
      res.set_content(json{{"tokens", tokens}}.dump(), "application/json");
    });
    const auto answer = [this](const httplib::Request& req, httplib::Response& res) {
      Answer(req, res);
    };
    server_.Post("/v1/completions", answer);
    server_.Post("/v1/chat/completions", answer);
    server_.Post("/prefix/v1/completions", answer);
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::sleep_for(milliseconds(1));
  }
  ~FakeServer() {
    server_.stop();
    thread_.join();
  }

  std::string url(const std::string& path = {}) const {
    return fmt::format("http://127.0.0.1:{}{}", port_, path);
  }
  int peak() const { return peak_; }
  std::vector<json> bodies() {
    const std::lock_guard lock(mutex_);
    return bodies_;
  }
  std::vector<httplib::Headers> headers() {
    const std::lock_guard lock(mutex_);
    return headers_;
  }

 private:
  static std::string Piece(bool chat, const std::string& text, const char* finish) {
    json choice = {{"index", 0}, {"finish_reason", nullptr}};
    if (*finish) choice["finish_reason"] = finish;
    if (chat) {
      choice["delta"] = {{"content", text}};
    } else {
      choice["text"] = text;
    }
    return "data: " + json{{"choices", {choice}}}.dump() + "\r\n\r\n";
  }

  void Answer(const httplib::Request& req, httplib::Response& res) {
    const json body = json::parse(req.body);
    {
      const std::lock_guard lock(mutex_);
      bodies_.push_back(body);
      headers_.push_back(req.headers);
    }
    const bool chat = body.contains("messages");
    const std::string ask =
        (chat ? body["messages"].back()["content"] : body["prompt"]).get<std::string>();
    if (ask == "status") {
      res.status = 429;
      res.set_content(R"({"error":{"message":"too many"}})", "application/json");
      return;
    }
    if (ask == "whole") {
      res.set_content(R"({"choices":[{"text":"no stream"}]})", "application/json");
      return;
    }
    const int n = body.value("max_tokens", 3);
    res.set_chunked_content_provider("text/event-stream",
                                     [this, ask, chat, n](size_t, httplib::DataSink& sink) {
                                       return Stream(ask, chat, n, sink);
                                     });
  }

  // First token after 60 ms, then one every 20 ms.
  bool Stream(const std::string& ask, bool chat, int n, httplib::DataSink& sink) {
    const auto send = [&](const std::string& bytes) { sink.write(bytes.data(), bytes.size()); };
    int now = ++running_;
    for (int seen = peak_; seen < now && !peak_.compare_exchange_weak(seen, now);) {
    }
    send(": hello\n\n");
    if (chat)
      send("data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"},\"finish_reason\":null}]}\n\n");
    for (int i = 0; i < n; ++i) {
      std::this_thread::sleep_for(milliseconds(i == 0 ? 60 : 20));
      const std::string piece = Piece(chat, fmt::format("w{} ", i), i + 1 == n ? "length" : "");
      send(piece.substr(0, 11));  // pieces end anywhere
      send(piece.substr(11));
      if (ask == "hang") std::this_thread::sleep_for(milliseconds(1600));
      if (i == 1 && ask == "cut") return --running_, false;
      if (i == 1 && ask == "error") {
        send("data: {\"error\":{\"message\":\"out of pages\"}}\n\n");
        --running_;
        sink.done();
        return true;
      }
    }
    if (ask != "no usage") {
      send("data: " +
           json{{"choices", json::array()},
                {"usage",
                 {{"prompt_tokens", 40},
                  {"completion_tokens", 2 * n},
                  {"prompt_tokens_details", {{"cached_tokens", 10}}}}}}
               .dump() +
           "\n\n");
    }
    send("data: [DONE]\n\n");
    --running_;
    ++answered_;
    sink.done();
    return true;
  }

  httplib::Server server_;
  int port_ = 0;
  std::thread thread_;
  std::atomic<int> running_{0}, peak_{0}, answered_{0};
  std::mutex mutex_;
  std::vector<json> bodies_;
  std::vector<httplib::Headers> headers_;
};

Client ClientFor(const std::string& url, const std::string& endpoint = "/v1/completions",
                 double timeout_s = 20) {
  ClientOptions options;
  options.base_url = url;
  options.endpoint = endpoint;
  options.timeout_s = timeout_s;
  return Client(options);
}

Turn Saying(const std::string& text, uint32_t max_tokens = 3) {
  Turn turn;
  turn.text = text;
  turn.input_tokens = 33;
  turn.max_tokens = max_tokens;
  return turn;
}

Record Ask(const Client& client, const std::string& text, uint32_t max_tokens = 3) {
  return client.Stream(Client::Dialogue(client).Ask(Saying(text, max_tokens)), Clock::now());
}

TEST(Client, RefusesWhatIsNoUrl) {
  for (const char* url : {"", "localhost:8080", "ftp://x", "http://", "http:///v1", "http://a:b"}) {
    try {
      ClientFor(url);
      ADD_FAILURE() << url;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kUsage);
      EXPECT_THAT(error.what(), HasSubstr("expected http://HOST:PORT"));
    }
  }
}

TEST(Client, SaysOnceThatNobodyAnswers) {
  Client client = ClientFor("http://127.0.0.1:1");
  try {
    client.Connect();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUnavailable);
    EXPECT_THAT(error.what(), HasSubstr("http://127.0.0.1:1: no server answers there"));
  }
}

TEST(Client, TakesTheFirstModelAndSendsWhatWasAsked) {
  FakeServer server;
  ClientOptions options;
  options.base_url = server.url("/v1/");
  options.api_key = "secret";
  options.ignore_eos = true;
  Client client(options);
  client.Connect();
  EXPECT_EQ(client.options().model, "fake");
  EXPECT_TRUE(Ask(client, "hello", 5).ok());
  ASSERT_EQ(server.bodies().size(), 1u);
  EXPECT_EQ(server.bodies()[0], (json{{"prompt", "hello"},
                                      {"model", "fake"},
                                      {"max_tokens", 5},
                                      {"temperature", 0.0},
                                      {"ignore_eos", true},
                                      {"stream", true},
                                      {"stream_options", {{"include_usage", true}}}}));
  EXPECT_EQ(server.headers()[0].find("Authorization")->second, "Bearer secret");
}

TEST(Client, KeepsThePathOfTheBase) {
  FakeServer server;
  EXPECT_TRUE(Ask(ClientFor(server.url("/prefix")), "hello").ok());
}

TEST(Client, FindsTheFormOfTokenizeThatTheServerKnows) {
  FakeServer server;
  const Client client = ClientFor(server.url());
  const CountTokens count = client.Counter();
  ASSERT_TRUE(count);
  EXPECT_EQ(count("any"), 5u);
}

TEST(Client, MeasuresKnownDelays) {
  FakeServer server;
  for (const char* endpoint : {"/v1/completions", "/v1/chat/completions"}) {
    const Record r = Ask(ClientFor(server.url(), endpoint), "hello", 6);
    ASSERT_TRUE(r.ok()) << r.failure << r.message;
    EXPECT_EQ(r.text, "w0 w1 w2 w3 w4 w5 ");
    EXPECT_EQ(r.input_tokens, 40u);
    EXPECT_EQ(r.output_tokens, 12u);
    EXPECT_EQ(r.cached_tokens, 10u);
    ASSERT_EQ(r.itl.size(), 5u);
    // Sleeps last at least as long as asked; the upper bounds leave room for a busy machine.
    EXPECT_THAT(r.ttft, AllOf(Ge(0.059), Lt(1)));
    EXPECT_THAT(r.latency, AllOf(Ge(0.155), Lt(3)));
    double sum = r.ttft;
    for (const double gap : r.itl) sum += gap;
    EXPECT_NEAR(sum, r.latency, 1e-9);
  }
}

TEST(Client, CountsPiecesOfAnAnswerWithoutUsage) {
  FakeServer server;
  const Record r = Ask(ClientFor(server.url()), "no usage", 4);
  EXPECT_TRUE(r.ok());
  EXPECT_FALSE(r.has_usage);
  EXPECT_EQ(r.output_tokens, 4u);
}

TEST(Client, TurnsEveryFaultIntoAFailureOfItsKind) {
  FakeServer server;
  const Client client = ClientFor(server.url(), "/v1/completions", 1);
  const std::map<std::string, std::pair<std::string, std::string>> faults = {
      {"status", {"http 429", "too many"}},
      {"error", {"error event", "out of pages"}},
      {"cut", {"cut off", ""}},
      {"whole", {"malformed", "no event stream"}},
      {"hang", {"timeout", "no byte for"}},
  };
  for (const auto& [ask, expected] : faults) {
    const Record r = Ask(client, ask);
    EXPECT_EQ(r.failure, expected.first) << ask << ": " << r.message;
    EXPECT_THAT(r.message, HasSubstr(expected.second)) << ask;
  }
  const Record r = Ask(ClientFor("http://127.0.0.1:1"), "hello");
  EXPECT_EQ(r.failure, "connect");
}

std::vector<Conversation> Asking(const std::vector<std::string>& texts, uint32_t max_tokens) {
  std::vector<Conversation> conversations;
  for (const std::string& text : texts) conversations.push_back({{Saying(text, max_tokens)}});
  return conversations;
}

TEST(RunLoad, KeepsToThePlaces) {
  FakeServer server;
  const Client client = ClientFor(server.url());
  const std::vector<Conversation> asked = Asking(std::vector<std::string>(9, "hello"), 4);
  double progress = 0;
  const LoadRun run = RunLoad(client, asked, std::vector<double>(9, 0.0), 3,
                              [&](double share) { progress = share; });
  EXPECT_EQ(server.peak(), 3);
  EXPECT_EQ(progress, 1);
  ASSERT_EQ(run.records.size(), 9u);
  for (const Record& r : run.records) EXPECT_TRUE(r.ok());
  EXPECT_GE(run.seconds, 3 * 0.119);
  EXPECT_EQ(Evaluate(run, {}, {}).concurrency_peak, 3u);
}

TEST(RunLoad, StartsNobodyBeforeTheTime) {
  FakeServer server;
  const std::vector<double> arrivals = {0.0, 0.05, 0.2};
  const LoadRun run = RunLoad(ClientFor(server.url()), Asking({"a", "b", "c"}, 1), arrivals, 0, {});
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_THAT(run.records[i].start, AllOf(Ge(arrivals[i]), Lt(arrivals[i] + 1)));
  }
}

TEST(RunLoad, CountsFailuresBesideAnswers) {
  FakeServer server;
  const LoadRun run =
      RunLoad(ClientFor(server.url()), Asking({"hello", "status", "cut", "hello"}, 3),
              std::vector<double>(4, 0.0), 2, {});
  const Results results = Evaluate(run, {}, {});
  EXPECT_EQ(results.completed, 2u);
  EXPECT_EQ(results.failures.at("http 429").n, 1u);
  EXPECT_EQ(results.failures.at("cut off").n, 1u);
}

TEST(RunLoad, GrowsAConversationByItsAnswers) {
  FakeServer server;
  const Conversation talk = {{Saying("one", 2), Saying("two", 1), Saying("three", 1)}};
  for (const char* endpoint : {"/v1/completions", "/v1/chat/completions"}) {
    RunLoad(ClientFor(server.url(), endpoint), {talk}, {0.0}, 1, {});
  }
  const std::vector<json> bodies = server.bodies();
  ASSERT_EQ(bodies.size(), 6u);
  EXPECT_EQ(bodies[2]["prompt"], "onew0 w1 \ntwow0 \nthree");
  EXPECT_EQ(bodies[5]["messages"].dump(),
            R"([{"content":"one","role":"user"},{"content":"w0 w1 ","role":"assistant"},)"
            R"({"content":"two","role":"user"},{"content":"w0 ","role":"assistant"},)"
            R"({"content":"three","role":"user"}])");
}

TEST(RunLoad, CountsTheTurnsAfterAFailedOne) {
  FakeServer server;
  const Conversation talk = {{Saying("one"), Saying("two"), Saying("three")}};
  const LoadRun run = RunLoad(ClientFor("http://127.0.0.1:1"), {talk}, {0.0}, 1, {});
  ASSERT_EQ(run.records.size(), 3u);
  EXPECT_EQ(run.records[0].failure, "connect");
  EXPECT_EQ(run.records[1].failure, "earlier turn");
  EXPECT_EQ(run.records[2].failure, "earlier turn");
}

TEST(ServerWatch, SeesWhatTheServerHoldsUnderLoad) {
  FakeServer server;
  const Client client = ClientFor(server.url());
  ServerWatch watch(client, static_cast<uint32_t>(getpid()));
  RunLoad(client, Asking({"a", "b"}, 30), {0.0, 0.0}, 2, {});
  const Sightings seen = watch.Stop();
  EXPECT_EQ(seen.kv_bytes_peak, 2100u);
  ASSERT_TRUE(seen.kv_bytes_mean);
  EXPECT_THAT(*seen.kv_bytes_mean, AllOf(Ge(100u), Lt(2100u)));
  EXPECT_EQ(seen.prefix_hit_tokens, 100u);
  EXPECT_FALSE(seen.evicted_entries);
  EXPECT_FALSE(seen.kv_usage_peak);
  EXPECT_GT(seen.resident_peak_bytes.value_or(0), size_t{1} << 20);
}

TEST(ServerWatch, SeesNothingWhereNothingIsShown) {
  const Client client = ClientFor("http://127.0.0.1:1");
  ServerWatch watch(client, 0);
  const Sightings seen = watch.Stop();
  EXPECT_FALSE(seen.kv_bytes_peak);
  EXPECT_FALSE(seen.resident_peak_bytes);
}

}  // namespace
}  // namespace kvasir::bench
