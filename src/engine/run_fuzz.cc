// Model files through everything `run` does with them: opened, tokenizer and template read, weights
// packed, a prompt tokenized and answered with a few tokens. What memory that takes is bounded by
// the file's size, whatever its numbers say.
#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace {

using namespace kvasir;

constexpr uint32_t kRows = 4;

template <typename F>
void AllowRefusal(F&& check) {
  try {
    check();
  } catch (const Error&) {  // a refusal is a right answer
  }
}

std::vector<TokenId> PromptOf(const Tokenizer& tokenizer) {
  std::string text = "ab <|im_end|> a";
  AllowRefusal([&] {
    const ChatTemplate source(tokenizer.chat_template());
    const std::vector<ChatMessage> messages = {{"user", text}};
    text = source.Render(messages, /*add_generation_prompt=*/true, "<s>", "</s>");
  });
  return tokenizer.Encode(text.substr(0, 64), /*special=*/true);
}

void Answer(Model& model, const Tokenizer* tokenizer, std::vector<TokenId> prompt,
            const Kernels& kernels, Workers& workers) {
  EngineOptions options;
  options.kv_memory = 4 << 20;
  options.step_tokens = options.chunk = kRows;
  Engine engine(model, tokenizer, kernels, workers, options);
  Request request;
  prompt.resize(std::min<size_t>(prompt.size(), 2 * kRows));
  if (prompt.empty()) prompt = {0};
  request.tokens = std::move(prompt);
  request.max_tokens = 3;
  request.sampling.temperature = 0;
  request.on_done = [&](Generation generation) {
    CHECK(generation.tokens.size() <= 3);
    for (const TokenId id : generation.tokens) {
      CHECK(id >= 0 && static_cast<uint32_t>(id) < model.config().vocab_size);
    }
  };
  engine.Submit(std::move(request));
  engine.RunUntilIdle();
}

void Run(std::span<const uint8_t> bytes, Compute compute) {
  const ModelFile file = ModelFile::View(bytes, "fuzz");
  std::unique_ptr<Tokenizer> tokenizer;
  AllowRefusal([&] { tokenizer = Tokenizer::FromGguf(file.metadata()); });
  if (tokenizer != nullptr && tokenizer->vocab_size() > file.config().vocab_size) return;
  const Kernels& kernels = BestKernels();
  Workers workers(1);
  const std::unique_ptr<Model> model =
      Model::Load(file, kernels, workers, {.compute = compute, .max_rows = kRows});
  // A row of one block becomes a group of sixteen, and the narrowest types double; an embedding may
  // be packed as the output once more. Scratch has a few rows of every width.
  CHECK(model->weight_bytes() <= 80 * bytes.size() + (1 << 16));
  CHECK(model->scratch_bytes() <= 200 * kRows * bytes.size() + (1 << 20));
  std::vector<TokenId> prompt = {0};
  if (tokenizer != nullptr) prompt = PromptOf(*tokenizer);
  Answer(*model, tokenizer.get(), std::move(prompt), kernels, workers);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Enough for every form of a model; larger ones only take longer.
  if (size > (64 << 10)) return 0;
  const std::span<const uint8_t> bytes(data, size);
  for (const Compute compute : {Compute::kExact, Compute::kFast}) {
    AllowRefusal([&] { Run(bytes, compute); });
  }
  return 0;
}
