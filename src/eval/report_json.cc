#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "eval/report.h"

namespace kvasir {

namespace {

using Json = nlohmann::ordered_json;
constexpr std::string_view kSchema = "kvasir.eval/1";

// --- writing ---

void CheckFinite(const Json& value, const std::string& where) {
  if (value.is_number_float() && !std::isfinite(value.get<double>())) {
    Fail(Code::kInvalid, "result: {} is no finite number", where);
  }
  if (!value.is_structured()) return;
  for (const auto& [key, item] : value.items()) CheckFinite(item, where + "/" + key);
}

void PutInterval(const std::optional<Interval>& interval, Json* object) {
  (*object)["lo"] = interval ? Json(interval->lo) : Json();
  (*object)["hi"] = interval ? Json(interval->hi) : Json();
}

Json ToJson(const Estimate& e) {
  Json object = {{"v", e.v}};
  PutInterval(e.interval, &object);
  return object;
}

// Numbers as numbers, everything else as text.
Json PolicyJson(const std::string& spec) {
  Json object = {{"name", PolicyName(spec)}};
  if (spec.find(':') != std::string::npos) {
    for (const auto& [key, value] : SplitSpec(spec, "policy").values) {
      Json number = Json::parse(value, nullptr, /*allow_exceptions=*/false);
      object[key] = number.is_number() ? number : Json(value);
    }
  }
  object["spec"] = spec;
  return object;
}

Json ToJson(const EvalCase& c) {
  return {{"label", c.label},
          {"flags", c.flags},
          {"policy", PolicyJson(c.policy)},
          {"codec", c.codec},
          {"kv_memory", c.kv_memory ? Json(*c.kv_memory) : Json()},
          {"reference", c.reference}};
}

Json ToJson(const QualityFigures& q) {
  Json kl = {{"mean", q.kl.mean},
             {"p50", q.kl.p50},
             {"p90", q.kl.p90},
             {"p99", q.kl.p99},
             {"max", q.kl.max}};
  PutInterval(q.kl.interval, &kl);
  return {{"scored", q.scored},     {"ppl", q.ppl},      {"ppl_dense", q.ppl_dense},
          {"dppl", ToJson(q.dppl)}, {"ratio", q.ratio},  {"kl", kl},
          {"top1", q.top1},         {"rms_dp", q.rms_dp}};
}

Json ToJson(const QualityBucket& b) {
  return {{"begin", b.begin},         {"end", b.end}, {"scored", b.scored}, {"ppl", b.ppl},
          {"ppl_dense", b.ppl_dense}, {"kl", b.kl},   {"top1", b.top1}};
}

Json ToJson(const ScoreFigures& s) {
  Json object = ToJson(s.score);
  object["delta"] = ToJson(s.delta);
  object["lost"] = s.lost;
  object["gained"] = s.gained;
  object["mcnemar_p"] = s.mcnemar_p;
  return object;
}

Json ToJson(const TraceFigures& t) {
  return {{"tokens_mean", t.tokens_mean},
          {"tokens_p50", t.tokens_p50},
          {"capped", t.capped},
          {"len_ratio", t.len_ratio},
          {"seconds_mean", t.seconds_mean},
          {"s_per_correct", t.s_per_correct ? Json(*t.s_per_correct) : Json()},
          {"tok_s", t.tok_s},
          {"kv_byte_seconds", t.kv_byte_seconds}};
}

Json ToJson(const MemoryFigures& m) {
  Json by_owner = Json::object();
  for (const auto& [owner, bytes] : m.by_owner) by_owner[owner] = bytes;
  return {{"kv_peak_bytes", m.kv_peak_bytes},
          {"kv_end_bytes", m.kv_end_bytes},
          {"kv_mean_bytes", m.kv_mean_bytes},
          {"kv_live_bytes", m.kv_live_bytes},
          {"flash_bytes", m.flash_bytes},
          {"bytes_per_token", m.bytes_per_token},
          {"bytes_ratio", m.bytes_ratio},
          {"live_entries", m.live_entries},
          {"logical_entries", m.logical_entries},
          {"peak_entries", m.peak_entries},
          {"ratio_end", m.ratio_end},
          {"ratio_mean", m.ratio_mean},
          {"read_bytes_per_step", m.read_bytes_per_step},
          {"by_owner", by_owner}};
}

Json ToJson(const EvalResult& r) {
  Json object = {{"case", r.case_label},
                 {"suite", r.suite},
                 {"task", r.task},
                 {"mode", r.mode},
                 {"spec", r.spec},
                 {"block", r.block},
                 {"policy_block", r.policy_block},
                 {"length", r.length},
                 {"window", r.window},
                 {"prompt", r.prompt},
                 {"n", r.n},
                 {"runs", r.runs},
                 {"generated", r.generated}};
  if (r.tok_s) object["tok_s"] = *r.tok_s;
  if (r.quality) object["quality"] = ToJson(*r.quality);
  if (r.quality_all) object["quality_all"] = ToJson(*r.quality_all);
  if (!r.buckets.empty()) {
    for (const QualityBucket& bucket : r.buckets) object["buckets"].push_back(ToJson(bucket));
  }
  if (r.score) object["score"] = ToJson(*r.score);
  if (r.trace) object["trace"] = ToJson(*r.trace);
  object["memory"] = ToJson(r.memory);
  object["nominal_ratio"] = r.nominal_ratio ? Json(*r.nominal_ratio) : Json();
  object["first_drop"] = r.first_drop ? Json(*r.first_drop) : Json();
  object["inactive"] = r.inactive;
  object["samples_sha256"] = r.samples_sha256;
  return object;
}

Json ToJson(const EvalSample& s) {
  return {{"case", s.case_label}, {"task", s.task},   {"mode", s.mode},     {"length", s.length},
          {"index", s.index},     {"score", s.score}, {"output", s.output}, {"tokens", s.tokens}};
}

template <typename T>
Json List(const std::vector<T>& items) {
  Json list = Json::array();
  for (const T& item : items) list.push_back(ToJson(item));
  return list;
}

// --- reading ---

// An object of the document, which knows where it is.
class Reader {
 public:
  Reader(const Json& value, std::string where) : value_(value), where_(std::move(where)) {
    if (!value.is_object()) Fail(Code::kCorrupt, "{}: an object is expected", where_);
  }

