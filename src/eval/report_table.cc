#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <set>

#include "base/error.h"
#include "eval/report.h"

namespace kvasir {

namespace {

using Row = std::vector<std::string>;

// Columns aligned.
std::string Markdown(const std::vector<Row>& rows) {
  std::vector<size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) {
      // Characters, not bytes: heads have Greek letters.
      const auto wide =
          std::count_if(row[i].begin(), row[i].end(), [](char c) { return (c & 0xC0) != 0x80; });
      widths[i] = std::max(widths[i], static_cast<size_t>(wide));
    }
  }
  std::string text;
  for (size_t r = 0; r < rows.size(); ++r) {
    text += "|";
    for (size_t i = 0; i < rows[r].size(); ++i)
      text += fmt::format(" {:{}} |", rows[r][i], widths[i]);
    text += "\n";
    if (r > 0) continue;
    text += "|";
    for (const size_t width : widths) text += std::string(width + 2, '-') + "|";
    text += "\n";
  }
  return text;
}

std::string MiB(double bytes) { return fmt::format("{:.2f}", bytes / (1 << 20)); }

// "~0.021 [-0.003, 0.044]": in doubt whether it is anything.
std::string WithInterval(const Estimate& e, double scale, int digits, bool difference) {
  std::string text =
      fmt::format("{}{:.{}f}", difference && e.DoubtfulSign() ? "~" : "", e.v * scale, digits);
  if (e.interval) {
    text += fmt::format(" [{:.{}f}, {:.{}f}]", e.interval->lo * scale, digits,
                        e.interval->hi * scale, digits);
  }
  return text;
}

std::string Ratio(const EvalResult& r) { return fmt::format("{:.2f}", r.memory.ratio_mean); }
std::string Star(const EvalResult& r) { return r.MissesNominal() ? " *" : ""; }

std::string Budget(const EvalCase& c) {
  for (const char* key : {"budget", "keep", "ratio"}) {
    const std::string value = PolicyValue(c.policy, key);
    if (value.empty()) continue;
    return std::string_view(key) == "budget" ? value : fmt::format("{}={}", key, value);
  }
  return "-";
}

std::string ModeAndBlock(const EvalResult& r) {
  std::string text = r.mode;
  if (r.window > 0) text += fmt::format(" C={}", r.window);
  if (r.prompt > 0) text += fmt::format(" p={}", r.prompt);
  text += fmt::format("/{}", r.block);
  if (r.policy_block > 0 && r.policy_block != r.block) text += fmt::format(" ({})", r.policy_block);
  return text;
}

std::string Scored(const EvalResult& r) {
  return r.first_drop && !r.inactive ? fmt::format("{} after {}", r.n, *r.first_drop)
                                     : fmt::format("{}", r.n);
}

Row QualityRow(const EvalResult& r, const EvalCase& c) {
  const QualityFigures& q = *r.quality;
  Row row = {r.case_label,
             PolicyName(c.policy),
             Budget(c),
             c.codec,
             ModeAndBlock(r),
             Scored(r),
             MiB(static_cast<double>(r.memory.kv_peak_bytes)),
             fmt::format("{:.0f}", r.memory.bytes_per_token),
             fmt::format("{:.2f}/{:.2f}{}", r.memory.ratio_end, r.memory.ratio_mean, Star(r)),
             fmt::format("{:.3f}", q.ppl)};
  if (r.inactive) {
    row.insert(row.end(), {"inactive", "-", "-", "-", "-"});
  } else if (c.reference) {
    row.insert(row.end(), {"-", "-", "-", "-", "-"});
  } else {
    row.insert(row.end(), {WithInterval(q.dppl, 1, 3, true), fmt::format("{:.5f}", q.kl.mean),
                           fmt::format("{:.4f}", q.kl.p99), fmt::format("{:.2f}", q.top1 * 100),
                           fmt::format("{:.2f}", q.rms_dp * 100)});
  }
  return row;
}

Row ScoreRow(const EvalResult& r, const EvalCase& c) {
  const ScoreFigures& s = *r.score;
  const bool compared = !c.reference && !r.inactive;
  return {r.case_label,
          r.task,
          fmt::format("{}", r.length),
          r.mode,
          fmt::format("{}", r.n),
          WithInterval(s.score, 100, 1, false),
          compared     ? WithInterval(s.delta, 100, 1, true)
          : r.inactive ? "inactive"
                       : "-",
          compared ? fmt::format("{}/{}", s.lost, s.gained) : "-",
          fmt::format("{}/{}", MiB(static_cast<double>(r.memory.kv_peak_bytes)),
                      MiB(static_cast<double>(r.memory.kv_end_bytes))),
          Ratio(r) + Star(r),
          fmt::format("{:.1f}", r.generated),
          r.tok_s ? fmt::format("{:.0f}", *r.tok_s) : "-"};
}

