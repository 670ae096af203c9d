#include <algorithm>
#include <cctype>
#include <chrono>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/setup.h"
#include "cli/verbs.h"
#include "format/gguf_writer.h"
#include "format/quantize_plan.h"
#include "format/quote.h"
#include "format/tensor_recoder.h"
#include "model/gguf_export.h"
#include "text/gguf_tokenizer_keys.h"

namespace kvasir {

namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr uint64_t kReleaseBytes = uint64_t{256} << 20;  // of the source, between two releases

// As other verbs spell types.
std::string Lower(std::string_view name) {
  std::string lower(name);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

// What goes in, as a GGUF file would hold it.
struct Source {
  explicit Source(const std::string& path) : file(ModelFile::Open(path)) {}
  ModelFile file;
  Metadata keys;
  std::vector<SourceTensor> tensors;
  std::vector<float> divisors;
};

void TakeFolder(Source* source) {
  const fs::path path(source->file.path());
  const fs::path name = path.has_filename() ? path.filename() : path.parent_path().filename();
  source->keys = GgufKeys(source->file.config(), name.string());
  source->tensors = GgufTensors(source->file, &source->divisors);
  if (!AddTokenizerKeys(source->file.path(), source->file.config().vocab_size, &source->keys)) {
    Note(fmt::format("{}: no tokenizer; the result takes token ids alone", source->file.path()));
  }
}

// Keys in their order, without those that say that a file is a part.
void TakeGguf(Source* source) {
  std::vector<std::pair<std::string, const MetadataEntry*>> entries;
  for (const auto& [key, entry] : source->file.metadata().all()) {
    if (!key.starts_with("split.")) entries.emplace_back(key, &entry);
  }
  std::ranges::sort(entries, {}, [](const auto& entry) { return entry.second->place; });
  for (auto& [key, entry] : entries) source->keys.Set(std::move(key), entry->value, entry->type);
  for (const TensorEntry& entry : source->file.tensors()) {
    source->tensors.push_back({.name = entry.name,
                               .shape = entry.shape,
                               .dtype = entry.view.dtype,
                               .data = entry.view.data});
  }
}

// The same keys with these two as they will be; new ones go to the end.
Metadata WithFileType(const Metadata& keys, uint32_t file_type) {
  constexpr uint64_t kQuantizationVersion = 2;  // of the block formats, since 2023
  const std::map<std::string, uint64_t, std::less<>> stated = {
      {"general.file_type", file_type}, {"general.quantization_version", kQuantizationVersion}};
  std::vector<std::pair<std::string, const MetadataEntry*>> entries;
  for (const auto& [key, entry] : keys.all()) entries.emplace_back(key, &entry);
  std::ranges::sort(entries, {}, [](const auto& entry) { return entry.second->place; });
  Metadata out(keys.where());
  for (auto& [key, entry] : entries) {
    const auto found = stated.find(key);
    if (found == stated.end()) {
      out.Set(std::move(key), entry->value, entry->type);
    } else {
      out.Set(std::move(key), found->second, GgufType::kU32);
    }
  }
  for (const auto& [key, value] : stated) {
    if (!out.Has(key)) out.Set(key, value, GgufType::kU32);
  }
  return out;
}

class Quantization {
 public:
  Quantization(Source& source, const QuantizeTarget& target) : source_(source), target_(target) {
    for (const SourceTensor& tensor : source.tensors) {
      const TensorPlan plan = PlanTensor(target, source.file.config(), tensor);
      GgufTensorPlan written{tensor.name, tensor.shape, plan.dtype};
      bytes_ = AddOrThrow(bytes_, written.bytes(), "the result");
      GgufTensorPlan read{tensor.name, tensor.shape, tensor.dtype};
      bytes_read_ = AddOrThrow(bytes_read_, read.bytes(), "the tensors");
      ++types_before_[Lower(Info(tensor.dtype).name)];
      ++types_after_[Lower(Info(plan.dtype).name)];
      if (plan.fell_back()) {
        fallbacks_.push_back({{"tensor", tensor.name},
                              {"wanted", Lower(Info(plan.wanted).name)},
                              {"type", Lower(Info(plan.dtype).name)}});
      }
      again_ |= plan.dtype != tensor.dtype && IsQuantized(tensor.dtype);
      plans_.push_back(std::move(written));
    }
  }

  bool encodes_again() const { return again_; }
  void CheckSpace(const fs::path& out) const;
  void Write(const std::string& out, Workers& workers);
  ordered_json Report(uint64_t bytes_out, double seconds) const;

 private:
  static bool IsQuantized(DType dtype) { return Info(dtype).block > 1; }

  Source& source_;
  const QuantizeTarget& target_;
  std::vector<GgufTensorPlan> plans_;
  uint64_t bytes_ = 0, bytes_read_ = 0;
  std::map<std::string, uint64_t> types_before_, types_after_;
  ordered_json fallbacks_ = ordered_json::array();
  bool again_ = false;  // weights that were rounded once are rounded again
};

// Before hours of work rather than after; where the system does not say, writing will.
void Quantization::CheckSpace(const fs::path& out) const {
  std::error_code unknown;
  const fs::path folder = out.has_parent_path() ? out.parent_path() : fs::path(".");
  const fs::space_info space = fs::space(folder, unknown);
  if (unknown || space.available >= bytes_) return;
  Fail(Code::kIo, "{}: needs {}, and {} are free in {}", out.string(), FormatSize(bytes_),
       FormatSize(space.available), folder.string());
}

void Quantization::Write(const std::string& out, Workers& workers) {
  GgufWriter writer(out, WithFileType(source_.keys, target_.file_type), plans_);
  ProgressBar bar("quantizing");
  uint64_t done = 0, released = 0;
  TensorRecoder recoder(workers, writer, [&](uint64_t bytes) {
    done += bytes;
    bar.Update(static_cast<double>(done) / static_cast<double>(bytes_read_));
  });
  for (size_t i = 0; i < plans_.size(); ++i) {
    recoder.Write(source_.tensors[i], plans_[i].dtype);
    if (done - released < kReleaseBytes) continue;
    source_.file.ReleaseMapped();
    released = done;
  }
  writer.Finish();
}

ordered_json Quantization::Report(uint64_t bytes_out, double seconds) const {
  return {{"tensors", plans_.size()},
          {"fallbacks", fallbacks_},
          {"bytes_in", source_.file.file_bytes()},
          {"bytes_out", bytes_out},
          {"seconds", seconds},
          {"type", Lower(target_.name)},
          {"types_in", types_before_},
          {"types_out", types_after_}};
}

std::string Types(const ordered_json& counts) {
  std::string text;
  for (const auto& [type, count] : counts.items()) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count.get<uint64_t>(), type);
  }
  return text;
}

