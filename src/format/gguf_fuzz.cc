// A file that parses keeps its promises: every tensor lies inside the file, and a model that opens
// has every tensor that its configuration asks for, readable to the last byte.
#include <span>

#include "base/error.h"
#include "format/gguf.h"
#include "format/model_file.h"

namespace {

using namespace kvasir;

void CheckGguf(std::span<const uint8_t> bytes) {
  for (const GgufTensor& tensor : ParseGguf(bytes, "fuzz").tensors) {
    CHECK(tensor.offset <= bytes.size() && tensor.bytes <= bytes.size() - tensor.offset);
  }
}

void CheckModel(std::span<const uint8_t> bytes) {
  const ModelFile file = ModelFile::View(bytes, "fuzz");
  for (const TensorEntry& tensor : file.tensors()) {
    CHECK(tensor.view.bytes() <= bytes.size());
    CHECK(file.Find(tensor.name) == &tensor);
  }
  const ModelConfig& config = file.config();
  CHECK(file.Find("token_embd.weight")->view.rows == config.vocab_size);
  CHECK(config.n_heads % config.n_kv_heads == 0);
}

template <typename F>
void AllowRefusal(F&& check) {
  try {
    check();
  } catch (const Error&) {  // a refusal is a right answer
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> bytes(data, size);
  AllowRefusal([&] { ParseGgufMetadata(bytes, "fuzz"); });
  AllowRefusal([&] { CheckGguf(bytes); });
  AllowRefusal([&] { CheckModel(bytes); });
  return 0;
}
