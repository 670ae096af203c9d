#include "eval/plot.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "base/error.h"

namespace kvasir {

namespace {

constexpr double kWidth = 460, kHeight = 300;  // of a panel's axes
constexpr double kLeft = 70, kTop = 44, kRight = 20, kBottom = 52;
constexpr double kPanelWidth = kLeft + kWidth + kRight, kPanelHeight = kTop + kHeight + kBottom;
constexpr double kLegendLine = 20;
// Told apart by people who see colours differently, too.
constexpr const char* kColors[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                   "#e69f00", "#56b4e9", "#7f6000", "#444444"};

std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

struct Point {
  double x = 0, y = 0;
  std::optional<Interval> interval;
  std::string label;
};

struct Panel {
  std::string title, y_title;
  std::optional<double> dense;
  std::map<std::string, std::vector<Point>> curves;  // by method
};

// What cases of one curve have in common: all but the budget.
std::string MethodOf(const EvalCase& c) {
  std::string method;
  if (c.policy != "none") {
    const NamedSpec spec = SplitSpec(c.policy, "policy");
    method = spec.name;
    for (const auto& [key, value] : spec.values) {
      constexpr std::string_view kBudgetKeys[] = {"budget", "keep", "ratio", "slack"};
      if (std::find(std::begin(kBudgetKeys), std::end(kBudgetKeys), key) == std::end(kBudgetKeys)) {
        method += fmt::format(" {}={}", key, value);
      }
    }
  }
  return fmt::format("{}{}{}", method, method.empty() ? "" : " ", c.codec);
}

// The shortest beginnings of the methods' words that still tell them apart.
std::map<std::string, std::string> ShortNames(const EvalReport& report) {
  std::map<std::string, std::vector<std::string>> by_short;
  for (const EvalCase& c : report.cases) {
    if (c.reference) continue;
    std::string name = c.policy == "none" ? c.codec : PolicyName(c.policy);
    if (c.policy != "none" && c.codec != report.cases[0].codec) name += " " + c.codec;
    std::vector<std::string>& methods = by_short[name];
    const std::string method = MethodOf(c);
    if (std::find(methods.begin(), methods.end(), method) == methods.end()) {
      methods.push_back(method);
    }
  }
  std::map<std::string, std::string> names;
  for (const auto& [name, methods] : by_short) {
    for (const std::string& method : methods) names[method] = methods.size() > 1 ? method : name;
  }
  return names;
}

void AddResult(const EvalReport& report, const EvalResult& result, const std::string& y_title,
               double y, const std::optional<Interval>& interval, bool dense_line,
               std::vector<Panel>* panels) {
  std::string title = fmt::format("{} {}", result.suite, result.task);
  if (result.mode != result.task) title += " " + result.mode;
  title += fmt::format(", {} tokens", result.length);
  auto panel = std::find_if(panels->begin(), panels->end(), [&](const Panel& p) {
    return p.title == title && p.y_title == y_title;
  });
  if (panel == panels->end()) {
    panels->push_back({.title = title, .y_title = y_title});
    panel = panels->end() - 1;
  }
  const EvalCase& c = report.CaseOf(result);
  if (c.reference && dense_line) panel->dense = y;
  if (c.reference || result.inactive) return;
  const double mib = static_cast<double>(result.memory.kv_peak_bytes) / (1 << 20);
  panel->curves[MethodOf(c)].push_back({mib, y, interval, c.label});
}

std::vector<Panel> PanelsOf(const EvalReport& report) {
  std::vector<Panel> panels;
  for (const EvalResult& r : report.results) {
    if (r.quality_all) {
      // Over all tokens: cases begin to drop at different places, and are compared here.
      const QualityFigures& q = *r.quality_all;
      std::optional<Interval> ppl;
      if (q.dppl.interval) {
        ppl = Interval{q.ppl_dense + q.dppl.interval->lo, q.ppl_dense + q.dppl.interval->hi};
      }
      AddResult(report, r, "perplexity", q.ppl, ppl, true, &panels);
      AddResult(report, r, "KL to dense, nats", q.kl.mean, q.kl.interval, true, &panels);
    }
    if (r.score) {
      const Estimate& score = r.score->score;
      std::optional<Interval> percent;
      if (score.interval) percent = Interval{score.interval->lo * 100, score.interval->hi * 100};
      AddResult(report, r, "correct, %", score.v * 100, percent, true, &panels);
    }
  }
  for (Panel& panel : panels) {
    for (auto& [method, points] : panel.curves) {
      std::sort(points.begin(), points.end(),
                [](const Point& a, const Point& b) { return a.x < b.x; });
    }
  }
  return panels;
}

// Values along one axis, with ticks at round ones; ends a little beyond the data.
class Axis {
 public:
  Axis(double lo, double hi, double from, double to) : from_(from), to_(to) {
    ticks_ = AxisTicks(lo, hi, 6);
    lo_ = std::min(lo, ticks_.front());
    hi_ = std::max(hi, ticks_.back());
  }
  double operator()(double value) const {
    return from_ + (to_ - from_) * (value - lo_) / (hi_ - lo_);
  }
  const std::vector<double>& ticks() const { return ticks_; }

