#include "eval/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"

namespace kvasir {
namespace {

using testing::HasSubstr;
using testing::Not;
using Json = nlohmann::ordered_json;

EvalResult TextRow(const std::string& label) {
  EvalResult r;
  r.case_label = label;
  r.suite = "ppl";
  r.task = r.mode = "stream";
  r.spec = "ppl:file=a,mode=stream";
  r.block = 32;
  r.length = 2048;
  r.n = 1503;
  r.quality = QualityFigures{.scored = 1503,
                             .ppl = 9.5,
                             .ppl_dense = 9,
                             .dppl = {.5, Interval{.25, .75}},
                             .ratio = 9.5 / 9,
                             .kl = {.01, .005, .02, .125, .5, Interval{.009, .011}},
                             .top1 = .9875,
                             .rms_dp = .0625};
  r.quality_all = r.quality;
  r.buckets = {{1, 2, 1, 2, 2, .5, 1}, {2, 4, 2, 3, 3, .25, .5}};
  r.memory = {.kv_peak_bytes = 3 << 20,
              .kv_end_bytes = 2 << 20,
              .kv_mean_bytes = 2.5e6,
              .kv_live_bytes = 2 << 20,
              .bytes_per_token = 1024,
              .bytes_ratio = 4,
              .live_entries = 512,
              .logical_entries = 2048,
              .peak_entries = 544,
              .ratio_end = 4,
              .ratio_mean = 3.875,
              .read_bytes_per_step = 77,
              .by_owner = {{"f16", 2 << 20}}};
  r.nominal_ratio = 4;
  r.first_drop = 544;
  r.samples_sha256 = "ab12";
  return r;
}

EvalReport Report() {
  EvalReport report;
  report.commit = "c0ffee";
  report.compiler = "gcc 12";
  report.simd = "avx2";
  report.cpu = "some CPU";
  report.threads = 2;
  report.memory_bytes = 1 << 30;
  report.model_file = "m.gguf";
  report.model_sha256 = std::string(64, 'd');
  report.params = 1000;
  report.layers = 2;
  report.kv_heads = 3;
  report.head_dim = 64;
  report.seed = 18446744073709551615u;
  report.started = "2026-01-01T00:00:00Z";
  report.seconds = 1.5;
  report.compute = "fast";
  report.generators = {{"ruler", 2}};
  report.cases = {{.label = "dense", .reference = true},
                  {.label = "kd",
                   .flags = "--kv-policy keydiff:budget=512",
                   .policy = "keydiff:budget=512,block=32,pin=system",
                   .codec = "q8",
                   .kv_memory = 1 << 20}};
  EvalResult dense = TextRow("dense");
  dense.nominal_ratio.reset();
  dense.first_drop.reset();
  report.results = {dense, TextRow("kd")};
  return report;
}

EvalResult TaskRow(const std::string& label, bool trace) {
  EvalResult r;
  r.case_label = label;
  r.suite = trace ? "trace" : "ruler";
  r.task = trace ? "regs" : "vt";
  r.mode = "agnostic";
  r.length = 4096;
  r.n = 100;
  r.runs = trace ? 4 : 1;
  r.generated = 12.5;
  r.score = ScoreFigures{{.75, Interval{.6, .85}}, {-.125, Interval{-.2, .05}}, 14, 2, .004};
  if (trace) r.trace = TraceFigures{900, 850, .0625, 1.25, 3.5, std::nullopt, 40, 1e6};
  return r;
}

TEST(ReportJson, GoesRoundUnchanged) {
  EvalReport report = Report();
  report.results.push_back(TaskRow("kd", false));
  report.results.push_back(TaskRow("kd", true));
  report.samples = {{"kd", "vt", "fork", 4096, 3, .5, "text \"quoted\"", 17}};
  const std::string text = ReportJson(report).dump();
  const EvalReport again = ReportFromJson(text, "f");
  EXPECT_EQ(ReportJson(again).dump(), text);
  EXPECT_EQ(again.seed, report.seed);
  EXPECT_EQ(again.cases[1].kv_memory, 1u << 20);
  EXPECT_EQ(again.results[1].quality->dppl, report.results[1].quality->dppl);
  EXPECT_EQ(again.results[0].first_drop, std::nullopt);
  EXPECT_FALSE(again.results[2].trace);
  EXPECT_EQ(again.results[3].trace->s_per_correct, std::nullopt);
}

TEST(ReportJson, HasTheKeysOfTheSchema) {
  const Json json = ReportJson(Report());
  EXPECT_EQ(json["schema"], "kvasir.eval/1");
  const Json& kd = json["cases"][1];
  EXPECT_EQ(kd["policy"]["name"], "keydiff");
  EXPECT_EQ(kd["policy"]["budget"], 512);
  EXPECT_EQ(kd["policy"]["pin"], "system");
  EXPECT_EQ(kd["reference"], false);
  const Json& row = json["results"][1];
  EXPECT_EQ(row["quality"]["dppl"], (Json{{"v", .5}, {"lo", .25}, {"hi", .75}}));
  EXPECT_EQ(row["quality"]["kl"]["p99"], .125);
  EXPECT_EQ(row["memory"]["by_owner"]["f16"], 2 << 20);
  EXPECT_EQ(row["first_drop"], 544);
  EXPECT_EQ(json["results"][0]["first_drop"], nullptr);
  EXPECT_FALSE(row.contains("score"));
}

TEST(ReportJson, RefusesNumbersThatAreNone) {
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    EvalReport report = Report();
    report.results[1].quality->kl.p90 = bad;
    try {
      ReportJson(report);
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kInvalid);
      EXPECT_THAT(error.what(), HasSubstr("/results/1/quality/kl/p90"));
    }
  }
}

