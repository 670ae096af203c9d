#include "bench/random_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/temp_folder.h"
#include "bench/shapes.h"
#include "format/dequantize.h"
#include "format/model_file.h"
#include "text/tokenizer.h"

namespace kvasir::bench {
namespace {

using testing::HasSubstr;

TEST(RandomBlocks, HaveTheDeviationAskedForAndNoBias) {
  for (const char* name : {"f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k",
                           "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs"}) {
    const DType type = ParseWeightType(name);
    const size_t n_blocks = 16384 / Info(type).block;
    const auto blocks = RandomBlocks(type, 0.02, n_blocks, 7);
    ASSERT_EQ(blocks.size(), n_blocks * Info(type).bytes);
    std::vector<float> values(16384);
    DequantizeRow(type, blocks.data(), values.data(), values.size());
    double sum = 0, squares = 0;
    for (const float v : values) {
      ASSERT_TRUE(std::isfinite(v)) << name;
      sum += v;
      squares += double{v} * v;
    }
    EXPECT_NEAR(std::sqrt(squares / 16384), 0.02, 0.001) << name;
    EXPECT_NEAR(sum / 16384, 0, 0.004) << name;
    EXPECT_NE(blocks, RandomBlocks(type, 0.02, n_blocks, 8)) << name;
  }
}

TEST(TypeForRows, FallsBackWhereBlocksDoNotFit) {
  EXPECT_EQ(TypeForRows(DType::kQ4_K, 2048), DType::kQ4_K);
  EXPECT_EQ(TypeForRows(DType::kQ4_K, 576), DType::kQ5_0);
  EXPECT_EQ(TypeForRows(DType::kQ5_K, 576), DType::kQ5_1);
  EXPECT_EQ(TypeForRows(DType::kQ6_K, 896), DType::kQ8_0);
  EXPECT_EQ(TypeForRows(DType::kIQ4_XS, 896), DType::kIQ4_NL);
  EXPECT_EQ(TypeForRows(DType::kQ8_0, 48), DType::kF16);
}

TEST(ParseWeightType, NamesWhatItKnows) {
  EXPECT_EQ(ParseWeightType("Q4_K"), DType::kQ4_K);
  try {
    ParseWeightType("q4_k_m");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("Q4_K"));
  }
}

Shape Small(std::string_view architecture, bool tied) {
  Shape shape = FindShape("tiny");
  shape.architecture = architecture;
  shape.tied = tied;
  return shape;
}

TEST(WriteRandomModel, MakesFilesThatOpenWithTheirSizes) {
  const test::TempFolder folder;
  for (const char* architecture : {"llama", "qwen2", "qwen3"}) {
    for (const bool tied : {false, true}) {
      const Shape shape = Small(architecture, tied);
      const std::string path = folder.path() + "/model.gguf";
      WriteRandomModel(path, shape, DType::kQ4_K, 1);
      const ModelFile file = ModelFile::Open(path);
      const ModelConfig& config = file.config();
      EXPECT_EQ(config.architecture, architecture);
      EXPECT_EQ(config.n_layers, shape.n_layers);
      EXPECT_EQ(config.hidden, shape.hidden);
      EXPECT_EQ(config.n_heads, shape.n_heads);
      EXPECT_EQ(config.n_kv_heads, shape.n_kv_heads);
      EXPECT_EQ(config.head_dim, shape.head_dim);
      EXPECT_EQ(config.intermediate, shape.intermediate);
      EXPECT_EQ(config.vocab_size, shape.vocab_size);
      EXPECT_EQ(config.context_length, shape.context);
      EXPECT_EQ(config.tied_embeddings, tied);
      EXPECT_EQ(config.rope.theta, shape.rope_theta);
      EXPECT_EQ(file.Find("blk.1.ffn_down.weight")->view.dtype, DType::kQ4_K);
      EXPECT_EQ(file.Find("blk.1.attn_k.bias") != nullptr, config.architecture == "qwen2");
      EXPECT_EQ(file.Find("blk.1.attn_k_norm.weight") != nullptr, config.architecture == "qwen3");

      const auto tokenizer = Tokenizer::FromGguf(file.metadata());
      EXPECT_EQ(tokenizer->vocab_size(), shape.vocab_size);
      // Pairs of small letters are one token, all else bytes.
      const std::string text = "abcd \n\xC3\xA9";
      EXPECT_EQ(tokenizer->Encode(text, false).size(), 6u);
      EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text, false)), text);
      EXPECT_TRUE(tokenizer->IsControl(tokenizer->eos()));
    }
  }
}

TEST(Shapes, AreConsistent) {
  for (const Shape& shape : AllShapes()) {
    EXPECT_EQ(shape.n_heads % shape.n_kv_heads, 0u) << shape.name;
    EXPECT_EQ(&FindShape(shape.name), &shape);
  }
  try {
    FindShape("llama-3.2-1");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("did you mean llama-3.2-1b?"));
  }
}

}  // namespace
}  // namespace kvasir::bench
