#include "text/hf_tokenizer_folder.h"

#include <filesystem>

#include "base/error.h"

namespace kvasir {

HfTokenizerFolder::HfTokenizerFolder(const std::string& path) {
  constexpr size_t kMaxFile = size_t{64} << 20;  // those of real vocabularies have up to 20 MB
  const std::filesystem::path folder(path);
  path_ = folder.has_filename() ? path : folder.parent_path().string();
  for (const char* name : {"tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json",
                           "tokenizer.model", "special_tokens_map.json", "tokenizer_config.json",
                           "generation_config.json", "config.json", "chat_template.jinja"}) {
    std::error_code ignored;
    if (!std::filesystem::exists(folder / name, ignored)) continue;
    const MappedFile& file = maps_[name] = MappedFile((folder / name).string());
    if (file.bytes().size() > kMaxFile) {
      Fail(Code::kUnsupported, "{}: {} bytes; up to {} are read", file.path(), file.bytes().size(),
           kMaxFile);
    }
    files_[name] = {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
  }
}

bool HfTokenizerFolder::HasVocabulary() const {
  return files_.contains("tokenizer.json") || files_.contains("tokenizer.model") ||
         (files_.contains("vocab.json") && files_.contains("merges.txt"));
}

}  // namespace kvasir
