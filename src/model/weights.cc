#include "model/weights.h"

#include <fmt/format.h>

#include <string>

#include "base/checked.h"
#include "base/error.h"
#include "format/dequantize.h"

namespace kvasir {

namespace {

// Kernels read vectors in whole groups of outputs.
constexpr size_t kVectorPadding = kGroup;

class Loader {
 public:
  Loader(const ModelFile& file, Workers& workers, const std::function<void(double)>& progress)
      : file_(file), workers_(workers), progress_(progress) {
    for (const TensorEntry& entry : file.tensors()) bytes_total_ += entry.view.bytes();
    // A tied embedding is packed once, as the output matrix.
    if (!file.config().tied_embeddings) bytes_total_ -= Tensor("token_embd.weight").bytes();
  }

  const TensorView& Tensor(const std::string& name) const {
    const TensorEntry* entry = file_.Find(name);
    CHECK_MSG(entry != nullptr, "{} passed the format's checks without {}", file_.path(), name);
    return entry->view;
  }

  // A norm's weights, or a bias.
  std::vector<float> Vector(const std::string& name, uint64_t n) {
    const TensorView& view = Tensor(name);
    CHECK_MSG(view.rows == 1 && view.cols == n, "{}: {} x {}, not {}", name, view.rows, view.cols,
              n);
    std::vector<float> values(RoundUp<size_t>(n, kVectorPadding));
    DequantizeRow(view.dtype, view.data, values.data(), n);
    Done(view);
    return values;
  }

  Linear Matrix(const std::string& name, uint64_t outputs, uint64_t k) {
    const TensorView& view = Tensor(name + ".weight");
    CHECK_MSG(view.rows == outputs && view.cols == k, "{}: {} x {}, not {} x {}", name, view.rows,
              view.cols, outputs, k);
    Linear linear;
    linear.w = PackedMatrix::Pack(view, workers_);
    Done(view);
    if (file_.Find(name + ".bias") != nullptr) linear.bias = Vector(name + ".bias", outputs);
    return linear;
  }

 private:
  void Done(const TensorView& view) {
    bytes_done_ += view.bytes();
    if (progress_) {
      progress_(static_cast<double>(bytes_done_) / static_cast<double>(bytes_total_));
    }
  }

  const ModelFile& file_;
  Workers& workers_;
  const std::function<void(double)>& progress_;
  uint64_t bytes_total_ = 0, bytes_done_ = 0;
};

uint64_t Bytes(const Linear& linear) {
  return linear.w.bytes() + linear.bias.size() * sizeof(float);
}

}  // namespace

Weights Weights::Load(const ModelFile& file, Workers& workers,
                      const std::function<void(double)>& progress) {
  const ModelConfig& config = file.config();
  const uint64_t hidden = config.hidden, inner = config.intermediate;
  const uint64_t q_width = uint64_t{config.n_heads} * config.head_dim;
  const uint64_t kv_width = uint64_t{config.n_kv_heads} * config.head_dim;
  Loader loader(file, workers, progress);
  Weights weights;
  weights.embedding = loader.Tensor("token_embd.weight");
  weights.layers.reserve(config.n_layers);
  for (uint32_t i = 0; i < config.n_layers; ++i) {
    const std::string block = fmt::format("blk.{}.", i);
    LayerWeights layer;
    layer.attn_norm = loader.Vector(block + "attn_norm.weight", hidden);
    layer.q = loader.Matrix(block + "attn_q", q_width, hidden);
    layer.k = loader.Matrix(block + "attn_k", kv_width, hidden);
    layer.v = loader.Matrix(block + "attn_v", kv_width, hidden);
    if (config.qk_norm) {
      layer.q_norm = loader.Vector(block + "attn_q_norm.weight", config.head_dim);
      layer.k_norm = loader.Vector(block + "attn_k_norm.weight", config.head_dim);
    }
    layer.attn_output = loader.Matrix(block + "attn_output", hidden, q_width);
    layer.ffn_norm = loader.Vector(block + "ffn_norm.weight", hidden);
    layer.gate = loader.Matrix(block + "ffn_gate", inner, hidden);
    layer.up = loader.Matrix(block + "ffn_up", inner, hidden);
    layer.down = loader.Matrix(block + "ffn_down", hidden, inner);
    weights.layers.push_back(std::move(layer));
    file.ReleaseMapped();
  }
  weights.output_norm = loader.Vector("output_norm.weight", hidden);
  weights.output =
      loader.Matrix(config.tied_embeddings ? "token_embd" : "output", config.vocab_size, hidden);
  file.ReleaseMapped();
  return weights;
}

uint64_t Weights::bytes() const {
  uint64_t total = output_norm.size() * sizeof(float) + Bytes(output);
  for (const LayerWeights& layer : layers) {
    for (const auto* norm : {&layer.attn_norm, &layer.ffn_norm, &layer.q_norm, &layer.k_norm}) {
      total += norm->size() * sizeof(float);
    }
    for (const Linear* linear :
         {&layer.q, &layer.k, &layer.v, &layer.attn_output, &layer.gate, &layer.up, &layer.down}) {
      total += Bytes(*linear);
    }
  }
  return total;
}

}  // namespace kvasir
