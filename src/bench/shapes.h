// Named shapes of public models: enough to measure speed without their files.
//
// Source   The config.json that each model was published with.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace kvasir::bench {

struct Shape {
  std::string_view name;          // "llama-3.2-1b"
  std::string_view architecture;  // GGUF's
  uint32_t n_layers, hidden, n_heads, n_kv_heads, head_dim, intermediate, vocab_size, context;
  bool tied;  // embedding and output are one matrix
  double rope_theta, norm_eps;
};

std::span<const Shape> AllShapes();
// Errors: kUsage with the nearest name and the list.
const Shape& FindShape(std::string_view name);

}  // namespace kvasir::bench
