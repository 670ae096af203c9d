#include "eval/plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace kvasir {
namespace {

using testing::HasSubstr;
using testing::Not;

size_t Occurrences(const std::string& text, const std::string& what) {
  size_t n = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

EvalResult Row(const std::string& label, double ppl, uint64_t mib, bool inactive = false) {
  EvalResult r;
  r.case_label = label;
  r.suite = "ppl";
  r.task = r.mode = "stream";
  r.length = 100;
  r.quality = r.quality_all = QualityFigures{.scored = 99,
                                             .ppl = ppl,
                                             .ppl_dense = 8,
                                             .dppl = {ppl - 8, Interval{ppl - 9, ppl - 7}},
                                             .kl = {.mean = ppl - 8}};
  r.memory.kv_peak_bytes = mib << 20;
  r.inactive = inactive;
  return r;
}

EvalReport Report() {
  EvalReport report;
  report.cases = {{.label = "dense", .reference = true},
                  {.label = "a", .policy = "keydiff:budget=512,block=32"},
                  {.label = "b", .policy = "keydiff:budget=256,block=32"},
                  {.label = "c", .policy = "streaming:budget=256"},
                  {.label = "d", .policy = "streaming:budget=9999"}};
  report.results = {Row("dense", 8, 40), Row("a", 9, 20), Row("b", 10, 10), Row("c", 12, 10),
                    Row("d", 8, 40, /*inactive=*/true)};
  return report;
}

TEST(AxisTicks, AreRoundAndEncloseTheData) {
  EXPECT_THAT(AxisTicks(0, 14.2, 6), testing::ElementsAre(0, 5, 10, 15));
  EXPECT_THAT(AxisTicks(8.1, 9.9, 5),
              testing::Pointwise(testing::DoubleEq(), {8.0, 8.5, 9.0, 9.5, 10.0}));
  EXPECT_THAT(AxisTicks(-.03, .05, 4),
              testing::Pointwise(testing::DoubleNear(1e-12), {-.04, -.02, 0.0, .02, .04, .06}));
  for (const auto& [lo, hi] : {std::pair(5.0, 5.0), {0.0, 0.0}, {INFINITY, -INFINITY}}) {
    const std::vector<double> ticks = AxisTicks(lo, hi, 6);
    EXPECT_GE(ticks.size(), 2u);
    for (const double tick : ticks) EXPECT_TRUE(std::isfinite(tick));
  }
}

TEST(PlotSvg, DrawsACurveForEveryMethodAndALineForDense) {
  const std::string svg = PlotSvg(Report());
  EXPECT_EQ(Occurrences(svg, "<g transform"), 3u);  // perplexity, KL, legend
  EXPECT_EQ(Occurrences(svg, "<polyline"), 2u * 2);
  EXPECT_EQ(Occurrences(svg, "stroke-dasharray"), 2u + 1);
  EXPECT_EQ(Occurrences(svg, "<title>"), 2u * 3);  // the inactive case is no point
  EXPECT_EQ(Occurrences(svg, ">keydiff</text>"), 1u);
  EXPECT_EQ(Occurrences(svg, ">streaming</text>"), 1u);
  EXPECT_THAT(svg, HasSubstr("b: 10 at 10.00 MiB"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_EQ(Occurrences(svg, "<g "), Occurrences(svg, "</g>"));
}

TEST(PlotSvg, TellsMethodsOfOneNameApartByTheirParameters) {
  EvalReport report = Report();
  report.cases[2].policy = "keydiff:budget=256,block=64";
  const std::string svg = PlotSvg(report);
  EXPECT_THAT(svg, HasSubstr(">keydiff block=32 f16</text>"));
  EXPECT_THAT(svg, HasSubstr(">keydiff block=64 f16</text>"));
}

TEST(PlotSvg, EscapesLabelsAndTakesAReportWithoutPoints) {
  EvalReport report = Report();
  report.cases[1].label = report.results[1].case_label = "<a&b>";
  EXPECT_THAT(PlotSvg(report), HasSubstr("&lt;a&amp;b&gt;"));
  report.results.clear();
  const std::string empty = PlotSvg(report);
  EXPECT_THAT(empty, HasSubstr("</svg>"));
  EXPECT_THAT(empty, Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace kvasir
