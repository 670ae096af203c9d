#include "format/hf_folder.h"

#include <filesystem>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "format/hf_config.h"
#include "format/quote.h"

namespace kvasir {

namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxJsonFile = size_t{64} << 20;  // config and index; real ones have kilobytes

// The map must outlive the text.
std::string_view JsonText(const MappedFile& file) {
  if (file.bytes().size() > kMaxJsonFile) {
    Fail(Code::kCorrupt, "{}: {} bytes; up to {} are expected", file.path(), file.bytes().size(),
         kMaxJsonFile);
  }
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

// `listed`: the tensors that the index places in this file; null: all belong to the model.
void AddFile(HfFolder& folder, const fs::path& path, const std::set<std::string>* listed,
             Problems& problems) {
  MappedFile file(path.string());
  Safetensors parsed = SurveySafetensors(file.bytes(), file.path(), problems);
  size_t found = 0;
  for (SafeTensor& tensor : parsed.tensors) {
    if (listed != nullptr && !listed->contains(tensor.name)) continue;
    ++found;
    tensor.name = GgufTensorName(tensor.name);
    // Tied models may carry a second copy of the embedding; the embedding serves.
    const bool tied = folder.config && folder.config->tied_embeddings;
    if (tied && tensor.name == "output.weight") continue;
    folder.tensors.push_back({std::move(tensor), folder.files.size()});
  }
  if (listed != nullptr && found != listed->size()) {
    problems.Add(Code::kCorrupt, "{}: holds {} of the {} tensors that the index places here",
                 file.path(), found, listed->size());
  }
  folder.files.push_back(std::move(file));
}

void AddFiles(HfFolder& folder, const fs::path& root, Problems& problems) {
  const fs::path whole = root / "model.safetensors", index = root / "model.safetensors.index.json";
  std::error_code ignored;
  if (fs::exists(whole, ignored)) {
    AddFile(folder, whole, nullptr, problems);
    return;
  }
  if (!fs::exists(index, ignored)) {
    Fail(Code::kNotFound, "{}: neither model.safetensors nor model.safetensors.index.json",
         root.string());
  }
  const MappedFile file(index.string());
  std::map<std::string, std::set<std::string>> shards;
  for (auto& [tensor, shard] : ParseShardIndex(JsonText(file), file.path())) {
    shards[shard].insert(tensor);
  }
  for (const auto& [shard, tensors] : shards) {
    problems.Try([&] { AddFile(folder, root / shard, &tensors, problems); });
  }
}

}  // namespace

HfFolder OpenHfFolder(const std::string& path) {
  Problems problems(nullptr);
  return OpenHfFolder(path, problems);
}

HfFolder OpenHfFolder(const std::string& path, Problems& problems) {
  const fs::path root(path);
  HfFolder folder;
  const MappedFile config((root / "config.json").string());
  folder.config_text = JsonText(config);
  problems.Try([&] { folder.config = ParseHfConfig(folder.config_text, config.path()); });
  problems.Try([&] { AddFiles(folder, root, problems); });
  return folder;
}

}  // namespace kvasir