  bool Has(const char* key) const { return value_.contains(key) && !value_.at(key).is_null(); }
  Reader Child(const char* key) const { return {At(key), Path(key)}; }

  void Read(const char* key, std::string* out) const {
    Expect(key, At(key).is_string(), "a text");
    *out = At(key).get<std::string>();
  }
  void Read(const char* key, bool* out) const {
    Expect(key, At(key).is_boolean(), "true or false");
    *out = At(key).get<bool>();
  }
  void Read(const char* key, double* out) const {
    Expect(key, At(key).is_number(), "a number");
    *out = At(key).get<double>();
  }
  void Read(const char* key, uint64_t* out) const {
    Expect(key, At(key).is_number_unsigned(), "a whole number from 0");
    *out = At(key).get<uint64_t>();
  }
  void Read(const char* key, uint32_t* out) const {
    uint64_t wide = 0;
    Read(key, &wide);
    Expect(key, wide <= UINT32_MAX, "a number below 2^32");
    *out = static_cast<uint32_t>(wide);
  }
  // null, or not there: none.
  template <typename T>
  void Read(const char* key, std::optional<T>* out) const {
    if (Has(key)) Read(key, &out->emplace());
  }
  template <typename T>
  void ReadMap(const char* key, std::map<std::string, T>* out) const {
    const Reader map = Child(key);
    for (const auto& [name, value] : map.value_.items()) map.Read(name.c_str(), &(*out)[name]);
  }
  template <typename F>
  void ForEach(const char* key, F&& f) const {
    const Json& list = At(key);
    Expect(key, list.is_array(), "a list");
    for (size_t i = 0; i < list.size(); ++i) f(Reader(list[i], fmt::format("{}/{}", Path(key), i)));
  }

 private:
  std::string Path(const char* key) const { return fmt::format("{}/{}", where_, key); }
  const Json& At(const char* key) const {
    if (!value_.contains(key)) Fail(Code::kCorrupt, "{} is missing", Path(key));
    return value_.at(key);
  }
  void Expect(const char* key, bool right, std::string_view what) const {
    if (!right) Fail(Code::kCorrupt, "{}: {} is expected", Path(key), what);
  }

