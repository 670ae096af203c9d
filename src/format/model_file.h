// A model as it lies on disk: a GGUF file (or its parts), or a Hugging Face folder. Opened once,
// memory-mapped, checked completely; what can be wrong with the files is an Error here and nowhere
// later.
//
// Both kinds present the same face: a checked ModelConfig, and tensors under GGUF's names
// ("token_embd.weight", "blk.3.attn_q.weight", "blk.3.attn_q.bias", "output_norm.weight",
// "output.weight" (absent when tied)). Nothing is converted: a tensor views the mapped bytes.
//
// The tensors the configuration asks for are there, in exactly these shapes (innermost first):
//   token_embd.weight, output.weight unless tied    hidden x vocab_size
//   output_norm.weight                              hidden
//   blk.N.attn_norm.weight, blk.N.ffn_norm.weight   hidden
//   blk.N.attn_q.weight                             hidden x n_heads * head_dim
//   blk.N.attn_k.weight, blk.N.attn_v.weight        hidden x n_kv_heads * head_dim
//   blk.N.attn_output.weight                        n_heads * head_dim x hidden
//   blk.N.ffn_gate.weight, blk.N.ffn_up.weight      hidden x intermediate
//   blk.N.ffn_down.weight                           intermediate x hidden
//   blk.N.attn_{q,k,v,output}.bias, blk.N.ffn_{gate,up,down}.bias
//                                                   the rows of their weight
//   blk.N.attn_q_norm.weight, blk.N.attn_k_norm.weight (qwen3)  head_dim
//   rope_freqs.weight (optional; read into config().rope.divisors)  head_dim / 2
// Biases are there as the configuration says: required, optional or forbidden. Further tensors are
// kept and ignored, unless their presence means that the model computes something this engine does
// not (experts, other norms, other biases): kUnsupported.
//
// Cost     The table of tensors and the metadata; tensor data stays in the mapped file.
// Errors   kNotFound, kIo, kCorrupt (what, where, what would be right), kUnsupported (by name, with
//          what is known: architecture, type or role of a tensor, RoPE scaling and the like).
// Threads  Immutable after Open.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "format/gguf_parts.h"
#include "format/metadata.h"
#include "format/model_config.h"
#include "tensor/view.h"

namespace kvasir {

struct TensorEntry {
  std::string name;             // GGUF's name
  std::vector<uint64_t> shape;  // innermost (contiguous) dimension first, as in GGUF
  TensorView view;              // rows x cols of the first two dimensions
};

class ModelFile {
 public:
  enum class Kind { kGguf, kHuggingFace };

  // `path`: a .gguf file, the first part of a split one, or a folder with config.json and
  // *.safetensors.
  static ModelFile Open(const std::string& path);
  // A GGUF file already in memory; `bytes` must outlive the result. `name` opens error messages.
  static ModelFile View(std::span<const uint8_t> bytes, const std::string& name);

  Kind kind() const { return kind_; }
  const std::string& path() const { return path_; }
  const ModelConfig& config() const { return config_; }
  // GGUF key-values; empty for a folder.
  const Metadata& metadata() const { return metadata_; }
  std::span<const TensorEntry> tensors() const { return tensors_; }  // in file order
  const TensorEntry* Find(std::string_view name) const;              // nullptr if absent
  std::span<const MappedFile> files() const { return files_; }
  uint64_t file_bytes() const { return file_bytes_; }

  // Gives the pages of mapped tensor data back to the system (after weights were repacked).
  void ReleaseMapped() const;

 private:
  void TakeGguf(std::vector<GgufPart> parts, const std::string& name);
  static ModelFile FromFolder(const std::string& path);
  void IndexNames();
  void CheckTensors() const;
  void ReadRopeDivisors();

  Kind kind_ = Kind::kGguf;
  std::string path_;
  ModelConfig config_;
  Metadata metadata_;
  std::vector<TensorEntry> tensors_;  // file order
  std::vector<uint32_t> by_name_;     // indices into tensors_, sorted by name
  std::vector<MappedFile> files_;
  uint64_t file_bytes_ = 0;
};

}  // namespace kvasir
