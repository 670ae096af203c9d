// A file that parses keeps its promises: its tensors cover the data exactly, in order.
#include <span>

#include "base/error.h"
#include "format/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  try {
    const Safetensors file = ParseSafetensors({data, size}, "fuzz");
    for (size_t i = 0; i < file.tensors.size(); ++i) {
      const SafeTensor& tensor = file.tensors[i];
      const uint64_t end = i + 1 < file.tensors.size() ? file.tensors[i + 1].offset : size;
      CHECK(tensor.offset <= size && tensor.bytes == end - tensor.offset);
    }
  } catch (const Error&) {  // a refusal is a right answer
  }
  return 0;
}
