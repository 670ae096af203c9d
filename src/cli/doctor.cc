#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/host.h"
#include "cli/names.h"
#include "cli/output.h"
#include "cli/setup.h"
#include "cli/verbs.h"

namespace kvasir {

namespace {

// Why targets that were built are not used here.
std::vector<std::string> AbsentTargets() {
  std::vector<std::string> absent;
  for (const std::string_view target : CompiledTargets()) {
    if (!FindKernels(target)) absent.emplace_back(target);
  }
  return absent;
}

std::vector<std::string> Codecs() {
  std::vector<std::string> names;
  for (const CodecName& codec : AllCodecs()) names.emplace_back(codec.name);
  names.emplace_back("mustafar");
  return names;
}

// Expanding sparse rows has instructions of its own on AVX-512 alone.
bool SparseIsSlow(const Kernels& kernels) { return std::string_view(kernels.target) != "avx512"; }

uint64_t ScratchBytes(const Arguments& args, const Kernels& kernels) {
  if (!args.Given("model")) return 0;
  OpenedModel opened(args);
  Workers workers(ChooseThreads(args));
  ModelOptions options;
  options.compute = args.values().Text("compute") == "f32" ? Compute::kExact : Compute::kFast;
  return Model::Load(opened.file(), kernels, workers, options)->scratch_bytes();
}

}  // namespace

void DoctorVerb(const Arguments& args) {
  Output output(args);
  const Kernels& kernels = ChooseKernels(args);
  std::vector<std::string> present;
  for (const Kernels* target : AvailableKernels()) present.emplace_back(target->target);
  const std::vector<std::string> absent = AbsentTargets();
  const uint64_t scratch = ScratchBytes(args, kernels);
  const std::string models_dir = ModelsDir();
  if (output.json()) {
    const nlohmann::ordered_json document = {
        {"simd", {{"chosen", kernels.target}, {"present", present}, {"absent", absent}}},
        {"codecs", Codecs()},
        {"sparse_is_slow", SparseIsSlow(kernels)},
        {"cores", Workers::AvailableCores()},
        {"memory_bytes", TotalMemory()},
        {"memory_available_bytes", AvailableMemory()},
        {"huge_pages", HugePages()},
        {"kv_memory_default", DefaultKvMemory()},
        {"models_dir", models_dir},
        {"scratch_bytes", scratch},
    };
    output.Json(document);
    return;
  }
  std::string text;
  const auto row = [&](std::string_view name, const std::string& value) {
    text += fmt::format("{:<20} {}\n", name, value);
  };
  row("SIMD target", fmt::format("{} (of {})", kernels.target, fmt::join(present, ", ")));
  if (!absent.empty()) {
    row("", fmt::format("{} built, but this processor lacks it", fmt::join(absent, ", ")));
  }
  row("KV codecs", fmt::format("{}", fmt::join(Codecs(), ", ")));
  if (SparseIsSlow(kernels)) {
    row("", "mustafar saves memory here, and takes more time than dense codecs");
  }
  row("cores", std::to_string(Workers::AvailableCores()));
  row("memory",
      fmt::format("{}, {} free", FormatSize(TotalMemory()), FormatSize(AvailableMemory())));
  row("huge pages", HugePages());
  row("KV budget", FormatSize(DefaultKvMemory()) + " unless --kv-memory says otherwise");
  row("models", models_dir);
  if (scratch > 0) row("scratch", FormatSize(scratch));
  output.Text(text);
}

}  // namespace kvasir