 private:
  double from_, to_, lo_ = 0, hi_ = 1;
  std::vector<double> ticks_;
};

struct Range {
  double lo = INFINITY, hi = -INFINITY;
  void Add(double value) {
    lo = std::min(lo, value);
    hi = std::max(hi, value);
  }
};

std::string DrawAxes(const Panel& panel, const Axis& x, const Axis& y) {
  std::string svg = fmt::format(
      "<text x=\"{:.1f}\" y=\"18\" font-weight=\"bold\">{}</text>\n"
      "<text x=\"{:.1f}\" y=\"34\" fill=\"#555\">{}</text>\n"
      "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\" fill=\"#555\">KV cache, peak MiB"
      "</text>\n",
      kLeft, Escaped(panel.title), kLeft, Escaped(panel.y_title), kLeft + kWidth / 2,
      kTop + kHeight + 40);
  for (const double tick : x.ticks()) {
    svg += fmt::format(
        "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\" stroke=\"#ddd\"/>\n"
        "<text x=\"{0:.1f}\" y=\"{3:.1f}\" text-anchor=\"middle\">{4:g}</text>\n",
        x(tick), kTop, kTop + kHeight, kTop + kHeight + 18, tick);
  }
  for (const double tick : y.ticks()) {
    svg += fmt::format(
        "<line x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"#ddd\"/>\n"
        "<text x=\"{3:.1f}\" y=\"{4:.1f}\" text-anchor=\"end\">{5:g}</text>\n",
        kLeft, kLeft + kWidth, y(tick), kLeft - 8, y(tick) + 4, tick);
  }
  svg +=
      fmt::format("<path d=\"M{0:.1f} {1:.1f}V{2:.1f}H{3:.1f}\" fill=\"none\" stroke=\"#333\"/>\n",
                  kLeft, kTop, kTop + kHeight, kLeft + kWidth);
  if (panel.dense) {
    svg += fmt::format(
        "<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#333\" "
        "stroke-dasharray=\"6 4\"/>\n",
        kLeft, kLeft + kWidth, y(*panel.dense), y(*panel.dense));
  }
  return svg;
}

std::string DrawCurve(const std::vector<Point>& points, const char* color, const Axis& x,
                      const Axis& y) {
  std::string path, marks;
  for (const Point& point : points) {
    path += fmt::format("{:.1f},{:.1f} ", x(point.x), y(point.y));
    if (point.interval) {
      marks += fmt::format(
          "<path d=\"M{0:.1f} {1:.1f}V{2:.1f}M{3:.1f} {1:.1f}H{4:.1f}M{3:.1f} {2:.1f}H{4:.1f}\" "
          "stroke=\"{5}\"/>\n",
          x(point.x), y(point.interval->lo), y(point.interval->hi), x(point.x) - 4, x(point.x) + 4,
          color);
    }
    marks += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"{}\"><title>{}: {:.4g} at {:.2f} MiB"
        "</title></circle>\n",
        x(point.x), y(point.y), color, Escaped(point.label), point.y, point.x);
  }
  return fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>\n",
                     path, color) +
         marks;
}

