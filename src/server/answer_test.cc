#include "server/answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "engine/testing.h"
#include "format/json.h"

namespace kvasir {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// A model whose passes take some time, or wait, once it is told so.
class SlowModel : public testing::TinyModel {
 public:
  SlowModel() : TinyModel(64, 4096) {}
  void Forward(std::span<const Segment> segments, const LogitsSink& sink,
               const QuerySink& query_sink, const ViewSink& view_sink) override {
    ++n_passes;
    std::this_thread::sleep_for(pass.load());
    for (int i = 0; held && i < 10'000; ++i)  // a test that failed ends too
      std::this_thread::sleep_for(1ms);
    TinyModel::Forward(segments, sink, query_sink, view_sink);
  }
  std::atomic<std::chrono::milliseconds> pass = 0ms;
  std::atomic<bool> held = false;
  std::atomic<int> n_passes = 0;
};

// Keeps what is written, and leaves after `max_writes`.
class Client : public HttpStream {
 public:
  explicit Client(size_t max_writes = SIZE_MAX) : max_writes_(max_writes) {}
  bool Write(std::string_view bytes) override {
    if (gone()) return false;
    text.append(bytes);
    ++n_writes_;
    if (on_write) on_write(n_writes_);
    return true;
  }
  bool gone() const override { return n_writes_ >= max_writes_; }
  std::string text;
  std::function<void(size_t n_writes)> on_write;

 private:
  size_t max_writes_, n_writes_ = 0;
};

class AnswerTest : public ::testing::Test {
 protected:
  AnswerTest() : raw_(tokenizer_, nullptr) {
    options_.kv_memory = 8 << 20;
    options_.encoding = {.k = Codec::kF32, .v = Codec::kF32};
    engine_ = std::make_unique<Engine>(model_, &tokenizer_, BestKernels(), workers_, options_);
    loop_ = std::make_unique<EngineLoop>(*engine_, EngineLoopOptions{}, nullptr);
  }
  std::unique_ptr<Answer> Ask(const std::string& more,
                              std::chrono::milliseconds quiet = Answer::kQuiet) {
    ApiRequest request = ParseApiRequest(
        ApiRoute::kCompletions,
        ParseJson(R"({"prompt":[1,2,3],"seed":1,"ignore_eos":true)" + more + "}", "body"), {});
    EngineRequests built = RequestBuilder(raw_, raw_, 4096, false).Build(request);
    return std::make_unique<Answer>(*loop_, tokenizer_, std::move(request),
                                    ApiEcho{.id = "1", .model = "m"}, std::move(built), quiet);
  }
  // Whether the engine comes to hold nothing.
  bool Empties() const {
    for (int i = 0; i < 1000; ++i) {
      const EngineSnapshot s = loop_->snapshot();
      if (loop_->n_active() == 0 && s.ledger.bytes == 0) return true;
      std::this_thread::sleep_for(5ms);
    }
    return false;
  }

  SlowModel model_;
  const testing::LetterTokenizer tokenizer_;
  const PromptBuilder raw_;
  Workers workers_{1};
  EngineOptions options_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<EngineLoop> loop_;
};

TEST_F(AnswerTest, StreamsWhatTheWholeAnswerSays) {
  const nlohmann::json whole = Ask(R"(,"max_tokens":9,"n":2)")->Whole({});
  const auto answer = Ask(R"(,"max_tokens":9,"n":2,"stream":true)");
  answer->AwaitFirst({});
  Client client;
  EXPECT_FALSE(answer->Stream(client).has_value());
  EXPECT_THAT(client.text, ::testing::EndsWith("data: [DONE]\n\n"));
  std::string texts[2];
  for (size_t at = 0, end; (end = client.text.find("\n\n", at)) != std::string::npos;
       at = end + 2) {
    const std::string line = client.text.substr(at, end - at);
    if (line == "data: [DONE]") break;
    ASSERT_THAT(line, StartsWith("data: "));
    const nlohmann::json choice = ParseJson(line.substr(6), "chunk")["choices"][0];
    texts[choice["index"].get<size_t>()] += choice["text"].get<std::string>();
  }
  for (size_t i = 0; i < 2; ++i)
    EXPECT_EQ(texts[i], whole["choices"][i]["text"].get<std::string>());
  EXPECT_NE(texts[0], texts[1]);
}

TEST_F(AnswerTest, IsNeverSilentForLong) {
  model_.held = true;
  const auto answer = Ask(R"(,"max_tokens":2,"stream":true)", 10ms);
  answer->AwaitFirst({});
  Client client;
  client.on_write = [&](size_t n_writes) { model_.held = n_writes < 2; };
  EXPECT_FALSE(answer->Stream(client).has_value());
  EXPECT_THAT(client.text, StartsWith(": \n\n"));
  EXPECT_THAT(client.text, HasSubstr(": \n\n: \n\n"));
  EXPECT_THAT(client.text, HasSubstr("[DONE]"));
}

TEST_F(AnswerTest, RefusesBeforeTheFirstByte) {
  model_.held = true;
  const auto running = Ask(R"(,"max_tokens":4000,"stream":true)");
  while (model_.n_passes == 0) std::this_thread::sleep_for(1ms);
  const auto answer = Ask(R"(,"max_tokens":4000,"stream":true)");  // waits for the pass to end
  std::thread open([&] {
    while (!loop_->draining()) std::this_thread::sleep_for(1ms);
    model_.held = false;
  });
  loop_->Stop();
  open.join();
  EXPECT_THROW(answer->AwaitFirst({}), Error);
  EXPECT_THROW(Ask(R"(,"stream":true)"), Error);
}

TEST_F(AnswerTest, TellsAnErrorThatComesLater) {
  model_.pass = 5ms;
  const auto answer = Ask(R"(,"max_tokens":4000,"stream":true)");
  answer->AwaitFirst({});
  Client client;
  client.on_write = [&](size_t n_writes) {
    if (n_writes == 3) loop_->Stop();
  };
  const std::optional<Error> error = answer->Stream(client);
  ASSERT_TRUE(error.has_value());
  EXPECT_EQ(error->code(), Code::kUnavailable);
  EXPECT_THAT(client.text, HasSubstr("data: {\"error\":"));
  EXPECT_THAT(client.text, ::testing::Not(HasSubstr("[DONE]")));
}

TEST_F(AnswerTest, LeavesNothingInTheEngineWhenTheClientGoes) {
  model_.pass = 2ms;
  {
    const auto answer = Ask(R"(,"max_tokens":4000,"n":3,"stream":true)");
    answer->AwaitFirst({});
    Client client(5);
    EXPECT_FALSE(answer->Stream(client).has_value());
  }
  EXPECT_TRUE(Empties());
  EXPECT_THROW(Ask(R"(,"max_tokens":4000)")->Whole([] { return true; }), Error);
  EXPECT_TRUE(Empties());
  EXPECT_THROW(Ask(R"(,"max_tokens":4000)", 1min)->AwaitFirst([] { return true; }), Error);
  EXPECT_TRUE(Empties());
}

}  // namespace
}  // namespace kvasir
