// A file that parses keeps its promises: every tensor lies inside the file, and a model that opens
// has every tensor that its configuration asks for, readable to the last byte. What was parsed is
// written and parsed again with the same result.
#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "format/gguf.h"
#include "format/gguf_writer.h"
#include "format/model_file.h"

namespace {

using namespace kvasir;

void CheckGguf(std::span<const uint8_t> bytes) {
  std::vector<Error> kept;
  Problems problems(&kept);
  const Gguf file = SurveyGguf(bytes, "fuzz", problems);
  if (!kept.empty()) {
    ParseGguf(bytes, "fuzz");
    CheckFailed(__FILE__, __LINE__, "what a survey finds is refused", kept[0].what());
  }
  std::vector<GgufTensorPlan> plans;
  for (const GgufTensor& tensor : file.tensors) {
    CHECK(tensor.offset <= bytes.size() && tensor.bytes <= bytes.size() - tensor.offset);
    plans.push_back({tensor.name, tensor.shape, tensor.dtype});
  }
  std::string written = GgufHeader(file.metadata, plans);
  for (const GgufTensor& tensor : file.tensors) {
    const auto data = bytes.subspan(tensor.offset, tensor.bytes);
    written.append(data.begin(), data.end());
    written.resize((written.size() + file.alignment - 1) / file.alignment * file.alignment);
  }
  const std::span<const uint8_t> again_bytes(reinterpret_cast<const uint8_t*>(written.data()),
                                             written.size());
  const Gguf again = ParseGguf(again_bytes, "again");
  CHECK(again.tensors.size() == file.tensors.size());
  for (size_t i = 0; i < file.tensors.size(); ++i) {
    const GgufTensor &a = file.tensors[i], &b = again.tensors[i];
    CHECK(a.name == b.name && a.shape == b.shape && a.dtype == b.dtype && a.bytes == b.bytes);
    CHECK(std::equal(bytes.begin() + a.offset, bytes.begin() + a.offset + a.bytes,
                     again_bytes.begin() + b.offset));
  }
  // Equal bytes are equal keys, values, types and order.
  CHECK(GgufHeader(again.metadata, plans) == GgufHeader(file.metadata, plans));
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
