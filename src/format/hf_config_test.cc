#include "format/hf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "format/test_files.h"

namespace kvasir {
namespace {

using nlohmann::json;
using test::RefusalOf;
using testing::HasSubstr;

// What an older and a newer version of the library write for SmolLM2-135M-Instruct and
// Qwen2.5-0.5B.
json OldLlama() {
  return json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576,
    "initializer_range": 0.041666666666666664, "intermediate_size": 1536, "is_llama_config": true,
    "max_position_embeddings": 8192, "model_type": "llama", "num_attention_heads": 9,
    "num_hidden_layers": 30, "num_key_value_heads": 3, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_interleaved": false, "rope_scaling": null, "rope_theta": 100000,
    "tie_word_embeddings": true, "torch_dtype": "bfloat16", "vocab_size": 49152})");
}
json NewQwen() {
  return json::parse(R"({
    "architectures": ["Qwen2ForCausalLM"], "dtype": "float32", "hidden_act": "silu",
    "hidden_size": 896, "intermediate_size": 4864, "layer_types": ["full_attention"],
    "max_position_embeddings": 32768, "max_window_layers": 24, "model_type": "qwen2",
    "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06, "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
    "sliding_window": null, "tie_word_embeddings": false, "use_sliding_window": false,
    "vocab_size": 151936})");
}
ModelConfig Parse(const json& config) { return ParseHfConfig(config.dump(), "config.json"); }

TEST(HfConfig, ReadsAnOldLlama) {
  const ModelConfig config = Parse(OldLlama());
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.n_layers, 30u);
  EXPECT_EQ(config.hidden, 576u);
  EXPECT_EQ(config.n_heads, 9u);
  EXPECT_EQ(config.n_kv_heads, 3u);
  EXPECT_EQ(config.head_dim, 64u);
  EXPECT_EQ(config.intermediate, 1536u);
  EXPECT_EQ(config.vocab_size, 49152u);
  EXPECT_EQ(config.context_length, 8192u);
  EXPECT_EQ(config.norm_eps, 1e-5f);
  EXPECT_EQ(config.rope_theta, 100000.0f);
  EXPECT_FALSE(config.rope_interleaved);
  EXPECT_TRUE(config.tied_embeddings);
}

TEST(HfConfig, ReadsANewQwen2) {
  const ModelConfig config = Parse(NewQwen());
  EXPECT_EQ(config.architecture, "qwen2");
  EXPECT_EQ(config.head_dim, 64u);
  EXPECT_EQ(config.rope_theta, 1e6f);
  EXPECT_FALSE(config.rope_interleaved);
  EXPECT_FALSE(config.tied_embeddings);
}

TEST(HfConfig, FillsInWhatTheLibraryFillsIn) {
  json config = OldLlama();
  for (const char* key : {"num_key_value_heads", "max_position_embeddings", "rms_norm_eps",
                          "rope_theta", "tie_word_embeddings", "architectures"}) {
    config.erase(key);
  }
  config["head_dim"] = 128;
  const ModelConfig parsed = Parse(config);
  EXPECT_EQ(parsed.n_kv_heads, 9u);
  EXPECT_EQ(parsed.head_dim, 128u);
  EXPECT_EQ(parsed.context_length, 2048u);
  EXPECT_EQ(parsed.norm_eps, 1e-6f);
  EXPECT_EQ(parsed.rope_theta, 10000.0f);
  EXPECT_FALSE(parsed.tied_embeddings);
}

