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
    "hidden_size": 896, "intermediate_size": 4864, "layer_types": null,
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
  EXPECT_EQ(config.rope.theta, 100000.0f);
  EXPECT_FALSE(config.rope.interleaved);
  EXPECT_TRUE(config.tied_embeddings);
}

TEST(HfConfig, ReadsANewQwen2) {
  const ModelConfig config = Parse(NewQwen());
  EXPECT_EQ(config.architecture, "qwen2");
  EXPECT_EQ(config.head_dim, 64u);
  EXPECT_EQ(config.rope.theta, 1e6f);
  EXPECT_FALSE(config.rope.interleaved);
  EXPECT_FALSE(config.tied_embeddings);
}

// What differs from NewQwen() is merged into it.
ModelConfig ParsePatched(const char* patch) {
  json config = NewQwen();
  config.merge_patch(json::parse(patch));
  return Parse(config);
}
constexpr const char* kMistral = R"({"model_type": "mistral",
    "architectures": ["MistralForCausalLM"], "head_dim": 128, "layer_types": null})";
json Mistral() {
  json config = NewQwen();
  config.merge_patch(json::parse(kMistral));
  return config;
}

TEST(HfConfig, ReadsTheScalingsOfRope) {
  const RopeConfig linear =
      ParsePatched(R"({"rope_scaling": {"type": "linear", "factor": 2.5}, "rope_parameters": null,
                       "rope_theta": 5000})")
          .rope;
  EXPECT_EQ(linear.scaling, RopeScaling::kLinear);
  EXPECT_EQ(linear.factor, 2.5);
  EXPECT_EQ(linear.theta, 5000.0f);
  // The old object wins, as in the library; an empty one does not count.
  EXPECT_EQ(ParsePatched(R"({"rope_scaling": {"type": "linear", "factor": 2.0}})").rope.scaling,
            RopeScaling::kLinear);
  EXPECT_EQ(ParsePatched(R"({"rope_scaling": {}})").rope.theta, 1e6f);

  const RopeConfig llama3 = ParsePatched(R"({"rope_parameters": {"rope_type": "llama3",
      "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 8192}})")
                                .rope;
  EXPECT_EQ(llama3.scaling, RopeScaling::kLlama3);
  EXPECT_EQ(llama3.theta, 500000.0f);
  EXPECT_EQ(llama3.factor, 8);
  EXPECT_EQ(llama3.original_context, 8192);
  EXPECT_EQ(llama3.low_frequency, 1);
  EXPECT_EQ(llama3.high_frequency, 4);

  const RopeConfig yarn = ParsePatched(R"({"rope_parameters": {"rope_type": "yarn", "factor": 4.0,
      "original_max_position_embeddings": 8192, "beta_fast": 0, "beta_slow": 2}})")
                              .rope;
  EXPECT_EQ(yarn.scaling, RopeScaling::kYarn);
  EXPECT_EQ(yarn.original_context, 8192);
  EXPECT_EQ(yarn.beta_fast, 32);
  EXPECT_EQ(yarn.beta_slow, 2);
  EXPECT_TRUE(yarn.truncate);
  EXPECT_NEAR(yarn.attention_factor, 1.1386294361, 1e-9);
  // The ratio of the contexts where no factor is stated; the field outside the object wins.
  const RopeConfig implied = ParsePatched(R"({"original_max_position_embeddings": 4096,
      "rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 8192,
                          "truncate": false, "mscale": 1.0, "mscale_all_dim": 0.5}})")
                                 .rope;
  EXPECT_EQ(implied.original_context, 4096);
  EXPECT_EQ(implied.factor, 8);
  EXPECT_FALSE(implied.truncate);
  EXPECT_NEAR(implied.attention_factor, 1.2079441542 / 1.1039720771, 1e-9);
  EXPECT_EQ(ParsePatched(R"({"rope_parameters": {"rope_type": "yarn", "factor": 2,
                             "attention_factor": 1.5}})")
                .rope.attention_factor,
            1.5);
}

