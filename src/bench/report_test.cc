#include "bench/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace kvasir::bench {
namespace {

using testing::HasSubstr;
using testing::Not;

Setting SmallSetting() {
  Setting setting;
  setting.model = "m";
  setting.conversations = 3;
  setting.tokens_by = "server";
  setting.measures = {Measure::kTtft, Measure::kTpot};
  setting.percents = {99, 99.9};
  return setting;
}

Results SmallResults() {
  LoadRun run;
  run.seconds = 2;
  Record r;
  r.ttft = 0.25;
  r.latency = 1.25;
  r.itl = {1};
  r.input_tokens = 64;
  r.output_tokens = 11;
  r.has_usage = true;
  r.text = "t";
  Record failed;
  failed.failure = "http 500";
  failed.message = "broken";
  run.records = {r, r, failed};
  return Evaluate(run, {99, 99.9}, {});
}

// Scripts cut these lines at the colon and at columns.
TEST(BlockText, IsTheBlockThatScriptsKnow) {
  EXPECT_EQ(BlockText(SmallSetting(), SmallResults(), {}),
            "============ Serving Benchmark Result ============\n"
            "Successful requests:                     2         \n"
            "Failed requests:                         1         \n"
            "Benchmark duration (s):                  2.00      \n"
            "Total input tokens:                      128       \n"
            "Total generated tokens:                  22        \n"
            "Request throughput (req/s):              1.00      \n"
            "Output token throughput (tok/s):         11.00     \n"
            "Peak output token throughput (tok/s):    2.00      \n"
            "Peak concurrent requests:                2         \n"
            "Total Token throughput (tok/s):          75.00     \n"
            "---------------Time to First Token----------------\n"
            "Mean TTFT (ms):                          250.00    \n"
            "Median TTFT (ms):                        250.00    \n"
            "P99 TTFT (ms):                           250.00    \n"
            "P99.9 TTFT (ms):                         250.00    \n"
            "-----Time per Output Token (excl. 1st token)------\n"
            "Mean TPOT (ms):                          100.00    \n"
            "Median TPOT (ms):                        100.00    \n"
            "P99 TPOT (ms):                           100.00    \n"
            "P99.9 TPOT (ms):                         100.00    \n"
            "---------------------Failures---------------------\n"
            "http 500:                                1         \n"
            "  broken\n"
            "==================================================\n");
}

TEST(BlockText, HasFurtherLinesWhereThereIsSomethingToSay) {
  Setting setting = SmallSetting();
  setting.max_concurrency = 4;
  setting.rate = 2.5;
  Results results = SmallResults();
  results.good_rate = 0.5;
  results.cached_tokens = 32;
  Sightings seen;
  seen.kv_bytes_peak = 3 << 20;
  seen.kv_usage_peak = 0.125;
  seen.resident_peak_bytes = 5 << 20;
  const std::string text = BlockText(setting, results, seen);
  for (const char* line : {"Maximum request concurrency:             4 ",
                           "Request rate configured (RPS):           2.50",
                           "Request goodput (req/s):                 0.50",
                           "-----------------Cache and Memory-----------------\n",
                           "Cached input tokens:                     32 ",
                           "Cached share (%):                        25.00",
                           "Peak KV cache (MiB):                     3.00",
                           "Peak KV cache usage (%):                 12.50",
                           "Peak server memory (MiB):                5.00"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr("Evicted")));
}

TEST(ResultJson, HasTheKeysThatScriptsKnow) {
  const nlohmann::ordered_json json = ResultJson(SmallSetting(), SmallResults(), {}, nullptr);
  for (const char* key : {"date",
                          "endpoint_type",
                          "model_id",
                          "num_prompts",
                          "request_rate",
                          "burstiness",
                          "max_concurrency",
                          "duration",
                          "completed",
                          "failed",
                          "total_input_tokens",
                          "total_output_tokens",
                          "request_throughput",
                          "request_goodput",
                          "output_throughput",
                          "total_token_throughput",
                          "max_output_tokens_per_s",
                          "max_concurrent_requests",
                          "mean_ttft_ms",
                          "median_ttft_ms",
                          "std_ttft_ms",
                          "p99_ttft_ms",
                          "p99.9_tpot_ms"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json["request_rate"], "inf");
  EXPECT_EQ(json["mean_tpot_ms"], 100.0);
  EXPECT_EQ(json["requests"], 3);
  EXPECT_TRUE(json["cached_tokens"].is_null());
  EXPECT_TRUE(json["kv"]["bytes_peak"].is_null());
  EXPECT_EQ(json["failures"].dump(), R"([{"kind":"http 500","count":1,"first_message":"broken"}])");
  EXPECT_FALSE(json.contains("ttfts"));
  EXPECT_FALSE(json.contains("mean_itl_ms"));
}

TEST(ResultJson, ListsEveryRequestWhenAsked) {
  LoadRun run;
  run.records.resize(2);
  run.records[0].ttft = 0.5;
  run.records[0].itl = {0.25};
  run.records[1].failure = "connect";
  run.records[1].message = "refused";
  const nlohmann::ordered_json json = ResultJson(SmallSetting(), SmallResults(), {}, &run);
  EXPECT_EQ(json["ttfts"].dump(), "[0.5,0.0]");
  EXPECT_EQ(json["itls"].dump(), "[[0.25],[]]");
  EXPECT_EQ(json["errors"].dump(), R"(["","connect: refused"])");
}

}  // namespace
}  // namespace kvasir::bench
