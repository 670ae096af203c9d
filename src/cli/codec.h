// Codecs of KV planes by name, for flags and for printing.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/options.h"
#include "kernels/plane.h"

namespace kvasir {

struct CodecName {
  Codec codec;
  std::string_view name;   // "q8"
  std::string_view llama;  // llama.cpp's name for the nearest type: "q8_0"
};
std::span<const CodecName> AllCodecs();
std::string_view Name(Codec codec);

struct CodecPair {
  PlaneForm k, v;
  bool operator==(const CodecPair&) const = default;
};
std::string Name(CodecPair pair);  // "q8", or "k=f16,v=q8"

// From --kv-codec, -ctk and -ctv; `otherwise` for a side that none of them names. Errors: kUsage
// (an unknown codec with the list, a side named twice).
CodecPair ParseCodecs(const Arguments& args, Codec otherwise);

}  // namespace kvasir