Row TraceRow(const EvalResult& r, const EvalCase& c) {
  const ScoreFigures& s = *r.score;
  const TraceFigures& t = *r.trace;
  return {r.case_label,
          r.task,
          fmt::format("{}×{}", r.n, r.runs),
          WithInterval(s.score, 100, 1, false),
          c.reference  ? "-"
          : r.inactive ? "inactive"
                       : WithInterval(s.delta, 100, 1, true),
          fmt::format("{:.0f}", t.tokens_mean),
          fmt::format("{:.0f}", t.tokens_p50),
          fmt::format("{:.1f}", t.capped * 100),
          fmt::format("{:.2f}", t.len_ratio),
          fmt::format("{:.2f}", t.seconds_mean),
          t.s_per_correct ? fmt::format("{:.2f}", *t.s_per_correct) : "-",
          fmt::format("{:.1f}", t.tok_s),
          fmt::format("{}/{}", MiB(r.memory.kv_mean_bytes),
                      MiB(static_cast<double>(r.memory.kv_peak_bytes)))};
}

// One kind of result: its head, which results it takes, and their rows.
struct Table {
  Row head;
  std::function<bool(const EvalResult&)> takes;
  Row (*row)(const EvalResult&, const EvalCase&);
};

const std::vector<Table>& Tables() {
  static const std::vector<Table> tables = {
      {{"case", "policy", "budget", "codec", "mode/b", "scored", "kv MiB", "B/tok",
        "ratio end/mean", "PPL", "ΔPPL [95 %]", "KL", "KL p99", "top-1 %", "RMSΔp %"},
       [](const EvalResult& r) { return r.quality.has_value(); },
       QualityRow},
      {{"case", "task", "len", "mode", "n", "score [95 %]", "Δ dense [95 %]", "lost/gained",
        "kv peak/end MiB", "ratio mean", "gen tokens", "tok/s"},
       [](const EvalResult& r) { return r.score && !r.trace; },
       ScoreRow},
      {{"case", "task", "n×k", "acc [95 %]", "Δ [95 %]", "tokens", "p50", "capped %", "len×",
        "time s", "s/correct", "tok/s", "kv mean/peak MiB"},
       [](const EvalResult& r) { return r.score && r.trace; },
       TraceRow}};
  return tables;
}

std::string NameOf(const EvalResult& r) {
  const std::string mode = r.mode == r.task ? "" : " " + r.mode;
  return fmt::format("{}, {} {}{}", r.case_label, r.suite, r.task, mode);
}

// One line for each mark that the tables have.
std::string MarkLines(const EvalReport& report) {
  std::vector<std::string> inactive, star, doubtful;
  for (const EvalResult& r : report.results) {
    if (report.CaseOf(r).reference) continue;
    if (r.inactive) inactive.push_back(NameOf(r));
    if (r.MissesNominal()) {
      star.push_back(
          fmt::format("{} ({:.2f} for {:.2f})", NameOf(r), r.memory.ratio_mean, *r.nominal_ratio));
    }
    const Estimate* difference = r.quality ? &r.quality->dppl : r.score ? &r.score->delta : nullptr;
    if (!r.inactive && difference && difference->DoubtfulSign()) doubtful.push_back(NameOf(r));
  }
  std::string text;
  const auto line = [&](std::string_view what, const std::vector<std::string>& names) {
    if (!names.empty()) text += fmt::format("{}: {}\n", what, fmt::join(names, "; "));
  };
  line("inactive, nothing was dropped, hidden or encoded inside the scored range", inactive);
  line("* mean ratio more than 10 % from the nominal one", star);
  line("~ the interval contains 0, or there is too little for one", doubtful);
  return text;
}

std::string Footer(const EvalReport& r) {
  std::string text = fmt::format(
      "model {} (sha256 {}), build {}, {} on {} threads, compute {}, seed {}\n", r.model_file,
      r.model_sha256.substr(0, 16), r.commit, r.simd, r.threads, r.compute, r.seed);
  text += fmt::format("reference: dense, {} lanes, same process and passes\n", r.cases[0].codec);
  if (!r.generators.empty()) {
    std::vector<std::string> versions;
    for (const auto& [name, version] : r.generators) {
      versions.push_back(fmt::format("{} v{}", name, version));
    }
    text += fmt::format("generators: {}\n", fmt::join(versions, ", "));
  }
  std::set<std::string> blocks;
  for (const EvalResult& result : r.results) {
    if (result.block > 0) blocks.insert(fmt::format("{}", result.block));
  }
  if (!blocks.empty()) {
    text += fmt::format("blocks: {} rows a pass; a policy's own in brackets\n",
                        fmt::join(blocks, ", "));
  }
  return text;
}

}  // namespace

bool EvalResult::MissesNominal() const {
  return nominal_ratio && !inactive &&
         std::abs(memory.ratio_mean - *nominal_ratio) > 0.1 * *nominal_ratio;
}

const EvalCase& EvalReport::CaseOf(const EvalResult& result) const {
  const auto found = std::find_if(cases.begin(), cases.end(),
                                  [&](const EvalCase& c) { return c.label == result.case_label; });
  CHECK(found != cases.end());
  return *found;
}

std::string ReportTables(const EvalReport& report) {
  std::string text;
  for (const Table& table : Tables()) {
    std::vector<Row> rows = {table.head};
    for (const EvalResult& result : report.results) {
      if (table.takes(result)) rows.push_back(table.row(result, report.CaseOf(result)));
    }
    if (rows.size() > 1) text += Markdown(rows) + "\n";
  }
  return text + Footer(report) + MarkLines(report);
}

}  // namespace kvasir
