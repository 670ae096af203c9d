// What a GGUF file says of a model that lies in a Hugging Face folder: keys of its architecture,
// and its tensors in the order of rows that GGUF's "llama" has. Keys of the tokenizer are text's.
//
// Errors   kUnsupported for what GGUF's keys cannot say: a window in some layers only, a YaRN ramp
//          that is not cut to whole channels.
// Threads  No state: any.
#pragma once

#include <string>
#include <vector>

#include "format/metadata.h"
#include "format/model_file.h"
#include "format/tensor_recoder.h"

namespace kvasir {

// general.* and the architecture's keys. `name`: general.name.
Metadata GgufKeys(const ModelConfig& config, const std::string& name);

// The tensors that the model computes with, in the folder's order. `divisors` takes the values of
// rope_freqs.weight where Llama 3 scales RoPE (empty otherwise) and must outlive the result.
std::vector<SourceTensor> GgufTensors(const ModelFile& folder, std::vector<float>* divisors);

}  // namespace kvasir
