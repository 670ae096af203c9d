#include "cli/names.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "base/error.h"
#include "format/gguf_parts.h"
#include "format/quote.h"

namespace kvasir {

namespace {

namespace fs = std::filesystem;

constexpr ShortName kShortNames[] = {
    {"smollm2", "smollm2"},
    {"smollm2-135m", "smollm2-135m"},
    {"smollm2-360m", "smollm2-360m"},
    {"smollm2-1.7b", "smollm2-1.7b"},
    {"qwen-0.5b", "qwen2.5-coder-0.5b"},
    {"qwen-1.5b", "qwen2.5-coder-1.5b"},
    {"qwen-3b", "qwen2.5-coder-3b"},
    {"tinyllama", "tinyllama"},
    {"stories260k", "stories260k"},
};

std::string Lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// Models in the folder: GGUF files (of split ones the first part) and Hugging Face folders, by
// name.
std::vector<fs::path> ModelsIn(const std::string& dir) {
  std::vector<fs::path> models;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(dir, ignored)) {
    const auto part = ParseGgufPartName(entry.path().filename().string());
    const bool gguf = entry.path().extension() == ".gguf" && (!part || part->number == 1);
    if (gguf || fs::exists(entry.path() / "config.json", ignored)) models.push_back(entry.path());
  }
  std::sort(models.begin(), models.end());
  return models;
}

// The name without its suffix, and without the number of a part.
std::string Stem(const fs::path& path) {
  if (const auto part = ParseGgufPartName(path.filename().string())) return part->prefix;
  return path.extension() == ".gguf" ? path.stem().string() : path.filename().string();
}

std::string List(const std::vector<fs::path>& models) {
  std::vector<std::string> stems;
  for (const fs::path& model : models) stems.push_back(Stem(model));
  return stems.empty() ? "nothing" : fmt::format("{}", fmt::join(stems, ", "));
}

}  // namespace

std::span<const ShortName> ShortNames() { return kShortNames; }

std::string ModelsDir() {
  if (const char* dir = std::getenv("KVASIR_MODELS"); dir && *dir) return dir;
  const char* home = std::getenv("HOME");
  return std::string(home ? home : "") + "/.cache/kvasir/models";
}

std::string ResolveModel(const std::string& name, const std::string& models_dir) {
  std::error_code ignored;
  if (name.empty()) Fail(Code::kUsage, "--model: empty: give a file, a folder or a name");
  if (name.find('/') != std::string::npos || fs::exists(name, ignored)) return name;

  const std::vector<fs::path> models = ModelsIn(models_dir);
  for (const fs::path& model : models) {
    if (model.filename() == name || model.filename() == name + ".gguf" || Stem(model) == name) {
      return model.string();
    }
  }
  // A later part of a split model: opening it says which one to name.
  if (ParseGgufPartName(name)) {
    const fs::path part = fs::path(models_dir) / name;
    if (fs::exists(part, ignored)) return part.string();
  }
  const auto entry = std::find_if(std::begin(kShortNames), std::end(kShortNames),
                                  [&](const ShortName& s) { return s.name == Lower(name); });
  if (entry == std::end(kShortNames)) {
    Fail(Code::kNotFound, "model {}: no such file, and {} holds {}", Quoted(name), models_dir,
         List(models));
  }
  std::vector<fs::path> fitting;
  for (const fs::path& model : models) {
    if (Lower(Stem(model)).starts_with(entry->stem)) fitting.push_back(model);
  }
  if (fitting.empty()) {
    Fail(Code::kNotFound, "model {}: no file in {} begins with {}; it holds {}", Quoted(name),
         models_dir, entry->stem, List(models));
  }
  if (fitting.size() > 1) {
    Fail(Code::kInvalid, "model {}: {} files in {} begin with {}: {}; give one of these names",
         Quoted(name), fitting.size(), models_dir, entry->stem, List(fitting));
  }
  return fitting[0].string();
}

}  // namespace kvasir
