#include "bench/shapes.h"

#include <fmt/format.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "base/options.h"
#include "format/quote.h"

namespace kvasir::bench {

namespace {

// "tiny" is nobody's: small enough for tests, with every ratio of a real one.
constexpr Shape kShapes[] = {
    {"tiny", "llama", 2, 256, 4, 2, 64, 512, 512, 4096, true, 10000, 1e-5},
    {"smollm2-135m", "llama", 30, 576, 9, 3, 64, 1536, 49152, 8192, true, 100000, 1e-5},
    {"smollm2-360m", "llama", 32, 960, 15, 5, 64, 2560, 49152, 8192, true, 100000, 1e-5},
    {"smollm2-1.7b", "llama", 24, 2048, 32, 32, 64, 8192, 49152, 8192, true, 130000, 1e-5},
    {"qwen2.5-0.5b", "qwen2", 24, 896, 14, 2, 64, 4864, 151936, 32768, true, 1000000, 1e-6},
    {"qwen2.5-1.5b", "qwen2", 28, 1536, 12, 2, 128, 8960, 151936, 32768, true, 1000000, 1e-6},
    {"qwen2.5-3b", "qwen2", 36, 2048, 16, 2, 128, 11008, 151936, 32768, true, 1000000, 1e-6},
    {"qwen2.5-7b", "qwen2", 28, 3584, 28, 4, 128, 18944, 152064, 32768, false, 1000000, 1e-6},
    {"qwen3-0.6b", "qwen3", 28, 1024, 16, 8, 128, 3072, 151936, 40960, true, 1000000, 1e-6},
    {"qwen3-1.7b", "qwen3", 28, 2048, 16, 8, 128, 6144, 151936, 40960, true, 1000000, 1e-6},
    {"qwen3-4b", "qwen3", 36, 2560, 32, 8, 128, 9728, 151936, 40960, true, 1000000, 1e-6},
    {"qwen3-8b", "qwen3", 36, 4096, 32, 8, 128, 12288, 151936, 40960, false, 1000000, 1e-6},
    {"llama-3.2-1b", "llama", 16, 2048, 32, 8, 64, 8192, 128256, 131072, true, 500000, 1e-5},
    {"llama-3.2-3b", "llama", 28, 3072, 24, 8, 128, 8192, 128256, 131072, true, 500000, 1e-5},
    {"llama-3.1-8b", "llama", 32, 4096, 32, 8, 128, 14336, 128256, 131072, false, 500000, 1e-5},
    {"mistral-7b", "llama", 32, 4096, 32, 8, 128, 14336, 32768, 32768, false, 1000000, 1e-5},
};

}  // namespace

std::span<const Shape> AllShapes() { return kShapes; }

const Shape& FindShape(std::string_view name) {
  std::vector<std::string_view> names;
  for (const Shape& shape : kShapes) {
    if (shape.name == name) return shape;
    names.push_back(shape.name);
  }
  const std::string_view nearest = Nearest(name, names);
  Fail(Code::kUsage, "--shape: unknown shape {}{}; known are {}", Quoted(name),
       nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest), fmt::join(names, ", "));
}

}  // namespace kvasir::bench
