#include "format/quantize_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "format/test_files.h"

namespace kvasir {
namespace {

using testing::HasSubstr;

ModelConfig Config(uint32_t n_layers, bool tied) {
  ModelConfig config = test::TinyConfig();
  config.n_layers = n_layers;
  config.tied_embeddings = tied;
  return config;
}

std::string_view TypeOf(std::string_view target, const ModelConfig& config, std::string name,
                        std::vector<uint64_t> shape) {
  const SourceTensor tensor{.name = std::move(name), .shape = std::move(shape)};
  return Info(PlanTensor(FindQuantizeTarget(target), config, tensor).dtype).name;
}

TEST(QuantizePlan, FindsTargetsInAnyCase) {
  EXPECT_EQ(FindQuantizeTarget("q4_K_m").file_type, 15u);
  EXPECT_EQ(FindQuantizeTarget("BF16").dtype, DType::kBF16);
  const test::Refusal refusal = test::RefusalOf([] { FindQuantizeTarget("q4_k"); });
  EXPECT_EQ(refusal.code, Code::kUsage);
  EXPECT_THAT(refusal.message, HasSubstr("q4_k_m"));
  EXPECT_THAT(refusal.message, HasSubstr("f32"));
}

TEST(QuantizePlan, LeavesAllButMatricesInF32) {
  const ModelConfig config = Config(2, false);
  for (const char* target : {"f16", "q8_0", "q4_k_m"}) {
    EXPECT_EQ(TypeOf(target, config, "blk.0.attn_norm.weight", {512}), "F32");
    EXPECT_EQ(TypeOf(target, config, "blk.0.attn_q.bias", {512}), "F32");
    EXPECT_EQ(TypeOf(target, config, "rope_freqs.weight", {32}), "F32");
    EXPECT_NE(TypeOf(target, config, "blk.0.attn_q.weight", {512, 512}), "F32");
  }
}

TEST(QuantizePlan, GivesTheOutputMoreBits) {
  const ModelConfig tied = Config(2, true), apart = Config(2, false);
  EXPECT_EQ(TypeOf("q4_0", apart, "output.weight", {512, 10}), "Q6_K");
  EXPECT_EQ(TypeOf("q4_0", apart, "token_embd.weight", {512, 10}), "Q4_0");
  EXPECT_EQ(TypeOf("q4_k_m", tied, "token_embd.weight", {512, 10}), "Q6_K");
  EXPECT_EQ(TypeOf("q4_k_m", tied, "token_embd.weight", {544, 10}), "Q8_0");
  EXPECT_EQ(TypeOf("q8_0", apart, "output.weight", {512, 10}), "Q8_0");
  EXPECT_EQ(TypeOf("bf16", apart, "output.weight", {512, 10}), "BF16");
}

// The layers of a model of 24 that llama.cpp writes in Q6_K, read off a file of its making.
TEST(QuantizePlan, GivesSomeLayersOfQ4_K_MMoreBits) {
  const ModelConfig config = Config(24, false);
  std::vector<uint32_t> layers;
  for (uint32_t layer = 0; layer < 24; ++layer) {
    const std::string block = fmt::format("blk.{}.", layer);
    const auto type = TypeOf("q4_k_m", config, block + "ffn_down.weight", {512, 512});
    EXPECT_EQ(TypeOf("q4_k_m", config, block + "attn_v.weight", {512, 512}), type);
    EXPECT_EQ(TypeOf("q4_k_m", config, block + "attn_q.weight", {512, 512}), "Q4_K");
    EXPECT_EQ(TypeOf("q6_k", config, block + "ffn_down.weight", {512, 512}), "Q6_K");
    EXPECT_EQ(TypeOf("q4_0", config, block + "ffn_down.weight", {512, 512}), "Q4_0");
    if (type == "Q6_K") layers.push_back(layer);
  }
  EXPECT_THAT(layers, testing::ElementsAre(0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23));
}

TEST(QuantizePlan, FallsBackWhereBlocksDoNotDivideRows) {
  const ModelConfig config = Config(24, false);
  EXPECT_EQ(TypeOf("q4_k_m", config, "blk.3.attn_q.weight", {96, 8}), "Q5_0");
  EXPECT_EQ(TypeOf("q4_k_m", config, "blk.0.attn_v.weight", {96, 8}), "Q8_0");
  EXPECT_EQ(TypeOf("q6_k", config, "blk.3.attn_q.weight", {96, 8}), "Q8_0");
  EXPECT_EQ(TypeOf("q6_k", config, "blk.3.attn_q.weight", {40, 8}), "F16");
  EXPECT_EQ(TypeOf("q4_0", config, "blk.3.attn_q.weight", {40, 8}), "F16");
  const SourceTensor tensor{.name = "blk.3.attn_q.weight", .shape = {40, 8}};
  const TensorPlan plan = PlanTensor(FindQuantizeTarget("q4_k_m"), config, tensor);
  EXPECT_TRUE(plan.fell_back());
  EXPECT_EQ(plan.wanted, DType::kQ4_K);
}

}  // namespace
}  // namespace kvasir
