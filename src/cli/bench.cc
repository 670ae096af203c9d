#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>

#include "base/error.h"
#include "bench/limits.h"
#include "bench/random_model.h"
#include "bench/speed.h"
#include "bench/speed_report.h"
#include "cli/host.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/setup.h"
#include "cli/verbs.h"
#include "format/quote.h"
#include "kvasir_commit.h"
#include "server/openai.h"

namespace kvasir {

namespace {

// A file that goes when the process no longer needs its name.
class TemporaryFile {
 public:
  TemporaryFile()
      : path_(
            (std::filesystem::temp_directory_path() / fmt::format("kvasir-shape-{}.gguf", getpid()))
                .string()) {}
  ~TemporaryFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The model of -m, or one made of random weights. Null: none was asked for.
std::unique_ptr<OpenedModel> OpenModel(const Arguments& args) {
  const OptionValues& values = args.values();
  const bool shape_given = values.Given("shape");
  if (args.Given("model") && shape_given) {
    Fail(Code::kUsage, "bench: --model and --shape both name a model; give one");
  }
  for (const char* flag : {"type", "save"}) {
    if (!shape_given && values.Given(flag)) {
      Fail(Code::kUsage, "bench: --{} belongs to --shape, which is missing", flag);
    }
  }
  if (!shape_given) {
    if (!args.Given("model") && values.On("limits")) return nullptr;
    return std::make_unique<OpenedModel>(args);
  }
  const bench::Shape& shape = bench::FindShape(values.Text("shape"));
  const DType type = bench::ParseWeightType(values.Text("type"));
  const TemporaryFile temporary;
  const bool keep = values.Given("save");
  const std::string path = keep ? values.Text("save") : temporary.path();
  bench::WriteRandomModel(path, shape, type, values.Count("seed"));
  return std::make_unique<OpenedModel>(path);  // mapped: the name may go
}

bench::ModelSize SizeOf(const Model& model) {
  const ModelConfig& config = model.config();
  const uint64_t hidden = config.hidden;
  const uint64_t heads = uint64_t{config.head_dim} * (2 * config.n_heads + 2 * config.n_kv_heads);
  return {.layer_macs = config.n_layers * hidden * (heads + 3 * uint64_t{config.intermediate}),
          .output_macs = hidden * config.vocab_size,
          .weight_bytes = model.weight_bytes(),
          .vocab_size = config.vocab_size};
}

// Under llama.cpp's name for the nearest type, where there is one.
std::string TypeName(Codec codec, std::string name) {
  for (const CodecName& known : AllCodecs()) {
    if (known.codec == codec && known.name == name) return std::string(known.llama);
  }
  return name;
}

bench::SpeedSetting SettingOf(const Arguments& args, Session& session) {
  const OpenedModel& opened = session.opened();
  bench::SpeedSetting setting;
  std::map<DType, uint64_t> bytes_by_type;
  for (const TensorEntry& tensor : opened.file().tensors()) {
    setting.n_params += tensor.view.rows * tensor.view.cols;
    setting.file_bytes += tensor.view.bytes();
    bytes_by_type[tensor.view.dtype] += tensor.view.bytes();
  }
  const auto most =
      std::max_element(bytes_by_type.begin(), bytes_by_type.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  const double millions = static_cast<double>(setting.n_params) / 1e6;
  setting.model_type = fmt::format(
      "{} {} {}", opened.file().config().architecture,
      millions >= 1000 ? fmt::format("{:.1f}B", millions / 1000) : fmt::format("{:.0f}M", millions),
      Info(most->first).name);
  setting.commit = KVASIR_COMMIT;
  setting.cpu = ProcessorName();
  setting.simd = session.kernels().target;
  const OptionValues& values = args.values();
  setting.model_file = values.Given("shape") ? values.Text("shape") : opened.file().path();
  const EngineOptions& options = session.engine().options();
  setting.batch = options.step_tokens;
  setting.chunk = options.chunk;
  const Encoding& encoding = session.encoding();
  setting.type_k = TypeName(encoding.k, KeysName(encoding));
  setting.type_v = TypeName(encoding.v, ValuesName(encoding));
  setting.codec = Name(encoding);
  if (session.engine().policy()) setting.policy = session.engine().policy()->Spec();
  std::string label;
  if (values.Has("kv-policy")) label = setting.policy_text = values.Text("kv-policy");
  if (setting.codec != "f16") label += (label.empty() ? "" : " ") + setting.codec;
  if (!label.empty()) setting.label = label;
  return setting;
}

std::string FormOf(const OptionValues& values) {
  const std::string form = values.Text("format");
  if (!values.On("json")) return form;
  if (values.Given("format") && form != "json") {
    Fail(Code::kUsage, "bench: --json is --format json, and --format {} another; give one", form);
  }
  return "json";
}

struct Measured {
  bench::SpeedSetting setting;
  bench::ModelSize size;
  std::vector<bench::SpeedResult> results;
  std::optional<bench::Limits> limits;
};

void Print(const Measured& measured, const std::string& form, Output& output) {
  if (form == "md") {
    return output.Text(
        bench::SpeedTable(measured.setting, measured.size, measured.results, measured.limits));
  }
  std::vector<nlohmann::ordered_json> rows;
  for (const bench::SpeedResult& result : measured.results) {
    rows.push_back(bench::SpeedJson(measured.setting, measured.size, result, measured.limits));
  }
  if (form == "csv") {
    if (measured.limits) Note(DumpJson(bench::LimitsJson(*measured.limits)));
    return output.Text(bench::SpeedCsv(rows));
  }
  if (measured.limits) rows.push_back(bench::LimitsJson(*measured.limits));
  if (form == "json") return output.Json(rows);
  std::string lines;
  for (const nlohmann::ordered_json& row : rows) lines += DumpJson(row) + '\n';
  output.Text(lines);
}

// One JSON object a line: at first all tests, then each run as it is asked for.
void ServeRuns(Session& session, const std::vector<bench::SpeedTest>& tests, uint64_t seed,
               Output& output) {
  bench::SpeedRuns runs(session.engine(), session.model().config().vocab_size, tests, seed);
  nlohmann::ordered_json names = nlohmann::ordered_json::array();
  for (const bench::SpeedTest& test : tests) names.push_back(bench::Name(test));
  output.Stream(DumpJson({{"tests", names}, {"backends", session.kernels().target}}) + '\n');
  for (std::string line; std::getline(std::cin, line);) {
    size_t test = tests.size();
    std::from_chars(line.data(), line.data() + line.size(), test);
    if (test >= tests.size()) {
      Fail(Code::kInvalid, "bench: standard input: {}: a number below {} is expected", Quoted(line),
           tests.size());
    }
    runs.Run(test);
    const bench::SpeedResult& result = runs.results()[test];
    output.Stream(DumpJson({{"test", names[test]},
                            {"ns", std::llround(result.seconds.back() * 1e9)},
                            {"policy_ns", std::llround(result.policy_seconds.back() * 1e9)},
                            {"read_bytes_per_step", result.kv_read_bytes},
                            {"kv_peak_bytes", result.kv_peak_bytes}}) +
                  '\n');
  }
}

void CheckContext(const std::vector<bench::SpeedTest>& tests, uint32_t context) {
  for (const bench::SpeedTest& test : tests) {
    if (test.positions() <= context) continue;
    Fail(Code::kUsage,
         "bench: {} comes to {} positions, the context has {}: take fewer tokens or less depth",
         bench::Name(test), test.positions(), context);
  }
}

void MeasureAll(const Arguments& args, Session& session, const std::vector<bench::SpeedTest>& tests,
                Measured* measured) {
  const OptionValues& values = args.values();
  measured->setting = SettingOf(args, session);
  measured->setting.threads = session.workers().size();
  measured->size = SizeOf(session.model());
  const auto limits = [&] { return bench::MeasureLimits(session.kernels(), session.workers()); };
  if (values.On("limits")) measured->limits = limits();
  {
    ProgressBar bar("measuring");
    measured->results =
        bench::MeasureSpeed(session.engine(), measured->size.vocab_size, tests,
                            {.repetitions = static_cast<uint32_t>(values.Count("repetitions")),
                             .seed = values.Count("seed")},
                            [&](double share) { bar.Update(share); });
  }
  if (values.On("limits")) measured->limits = bench::Better(*measured->limits, limits());
}

}  // namespace

void BenchVerb(const Arguments& args) {
  Output output(args);
  const OptionValues& values = args.values();
  const std::string form = FormOf(values);
  const std::vector<bench::SpeedTest> tests = bench::MakeSpeedTests(
      values.Text("n-prompt"), values.Text("n-gen"), args.List("prompt-gen"),
      values.Text("n-depth"), static_cast<uint32_t>(values.Count("parallel")));
  if (tests.empty() && !values.On("limits") && !values.Given("save")) {
    Fail(Code::kUsage, "bench: nothing to measure; give -p N, -n N or -pg P,N above 0");
  }
  Measured measured;
  const std::unique_ptr<OpenedModel> opened = OpenModel(args);
  if (opened && !tests.empty()) {
    Session session(args, *opened, /*batch=*/values.Count("parallel") > 1);
    CheckContext(tests, session.engine().context());
    session.PrintNotices();
    if (values.On("on-demand")) return ServeRuns(session, tests, values.Count("seed"), output);
    MeasureAll(args, session, tests, &measured);
  } else if (values.On("limits")) {
    Workers workers(ChooseThreads(args));
    measured.limits = bench::MeasureLimits(ChooseKernels(args), workers);
  } else {
    return;  // saved, and nothing to measure
  }
  Print(measured, form, output);
}

}  // namespace kvasir
