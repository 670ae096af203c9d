#include "bench/speed_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

namespace kvasir::bench {
namespace {

using testing::HasSubstr;
using testing::Not;

SpeedSetting Setting() {
  SpeedSetting setting;
  setting.model_type = "llama 135M Q4_1";
  setting.simd = "avx2";
  setting.n_params = 134'515'008;
  setting.file_bytes = 96'576'768;
  setting.threads = 2;
  setting.codec = "f16";
  setting.cpu = "A \"fast\" one, they say";
  return setting;
}

const ModelSize kSize = {.layer_macs = 1'000'000, .output_macs = 0, .weight_bytes = 900'000'000};

SpeedResult Decode() {
  return {.test = {.n_gen = 10, .depth = 64},
          .seconds = {1, 2},
          .kv_peak_bytes = 3 << 20,
          .kv_end_bytes = 740,
          .kv_tokens = 74,
          .kv_read_bytes = 100'000'000};
}

TEST(SpeedTable, HasTheColumnsOfLlamaBenchAndAlignsThem) {
  const std::string table = SpeedTable(Setting(), kSize, {Decode()}, std::nullopt);
  EXPECT_THAT(table, HasSubstr("| model "));
  EXPECT_THAT(table, HasSubstr("| tg10 @ d64 | 7.50 ± 3.54 |    3.0 |"));
  EXPECT_THAT(table, HasSubstr("| 92.1 MiB | 134.52 M | avx2    | 2       | f16     |"));
  EXPECT_THAT(table, Not(HasSubstr("policy")));
  EXPECT_THAT(table, Not(HasSubstr("limit")));
  std::istringstream lines(table);
  std::vector<size_t> bars;
  for (std::string line; std::getline(lines, line);) {
    bars.push_back(static_cast<size_t>(std::count(line.begin(), line.end(), '|')));
  }
  EXPECT_THAT(bars, testing::ElementsAre(10, 10, 10));
}

TEST(SpeedTable, ShowsPolicyAndShareOfTheLimit) {
  SpeedSetting setting = Setting();
  setting.label = setting.policy_text = "keydiff:budget=64";
  const Limits limits = {.read_gb_s = 20, .f32_gflop_s = 100, .int8_gop_s = 400};
  const std::string table = SpeedTable(setting, kSize, {Decode()}, limits);
  EXPECT_THAT(table, HasSubstr("| keydiff:budget=64 | tg10 @ d64 |"));
  EXPECT_THAT(table, HasSubstr("B/tok"));
  // 1 GB a step, 10 steps in 1.5 s.
  EXPECT_THAT(table, HasSubstr("|         33 |"));
  EXPECT_THAT(table, HasSubstr("read 20.0 GB/s"));
  EXPECT_THAT(table, HasSubstr("bf16 none"));
}

TEST(SpeedJson, HasLlamaBenchsKeysAndItsOwn) {
  const auto row = SpeedJson(Setting(), kSize, Decode(), std::nullopt);
  EXPECT_EQ(row["case"], "dense");
  EXPECT_EQ(row["n_prompt"], 0);
  EXPECT_EQ(row["n_gen"], 10);
  EXPECT_EQ(row["n_depth"], 64);
  EXPECT_EQ(row["n_parallel"], 1);
  EXPECT_EQ(row["avg_ns"], 1'500'000'000);
  EXPECT_EQ(row["avg_ts"], 7.5);
  EXPECT_EQ(row["samples_ns"].size(), 2u);
  EXPECT_EQ(row["samples_ts"][1], 5.0);
  EXPECT_EQ(row["kv_bytes_per_token"], 10.0);
  EXPECT_EQ(row["test_time"], "1970-01-01T00:00:00Z");
  EXPECT_FALSE(row.contains("limit_share"));
}

TEST(SpeedCsv, QuotesTextsAndLeavesListsOut) {
  const auto a = SpeedJson(Setting(), kSize, Decode(), Limits{.read_gb_s = 1});
  const auto b = SpeedJson(Setting(), kSize, Decode(), std::nullopt);
  const std::string csv = SpeedCsv({a, b});
  std::istringstream lines(csv);
  std::string head, first, second, none;
  std::getline(lines, head);
  std::getline(lines, first);
  std::getline(lines, second);
  EXPECT_FALSE(std::getline(lines, none));
  EXPECT_THAT(head, Not(HasSubstr("samples")));
  EXPECT_THAT(head, HasSubstr("avg_ts,stddev_ts"));
  EXPECT_THAT(head, testing::EndsWith(",limit_share"));
  EXPECT_THAT(first, HasSubstr("\"A \"\"fast\"\" one, they say\""));
  EXPECT_THAT(second, testing::EndsWith(","));
  EXPECT_EQ(SpeedCsv({}), "");
}

TEST(ParamsText, ChoosesItsUnit) {
  EXPECT_EQ(ParamsText(1'312'000), "1.31 M");
  EXPECT_EQ(ParamsText(8'030'261'248), "8.03 B");
  EXPECT_EQ(ParamsText(15'000), "15.00 K");
}

}  // namespace
}  // namespace kvasir::bench
