#include "server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "server/engine_loop.h"

namespace kvasir {
namespace {

using ::testing::HasSubstr;

MetricsInfo Info() {
  return {.model_name = "tiny",
          .version = "1",
          .simd = "portable",
          .context = 512,
          .block_tokens = 256,
          .blocks = 7,
          .routes = {"/v1/completions"}};
}

std::set<std::string> NamesIn(const std::string& text, const std::regex& pattern) {
  std::set<std::string> names;
  for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at) {
    names.insert((*at)[1].str());
  }
  return names;
}

TEST(Metrics, AreExactlyTheDocumentedOnes) {
  std::ifstream file(KVASIR_SOURCE_DIR "/docs/serving.md");
  ASSERT_TRUE(file.good());
  std::stringstream page;
  page << file.rdbuf();
  const std::set<std::string> documented =
      NamesIn(page.str(), std::regex("\n\\| `((?:vllm:|kvasir_)[a-z0-9_]+)` \\| "));
  Metrics metrics(Info());
  const std::string text = metrics.Text({});
  EXPECT_GT(documented.size(), 30u);
  EXPECT_EQ(NamesIn(text, std::regex("# TYPE ([^ ]+) ")), documented);
  // A family is there with its series, not as a name alone.
  for (const std::string& name : documented) {
    EXPECT_THAT(text, ::testing::ContainsRegex("\n" + name + "(_count)?(\\{[^\n]*\\})? ")) << name;
  }
}

TEST(Metrics, ShowTheSnapshotAndCountersNeverFall) {
  Metrics metrics(Info());
  EngineSnapshot s;
  s.stats.n_running = 2;
  s.stats.n_waiting = 3;
  s.stats.prompt_tokens = 40;
  s.stats.snapshot_bytes = 100;
  s.ledger.budget_bytes = 1000;
  s.ledger.bytes = 350;
  const std::string text = metrics.Text(s);
  const std::string labels = "{engine=\"0\",model_name=\"tiny\"} ";
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_running" + labels + "2\n"));
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_waiting" + labels + "3\n"));
  EXPECT_THAT(text, HasSubstr("vllm:kv_cache_usage_perc" + labels + "0.25\n"));
  EXPECT_THAT(text, HasSubstr("vllm:prompt_tokens_total" + labels + "40\n"));
  EXPECT_THAT(text, HasSubstr("kvasir_kv_bytes{state=\"snapshots\"} 100\n"));
  s.stats.prompt_tokens = 41;
  EXPECT_THAT(metrics.Text(s), HasSubstr("vllm:prompt_tokens_total" + labels + "41\n"));
  s.stats.prompt_tokens = 7;
  EXPECT_THAT(metrics.Text(s), HasSubstr("vllm:prompt_tokens_total" + labels + "41\n"));
}

TEST(Metrics, CountEndsByReasonRouteAndCode) {
  Metrics metrics(Info());
  Generation g;
  g.tokens = {1, 2, 3};
  g.timings = {.prompt_n = 2, .predicted_n = 3, .prompt_ms = 100, .predicted_ms = 60};
  metrics.GenerationDone(g, 0.2);
  g.stop_reason = StopReason::kCancelled;
  metrics.GenerationDone(g, 0.2);
  g.error = Error(Code::kBudget, "x");
  metrics.GenerationDone(g, 0.2);
  metrics.Refused(Code::kBusy);
  metrics.AnswerDone("/v1/completions", 200);
  metrics.AnswerDone("/v1/completions", 429);
  metrics.AnswerDone("/evil\"} 1\n", 404);
  const std::string text = metrics.Text({});
  EXPECT_THAT(text, HasSubstr("finished_reason=\"length\",model_name=\"tiny\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("finished_reason=\"abort\",model_name=\"tiny\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("vllm:e2e_request_latency_seconds_count{engine=\"0\",model_name="
                              "\"tiny\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("kvasir_rejected_total{reason=\"busy\"} 1\n"));
  EXPECT_THAT(text,
              HasSubstr("kvasir_requests_total{outcome=\"ok\",route=\"/v1/completions\"} 1\n"));
  EXPECT_THAT(
      text, HasSubstr("kvasir_requests_total{outcome=\"refused\",route=\"/v1/completions\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("kvasir_requests_total{outcome=\"refused\",route=\"other\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("evil")));
}

}  // namespace
}  // namespace kvasir