  const Json& value_;
  std::string where_;
};

std::optional<Interval> ReadInterval(const Reader& in) {
  if (!in.Has("lo") || !in.Has("hi")) return std::nullopt;
  Interval interval;
  in.Read("lo", &interval.lo);
  in.Read("hi", &interval.hi);
  return interval;
}

Estimate ReadEstimate(const Reader& in) {
  Estimate e;
  in.Read("v", &e.v);
  e.interval = ReadInterval(in);
  return e;
}

EvalCase ReadCase(const Reader& in) {
  EvalCase c;
  in.Read("label", &c.label);
  in.Read("flags", &c.flags);
  in.Child("policy").Read("spec", &c.policy);
  in.Read("codec", &c.codec);
  in.Read("kv_memory", &c.kv_memory);
  in.Read("reference", &c.reference);
  return c;
}

QualityFigures ReadQuality(const Reader& in) {
  QualityFigures q;
  in.Read("scored", &q.scored);
  in.Read("ppl", &q.ppl);
  in.Read("ppl_dense", &q.ppl_dense);
  q.dppl = ReadEstimate(in.Child("dppl"));
  in.Read("ratio", &q.ratio);
  const Reader kl = in.Child("kl");
  kl.Read("mean", &q.kl.mean);
  kl.Read("p50", &q.kl.p50);
  kl.Read("p90", &q.kl.p90);
  kl.Read("p99", &q.kl.p99);
  kl.Read("max", &q.kl.max);
  q.kl.interval = ReadInterval(kl);
  in.Read("top1", &q.top1);
  in.Read("rms_dp", &q.rms_dp);
  return q;
}

QualityBucket ReadBucket(const Reader& in) {
  QualityBucket b;
  in.Read("begin", &b.begin);
  in.Read("end", &b.end);
  in.Read("scored", &b.scored);
  in.Read("ppl", &b.ppl);
  in.Read("ppl_dense", &b.ppl_dense);
  in.Read("kl", &b.kl);
  in.Read("top1", &b.top1);
  return b;
}

ScoreFigures ReadScore(const Reader& in) {
  ScoreFigures s;
  s.score = ReadEstimate(in);
  s.delta = ReadEstimate(in.Child("delta"));
  in.Read("lost", &s.lost);
  in.Read("gained", &s.gained);
  in.Read("mcnemar_p", &s.mcnemar_p);
  return s;
}

TraceFigures ReadTrace(const Reader& in) {
  TraceFigures t;
  in.Read("tokens_mean", &t.tokens_mean);
  in.Read("tokens_p50", &t.tokens_p50);
  in.Read("capped", &t.capped);
  in.Read("len_ratio", &t.len_ratio);
  in.Read("seconds_mean", &t.seconds_mean);
  in.Read("s_per_correct", &t.s_per_correct);
  in.Read("tok_s", &t.tok_s);
  in.Read("kv_byte_seconds", &t.kv_byte_seconds);
  return t;
}

MemoryFigures ReadMemory(const Reader& in) {
  MemoryFigures m;
  in.Read("kv_peak_bytes", &m.kv_peak_bytes);
  in.Read("kv_end_bytes", &m.kv_end_bytes);
  in.Read("kv_mean_bytes", &m.kv_mean_bytes);
  in.Read("kv_live_bytes", &m.kv_live_bytes);
  in.Read("flash_bytes", &m.flash_bytes);
  in.Read("bytes_per_token", &m.bytes_per_token);
  in.Read("bytes_ratio", &m.bytes_ratio);
  in.Read("live_entries", &m.live_entries);
  in.Read("logical_entries", &m.logical_entries);
  in.Read("peak_entries", &m.peak_entries);
  in.Read("ratio_end", &m.ratio_end);
  in.Read("ratio_mean", &m.ratio_mean);
  in.Read("read_bytes_per_step", &m.read_bytes_per_step);
  in.ReadMap("by_owner", &m.by_owner);
  return m;
}

EvalResult ReadResult(const Reader& in) {
  EvalResult r;
  in.Read("case", &r.case_label);
  in.Read("suite", &r.suite);
  in.Read("task", &r.task);
  in.Read("mode", &r.mode);
  in.Read("spec", &r.spec);
  in.Read("block", &r.block);
  in.Read("policy_block", &r.policy_block);
  in.Read("length", &r.length);
  in.Read("window", &r.window);
  in.Read("prompt", &r.prompt);
  in.Read("n", &r.n);
  in.Read("runs", &r.runs);
  in.Read("generated", &r.generated);
  if (in.Has("tok_s")) in.Read("tok_s", &r.tok_s);
  if (in.Has("quality")) r.quality = ReadQuality(in.Child("quality"));
  if (in.Has("quality_all")) r.quality_all = ReadQuality(in.Child("quality_all"));
  if (in.Has("buckets")) {
    in.ForEach("buckets", [&](const Reader& item) { r.buckets.push_back(ReadBucket(item)); });
  }
  if (in.Has("score")) r.score = ReadScore(in.Child("score"));
  if (in.Has("trace")) r.trace = ReadTrace(in.Child("trace"));
  r.memory = ReadMemory(in.Child("memory"));
  in.Read("nominal_ratio", &r.nominal_ratio);
  in.Read("first_drop", &r.first_drop);
  in.Read("inactive", &r.inactive);
  in.Read("samples_sha256", &r.samples_sha256);
  return r;
}

EvalSample ReadSample(const Reader& in) {
  EvalSample s;
  in.Read("case", &s.case_label);
  in.Read("task", &s.task);
  in.Read("mode", &s.mode);
  in.Read("length", &s.length);
  in.Read("index", &s.index);
  in.Read("score", &s.score);
  in.Read("output", &s.output);
  in.Read("tokens", &s.tokens);
  return s;
}

void ReadHead(const Reader& in, EvalReport* report) {
  const Reader build = in.Child("build"), machine = in.Child("machine"), model = in.Child("model");
  build.Read("commit", &report->commit);
  build.Read("compiler", &report->compiler);
  build.Read("simd", &report->simd);
  machine.Read("cpu", &report->cpu);
  machine.Read("threads", &report->threads);
  machine.Read("memory_bytes", &report->memory_bytes);
  model.Read("file", &report->model_file);
  model.Read("sha256", &report->model_sha256);
  model.Read("params", &report->params);
  model.Read("layers", &report->layers);
  model.Read("kv_heads", &report->kv_heads);
  model.Read("head_dim", &report->head_dim);
  in.Read("seed", &report->seed);
  in.Read("started", &report->started);
  in.Read("seconds", &report->seconds);
  in.Read("compute", &report->compute);
  in.ReadMap("generators", &report->generators);
}

// Every result and sample names a case, the first case is the reference.
void CheckCases(const EvalReport& report, std::string_view where) {
  if (report.cases.empty() || !report.cases[0].reference) {
    Fail(Code::kCorrupt, "{}/cases: the reference is expected first", where);
  }
  const auto check = [&](const std::string& label) {
    for (const EvalCase& c : report.cases) {
      if (c.label == label) return;
    }
    Fail(Code::kCorrupt, "{}: there is no case \"{}\"", where, label);
  };
  for (const EvalResult& result : report.results) check(result.case_label);
  for (const EvalSample& sample : report.samples) check(sample.case_label);
}

}  // namespace

nlohmann::ordered_json ReportJson(const EvalReport& r) {
  Json generators = Json::object();
  for (const auto& [name, version] : r.generators) generators[name] = version;
  Json document = {
      {"schema", kSchema},
      {"build", {{"commit", r.commit}, {"compiler", r.compiler}, {"simd", r.simd}}},
      {"machine", {{"cpu", r.cpu}, {"threads", r.threads}, {"memory_bytes", r.memory_bytes}}},
      {"model",
       {{"file", r.model_file},
        {"sha256", r.model_sha256},
        {"params", r.params},
        {"layers", r.layers},
        {"kv_heads", r.kv_heads},
        {"head_dim", r.head_dim}}},
      {"seed", r.seed},
      {"started", r.started},
      {"seconds", r.seconds},
      {"compute", r.compute},
      {"generators", generators},
      {"cases", List(r.cases)},
      {"results", List(r.results)},
      {"samples", List(r.samples)}};
  CheckFinite(document, "");
  return document;
}

EvalReport ReportFromJson(std::string_view text, std::string_view where) {
  const Json document = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) Fail(Code::kCorrupt, "{}: no JSON document", where);
  const Reader in(document, std::string(where));
  std::string schema;
  in.Read("schema", &schema);
  if (schema != kSchema) {
    Fail(Code::kCorrupt, "{}: schema \"{}\", expected {}", where, schema, kSchema);
  }
  EvalReport report;
  ReadHead(in, &report);
  in.ForEach("cases", [&](const Reader& item) { report.cases.push_back(ReadCase(item)); });
  in.ForEach("results", [&](const Reader& item) { report.results.push_back(ReadResult(item)); });
  in.ForEach("samples", [&](const Reader& item) { report.samples.push_back(ReadSample(item)); });
  CheckCases(report, where);
  return report;
}

}  // namespace kvasir
