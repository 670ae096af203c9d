#include "format/model_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "format/test_files.h"

namespace kvasir {
namespace {

using nlohmann::json;
using test::Bytes;
using test::GgufBuilder;
using test::Refusal;
using test::RefusalOf;
using test::Shape;
using testing::ElementsAre;
using testing::HasSubstr;

void ExpectConfig(const ModelConfig& ours, const ModelConfig& wanted) {
  EXPECT_EQ(ours.architecture, wanted.architecture);
  EXPECT_EQ(ours.n_layers, wanted.n_layers);
  EXPECT_EQ(ours.hidden, wanted.hidden);
  EXPECT_EQ(ours.n_heads, wanted.n_heads);
  EXPECT_EQ(ours.n_kv_heads, wanted.n_kv_heads);
  EXPECT_EQ(ours.head_dim, wanted.head_dim);
  EXPECT_EQ(ours.intermediate, wanted.intermediate);
  EXPECT_EQ(ours.vocab_size, wanted.vocab_size);
  EXPECT_EQ(ours.context_length, wanted.context_length);
  EXPECT_EQ(ours.norm_eps, wanted.norm_eps);
  EXPECT_EQ(ours.rope.theta, wanted.rope.theta);
  EXPECT_EQ(ours.rope.interleaved, wanted.rope.interleaved);
  EXPECT_EQ(ours.tied_embeddings, wanted.tied_embeddings);
}

TEST(ModelFile, ReadsBothArchitecturesFromGguf) {
  for (const char* architecture : {"llama", "qwen2"}) {
    ModelConfig config = test::TinyConfig(architecture);
    config.tied_embeddings = config.architecture == "llama";
    const Bytes bytes = test::RandomGguf(config, 1).Build();
    const ModelFile file = ModelFile::View(bytes, "x");
    ExpectConfig(file.config(), config);
    EXPECT_EQ(file.file_bytes(), bytes.size());
    for (const Shape& shape : test::ShapesOf(config)) {
      const TensorEntry* tensor = file.Find(shape.name);
      ASSERT_NE(tensor, nullptr) << shape.name;
      EXPECT_EQ(tensor->shape, shape.dims);
      EXPECT_EQ(tensor->view.cols, shape.dims[0]);
      EXPECT_EQ(tensor->view.rows, shape.dims.size() > 1 ? shape.dims[1] : 1);
      const Bytes values = test::ToBytes(test::RandomValues(shape, 1));
      EXPECT_TRUE(std::equal(values.begin(), values.end(), tensor->view.data)) << shape.name;
    }
    EXPECT_EQ(file.Find("blk.2.attn_q.weight"), nullptr);
  }
}

TEST(ModelFile, OpensAGgufFileAndReleasesItsPages) {
  const test::TempFolder folder;
  const ModelConfig config = test::TinyConfig();
  const std::string path = folder.Write("m.gguf", test::RandomGguf(config, 2).Build());
  const ModelFile file = ModelFile::Open(path);
  EXPECT_EQ(file.kind(), ModelFile::Kind::kGguf);
  EXPECT_EQ(file.path(), path);
  EXPECT_EQ(file.metadata().Uint("llama.block_count"), 2u);
  const TensorEntry& tensor = file.tensors()[0];
  const Bytes before(tensor.view.data, tensor.view.data + tensor.view.bytes());
  file.ReleaseMapped();
  EXPECT_TRUE(std::equal(before.begin(), before.end(), tensor.view.data));
}

TEST(ModelFile, TakesTheVocabularyFromTheEmbeddingAndChecksItAgainstKeyAndTokens) {
  const ModelConfig config = test::TinyConfig();
  GgufBuilder right = test::RandomGguf(config, 1);
  right.Uint("llama.vocab_size", 10);
  EXPECT_EQ(ModelFile::View(right.Build(), "x").config().vocab_size, 10u);
  GgufBuilder wrong = test::RandomGguf(config, 1);
  wrong.Uint("llama.vocab_size", 11);
  EXPECT_THAT(RefusalOf([&] { ModelFile::View(wrong.Build(), "x"); }).message,
              HasSubstr("8 x 11 is expected"));
  GgufBuilder tokens = test::RandomGguf(config, 1);
  tokens.Strings("tokenizer.ggml.tokens", std::vector<std::string>(11, "t"));
  EXPECT_THAT(RefusalOf([&] { ModelFile::View(tokens.Build(), "x"); }).message,
              HasSubstr("11 tokens"));
}

struct Spoiled {
  const char* name;
  std::function<void(GgufBuilder&)> spoil;
  Code code;
  const char* word;
};
GgufBuilder::Tensor& Named(GgufBuilder& file, std::string_view name) {
  for (GgufBuilder::Tensor& tensor : file.tensors) {
    if (tensor.name == name) return tensor;
  }
  CheckFailed(__FILE__, __LINE__, "the tensor exists");
}
void AddVector(GgufBuilder& file, const char* name, uint64_t n) {
  file.tensors.push_back({.name = name, .type = 0, .shape = {n}, .data = Bytes(n * 4)});
}

const Spoiled kSpoiled[] = {
    {"another scaling of RoPE",
     [](GgufBuilder& f) { f.String("llama.rope.scaling.type", "longrope"); }, Code::kUnsupported,
     "llama.rope.scaling.type is \"longrope\"; only none, linear or yarn"},
    {"a negative factor", [](GgufBuilder& f) { f.Float("llama.rope.scaling.factor", -4); },
     Code::kCorrupt, "RoPE scaling: the factor is -4"},
    {"YaRN's mix",
     [](GgufBuilder& f) {
       f.String("llama.rope.scaling.type", "yarn");
       f.Float("llama.rope.scaling.yarn_ext_factor", 0.5f);
     },
     Code::kUnsupported, "yarn_ext_factor is 0.5"},
    {"RoPE on a part", [](GgufBuilder& f) { f.Uint("llama.rope.dimension_count", 2); },
     Code::kUnsupported, "the head size 4"},
    {"experts", [](GgufBuilder& f) { f.Uint("llama.expert_count", 8); }, Code::kUnsupported,
     "expert_count"},
    {"a pattern of windows",
     [](GgufBuilder& f) { f.Uint("llama.attention.sliding_window_pattern", 2); },
     Code::kUnsupported, "sliding_window_pattern"},
    {"a split file", [](GgufBuilder& f) { f.Number("split.count", GgufType::kU16, uint16_t{3}); },
     Code::kUnsupported, "one of 3 parts"},
    {"divisors of 0", [](GgufBuilder& f) { AddVector(f, "rope_freqs.weight", 2); }, Code::kCorrupt,
     "a value of rope_freqs.weight is 0"},
    {"too many divisors", [](GgufBuilder& f) { AddVector(f, "rope_freqs.weight", 4); },
     Code::kCorrupt, "rope_freqs.weight has the shape 4; 2 is expected"},
    {"a long bias in the MLP", [](GgufBuilder& f) { AddVector(f, "blk.1.ffn_up.bias", 13); },
     Code::kCorrupt, "blk.1.ffn_up.bias"},
    {"norms of queries", [](GgufBuilder& f) { AddVector(f, "blk.0.attn_q_norm.weight", 4); },
     Code::kUnsupported, "attn_q_norm"},
    {"an optional bias of a wrong length",
     [](GgufBuilder& f) { AddVector(f, "blk.0.attn_k.bias", 4); }, Code::kCorrupt,
     "blk.0.attn_k.bias has the shape 4; 8 is expected"},
    {"a missing tensor", [](GgufBuilder& f) { Named(f, "blk.1.ffn_down.weight").name = "other"; },
     Code::kCorrupt, "blk.1.ffn_down.weight is missing; its shape would be 12 x 8"},
    {"no embedding", [](GgufBuilder& f) { Named(f, "token_embd.weight").name = "other"; },
     Code::kCorrupt, "vocabulary is 0"},
    {"a transposed matrix", [](GgufBuilder& f) { Named(f, "blk.0.attn_k.weight").shape = {4, 16}; },
     Code::kCorrupt, "blk.0.attn_k.weight has the shape 4 x 16; 8 x 8 is expected"},
    {"a matrix as a vector", [](GgufBuilder& f) { Named(f, "blk.0.attn_v.weight").shape = {64}; },
     Code::kCorrupt, "shape 64;"},
    {"an untied output of a wrong shape", [](GgufBuilder& f) { AddVector(f, "output.weight", 80); },
     Code::kCorrupt, "output.weight"},
};

TEST(ModelFile, RefusesModelsItWouldComputeWrongly) {
  for (const Spoiled& row : kSpoiled) {
    GgufBuilder file = test::RandomGguf(test::TinyConfig(), 1);
    row.spoil(file);
    const Refusal refusal = RefusalOf([&] { ModelFile::View(file.Build(), "x.gguf"); });
    EXPECT_EQ(refusal.code, row.code) << row.name << ": " << refusal.message;
    EXPECT_THAT(refusal.message, testing::AllOf(HasSubstr("x.gguf"), HasSubstr(row.word)));
  }
}

RopeConfig RopeOf(const std::function<void(GgufBuilder&)>& set) {
  GgufBuilder file = test::RandomGguf(test::TinyConfig(), 1);
  set(file);
  return ModelFile::View(file.Build(), "x").config().rope;
}

TEST(ModelFile, ReadsTheScalingOfRope) {
  EXPECT_EQ(RopeOf([](GgufBuilder&) {}).scaling, RopeScaling::kNone);
  // Old writers state a factor without a type, and 0 for none.
  for (const char* key : {"llama.rope.scaling.factor", "llama.rope.scale_linear"}) {
    const RopeConfig linear = RopeOf([&](GgufBuilder& f) { f.Float(key, 2.5f); });
    EXPECT_EQ(linear.scaling, RopeScaling::kLinear) << key;
    EXPECT_EQ(linear.factor, 2.5) << key;
    EXPECT_EQ(RopeOf([&](GgufBuilder& f) { f.Float(key, 0); }).scaling, RopeScaling::kNone);
  }
  const RopeConfig none = RopeOf([](GgufBuilder& f) {
    f.String("llama.rope.scaling.type", "none");
    f.Float("llama.rope.scaling.factor", 3);
  });
  EXPECT_EQ(none.scaling, RopeScaling::kNone);
  EXPECT_EQ(none.factor, 1);
  const RopeConfig yarn = RopeOf([](GgufBuilder& f) {
    f.String("llama.rope.scaling.type", "yarn");
    f.Float("llama.rope.scaling.factor", 4);
    f.Uint("llama.rope.scaling.original_context_length", 16);
    f.Float("llama.rope.scaling.yarn_beta_fast", 16);
  });
  EXPECT_EQ(yarn.scaling, RopeScaling::kYarn);
  EXPECT_EQ(yarn.factor, 4);
  EXPECT_EQ(yarn.original_context, 16);
  EXPECT_EQ(yarn.beta_fast, 16);
  EXPECT_NEAR(yarn.attention_factor, 0.1 * std::log(4.0) + 1, 1e-12);
  const RopeConfig divided = RopeOf([](GgufBuilder& f) {
    const std::vector<float> divisors = {1, 8};
    f.tensors.push_back(
        {.name = "rope_freqs.weight", .type = 0, .shape = {2}, .data = test::ToBytes(divisors)});
  });
  EXPECT_EQ(divided.divisors, (std::vector<float>{1, 8}));
}

TEST(ModelFile, ReadsAWindowThatHoldsForAllLayers) {
  GgufBuilder file = test::RandomGguf(test::TinyConfig(), 1);
  file.Uint("llama.attention.sliding_window", 32);
  const Bytes bytes = file.Build();
  const ModelFile model = ModelFile::View(bytes, "x");
  EXPECT_EQ(model.config().Window(0), 32u);
  EXPECT_EQ(model.config().Window(1), 32u);
}

TEST(ModelFile, AQwen3HasNormsOfEveryHead) {
  GgufBuilder file = test::RandomGguf(test::TinyConfig("qwen3"), 1);
  EXPECT_TRUE(ModelFile::View(file.Build(), "x").config().qk_norm);
  Named(file, "blk.1.attn_k_norm.weight").name = "other";
  EXPECT_THAT(RefusalOf([&] { ModelFile::View(file.Build(), "x"); }).message,
              HasSubstr("blk.1.attn_k_norm.weight is missing; its shape would be 4"));
}

TEST(ModelFile, AcceptsHarmlessExtras) {
  GgufBuilder file = test::RandomGguf(test::TinyConfig(), 1);
  file.String("llama.rope.scaling.type", "none");
  file.Uint("llama.rope.dimension_count", 4);
  file.Uint("llama.expert_count", 0);
  AddVector(file, "blk.0.attn_q.bias", 16);
  AddVector(file, "extra", 3);
  const Bytes bytes = file.Build();
  const ModelFile model = ModelFile::View(bytes, "x");
  EXPECT_NE(model.Find("extra"), nullptr);
  EXPECT_NE(model.Find("blk.0.attn_q.bias"), nullptr);
}

TEST(ModelFile, ChecksTheNumbersOfAGgufConfiguration) {
  const std::pair<std::function<void(ModelConfig&)>, const char*> rows[] = {
      {[](ModelConfig& c) { c.n_layers = 0; }, "llama.block_count is 0"},
      {[](ModelConfig& c) { c.hidden = 0; }, "embedding_length is 0"},
      {[](ModelConfig& c) { c.n_heads = 0; }, "head_count is 0"},
      {[](ModelConfig& c) { c.n_kv_heads = 0; }, "head_count_kv is 0"},
      {[](ModelConfig& c) { c.n_kv_heads = 3; }, "multiple of 3 KV heads"},
      {[](ModelConfig& c) { c.head_dim = 3; }, "even"},
      {[](ModelConfig& c) { c.context_length = 0x80000000; }, "context_length is 2147483648"},
      {[](ModelConfig& c) { c.norm_eps = 0; }, "epsilon"},
      {[](ModelConfig& c) { c.norm_eps = NAN; }, "epsilon"},
      {[](ModelConfig& c) { c.rope.theta = INFINITY; }, "freq_base"},
      {[](ModelConfig& c) { c.rope.theta = -1; }, "freq_base"},
  };
  for (const auto& [spoil, word] : rows) {
    ModelConfig config = test::TinyConfig();
    GgufBuilder whole = test::RandomGguf(config, 1);
    spoil(config);
    GgufBuilder keys = test::RandomGguf(
        [&] {
          ModelConfig no_tensors = config;
          no_tensors.n_layers = std::min(config.n_layers, 1u);
          return no_tensors;
        }(),
        1);
    keys.tensors = whole.tensors;
    const Refusal refusal = RefusalOf([&] { ModelFile::View(keys.Build(), "x"); });
    EXPECT_EQ(refusal.code, Code::kCorrupt) << word;
    EXPECT_THAT(refusal.message, HasSubstr(word));
  }
}

TEST(ModelFile, RefusesOtherArchitecturesAndFilesWithoutTensors) {
  GgufBuilder gpt2;
  gpt2.String("general.architecture", "gpt2");
  const Refusal other = RefusalOf([&] { ModelFile::View(gpt2.Build(), "x"); });
  EXPECT_EQ(other.code, Code::kUnsupported);
  EXPECT_THAT(other.message, HasSubstr("\"gpt2\"; llama, qwen2, qwen3 are known"));
  GgufBuilder vocabulary = test::RandomGguf(test::TinyConfig(), 1);
  vocabulary.tensors.clear();
  vocabulary.Strings("tokenizer.ggml.tokens", std::vector<std::string>(10, "t"));
  EXPECT_THAT(RefusalOf([&] { ModelFile::View(vocabulary.Build(), "x"); }).message,
              HasSubstr("no tensors"));
  EXPECT_EQ(RefusalOf([] { ModelFile::Open("/nonexistent/x.gguf"); }).code, Code::kNotFound);
}

// The same tensors under the names and in the dimension order of a Hugging Face folder.
std::string HfName(std::string name) {
  const std::pair<const char*, const char*> parts[] = {{"token_embd", "model.embed_tokens"},
                                                       {"output_norm", "model.norm"},
                                                       {"blk.", "model.layers."},
                                                       {"attn_norm", "input_layernorm"},
                                                       {"ffn_norm", "post_attention_layernorm"},
                                                       {"attn_q_norm", "self_attn.q_norm"},
                                                       {"attn_k_norm", "self_attn.k_norm"},
                                                       {"attn_output", "self_attn.o_proj"},
                                                       {"attn_q", "self_attn.q_proj"},
                                                       {"attn_k", "self_attn.k_proj"},
                                                       {"attn_v", "self_attn.v_proj"},
                                                       {"ffn_gate", "mlp.gate_proj"},
                                                       {"ffn_up", "mlp.up_proj"},
                                                       {"ffn_down", "mlp.down_proj"}};
  if (name == "output.weight") return "lm_head.weight";
  for (const auto& [ours, theirs] : parts) {
    if (const size_t at = name.find(ours); at != name.npos) {
      name.replace(at, std::string_view(ours).size(), theirs);
    }
  }
  return name;
}

Bytes HfFile(std::span<const Shape> shapes) {
  json header = json::object();
  Bytes data;
  for (const Shape& shape : shapes) {
    const Bytes values = test::ToBytes(test::RandomValues(shape, 3));
    const std::vector<uint64_t> dims(shape.dims.rbegin(), shape.dims.rend());
    header[HfName(shape.name)] = {{"dtype", "F32"},
                                  {"shape", dims},
                                  {"data_offsets", {data.size(), data.size() + values.size()}}};
    test::AppendBytes(data, values);
  }
  return test::SafetensorsFile(header.dump(), data);
}

std::string HfConfigText(const ModelConfig& c) {
  return json{{"model_type", c.architecture},
              {"num_hidden_layers", c.n_layers},
              {"hidden_size", c.hidden},
              {"intermediate_size", c.intermediate},
              {"num_attention_heads", c.n_heads},
              {"num_key_value_heads", c.n_kv_heads},
              {"head_dim", c.head_dim},
              {"vocab_size", c.vocab_size},
              {"max_position_embeddings", c.context_length},
              {"rms_norm_eps", 1e-5},
              {"rope_theta", 10000.0},
              {"tie_word_embeddings", c.tied_embeddings}}
      .dump();
}

void ExpectFolder(const ModelFile& file, const ModelConfig& config) {
  EXPECT_EQ(file.kind(), ModelFile::Kind::kHuggingFace);
  ExpectConfig(file.config(), config);
  EXPECT_TRUE(file.metadata().all().empty());
  for (const Shape& shape : test::ShapesOf(config)) {
    const TensorEntry* tensor = file.Find(shape.name);
    ASSERT_NE(tensor, nullptr) << shape.name;
    EXPECT_EQ(tensor->shape, shape.dims) << shape.name;
    const Bytes values = test::ToBytes(test::RandomValues(shape, 3));
    EXPECT_TRUE(std::equal(values.begin(), values.end(), tensor->view.data)) << shape.name;
  }
}

ModelConfig FolderConfig(const char* architecture, bool tied) {
  ModelConfig config = test::TinyConfig(architecture);
  config.rope.interleaved = false;  // only GGUF's converter permutes rows
  config.tied_embeddings = tied;
  return config;
}

TEST(ModelFile, OpensAFolderWithOneFile) {
  for (const char* architecture : {"llama", "qwen2"}) {
    const test::TempFolder folder;
    const ModelConfig config = FolderConfig(architecture, /*tied=*/false);
    folder.Write("config.json", HfConfigText(config));
    folder.Write("model.safetensors", HfFile(test::ShapesOf(config)));
    ExpectFolder(ModelFile::Open(folder.path()), config);
  }
}

TEST(ModelFile, OpensAFolderWithShards) {
  const test::TempFolder folder;
  const ModelConfig config = FolderConfig("qwen2", /*tied=*/true);
  folder.Write("config.json", HfConfigText(config));
  const std::vector<Shape> shapes = test::ShapesOf(config);
  const std::span<const Shape> all(shapes);
  folder.Write("a.safetensors", HfFile(all.first(7)));
  folder.Write("b.safetensors", HfFile(all.subspan(7)));
  json map;
  for (size_t i = 0; i < shapes.size(); ++i) {
    map[HfName(shapes[i].name)] = i < 7 ? "a.safetensors" : "b.safetensors";
  }
  folder.Write("model.safetensors.index.json", json{{"weight_map", map}}.dump());
  ExpectFolder(ModelFile::Open(folder.path()), config);

  map["lm_head.bias"] = "b.safetensors";
  folder.Write("model.safetensors.index.json", json{{"weight_map", map}}.dump());
  EXPECT_THAT(RefusalOf([&] { ModelFile::Open(folder.path()); }).message,
              HasSubstr("that the index places here"));
  map["lm_head.bias"] = "c.safetensors";
  folder.Write("model.safetensors.index.json", json{{"weight_map", map}}.dump());
  EXPECT_EQ(RefusalOf([&] { ModelFile::Open(folder.path()); }).code, Code::kNotFound);
}

TEST(ModelFile, DropsTheSecondCopyOfATiedEmbedding) {
  const test::TempFolder folder;
  const ModelConfig tied = FolderConfig("llama", /*tied=*/true);
  folder.Write("config.json", HfConfigText(tied));
  folder.Write("model.safetensors", HfFile(test::ShapesOf(FolderConfig("llama", false))));
  const ModelFile file = ModelFile::Open(folder.path());
  EXPECT_TRUE(file.config().tied_embeddings);
  EXPECT_EQ(file.Find("output.weight"), nullptr);
}

TEST(ModelFile, RefusesFoldersThatAreNotWhole) {
  const test::TempFolder folder;
  EXPECT_EQ(RefusalOf([&] { ModelFile::Open(folder.path()); }).code, Code::kNotFound);
  const ModelConfig config = FolderConfig("qwen2", /*tied=*/true);
  folder.Write("config.json", HfConfigText(config));
  EXPECT_THAT(RefusalOf([&] { ModelFile::Open(folder.path()); }).message,
              HasSubstr("model.safetensors.index.json"));
  std::vector<Shape> shapes = test::ShapesOf(config);
  std::erase_if(shapes, [](const Shape& s) { return s.name == "blk.1.attn_v.bias"; });
  folder.Write("model.safetensors", HfFile(shapes));
  EXPECT_THAT(RefusalOf([&] { ModelFile::Open(folder.path()); }).message,
              HasSubstr("blk.1.attn_v.bias is missing"));
}

TEST(ModelFile, RefusesTwoTensorsThatMeanTheSame) {
  const test::TempFolder folder;
  const ModelConfig config = FolderConfig("llama", /*tied=*/true);
  folder.Write("config.json", HfConfigText(config));
  std::vector<Shape> shapes = test::ShapesOf(config);
  shapes.push_back({"BLK.0.attn_norm.weight", {8}});
  Bytes bytes = HfFile(shapes);
  // In the file it carries the name that the folder's own tensor is given.
  const std::string_view upper = "BLK.0.input_layernorm.weight";
  const auto at = std::search(bytes.begin(), bytes.end(), upper.begin(), upper.end());
  ASSERT_NE(at, bytes.end());
  const std::string_view lower = "blk.0.attn_norm.weight\":";
  ASSERT_LE(lower.size(), upper.size() + 2);
  std::copy(lower.begin(), lower.end(), at);
  std::fill(at + lower.size(), at + upper.size() + 2, ' ');
  EXPECT_THAT(RefusalOf([&] {
                folder.Write("model.safetensors", bytes);
                ModelFile::Open(folder.path());
              }).message,
              HasSubstr("\"blk.0.attn_norm.weight\" occurs twice"));
}

std::string ModelPath(const char* name) {
  const char* folder = std::getenv("KVASIR_MODELS");
  const char* home = std::getenv("HOME");
  if (folder != nullptr) return std::string(folder) + "/" + name;
  return std::string(home == nullptr ? "" : home) + "/.cache/kvasir/models/" + name;
}

struct RealModel {
  std::string path;
  ModelConfig config;
  size_t n_tensors;
};

void ExpectRealModel(const RealModel& model) {
  if (!std::filesystem::exists(model.path)) GTEST_SKIP() << model.path << " is absent";
  const ModelFile file = ModelFile::Open(model.path);
  ExpectConfig(file.config(), model.config);
  EXPECT_EQ(file.tensors().size(), model.n_tensors);
  EXPECT_EQ(file.file_bytes(), std::filesystem::file_size(model.path));
}

TEST(RealModel, SmolLm2HasItsShape) {
  ExpectRealModel({ModelPath("smollm2-135m-instruct-q4_1.gguf"),
                   {"llama", 30, 576, 9, 3, 64, 1536, 49152, 8192, 1e-5f, {100000, true}, true},
                   272});
}
TEST(RealModel, QwenHalfBillionHasItsShape) {
  ExpectRealModel({ModelPath("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"),
                   {"qwen2", 24, 896, 14, 2, 64, 4864, 151936, 32768, 1e-6f, {1e6f, false}, false},
                   291});
}
TEST(RealModel, QwenOneAndAHalfBillionHasItsShape) {
  ExpectRealModel({ModelPath("qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"),
                   {"qwen2", 28, 1536, 12, 2, 128, 8960, 151936, 32768, 1e-6f, {1e6f, false}, false},
                   339});
}
TEST(RealModel, StoriesHasItsShape) {
  const char* data = std::getenv("KVASIR_TEST_DATA");
  if (data == nullptr) GTEST_SKIP() << "KVASIR_TEST_DATA is not set";
  ExpectRealModel({std::string(data) + "/models/stories260K/stories260K.gguf",
                   {"llama", 5, 64, 8, 4, 8, 172, 512, 512, 1e-5f, {10000, true}, true},
                   47});
}

}  // namespace
}  // namespace kvasir