TEST(HfConfig, ReadsWhichLayersSlide) {
  // Without the switch the numbers mean nothing.
  EXPECT_EQ(ParsePatched(R"({"sliding_window": 100})").Window(23), 0u);
  const ModelConfig upper = ParsePatched(
      R"({"use_sliding_window": true, "sliding_window": 100, "layer_types": null,
          "max_window_layers": 20})");
  EXPECT_EQ(upper.Window(19), 0u);
  EXPECT_EQ(upper.Window(20), 100u);
  const ModelConfig listed = ParsePatched(
      R"({"use_sliding_window": true, "sliding_window": 100, "num_hidden_layers": 3,
          "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]})");
  EXPECT_EQ(listed.Window(0), 100u);
  EXPECT_EQ(listed.Window(1), 0u);
  EXPECT_EQ(listed.Window(2), 100u);

  json mistral = Mistral();
  EXPECT_EQ(Parse(mistral).Window(0), 0u);  // null
  mistral.erase("sliding_window");
  EXPECT_EQ(Parse(mistral).Window(0), 4096u);
  mistral["sliding_window"] = 77;
  EXPECT_EQ(Parse(mistral).Window(23), 77u);
}

TEST(HfConfig, KnowsWhatTheFamiliesDifferIn) {
  json mistral = Mistral();
  mistral["num_attention_heads"] = 16;
  mistral.erase("num_key_value_heads");
  const ModelConfig parsed = Parse(mistral);
  EXPECT_EQ(parsed.architecture, "mistral");
  EXPECT_EQ(parsed.n_kv_heads, 8u);
  EXPECT_EQ(parsed.head_dim, 128u);
  EXPECT_FALSE(parsed.qk_norm);
  EXPECT_EQ(parsed.qkv_bias, Presence::kForbidden);

  const ModelConfig qwen3 = ParsePatched(
      R"({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "attention_bias": true})");
  EXPECT_EQ(qwen3.architecture, "qwen3");
  EXPECT_EQ(qwen3.head_dim, 128u);
  EXPECT_TRUE(qwen3.qk_norm);
  EXPECT_EQ(qwen3.qkv_bias, Presence::kRequired);
  EXPECT_EQ(qwen3.output_bias, Presence::kRequired);
  EXPECT_EQ(qwen3.mlp_bias, Presence::kForbidden);

  const ModelConfig qwen2 = Parse(NewQwen());
  EXPECT_EQ(qwen2.qkv_bias, Presence::kRequired);
  EXPECT_EQ(qwen2.output_bias, Presence::kForbidden);
  json llama = OldLlama();
  llama["mlp_bias"] = true;
  EXPECT_EQ(Parse(llama).mlp_bias, Presence::kRequired);
  EXPECT_EQ(Parse(llama).qkv_bias, Presence::kForbidden);
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
  EXPECT_EQ(parsed.rope.theta, 10000.0f);
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
      {R"({"layer_types": ["full_attention", "sliding_attention"]})", Code::kCorrupt,
       "layer_types is no list of 30 strings"},
      {R"({"num_hidden_layers": 1, "layer_types": ["sliding_attention"]})", Code::kCorrupt,
       "layer_types: sliding_attention without a sliding_window"},
      {R"({"num_hidden_layers": 1, "layer_types": ["chunked_attention"]})", Code::kUnsupported,
       "layer_types"},
      {R"({"architectures": ["MistralForCausalLM"], "model_type": "mistral",
           "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]})",
       Code::kUnsupported, "in all or none"},
      {R"({"architectures": ["MistralForCausalLM"], "model_type": "mistral",
           "sliding_window": 0})",
       Code::kCorrupt, "sliding_window is 0"},
      {R"({"quantization_config": {"bits": 4}})", Code::kUnsupported, "quantization_config"},
      {R"({"rope_scaling": {"type": "linear"}})", Code::kCorrupt,
       "rope_scaling: factor is missing"},
      {R"({"rope_scaling": {"type": "linear", "factor": 0}})", Code::kCorrupt, "the factor is 0"},
      {R"({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}})", Code::kCorrupt,
       "low_freq_factor is missing"},
      {R"({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4,
           "high_freq_factor": 4}})",
       Code::kCorrupt, "is not below 4"},
      {R"({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}})", Code::kUnsupported,
       "rope_scaling: rope_type is \"dynamic\""},
      {R"({"rope_parameters": {"type": "longrope", "rope_theta": 1e6}})", Code::kUnsupported,
       "rope_parameters: type is \"longrope\""},
      {R"({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}})", Code::kUnsupported,
       "full_attention is an object"},
      {R"({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1, "factor": 2}})",
       Code::kCorrupt, "theta other than 1"},
      {R"({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 0}})",
       Code::kCorrupt, "RoPE scaling"},
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
