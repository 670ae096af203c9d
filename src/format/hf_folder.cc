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
void AddFile(HfFolder& folder, const fs::path& path, const std::set<std::string>* listed) {
  MappedFile file(path.string());
  Safetensors parsed = ParseSafetensors(file.bytes(), file.path());
  size_t found = 0;
  for (SafeTensor& tensor : parsed.tensors) {
    if (listed != nullptr && !listed->contains(tensor.name)) continue;
    ++found;
    tensor.name = GgufTensorName(tensor.name);
    // Tied models may carry a second copy of the embedding; the embedding serves.
    if (folder.config.tied_embeddings && tensor.name == "output.weight") continue;
    folder.tensors.push_back({std::move(tensor), folder.files.size()});
  }
  if (listed != nullptr && found != listed->size()) {
    Fail(Code::kCorrupt, "{}: holds {} of the {} tensors that the index places here", file.path(),
         found, listed->size());
  }
  folder.files.push_back(std::move(file));
}

}  // namespace

HfFolder OpenHfFolder(const std::string& path) {
  const fs::path root(path);
  HfFolder folder;
  const MappedFile config((root / "config.json").string());
  folder.config = ParseHfConfig(JsonText(config), config.path());

  const fs::path whole = root / "model.safetensors", index = root / "model.safetensors.index.json";
  std::error_code ignored;
  if (fs::exists(whole, ignored)) {
    AddFile(folder, whole, nullptr);
  } else if (fs::exists(index, ignored)) {
    const MappedFile file(index.string());
    std::map<std::string, std::set<std::string>> shards;
    for (auto& [tensor, shard] : ParseShardIndex(JsonText(file), file.path())) {
      shards[shard].insert(tensor);
    }
    for (const auto& [shard, tensors] : shards) AddFile(folder, root / shard, &tensors);
  } else {
    Fail(Code::kNotFound, "{}: neither model.safetensors nor model.safetensors.index.json", path);
  }
  return folder;
}

}  // namespace kvasir
