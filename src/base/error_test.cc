#include "base/error.h"

#include <gtest/gtest.h>

#include <set>

namespace kvasir {
namespace {

constexpr Code kAll[] = {Code::kUsage,    Code::kInvalid, Code::kCorrupt, Code::kUnsupported,
                         Code::kNotFound, Code::kIo,      Code::kBudget,  Code::kCancelled};

TEST(Error, EveryCodeHasAWordOfItsOwnAndAFailureStatus) {
  std::set<std::string_view> words;
  for (const Code code : kAll) {
    EXPECT_TRUE(words.insert(Name(code)).second) << Name(code);
    EXPECT_NE(ExitCode(code), 0) << Name(code);
    EXPECT_GE(HttpStatus(code), 400) << Name(code);
    EXPECT_LT(HttpStatus(code), 600) << Name(code);
  }
}

TEST(Error, MapsCodesToExitCodesAndHttpStatus) {
  EXPECT_EQ(ExitCode(Code::kUsage), 2);
  EXPECT_EQ(ExitCode(Code::kCorrupt), 1);
  EXPECT_EQ(HttpStatus(Code::kInvalid), 400);
  EXPECT_EQ(HttpStatus(Code::kNotFound), 404);
  EXPECT_EQ(HttpStatus(Code::kIo), 500);
  EXPECT_EQ(HttpStatus(Code::kCancelled), 499);
  EXPECT_EQ(Name(Code::kBudget), "kv_budget_exceeded");
}

TEST(Error, FailThrowsTheFormattedMessageWithItsCode) {
  try {
    Fail(Code::kCorrupt, "{}: {} bytes", "model.gguf", 17);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kCorrupt);
    EXPECT_STREQ(error.what(), "model.gguf: 17 bytes");
  }
}

TEST(Check, PassesWhatIsTrueAndEvaluatesItOnce) {
  int calls = 0;
  CHECK(++calls == 1);
  CHECK_MSG(++calls == 2, "calls {}", calls);
  EXPECT_EQ(calls, 2);
}

TEST(CheckDeathTest, AbortsNamingTheConditionAndTheDetail) {
  const int entries = 3;
  EXPECT_DEATH(CHECK(entries == 4), "error_test.cc.*CHECK\\(entries == 4\\)");
  EXPECT_DEATH(CHECK_MSG(entries == 4, "lane {} holds {}", 7, entries), "lane 7 holds 3");
}

}  // namespace
}  // namespace kvasir