using Colors = std::map<std::string, const char*>;  // by method

std::string DrawPanel(const Panel& panel, const Colors& colors) {
  Range xs, ys;
  xs.Add(0);  // memory from nothing: half the bytes is half the way
  if (panel.dense) ys.Add(*panel.dense);
  for (const auto& [method, points] : panel.curves) {
    for (const Point& point : points) {
      xs.Add(point.x);
      ys.Add(point.y);
      if (!point.interval) continue;
      ys.Add(point.interval->lo);
      ys.Add(point.interval->hi);
    }
  }
  const Axis x(xs.lo, xs.hi, kLeft, kLeft + kWidth), y(ys.lo, ys.hi, kTop + kHeight, kTop);
  std::string svg = DrawAxes(panel, x, y);
  for (const auto& [method, points] : panel.curves) {
    svg += DrawCurve(points, colors.at(method), x, y);
  }
  return svg;
}

std::string DrawLegend(const std::map<std::string, std::string>& names, const Colors& colors) {
  std::string svg = fmt::format(
      "<line x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"6\" y2=\"6\" stroke=\"#333\" "
      "stroke-dasharray=\"6 4\"/>\n<text x=\"{2:.1f}\" y=\"10\">dense</text>\n",
      kLeft, kLeft + 26, kLeft + 34);
  double at = kLegendLine;
  for (const auto& [method, name] : names) {
    svg += fmt::format(
        "<line x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"{3}\" "
        "stroke-width=\"1.5\"/>\n<circle cx=\"{4:.1f}\" cy=\"{2:.1f}\" r=\"4\" fill=\"{3}\"/>\n"
        "<text x=\"{5:.1f}\" y=\"{6:.1f}\">{7}</text>\n",
        kLeft, kLeft + 26, at + 6, colors.at(method), kLeft + 13, kLeft + 34, at + 10,
        Escaped(name));
    at += kLegendLine;
  }
  return svg;
}

}  // namespace

std::vector<double> AxisTicks(double lo, double hi, size_t most) {
  if (!(hi > lo)) {  // one value, or none: something around it
    if (!std::isfinite(lo)) lo = 0;
    const double around = lo == 0 ? 1 : std::abs(lo) * 0.1;
    hi = lo + around;
    lo -= around;
  }
  const double rough = (hi - lo) / static_cast<double>(most);
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = power;
  for (const double factor : {2.0, 5.0, 10.0}) {
    if (step < rough) step = power * factor;
  }
  // Counted in steps: sums of steps would not hit round numbers.
  std::vector<double> ticks;
  const double last = std::ceil(hi / step - 1e-9);
  for (double i = std::floor(lo / step + 1e-9); i <= last; ++i) ticks.push_back(i * step + 0.0);
  return ticks;
}

std::string PlotSvg(const EvalReport& report) {
  const std::vector<Panel> panels = PanelsOf(report);
  const std::map<std::string, std::string> names = ShortNames(report);
  Colors colors;
  for (const auto& [method, name] : names)
    colors[method] = kColors[colors.size() % std::size(kColors)];
  const size_t columns = std::min<size_t>(panels.size(), 2);
  const size_t lines = columns > 0 ? (panels.size() + columns - 1) / columns : 0;
  const double width = kPanelWidth * static_cast<double>(std::max<size_t>(columns, 1));
  const double legend = kPanelHeight * static_cast<double>(lines) + 6;
  const double height = legend + kLegendLine * static_cast<double>(names.size() + 1) + 6;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "viewBox=\"0 0 {0:.0f} {1:.0f}\" font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      width, height);
  for (size_t i = 0; i < panels.size(); ++i) {
    svg +=
        fmt::format("<g transform=\"translate({:.0f} {:.0f})\">\n{}</g>\n",
                    kPanelWidth * static_cast<double>(i % columns),
                    kPanelHeight * static_cast<double>(i / columns), DrawPanel(panels[i], colors));
  }
  return svg + fmt::format("<g transform=\"translate(0 {:.0f})\">\n{}</g>\n</svg>\n", legend,
                           DrawLegend(names, colors));
}

}  // namespace kvasir
