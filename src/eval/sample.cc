#include "eval/sample.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/whole_file.h"
#include "eval/digest.h"
#include "format/json.h"

namespace kvasir {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr uint64_t kMaxCount = uint64_t{1} << 32;  // of a length, an index, tokens
constexpr size_t kMaxLine = size_t{64} << 20;
constexpr size_t kMaxValues = 100'000;  // of one line
constexpr size_t kMaxSamples = 1'000'000;

ordered_json ToJson(const Sample& sample) {
  const auto question = [](const Question& q) {
    return ordered_json{{"question", q.text}, {"answer_prefix", q.answer_prefix}, {"refs", q.refs}};
  };
  CHECK(!sample.questions.empty());
  ordered_json out = {{"suite", sample.suite},     {"task", sample.task},
                      {"version", sample.version}, {"seed", sample.seed},
                      {"length", sample.length},   {"index", sample.index},
                      {"context", sample.context}};
  out.update(question(sample.questions[0]));
  if (sample.questions.size() > 1) {
    out["more_questions"] = ordered_json::array();
    for (size_t i = 1; i < sample.questions.size(); ++i) {
      out["more_questions"].push_back(question(sample.questions[i]));
    }
  }
  out["metric"] = Name(sample.metric);
  out["max_new"] = sample.max_new;
  out["needles"] = ordered_json::array();
  for (const Needle& needle : sample.needles) {
    out["needles"].push_back(
        {{"text", needle.text}, {"token_begin", needle.token_begin}, {"depth", needle.depth}});
  }
  out["distractors"] = sample.distractors;
  if (!sample.gold.empty()) out["gold"] = sample.gold;
  return out;
}

// Reads the keys of one object; every refusal names file, line and key.
class Fields {
 public:
  Fields(const json& object, const std::string& where) : object_(object), where_(where) {
    if (!object.is_object()) Fail(Code::kCorrupt, "{}: expected an object", where);
  }

  bool Has(const char* key) const { return object_.contains(key); }
  const json& At(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) Fail(Code::kCorrupt, "{}: no key \"{}\"", where_, key);
    return *found;
  }
  std::string Text(const char* key) const {
    const json& value = At(key);
    if (!value.is_string()) Refuse(key, "a string");
    return value.get<std::string>();
  }
  std::string TextOr(const char* key, const char* absent) const {
    return Has(key) ? Text(key) : absent;
  }
  uint64_t Count(const char* key, uint64_t max = kMaxCount) const {
    const json& value = At(key);
    if (!value.is_number_unsigned() || value.get<uint64_t>() > max) {
      Refuse(key, fmt::format("a whole number up to {}", max));
    }
    return value.get<uint64_t>();
  }
  uint64_t CountOr(const char* key, uint64_t absent) const {
    return Has(key) ? Count(key) : absent;
  }
  double Percent(const char* key) const {
    const json& value = At(key);
    if (!value.is_number() || !(value.get<double>() >= 0 && value.get<double>() <= 100)) {
      Refuse(key, "a number from 0 to 100");
    }
    return value.get<double>();
  }
  const json& Array(const char* key) const {
    const json& value = At(key);
    if (!value.is_array()) Refuse(key, "an array");
    return value;
  }
  std::vector<std::string> Texts(const char* key) const {
    std::vector<std::string> texts;
    for (const json& item : Array(key)) {
      if (!item.is_string()) Refuse(key, "an array of strings");
      texts.push_back(item.get<std::string>());
    }
    if (texts.empty()) Refuse(key, "at least one reference");
    return texts;
  }

 private:
  [[noreturn]] void Refuse(const char* key, std::string_view expected) const {
    Fail(Code::kCorrupt, "{}: \"{}\": expected {}", where_, key, expected);
  }
  const json& object_;
  const std::string& where_;
};

Question QuestionFrom(const Fields& fields) {
  return {fields.Text("question"), fields.TextOr("answer_prefix", ""), fields.Texts("refs")};
}

