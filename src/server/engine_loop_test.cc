#include "server/engine_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "engine/testing.h"
#include "server/metrics.h"

namespace kvasir {
namespace {

using namespace std::chrono_literals;
using kvasir::testing::LetterTokenizer;
using kvasir::testing::TinyModel;

// A model whose passes wait while the gate is shut.
class GatedModel : public TinyModel {
 public:
  GatedModel() : TinyModel(64, 4096) {}
  void Forward(std::span<const Segment> segments, const LogitsSink& sink,
               const QuerySink& query_sink, const ViewSink& view_sink) override {
    {
      std::unique_lock lock(mutex_);
      ++n_passes_;
      moved_.notify_all();
      moved_.wait_for(lock, 5s, [&] { return open_; });  // a test that failed ends too
    }
    TinyModel::Forward(segments, sink, query_sink, view_sink);
  }
  void Open(bool open) {
    const std::lock_guard lock(mutex_);
    open_ = open;
    moved_.notify_all();
  }
  void AwaitPass() {
    std::unique_lock lock(mutex_);
    moved_.wait_for(lock, 5s, [&] { return n_passes_ > 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable moved_;
  bool open_ = true;
  int n_passes_ = 0;
};

class EngineLoopTest : public ::testing::Test {
 protected:
  EngineLoopTest() {
    options_.kv_memory = 8 << 20;
    options_.encoding = {.k = Codec::kF32, .v = Codec::kF32};
    options_.max_sequences = 4;
  }
  void SetUp() override {
    engine_ = std::make_unique<Engine>(model_, &tokenizer_, BestKernels(), workers_, options_);
  }
  static Request Of(std::vector<int32_t> tokens, uint32_t n, uint64_t seed = 1) {
    Request r;
    r.tokens = std::move(tokens);
    r.max_tokens = n;
    r.sampling.seed = seed;
    r.ignore_eos = true;
    return r;
  }
  static std::vector<Request> One(Request request) {
    std::vector<Request> list;
    list.push_back(std::move(request));
    return list;
  }
  // The end of one request, and the text that came before.
  static Generation Await(EventQueue& events, std::string* streamed = nullptr) {
    for (;;) {
      std::optional<GenerationEvent> event = events.Next(10s);
      if (!event) {
        ADD_FAILURE() << "no event";
        return {};
      }
      if (streamed) *streamed += event->text;
      if (event->done) return std::move(*event->done);
    }
  }
  // The snapshot once nothing runs or waits.
  static EngineSnapshot Idle(const EngineLoop& loop) {
    for (int i = 0; i < 1000; ++i) {
      const EngineSnapshot s = loop.snapshot();
      if (loop.n_active() == 0 && s.stats.n_running == 0 && s.stats.n_waiting == 0) return s;
      std::this_thread::sleep_for(5ms);
    }
    ADD_FAILURE() << "never idle";
    return {};
  }

  GatedModel model_;
  LetterTokenizer tokenizer_;
  Workers workers_{1};
  EngineOptions options_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineLoopTest, AnswersAndStreamsTheSameText) {
  EngineLoop loop(*engine_, {}, nullptr);
  const auto events = std::make_shared<EventQueue>();
  loop.Submit(One(Of({1, 2, 3}, 20)), events, /*stream=*/true);
  std::string streamed;
  const Generation g = Await(*events, &streamed);
  EXPECT_EQ(g.tokens.size(), 20u);
  EXPECT_EQ(streamed, g.text);
  loop.Submit(One(Of({1, 2, 3}, 20)), events, /*stream=*/false);
  std::string none;
  EXPECT_EQ(Await(*events, &none).text, g.text);
  EXPECT_EQ(none, "");
}

TEST_F(EngineLoopTest, GivesEachThreadItsOwnAnswersWhileOthersLeave) {
  std::vector<std::string> expected;
  for (int i = 0; i < 8; ++i) {
    std::string text;
    Request r = Of({i + 1, 2, 3}, 30, i);
    r.on_done = [&](Generation g) { text = g.text; };
    engine_->Submit(std::move(r));
    engine_->RunUntilIdle();
    expected.push_back(text);
  }
  EngineLoop loop(*engine_, {}, nullptr);
  std::atomic<int> n_right = 0, n_cancelled = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 20; ++round) {
        const auto events = std::make_shared<EventQueue>();
        const auto tickets = loop.Submit(One(Of({t + 1, 2, 3}, 30, t)), events, round % 2 == 0);
        if (round % 3 == 1) loop.Cancel(tickets);
        const Generation g = Await(*events);
        if (g.stop_reason == StopReason::kCancelled) {
          ++n_cancelled;
          EXPECT_TRUE(expected[t].starts_with(g.text));
        } else {
          n_right += g.text == expected[t];
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(n_right + n_cancelled, 8 * 20);
  EXPECT_LE(n_cancelled, 8 * 7);
  const EngineSnapshot idle = Idle(loop);
  EXPECT_EQ(idle.ledger.bytes, 0u);
  EXPECT_TRUE(idle.sequences.empty());
}

TEST_F(EngineLoopTest, TellsWhatTheEngineRefusesToTheRequestAlone) {
  EngineLoop loop(*engine_, {}, nullptr);
  const auto events = std::make_shared<EventQueue>();
  loop.Submit(One(Of({9999}, 1)), events, false);
  const Generation refused = Await(*events);
  ASSERT_TRUE(refused.error.has_value());
  EXPECT_EQ(refused.error->code(), Code::kInvalid);
  loop.Submit(One(Of({1}, 1)), events, false);
  EXPECT_FALSE(Await(*events).error.has_value());
}

TEST_F(EngineLoopTest, RefusesBeyondTheQueueAndTakesMoreWhenItIsShorter) {
  model_.Open(false);
  EngineLoop loop(*engine_, {.max_waiting = 3}, nullptr);
  const auto events = std::make_shared<EventQueue>();
  int n = 0;
  loop.Submit(One(Of({1}, 2)), events, false), ++n;
  model_.AwaitPass();  // it runs, so it waits no more
  for (int i = 0; i < 3; ++i) loop.Submit(One(Of({2}, 2)), events, false), ++n;
  EXPECT_EQ(loop.snapshot().stats.n_waiting, 3u);
  try {
    loop.Submit(One(Of({3}, 2)), events, false);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kBusy);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("queue full"));
  }
  model_.Open(true);
  for (int i = 0; i < n; ++i) EXPECT_FALSE(Await(*events).error.has_value());
  loop.Submit(One(Of({3}, 2)), events, false);
  EXPECT_FALSE(Await(*events).error.has_value());
}

class OneAtATime : public EngineLoopTest {
 protected:
  OneAtATime() { options_.max_sequences = 1; }
};

TEST_F(OneAtATime, FailsARequestThatWaitsTooLong) {
  model_.Open(false);
  EngineLoop loop(*engine_, {.admit_within = 100ms}, nullptr);
  const auto running = std::make_shared<EventQueue>(), late = std::make_shared<EventQueue>();
  loop.Submit(One(Of({1}, 50)), running, false);
  model_.AwaitPass();
  loop.Submit(One(Of({2}, 2)), late, false);
  std::this_thread::sleep_for(150ms);
  model_.Open(true);
  const Generation g = Await(*late);
  ASSERT_TRUE(g.error.has_value());
  EXPECT_EQ(g.error->code(), Code::kUnavailable);
}

TEST_F(EngineLoopTest, ReadsTheSnapshotWhileAPassRuns) {
  model_.Open(false);
  EngineLoop loop(*engine_, {}, nullptr);
  const auto events = std::make_shared<EventQueue>();
  loop.Submit(One(Of({1}, 2)), events, false);
  model_.AwaitPass();
  EXPECT_EQ(loop.snapshot().ledger.budget_bytes, options_.kv_memory);
  EXPECT_EQ(loop.n_active(), 1u);
  model_.Open(true);
  Await(*events);
}

TEST_F(EngineLoopTest, DrainsWhatRunsAndRefusesWhatIsNew) {
  model_.Open(false);
  EngineLoop loop(*engine_, {}, nullptr);
  const auto events = std::make_shared<EventQueue>();
  loop.Submit(One(Of({1}, 30)), events, false);
  model_.AwaitPass();
  loop.BeginDrain();
  EXPECT_TRUE(loop.draining());
  try {
    loop.Submit(One(Of({2}, 1)), events, false);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUnavailable);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("draining"));
  }
  model_.Open(true);
  const Generation g = Await(*events);
  EXPECT_FALSE(g.error.has_value());
  EXPECT_EQ(g.tokens.size(), 30u);
  loop.Stop();
  EXPECT_EQ(loop.n_active(), 0u);
}

TEST_F(EngineLoopTest, EndsTheRestWithAnErrorWhenItStops) {
  model_.Open(false);
  EngineLoop loop(*engine_, {}, nullptr);
  const auto events = std::make_shared<EventQueue>();
  for (int i = 0; i < 6; ++i) loop.Submit(One(Of({1}, 4000)), events, false);
  model_.AwaitPass();
  std::thread opener([&] {
    while (!loop.draining()) std::this_thread::sleep_for(1ms);
    model_.Open(true);
  });
  loop.Stop();
  opener.join();
  for (int i = 0; i < 6; ++i) {
    const Generation g = Await(*events);
    ASSERT_TRUE(g.error.has_value());
    EXPECT_EQ(g.error->code(), Code::kUnavailable);
  }
  EXPECT_EQ(loop.snapshot().ledger.bytes, 0u);
  loop.Stop();
  loop.DropPrefixes();  // returns, though nobody is there to do it
}

class SharedPrefixes : public EngineLoopTest {
 protected:
  SharedPrefixes() { options_.prefix_interval = 64; }
};

TEST_F(SharedPrefixes, AreLetGoWhenAsked) {
  EngineLoop loop(*engine_, {}, nullptr);
  const auto events = std::make_shared<EventQueue>();
  const std::vector<int32_t> prompt(100, 3);
  loop.Submit(One(Of(prompt, 2)), events, false);
  EXPECT_EQ(Await(*events).cached_tokens, 0u);
  loop.Submit(One(Of(prompt, 2)), events, false);
  EXPECT_GT(Await(*events).cached_tokens, 0u);
  EXPECT_GT(Idle(loop).ledger.bytes, 0u);
  loop.DropPrefixes();
  EXPECT_EQ(loop.snapshot().ledger.bytes, 0u);
  loop.Submit(One(Of(prompt, 2)), events, false);
  EXPECT_EQ(Await(*events).cached_tokens, 0u);
}

}  // namespace
}  // namespace kvasir
