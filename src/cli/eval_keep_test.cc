#include "cli/eval_keep.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "cli/verbs.h"
#include "format/test_files.h"

namespace kvasir {
namespace {

using nlohmann::json;
using testing::HasSubstr;

std::string Refusal(std::string_view spec, std::string_view block) {
  try {
    WithBlock(spec, block, 100);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUsage);
    return error.what();
  }
  return "accepted";
}

TEST(WithBlock, TakesThePlaceOfTheBlockInASpec) {
  EXPECT_EQ(WithBlock("keydiff:budget=8", "16", 100), "keydiff:budget=8,block=16");
  EXPECT_EQ(WithBlock("keydiff:block=64,budget=8", "16", 100), "keydiff:budget=8,block=16");
  EXPECT_EQ(WithBlock("keydiff", "16", 100), "keydiff:block=16");
}

TEST(WithBlock, WholeIsAsLongAsTheText) {
  EXPECT_EQ(WithBlock("keydiff:budget=8", "whole", 70000), "keydiff:budget=8,block=70000");
  EXPECT_EQ(WithBlock("keydiff:budget=8", "whole", 0), "keydiff:budget=8,block=1");
}

TEST(WithBlock, LeavesASpecWithoutPolicyAlone) {
  EXPECT_EQ(WithBlock("none", "whole", 100), "none");
  EXPECT_EQ(WithBlock("", "16", 100), "");
}

TEST(WithBlock, RefusesOtherWordsThanWhole) {
  for (const char* block : {"", "-1", "1.5", "16x", "all"}) {
    EXPECT_THAT(Refusal("keydiff:budget=8", block), HasSubstr("a number of tokens, or whole"));
  }
}

class EvalKeep : public testing::Test {
 protected:
  EvalKeep() {
    ModelConfig config = test::TinyConfig();
    n_layers_ = config.n_layers;
    n_kv_heads_ = config.n_kv_heads;
    model_ = folder_.Write("m.gguf", test::RandomGguf(config, 1).Build());
    std::string ids;
    for (uint32_t i = 0; i < kTokens; ++i)
      ids += fmt::format("{} ", (i * 7 + 3) % config.vocab_size);
    tokens_ = folder_.Write("ids.txt", std::vector<uint8_t>(ids.begin(), ids.end()));
  }

  std::string Text(std::vector<std::string> flags) const {
    const std::string output = folder_.path() + "/out";
    std::vector<std::string> words = {"-m",   model_,        "--tokens", tokens_, "--output",
                                      output, "--kv-memory", "16MiB",    "-t",    "1"};
    words.insert(words.end(), flags.begin(), flags.end());
    const auto verb = std::find_if(AllVerbs().begin(), AllVerbs().end(),
                                   [](const CliVerb& v) { return v.name == "eval keep"; });
    const std::vector<std::string_view> views(words.begin(), words.end());
    EvalKeepVerb(ParseArguments(*verb, views));
    std::ifstream in(output, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  json Keep(const std::string& policy, std::vector<std::string> flags = {}) const {
    flags.insert(flags.end(), {"--kv-policy", policy, "--json"});
    return json::parse(Text(std::move(flags)));
  }
  // The lists of all lanes, each of which must ascend and stay below the text's length.
  std::vector<std::vector<uint32_t>> Lanes(const json& result) const {
    std::vector<std::vector<uint32_t>> lanes;
    EXPECT_EQ(result["kept"].size(), n_layers_);
    for (const json& layer : result["kept"]) {
      EXPECT_EQ(layer.size(), n_kv_heads_);
      for (const json& head : layer) {
        lanes.push_back(head.get<std::vector<uint32_t>>());
        EXPECT_TRUE(std::is_sorted(lanes.back().begin(), lanes.back().end(), std::less_equal<>()));
        EXPECT_LT(lanes.back().back(), kTokens);
      }
    }
    return lanes;
  }

  static constexpr uint32_t kTokens = 20;
  const test::TempFolder folder_;
  std::string model_, tokens_;
  size_t n_layers_ = 0, n_kv_heads_ = 0;
};

TEST_F(EvalKeep, ListsEveryPositionWithoutAPolicy) {
  const json result = Keep("none");
  EXPECT_EQ(result["tokens"], kTokens);
  EXPECT_GT(result["bytes_end"], 0u);
  for (const auto& lane : Lanes(result)) {
    ASSERT_EQ(lane.size(), kTokens);
    for (uint32_t i = 0; i < kTokens; ++i) EXPECT_EQ(lane[i], i);
  }
}

TEST_F(EvalKeep, ListsTruePositionsOfWhatIsLeft) {
  const std::vector<uint32_t> expected = {0, 1, 17, 18, 19};
  for (const auto& lane : Lanes(Keep("streaming:budget=5,sink=2"))) EXPECT_EQ(lane, expected);
}

TEST_F(EvalKeep, BlockDecidesHowOftenThePolicyChooses) {
  const std::string policy = "keydiff:budget=5,slack=0,block=4";
  const auto as_told = Lanes(Keep(policy));
  EXPECT_EQ(Lanes(Keep("keydiff:budget=5,slack=0", {"--block", "4"})), as_told);
  const auto once = Lanes(Keep(policy, {"--block", "whole"}));
  EXPECT_EQ(Lanes(Keep(policy, {"--block", "20"})), once);
  // However the text is cut into passes.
  EXPECT_EQ(Lanes(Keep(policy, {"--block", "whole", "--chunk", "3"})), once);
  EXPECT_NE(as_told, once);
  for (const auto& lane : once) EXPECT_EQ(lane.size(), 5u);
}

TEST_F(EvalKeep, PrintsALineForEachLayer) {
  const std::string text = Text({"--kv-policy", "streaming:budget=5"});
  EXPECT_THAT(text, HasSubstr("20 tokens read"));
  EXPECT_THAT(text, HasSubstr("\n    0        5        5\n"));
  EXPECT_EQ(static_cast<size_t>(std::count(text.begin(), text.end(), '\n')), n_layers_ + 4);
}

TEST_F(EvalKeep, NeedsAPolicyToBeNamed) {
  try {
    Text({});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("--kv-policy is missing"));
  }
}

}  // namespace
}  // namespace kvasir
