// The JSON files of a Hugging Face folder, and tensor names.
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"
#include "format/hf_config.h"
#include "format/json.h"

namespace {

template <typename F>
void AllowRefusal(F&& check) {
  try {
    check();
  } catch (const kvasir::Error&) {  // a refusal is a right answer
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  AllowRefusal([&] {
    // What the strict parser takes, the library reads alike.
    CHECK(ParseJson(text, "fuzz") == nlohmann::json::parse(text));
  });
  AllowRefusal([&] {
    const ModelConfig config = ParseHfConfig(text, "fuzz");
    CHECK(config.head_dim % 2 == 0 && config.n_heads % config.n_kv_heads == 0);
    CHECK(config.norm_eps > 0 && config.rope.theta > 0);
  });
  AllowRefusal([&] {
    for (const auto& [tensor, file] : ParseShardIndex(text, "fuzz")) {
      CHECK(file.find('/') == file.npos);
    }
  });
  GgufTensorName(text);
  return 0;
}
