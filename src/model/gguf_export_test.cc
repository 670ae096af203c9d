#include "model/gguf_export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "format/test_files.h"
#include "model/rope.h"

namespace kvasir {
namespace {

using testing::HasSubstr;

// What a reader of the keys understands.
ModelConfig ReadAgain(const ModelConfig& config) {
  const Metadata keys = GgufKeys(config, "name");
  return ConfigFromGguf(keys, 0, "again");
}

ModelConfig Folder(std::string architecture) {
  ModelConfig config = test::TinyConfig(std::move(architecture));
  config.rope.interleaved = false;
  return config;
}

TEST(GgufExport, StatesTheShape) {
  ModelConfig config = Folder("qwen2");
  config.rope.theta = 1e6f;
  const ModelConfig again = ReadAgain(config);
  EXPECT_EQ(again.architecture, "qwen2");
  EXPECT_EQ(again.n_layers, config.n_layers);
  EXPECT_EQ(again.hidden, config.hidden);
  EXPECT_EQ(again.n_heads, config.n_heads);
  EXPECT_EQ(again.n_kv_heads, config.n_kv_heads);
  EXPECT_EQ(again.head_dim, config.head_dim);
  EXPECT_EQ(again.intermediate, config.intermediate);
  EXPECT_EQ(again.vocab_size, config.vocab_size);
  EXPECT_EQ(again.context_length, config.context_length);
  EXPECT_EQ(again.norm_eps, config.norm_eps);
  EXPECT_EQ(again.rope.theta, 1e6f);
  EXPECT_EQ(again.rope.scaling, RopeScaling::kNone);
}

TEST(GgufExport, CallsMistralLlamaAndKeepsItsWindow) {
  ModelConfig config = Folder("mistral");
  config.sliding_window = 6;
  const ModelConfig again = ReadAgain(config);
  EXPECT_EQ(again.architecture, "llama");
  EXPECT_EQ(again.Window(0), 6u);
  EXPECT_EQ(again.Window(config.n_layers - 1), 6u);
}

TEST(GgufExport, StatesScalingsOfRope) {
  ModelConfig config = Folder("qwen2");
  config.rope.scaling = RopeScaling::kLinear;
  config.rope.factor = 4;
  EXPECT_EQ(ReadAgain(config).rope.scaling, RopeScaling::kLinear);
  EXPECT_EQ(ReadAgain(config).rope.factor, 4);
  config.rope.scaling = RopeScaling::kYarn;
  config.rope.original_context = 16;
  config.rope.beta_fast = 24;
  config.rope.attention_factor = 1.25;
  const ModelConfig again = ReadAgain(config);
  EXPECT_EQ(again.rope.scaling, RopeScaling::kYarn);
  EXPECT_EQ(again.rope.original_context, 16);
  EXPECT_EQ(again.rope.beta_fast, 24);
  EXPECT_NEAR(again.rope.attention_factor, 1.25, 1e-6);
}

TEST(GgufExport, RefusesWhatKeysCannotSay) {
  ModelConfig some = Folder("qwen2");
  some.sliding_window = 6;
  some.first_sliding_layer = 1;
  const auto refusal = test::RefusalOf([&] { GgufKeys(some, "name"); });
  EXPECT_EQ(refusal.code, Code::kUnsupported);
  EXPECT_THAT(refusal.message, HasSubstr("1 of 2 layers"));
  some.first_sliding_layer = 2;  // none
  EXPECT_EQ(ReadAgain(some).sliding_window, 0u);
  ModelConfig yarn = Folder("qwen2");
  yarn.rope.scaling = RopeScaling::kYarn;
  yarn.rope.original_context = 16;
  yarn.rope.truncate = false;
  EXPECT_THAT(test::RefusalOf([&] { GgufKeys(yarn, "name"); }).message, HasSubstr("truncate"));
}

TEST(GgufExport, GivesLlama3sScalingAsDivisors) {
  const ModelFile folder = ModelFile::Open(KVASIR_SOURCE_DIR "/src/model/testdata/llama_llama3");
  std::vector<float> divisors;
  const std::vector<SourceTensor> tensors = GgufTensors(folder, &divisors);
  ASSERT_EQ(tensors[0].name, "rope_freqs.weight");
  const ModelConfig& config = folder.config();
  RopeConfig divided = config.rope;
  divided.scaling = RopeScaling::kNone;
  divided.divisors = divisors;
  const Rope expected(config.head_dim, config.rope), ours(config.head_dim, divided);
  bool some = false;
  for (uint32_t i = 0; i < ours.n_angles(); ++i) {
    EXPECT_FLOAT_EQ(ours.inverse_frequencies()[i], expected.inverse_frequencies()[i]);
    some |= divisors[i] != 1;
  }
  EXPECT_TRUE(some);
}

TEST(GgufExport, PairsRowsOfQAndKInLlamaAlone) {
  std::vector<float> none;
  const ModelFile llama =
      ModelFile::Open(KVASIR_SOURCE_DIR "/src/model/testdata/llama_bias_gqa4_bf16");
  for (const SourceTensor& tensor : GgufTensors(llama, &none)) {
    const bool q = tensor.name.find(".attn_q.") != tensor.name.npos;
    const bool k = tensor.name.find(".attn_k.") != tensor.name.npos;
    const uint32_t expected = q ? llama.config().n_heads : k ? llama.config().n_kv_heads : 0;
    EXPECT_EQ(tensor.pairing_heads, expected) << tensor.name;
  }
  const ModelFile qwen = ModelFile::Open(KVASIR_SOURCE_DIR "/src/model/testdata/qwen2");
  for (const SourceTensor& tensor : GgufTensors(qwen, &none)) {
    EXPECT_EQ(tensor.pairing_heads, 0u) << tensor.name;
  }
  EXPECT_TRUE(none.empty());
}

}  // namespace
}  // namespace kvasir
