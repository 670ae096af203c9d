// Models in several files: the parts of a split GGUF model, or a folder with its configuration,
// index and tensors. What opens has no problems in its survey, and what does not open has some.
//
// The input is a byte whose lowest bit says which, then files, all but the last behind two bytes of
// length.
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>

#include "base/error.h"
#include "base/temp_folder.h"
#include "format/gguf_parts.h"
#include "format/survey.h"

namespace {

using namespace kvasir;

class Pieces {
 public:
  explicit Pieces(std::string_view bytes) : bytes_(bytes) {}
  std::string_view Next() {
    if (bytes_.size() < 2) return {};
    const size_t length = static_cast<uint8_t>(bytes_[0]) | static_cast<uint8_t>(bytes_[1]) << 8;
    const std::string_view piece = bytes_.substr(2, length);
    bytes_.remove_prefix(2 + piece.size());
    return piece;
  }
  std::string_view Rest() const { return bytes_; }

 private:
  std::string_view bytes_;
};

// The model's path. Every run writes the same names.
std::string WriteParts(const test::TempFolder& folder, Pieces pieces) {
  const std::string path = folder.Write("m-00001-of-00002.gguf", pieces.Next());
  folder.Write("m-00002-of-00002.gguf", pieces.Rest());
  return path;
}
std::string WriteFolder(const test::TempFolder& folder, Pieces pieces) {
  folder.Write("config.json", pieces.Next());
  const std::string_view index = pieces.Next();
  const std::string whole = folder.path() + "/model.safetensors";
  std::filesystem::remove(whole);
  folder.Write("model.safetensors.index.json", index);
  folder.Write(index.empty() ? "model.safetensors" : "a.safetensors", pieces.Rest());
  return folder.path();
}

void Compare(const std::string& path) {
  std::optional<ModelFile> opened;
  std::string refusal;
  try {
    opened = ModelFile::Open(path);
  } catch (const Error& error) {
    refusal = error.what();
  }
  try {
    const ModelSurvey survey = SurveyModel(path);
    if (opened) {
      CHECK_MSG(survey.problems.empty(), "{}", survey.problems[0].what());
      CHECK(survey.tensors.size() == opened->tensors().size());
      CHECK(survey.file_bytes == opened->file_bytes());
    } else {
      // Values of tensors are not read by a survey.
      const bool by_value = refusal.find("rope_freqs") != refusal.npos;
      CHECK_MSG(by_value || !survey.problems.empty(), "{}", refusal);
    }
  } catch (const Error&) {
    CHECK(!opened);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const test::TempFolder parts, folder;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (bytes.empty()) return 0;
  const Pieces pieces(bytes.substr(1));
  Compare(bytes[0] & 1 ? WriteFolder(folder, pieces) : WriteParts(parts, pieces));
  return 0;
}