TEST(HfConfig, RefusesWhatComputesSomethingElseByName) {
  const struct {
    const char* patch;  // merged into the valid configuration
    Code code;
    const char* word;
  } rows[] = {
      {R"({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"})", Code::kUnsupported,
       "GPT2LMHeadModel"},
      {R"({"model_type": "qwen2"})", Code::kUnsupported, "model_type \"qwen2\""},
      {R"({"architectures": ["LlamaForSequenceClassification"]})", Code::kUnsupported,
       "LlamaForSequenceClassification"},
      {R"({"architectures": null, "model_type": null})", Code::kUnsupported, "architectures"},
      {R"({"architectures": "LlamaForCausalLM"})", Code::kCorrupt, "architectures"},
      {R"({"hidden_act": "gelu"})", Code::kUnsupported, "hidden_act is \"gelu\""},
      {R"({"use_sliding_window": true})", Code::kUnsupported, "use_sliding_window"},
      {R"({"mlp_bias": true})", Code::kUnsupported, "mlp_bias"},
      {R"({"layer_types": ["full_attention", "sliding_attention"]})", Code::kUnsupported,
       "layer_types"},
      {R"({"quantization_config": {"bits": 4}})", Code::kUnsupported, "quantization_config"},
      {R"({"rope_scaling": {"type": "linear", "factor": 2.0}})", Code::kUnsupported,
       "rope_scaling: type is \"linear\""},
      {R"({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}})", Code::kUnsupported, "llama3"},
      {R"({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}})", Code::kUnsupported,
       "rope_parameters: rope_type is \"yarn\""},
      {R"({"rope_parameters": {"partial_rotary_factor": 0.5}})", Code::kUnsupported,
       "partial_rotary_factor"},
      {R"({"partial_rotary_factor": 0.5})", Code::kUnsupported, "partial_rotary_factor"},
      {R"({"rope_parameters": []})", Code::kCorrupt, "rope_parameters"},
      {R"({"hidden_size": null})", Code::kCorrupt, "hidden_size is missing"},
      {R"({"hidden_size": "576"})", Code::kCorrupt, "hidden_size is no whole number"},
      {R"({"hidden_size": -576})", Code::kCorrupt, "hidden_size is no whole number"},
      {R"({"hidden_size": 0})", Code::kCorrupt, "hidden_size is 0"},
      {R"({"hidden_size": 577})", Code::kCorrupt, "no multiple of 9 heads"},
      {R"({"vocab_size": 4294967297})", Code::kCorrupt, "vocab_size is 4294967297"},
      {R"({"num_key_value_heads": 4})", Code::kCorrupt, "KV heads"},
      {R"({"head_dim": 63})", Code::kCorrupt, "even"},
      {R"({"rms_norm_eps": 0})", Code::kCorrupt, "rms_norm_eps"},
      {R"({"rope_theta": -1})", Code::kCorrupt, "rope_theta"},
      {R"({"rope_theta": 1e300})", Code::kCorrupt, "rope_theta"},
      {R"({"tie_word_embeddings": 1})", Code::kCorrupt, "tie_word_embeddings"},
  };
  for (const auto& row : rows) {
    json config = OldLlama();
    config.merge_patch(json::parse(row.patch));
    const test::Refusal refusal = RefusalOf([&] { Parse(config); });
    EXPECT_EQ(refusal.code, row.code) << row.patch << " " << refusal.message;
    EXPECT_THAT(refusal.message, testing::AllOf(HasSubstr("config.json"), HasSubstr(row.word)));
  }
  EXPECT_EQ(RefusalOf([] { ParseHfConfig("[]", "x"); }).code, Code::kCorrupt);
}

TEST(HfConfig, MapsTensorNames) {
  const std::pair<const char*, const char*> rows[] = {
      {"model.embed_tokens.weight", "token_embd.weight"},
      {"model.norm.weight", "output_norm.weight"},
      {"lm_head.weight", "output.weight"},
      {"model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"},
      {"model.layers.11.self_attn.q_proj.weight", "blk.11.attn_q.weight"},
      {"model.layers.11.self_attn.k_proj.bias", "blk.11.attn_k.bias"},
      {"model.layers.2.self_attn.v_proj.weight", "blk.2.attn_v.weight"},
      {"model.layers.2.self_attn.o_proj.weight", "blk.2.attn_output.weight"},
      {"model.layers.2.post_attention_layernorm.weight", "blk.2.ffn_norm.weight"},
      {"model.layers.2.mlp.gate_proj.weight", "blk.2.ffn_gate.weight"},
      {"model.layers.2.mlp.up_proj.weight", "blk.2.ffn_up.weight"},
      {"model.layers.2.mlp.down_proj.weight", "blk.2.ffn_down.weight"},
      {"model.layers.2.self_attn.q_norm.weight", "blk.2.attn_q_norm.weight"},
      {"model.layers.2.self_attn.rotary_emb.inv_freq",
       "model.layers.2.self_attn.rotary_emb.inv_freq"},
      {"model.layers..mlp.up_proj.weight", "model.layers..mlp.up_proj.weight"},
      {"model.layers.2", "model.layers.2"},
      {"", ""},
  };
  for (const auto& [theirs, ours] : rows) EXPECT_EQ(GgufTensorName(theirs), ours);
}

TEST(HfConfig, ShardsStayInsideTheFolder) {
  const auto index = [](const std::string& file) {
    return ParseShardIndex(json{{"weight_map", {{"t", file}}}}.dump(), "index.json");
  };
  EXPECT_EQ(index("model-00001-of-00002.safetensors").at("t"), "model-00001-of-00002.safetensors");
  for (const char* file : {"../x.safetensors", "/x.safetensors", "a/b.safetensors", "x.bin", "",
                           "..", "a\\b.safetensors"}) {
    EXPECT_EQ(RefusalOf([&] { index(file); }).code, Code::kCorrupt) << file;
  }
  EXPECT_EQ(RefusalOf([&] { index(std::string("a\0.safetensors", 14)); }).code, Code::kCorrupt);
  for (const char* text : {"{}", "[]", R"({"weight_map": []})", R"({"weight_map": {"t": 1}})"}) {
    EXPECT_EQ(RefusalOf([&] { ParseShardIndex(text, "x"); }).code, Code::kCorrupt) << text;
  }
}

}  // namespace
}  // namespace kvasir