std::string ForPeople(const std::string& out, const ordered_json& report) {
  std::string text = fmt::format(
      "file        {}\ntype        {}\ntensors     {}\nbefore      {}\nafter       {}\n"
      "size        {} -> {}\nseconds     {:.1f}\n",
      out, report["type"].get<std::string>(), report["tensors"].get<uint64_t>(),
      Types(report["types_in"]), Types(report["types_out"]),
      FormatSize(report["bytes_in"].get<uint64_t>()),
      FormatSize(report["bytes_out"].get<uint64_t>()), report["seconds"].get<double>());
  if (report["fallbacks"].empty()) return text;
  text += fmt::format("fallbacks   {}, where blocks do not divide the rows\n",
                      report["fallbacks"].size());
  for (const ordered_json& row : report["fallbacks"]) {
    text += fmt::format("  {:<32} {} instead of {}\n", row["tensor"].get<std::string>(),
                        row["type"].get<std::string>(), row["wanted"].get<std::string>());
  }
  return text;
}

std::string Given(const Arguments& args, const char* option, const char* what) {
  if (!args.Given(option)) {
    Fail(Code::kUsage, "quantize: {} is missing: quantize IN OUT TYPE", what);
  }
  return args.values().Text(option);
}

// The source is mapped while the result is written, and is never touched.
void CheckOut(const ModelFile& in, const std::string& out) {
  std::error_code none;
  if (fs::is_directory(out, none)) {
    Fail(Code::kInvalid, "{}: is a folder; the name of a file is expected", out);
  }
  for (const MappedFile& file : in.files()) {
    if (fs::equivalent(file.path(), out, none)) {
      Fail(Code::kInvalid, "{}: is what is read; the result needs a name of its own", out);
    }
  }
}

}  // namespace

void QuantizeVerb(const Arguments& args) {
  const std::string in = Given(args, "model", "IN");
  const std::string out = Given(args, "output", "OUT");
  const QuantizeTarget& target = FindQuantizeTarget(Given(args, "type", "TYPE"));
  Output output(args);
  const auto start = std::chrono::steady_clock::now();
  Source source(ModelPath(args));
  CheckOut(source.file, out);
  if (source.file.kind() == ModelFile::Kind::kHuggingFace) {
    TakeFolder(&source);
  } else {
    TakeGguf(&source);
  }
  Quantization quantization(source, target);
  if (quantization.encodes_again()) {
    Note(
        fmt::format("{}: its weights are quantized already and are rounded once more; a file in "
                    "f16, bf16 or f32 gives a better {}",
                    in, target.name));
  }
  quantization.CheckSpace(out);
  Workers workers(ChooseThreads(args));
  quantization.Write(out, workers);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  const ordered_json report = quantization.Report(fs::file_size(out), taken.count());
  if (output.json()) {
    output.Json(report);
  } else {
    output.Text(ForPeople(out, report));
  }
}

}  // namespace kvasir
