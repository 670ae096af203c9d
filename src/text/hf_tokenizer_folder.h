// The files of a Hugging Face folder that its tokenizer is made of, mapped.
#pragma once

#include <map>
#include <string>

#include "base/mapped_file.h"
#include "text/hf_tokenizer.h"

namespace kvasir {

class HfTokenizerFolder {
 public:
  // Errors: kIo; kUnsupported for a file far larger than a tokenizer's.
  explicit HfTokenizerFolder(const std::string& path);

  const std::string& path() const { return path_; }  // without a slash at its end
  const HfTokenizerFiles& files() const { return files_; }
  // Whether one of them is a vocabulary.
  bool HasVocabulary() const;

 private:
  std::string path_;
  std::map<std::string, MappedFile> maps_;
  HfTokenizerFiles files_;
};

}  // namespace kvasir
