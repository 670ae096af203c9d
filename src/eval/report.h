// The result of an evaluation: records, their JSON (schema kvasir.eval/1, docs/json.md), and tables
// for people.
//
// Every row has quality and memory from the same run. Intervals are 95 %.
//
// Errors   ReportFromJson: kCorrupt naming the field. ReportJson: kInvalid for a number that is
//          none: NaN is an error, never a text.
// Threads  Pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eval/case.h"
#include "eval/statistics.h"

namespace kvasir {

struct KlFigures {
  double mean = 0, p50 = 0, p90 = 0, p99 = 0, max = 0;  // nats
  std::optional<Interval> interval;                     // of the mean
};

// Teacher-forced: the same tokens after the case's cache and after the dense one.
struct QualityFigures {
  uint64_t scored = 0;
  double ppl = 0, ppl_dense = 0;
  Estimate dppl;     // ppl - ppl_dense; from resampled differences of the losses
  double ratio = 1;  // ppl / ppl_dense
  KlFigures kl;
  double top1 = 1;    // share of tokens with the same most likely one
  double rms_dp = 0;  // of the probability of the token that followed
};

// The same over targets at positions [begin, end).
struct QualityBucket {
  uint64_t begin = 0, end = 0, scored = 0;
  double ppl = 0, ppl_dense = 0, kl = 0, top1 = 1;
};

// Answers: shares of 1.
struct ScoreFigures {
  Estimate score;
  Estimate delta;  // to dense, paired
  uint64_t lost = 0, gained = 0;
  double mcnemar_p = 1;
};

// Decode-time behaviour over long outputs.
struct TraceFigures {
  double tokens_mean = 0, tokens_p50 = 0;
  double capped = 0;                    // share that came to no answer
  double len_ratio = 1;                 // to dense, paired
  double seconds_mean = 0;              // to the answer
  std::optional<double> s_per_correct;  // none: nothing was correct
  double tok_s = 0;
  double kv_byte_seconds = 0;
};

// Readings of the ledger and of the lanes.
struct MemoryFigures {
  uint64_t kv_peak_bytes = 0, kv_end_bytes = 0;
  double kv_mean_bytes = 0;    // over tokens, as the ledger stood after their pass
  uint64_t kv_live_bytes = 0;  // what the live entries need, at the end
  uint64_t flash_bytes = 0;
  double bytes_per_token = 0;                      // at the end
  double bytes_ratio = 1;                          // dense / case, at the end
  uint64_t live_entries = 0, logical_entries = 0;  // at the end
  uint32_t peak_entries = 0;                       // most in a lane, before commits too
  double ratio_end = 1, ratio_mean = 1;            // logical / live
  uint64_t read_bytes_per_step = 0;
  std::map<std::string, uint64_t> by_owner;  // of kv_end_bytes
};

struct EvalResult {
  std::string case_label, suite, task, mode;
  std::string spec;    // the suite as it was asked for, with defaults: what --resume compares
  uint32_t block = 0;  // most rows of a pass
  uint32_t policy_block = 0;    // 0: the policy has none
  uint64_t length = 0;          // tokens read, or of a sample
  uint32_t window = 0;          // tokens of a window; of the whole text in other modes
  uint32_t prompt = 0;          // tokens that count as prompt
  uint64_t n = 0;               // scored tokens, or samples
  uint32_t runs = 1;            // of each sample
  double generated = 0;         // tokens of an answer, mean
  std::optional<double> tok_s;  // generated tokens per second of the time in which it answered
  std::optional<QualityFigures> quality, quality_all;  // of the scored tokens; of all
  std::vector<QualityBucket> buckets;
  std::optional<ScoreFigures> score;
  std::optional<TraceFigures> trace;
  MemoryFigures memory;
  std::optional<double> nominal_ratio;
  std::optional<uint64_t> first_drop;  // tokens read by then; none: nothing was dropped
  bool inactive = false;  // nothing was dropped, encoded or hidden inside the scored range
  std::string samples_sha256;

  // Whether nominal and mean ratio are more than 10 % apart.
  bool MissesNominal() const;
};

struct EvalSample {
  std::string case_label, task, mode;
  uint64_t length = 0;
  uint64_t index = 0;
  double score = 0;
  std::string output;
  uint64_t tokens = 0;
};

struct EvalReport {
  std::string commit, compiler, simd;
  std::string cpu;
  uint64_t threads = 0, memory_bytes = 0;
  std::string model_file, model_sha256;
  uint64_t params = 0;
  uint32_t layers = 0, kv_heads = 0, head_dim = 0;
  uint64_t seed = 1;
  std::string started;  // UTC
  double seconds = 0;
  std::string compute;                         // of matrix products and attention: "f32" or "fast"
  std::map<std::string, uint32_t> generators;  // versions of the tasks that were used
  std::vector<EvalCase> cases;                 // the reference first
  std::vector<EvalResult> results;
  std::vector<EvalSample> samples;

  const EvalCase& CaseOf(const EvalResult& result) const;  // CHECKs that there is one
};

nlohmann::ordered_json ReportJson(const EvalReport& report);
// `where` opens error messages. Fields that are not known are ignored.
EvalReport ReportFromJson(std::string_view text, std::string_view where);

// Markdown: a table for each kind of result there is, and what they stand on.
std::string ReportTables(const EvalReport& report);

}  // namespace kvasir
