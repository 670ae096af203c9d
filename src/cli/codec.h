// Encodings of KV planes by name, for flags and for printing.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/options.h"
#include "kv/encoding.h"

namespace kvasir {

struct CodecName {
  Codec codec;
  std::string_view name;   // "q8"
  std::string_view llama;  // llama.cpp's name for the nearest type: "q8_0"
};
// Those that rows can be appended in.
std::span<const CodecName> AllCodecs();
std::string_view Name(Codec codec);

// "q8", "k=f16,v=q8", "mustafar:sparsity=0.7", "k=mustafar:keep=40,v=q4:recent=32"; what covers
// some layers alone follows the rest with a plus.
std::string Name(const Encoding& encoding);
// The keys' or the values' alone.
std::string KeysName(const Encoding& encoding);
std::string ValuesName(const Encoding& encoding);

// From --kv-codec, -ctk and -ctv; `otherwise` for what none of them names. What depends on the
// model is checked by LanesOf. Errors: kUsage (an unknown codec with the list, planes named
// twice, values outside their limits, options that exclude each other).
Encoding ParseCodecs(const Arguments& args, Codec otherwise);
// From values of --kv-codec alone.
Encoding ParseEncoding(const std::vector<std::string>& specs, Codec otherwise);

// What mustafar takes, for help.
std::span<const Option> MustafarOptions();

}  // namespace kvasir
