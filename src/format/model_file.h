// A model as it lies on disk: one GGUF file, or a Hugging Face folder. Opened once, memory-mapped,
// checked completely; everything that can be wrong with the files is an Error here and nowhere later.
//
// Both kinds present the same face: a checked ModelConfig, and tensors under GGUF's names
// ("token_embd.weight", "blk.3.attn_q.weight", "blk.3.attn_q.bias", "output_norm.weight",
// "output.weight" (absent when tied)). Nothing is converted: a tensor is a view of the mapped bytes.
//
// Cost     The table of tensors and the metadata; tensor data stays in the mapped file.
// Errors   kNotFound, kIo, kCorrupt (what, where, what would be right), kUnsupported (architecture, tensor
//          type: by name, with the list of what is known).
// Threads  Immutable after Open.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "format/metadata.h"
#include "tensor/view.h"

namespace kvasir {

// Hyperparameters, all checked: non-zero, consistent with each other, and small enough that products of
// any three fit into 64 bits.
struct ModelConfig {
  std::string architecture;  // "llama" or "qwen2"
  uint32_t n_layers = 0;
  uint32_t hidden = 0;         // width of the residual stream
  uint32_t n_heads = 0;        // query heads
  uint32_t n_kv_heads = 0;     // divides n_heads
  uint32_t head_dim = 0;       // of q, k and v alike
  uint32_t intermediate = 0;   // width inside the MLP
  uint32_t vocab_size = 0;
  uint32_t context_length = 0;
  float norm_eps = 0;          // of RMSNorm
  float rope_theta = 10000;
  bool rope_interleaved = false;  // rotate pairs (2i, 2i+1) (GGUF's permuted llama) or (i, i + d/2)
  bool tied_embeddings = false;   // no "output.weight": the embedding serves
};

struct TensorEntry {
  std::string name;            // GGUF's name
  std::vector<uint64_t> shape; // innermost (contiguous) dimension first, as in GGUF
  TensorView view;             // rows x cols of the first two dimensions
};

class ModelFile {
 public:
  enum class Kind { kGguf, kHuggingFace };

  // `path`: a .gguf file or a folder with config.json and *.safetensors.
  static ModelFile Open(const std::string& path);

  Kind kind() const { return kind_; }
  const std::string& path() const { return path_; }
  const ModelConfig& config() const { return config_; }
  // GGUF key-values; empty for a folder.
  const Metadata& metadata() const { return metadata_; }
  std::span<const TensorEntry> tensors() const { return tensors_; }  // in file order
  const TensorEntry* Find(std::string_view name) const;              // nullptr if absent
  uint64_t file_bytes() const;

  // Gives the pages of mapped tensor data back to the system (after weights were repacked).
  void ReleaseMapped() const;

 private:
  friend class ModelFileBuilder;
  Kind kind_ = Kind::kGguf;
  std::string path_;
  ModelConfig config_;
  Metadata metadata_;
  std::vector<TensorEntry> tensors_;      // file order
  std::vector<uint32_t> by_name_;         // indices into tensors_, sorted by name
  std::vector<MappedFile> files_;
};

}  // namespace kvasir