Sample OwnSample(const json& object, const std::string& where) {
  const Fields fields(object, where);
  Sample sample;
  sample.suite = fields.TextOr("suite", "file");
  sample.task = fields.Text("task");
  sample.version =
      fields.Has("version") ? static_cast<uint32_t>(fields.Count("version", UINT32_MAX)) : 1;
  sample.seed = fields.Has("seed") ? fields.Count("seed", UINT64_MAX) : 0;
  sample.length = fields.CountOr("length", 0);
  sample.index = fields.CountOr("index", 0);
  sample.context = fields.Text("context");
  sample.questions.push_back(QuestionFrom(fields));
  if (fields.Has("more_questions")) {
    for (const json& more : fields.Array("more_questions")) {
      sample.questions.push_back(QuestionFrom(Fields(more, where)));
    }
  }
  const std::string metric = fields.Text("metric");
  const auto known = FindMetric(metric);
  if (!known) Fail(Code::kCorrupt, "{}: \"metric\": no metric has this name", where);
  sample.metric = *known;
  sample.max_new = fields.Count("max_new");
  if (fields.Has("needles")) {
    for (const json& item : fields.Array("needles")) {
      const Fields needle(item, where);
      sample.needles.push_back(
          {needle.Text("text"), needle.Count("token_begin"), needle.Percent("depth")});
    }
  }
  sample.distractors = fields.CountOr("distractors", 0);
  sample.gold = fields.TextOr("gold", "");
  if (fields.Has("sha256") && fields.Text("sha256") != SampleDigest(sample)) {
    Fail(Code::kCorrupt,
         "{}: \"sha256\" is not that of this sample; leave the key out of a sample "
         "that was changed by hand",
         where);
  }
  return sample;
}

// What RULER generates per task, by the first letters of its name.
struct RulerTask {
  std::string_view name;
  uint64_t max_new;
  Metric metric;
};
constexpr RulerTask kRulerTasks[] = {
    {"niah", 128, Metric::kAll}, {"vt", 30, Metric::kAll}, {"cwe", 120, Metric::kAll},
    {"fwe", 50, Metric::kAll},   {"qa", 32, Metric::kAny}, {"", 128, Metric::kAll},
};

// RULER keeps a task's samples in TASK/validation.jsonl.
std::string TaskOfPath(const std::string& path) {
  const std::filesystem::path file(path);
  const std::string stem = file.stem().string();
  const bool generic = stem == "validation" || stem == "test" || stem == "train";
  const std::string folder = file.parent_path().filename().string();
  return generic && !folder.empty() ? folder : stem;
}

Sample RulerSample(const json& object, const std::string& where, const std::string& task) {
  const Fields fields(object, where);
  Sample sample;
  sample.suite = "file";
  sample.task = task;
  sample.index = fields.CountOr("index", 0);
  sample.length = fields.CountOr("length", 0);
  const std::string input = fields.Text("input");
  const size_t text_end = input.find_last_not_of(" \n\r\t");
  if (text_end == std::string::npos) Fail(Code::kCorrupt, "{}: \"input\" is empty", where);
  const size_t line_end = input.rfind('\n', text_end);
  const size_t cut = line_end == std::string::npos ? 0 : line_end + 1;
  sample.context = input.substr(0, cut);
  sample.questions.push_back(
      {input.substr(cut), fields.TextOr("answer_prefix", ""), fields.Texts("outputs")});
  for (const RulerTask& known : kRulerTasks) {
    if (!task.starts_with(known.name)) continue;
    sample.max_new = known.max_new;
    sample.metric = known.metric;
    break;
  }
  return sample;
}

}  // namespace

std::string SampleDigest(const Sample& sample) { return TextDigest(ToJson(sample).dump()); }

std::string SampleJson(const Sample& sample) {
  ordered_json out = ToJson(sample);
  out["sha256"] = TextDigest(out.dump());
  return out.dump();
}

std::string SamplesDigest(std::span<const Sample> samples) {
  std::string digests;
  for (const Sample& sample : samples) digests += SampleDigest(sample);
  return TextDigest(digests);
}

void WriteSamples(std::span<const Sample> samples, const std::string& path) {
  WholeFile file(path);
  for (const Sample& sample : samples) file.Write(SampleJson(sample) + "\n");
  file.Commit();
}

std::vector<Sample> ParseSamples(std::string_view text, const std::string& where) {
  std::vector<Sample> samples;
  const std::string task = TaskOfPath(where);
  for (size_t begin = 0, line = 1; begin < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view content = text.substr(begin, end - begin);
    begin = end + 1;
    if (content.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string place = fmt::format("{}:{}", where, line);
    if (content.size() > kMaxLine) {
      Fail(Code::kCorrupt, "{}: a line of more than {} bytes", place, kMaxLine);
    }
    if (samples.size() == kMaxSamples) {
      Fail(Code::kCorrupt, "{}: more than {} samples", place, kMaxSamples);
    }
    const json object = ParseJson(content, place, kMaxValues);
    const bool ruler = object.is_object() && object.contains("input");
    samples.push_back(ruler ? RulerSample(object, place, task) : OwnSample(object, place));
  }
  if (samples.empty()) Fail(Code::kInvalid, "{}: no samples in it", where);
  return samples;
}

std::vector<Sample> ReadSamples(const std::string& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  return ParseSamples({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

}  // namespace kvasir