std::string Refusal(const Json& json) {
  try {
    ReportFromJson(json.dump(), "old.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kCorrupt);
    return error.what();
  }
  return "accepted";
}

TEST(ReportFromJson, NamesTheFieldThatIsWrong) {
  const Json good = ReportJson(Report());
  const auto with = [&](const std::string& pointer, const Json& value) {
    Json json = good;
    json[Json::json_pointer(pointer)] = value;
    return Refusal(json);
  };
  EXPECT_EQ(with("/some/new_field", 1), "accepted");
  EXPECT_EQ(with("/results/0/quality/dppl/lo", nullptr), "accepted");
  EXPECT_THAT(with("/schema", "kvasir.eval/2"), HasSubstr("expected kvasir.eval/1"));
  EXPECT_THAT(with("/seed", -1), HasSubstr("old.json/seed: a whole number"));
  EXPECT_THAT(with("/results/0/quality/ppl", "NaN"), HasSubstr("results/0/quality/ppl: a number"));
  EXPECT_THAT(with("/results/1/inactive", 0), HasSubstr("results/1/inactive: true or false"));
  EXPECT_THAT(with("/results/1/block", 4294967296), HasSubstr("results/1/block"));
  EXPECT_THAT(with("/results/1/case", "nobody"), HasSubstr("no case \"nobody\""));
  EXPECT_THAT(with("/results/1/memory", Json::array()), HasSubstr("memory: an object"));
  EXPECT_THAT(with("/cases", Json::array()), HasSubstr("the reference is expected first"));
  EXPECT_THAT(with("/samples", 7), HasSubstr("samples: a list"));
  Json without = good;
  without["results"][1]["memory"].erase("ratio_mean");
  EXPECT_THAT(Refusal(without), HasSubstr("old.json/results/1/memory/ratio_mean is missing"));
  EXPECT_THAT(Refusal(Json::array()), HasSubstr("object"));
  EXPECT_THROW(ReportFromJson("{", "f"), Error);
}

// The line of a table that begins with `label`.
std::string Line(const std::string& text, const std::string& label) {
  const size_t begin = text.find("| " + label);
  return begin == std::string::npos ? "" : text.substr(begin, text.find('\n', begin) - begin);
}

TEST(ReportTables, ShowQualityBesideMemory) {
  const std::string text = ReportTables(Report());
  const std::string kd = Line(text, "kd");
  for (const char* cell :
       {"| keydiff |", "| 512 ", "| q8 ", "| stream/32 ", "| 1503 after 544 ", "| 3.00 ", "| 1024 ",
        "| 4.00/3.88 ", "| 9.500 ", "| 0.500 [0.250, 0.750] ", "| 0.01000 ", "| 0.1250 ",
        "| 98.75 ", "| 6.25 "}) {
    EXPECT_THAT(kd, HasSubstr(cell));
  }
  EXPECT_THAT(Line(text, "dense"), Not(HasSubstr("0.500")));
  EXPECT_THAT(text, HasSubstr("c0ffee"));
  EXPECT_THAT(text, HasSubstr("ruler v2"));
  EXPECT_THAT(text, Not(HasSubstr("inactive")));
  EXPECT_THAT(text, Not(HasSubstr("~")));
  EXPECT_THAT(text, Not(HasSubstr("*")));
  EXPECT_THAT(text, Not(HasSubstr("s/correct")));
}

TEST(ReportTables, MarkWhatIsInDoubt) {
  EvalReport report = Report();
  report.results[1].quality->dppl = {.5, Interval{-.25, .75}};
  report.results[1].memory.ratio_mean = 3.5;
  std::string text = ReportTables(report);
  EXPECT_THAT(Line(text, "kd"), HasSubstr("~0.500 [-0.250, 0.750]"));
  EXPECT_THAT(Line(text, "kd"), HasSubstr("4.00/3.50 *"));
  EXPECT_THAT(text, HasSubstr("one: kd, ppl stream (3.50 for 4.00)"));
  EXPECT_THAT(text, HasSubstr("~ the interval contains 0"));
  // What did nothing shows no difference at all.
  report.results[1].inactive = true;
  text = ReportTables(report);
  EXPECT_THAT(Line(text, "kd"), HasSubstr("| inactive "));
  EXPECT_THAT(Line(text, "kd"), Not(HasSubstr("0.500")));
  EXPECT_THAT(Line(text, "kd"), Not(HasSubstr("*")));
  EXPECT_THAT(text, HasSubstr("scored range: kd, ppl stream"));
}

TEST(ReportTables, ShowTasksAndTracesInTablesOfTheirOwn) {
  EvalReport report = Report();
  report.results = {TaskRow("dense", false), TaskRow("kd", false), TaskRow("kd", true)};
  const std::string text = ReportTables(report);
  EXPECT_THAT(text, Not(HasSubstr("PPL")));
  EXPECT_THAT(Line(text, "dense"), HasSubstr("| 75.0 [60.0, 85.0] | -  "));
  const std::string kd = Line(text, "kd");
  EXPECT_THAT(kd, HasSubstr("| vt   | 4096 | agnostic | 100 | 75.0 [60.0, 85.0] | "
                            "~-12.5 [-20.0, 5.0] | 14/2 "));
  EXPECT_THAT(kd, HasSubstr("| 12.5 "));
  const std::string trace = text.substr(text.find("s/correct"));
  EXPECT_THAT(Line(trace, "kd"), HasSubstr("| regs | 100×4 | 75.0 [60.0, 85.0]"));
  EXPECT_THAT(Line(trace, "kd"), HasSubstr("| 900    | 850 | 6.2      | 1.25 | 3.50   | -  "));
}

}  // namespace
}  // namespace kvasir
