#include "base/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace kvasir {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr Option kTable[] = {
    {.name = "budget", .type = OptionType::kCountOrSize, .min = 1, .max = 1 << 24},
    {.name = "block", .type = OptionType::kCount, .min = 1, .max = 4096, .value = "128"},
    {.name = "keep", .type = OptionType::kReal, .min = 0.001, .max = 1},
    {.name = "penalty", .type = OptionType::kReal, .min = -2, .max = 2, .value = "-0.5"},
    {.name = "memory", .type = OptionType::kSize, .min = 1024, .max = 1e15, .value = "1GiB"},
    {.name = "invert", .type = OptionType::kSwitch, .value = "off"},
    {.name = "verbose", .type = OptionType::kSwitch},
    {.name = "anchor", .type = OptionType::kChoice, .value = "unit", .choices = "unit|raw"},
    {.name = "label", .type = OptionType::kText},
};

OptionValues Values() { return OptionValues("--kv-policy keydiff", kTable); }

// The message of the Error that `f` throws; fails the test when it throws none or another code.
template <typename F>
std::string UsageError(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUsage);
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

std::string SetError(std::string_view name, std::string_view value) {
  OptionValues values = Values();
  return UsageError([&] { values.Set(name, value); });
}

TEST(ParseSize, KnowsBinaryAndDecimalUnits) {
  EXPECT_EQ(ParseSize("4096", "x"), 4096u);
  EXPECT_EQ(ParseSize("0", "x"), 0u);
  EXPECT_EQ(ParseSize("17B", "x"), 17u);
  EXPECT_EQ(ParseSize("3KiB", "x"), 3072u);
  EXPECT_EQ(ParseSize("512MiB", "x"), uint64_t{512} << 20);
  EXPECT_EQ(ParseSize("2GiB", "x"), uint64_t{2} << 30);
  EXPECT_EQ(ParseSize("1TiB", "x"), uint64_t{1} << 40);
  EXPECT_EQ(ParseSize("3KB", "x"), 3000u);
  EXPECT_EQ(ParseSize("20MB", "x"), 20000000u);
  EXPECT_EQ(ParseSize("1.5GB", "x"), 1500000000u);
  EXPECT_EQ(ParseSize("0.5KiB", "x"), 512u);
}

TEST(ParseSize, RefusesWhatIsNoSizeAndNamesIt) {
  for (const char* text : {"", "MiB", "12 MiB", "12mib", "-1", "+1", "1e6", "1.5", "1.2.3MiB", ".",
                           "nan", "inf", "12XiB", "0x10", "12MiBx", "18446744073709551616",
                           "18446744073709551615KiB", "9e9GB", "99999999.5TiB"}) {
    SCOPED_TRACE(text);
    EXPECT_THAT(UsageError([&] { ParseSize(text, "--kv-memory"); }),
                AllOf(HasSubstr("--kv-memory"), HasSubstr(text)));
  }
  EXPECT_EQ(ParseSize("18446744073709551615", "x"), UINT64_MAX);
}

TEST(FormatSize, PrintsOneDigitOfTheLargestUnit) {
  EXPECT_EQ(FormatSize(0), "0 B");
  EXPECT_EQ(FormatSize(1023), "1023 B");
  EXPECT_EQ(FormatSize(1024), "1.0 KiB");
  EXPECT_EQ(FormatSize(188 * (uint64_t{1} << 20)), "188.0 MiB");
  EXPECT_EQ(FormatSize((uint64_t{1} << 30) - 1), "1.0 GiB");
  EXPECT_EQ(FormatSize(UINT64_MAX), "16.0 EiB");
}

TEST(Nearest, FindsTheWordThatWasMeant) {
  constexpr std::string_view kWords[] = {"budget", "block", "sink", "recent", "pin", "k"};
  EXPECT_EQ(Nearest("buget", kWords), "budget");
  EXPECT_EQ(Nearest("budgte", kWords), "budget");  // a swap of neighbours is one edit
  EXPECT_EQ(Nearest("sinks", kWords), "sink");
  EXPECT_EQ(Nearest("resent", kWords), "recent");
  EXPECT_EQ(Nearest("budget", kWords), "budget");
}

TEST(Nearest, IsEmptyWhenNoneIsNear) {
  constexpr std::string_view kWords[] = {"budget", "block", "k"};
  EXPECT_EQ(Nearest("temperature", kWords), "");
  EXPECT_EQ(Nearest("x", kWords), "");
  EXPECT_EQ(Nearest("", kWords), "");
  EXPECT_EQ(Nearest("budget", {}), "");
}

TEST(Nearest, PrefersTheFirstOfEquallyNearWords) {
  constexpr std::string_view kWords[] = {"cat", "car"};
  EXPECT_EQ(Nearest("cab", kWords), "cat");
}

TEST(OptionValues, ReadsEveryType) {
  OptionValues values = Values();
  values.Set("budget", "2048");
  values.Set("block", "64");
  values.Set("keep", "0.25");
  values.Set("memory", "2MiB");
  values.Set("invert", "on");
  values.Set("anchor", "raw");
  values.Set("label", "any, text=here");
  EXPECT_FALSE(values.IsSize("budget"));
  EXPECT_EQ(values.Count("budget"), 2048u);
  EXPECT_EQ(values.Count("block"), 64u);
  EXPECT_EQ(values.Real("keep"), 0.25);
  EXPECT_EQ(values.Size("memory"), uint64_t{2} << 20);
  EXPECT_TRUE(values.On("invert"));
  EXPECT_EQ(values.Text("anchor"), "raw");
  EXPECT_EQ(values.Text("label"), "any, text=here");
}

TEST(OptionValues, FallsBackToDefaults) {
  const OptionValues values = Values();
  EXPECT_EQ(values.Count("block"), 128u);
  EXPECT_EQ(values.Real("penalty"), -0.5);
  EXPECT_EQ(values.Size("memory"), uint64_t{1} << 30);
  EXPECT_EQ(values.Text("anchor"), "unit");
  EXPECT_FALSE(values.On("invert"));
  EXPECT_FALSE(values.On("verbose"));
  EXPECT_FALSE(values.Given("block"));
  EXPECT_TRUE(values.Has("block"));
  EXPECT_FALSE(values.Has("keep"));
}

TEST(OptionValues, TellsACountFromBytes) {
  OptionValues values = Values();
  values.Set("budget", "1GiB");
  EXPECT_TRUE(values.IsSize("budget"));
  EXPECT_EQ(values.Size("budget"), uint64_t{1} << 30);
  EXPECT_THAT(SetError("budget", "0MiB"), HasSubstr("budget=0MiB"));
  EXPECT_THAT(SetError("budget", "1.5"), HasSubstr("whole number"));
}

TEST(OptionValues, AcceptsTheLimitsAndRefusesWhatLiesBeyond) {
  for (const char* inside : {"1", "4096"}) {
    OptionValues values = Values();
    values.Set("block", inside);
    EXPECT_EQ(std::to_string(values.Count("block")), inside);
  }
  EXPECT_THAT(SetError("block", "0"), HasSubstr("from 1 to 4096"));
  EXPECT_THAT(SetError("block", "4097"), HasSubstr("from 1 to 4096"));
  EXPECT_THAT(SetError("budget", "16777217"), HasSubstr("from 1 to 16777216"));
  EXPECT_THAT(SetError("keep", "1.0001"), HasSubstr("keep=1.0001"));
  EXPECT_THAT(SetError("keep", "0"), HasSubstr("from 0.001 to 1"));
  EXPECT_THAT(SetError("penalty", "-2.5"), HasSubstr("from -2 to 2"));
  EXPECT_THAT(SetError("memory", "1023"), HasSubstr("from 1.0 KiB"));
}

TEST(OptionValues, RefusesValuesOfTheWrongForm) {
  for (const char* value : {"", "-1", "+1", "1.0", "1e3", "12x", " 12", "99999999999999999999"}) {
    EXPECT_THAT(SetError("block", value), HasSubstr("whole number")) << value;
  }
  for (const char* value : {"", "nan", "inf", "0.5x", "half"}) {
    EXPECT_THAT(SetError("keep", value), HasSubstr("a number")) << value;
  }
  EXPECT_THAT(SetError("invert", "yes"), HasSubstr("on or off"));
  EXPECT_THAT(SetError("anchor", "Unit"), HasSubstr("unit|raw"));
  EXPECT_THAT(SetError("memory", "much"), HasSubstr("512MiB"));
}

TEST(OptionValues, NamesTheNearestKeyOfAnUnknownOne) {
  EXPECT_EQ(SetError("buget", "1"),
            "--kv-policy keydiff: unknown key \"buget\"; did you mean budget?");
  EXPECT_THAT(SetError("temperature", "1"),
              AllOf(HasSubstr("known are budget, block"), HasSubstr("--kv-policy keydiff")));
}

TEST(OptionValues, RefusesAKeyGivenTwice) {
  OptionValues values = Values();
  values.Set("block", "64");
  EXPECT_THAT(UsageError([&] { values.Set("block", "64"); }), HasSubstr("block is given twice"));
  EXPECT_EQ(values.Count("block"), 64u);
}

TEST(CheckTable, FindsNothingInAGoodTable) { EXPECT_THAT(CheckTable(kTable), IsEmpty()); }

TEST(CheckTable, FindsADefaultOutsideItsOwnLimits) {
  const Option bad[] = {
      {.name = "a", .type = OptionType::kCount, .min = 1, .max = 4, .value = "5"},
      {.name = "b", .type = OptionType::kChoice, .value = "z", .choices = "x|y"},
      {.name = "c", .type = OptionType::kSwitch, .value = "maybe"},
      {.name = "d", .type = OptionType::kSize, .max = 10, .value = "1KiB"},
      {.name = "e", .type = OptionType::kReal, .value = "wide"},
  };
  EXPECT_THAT(CheckTable(bad),
              ElementsAre(HasSubstr("a: default"), HasSubstr("b: default"), HasSubstr("c: default"),
                          HasSubstr("d: default"), HasSubstr("e: default")));
}

TEST(CheckTable, FindsContradictionsOfTheTableItself) {
  const Option bad[] = {
      {.name = "a", .type = OptionType::kCount, .min = 2, .max = 1},
      {.name = "a"},
      {.name = "c", .type = OptionType::kChoice},
      {.name = "d", .type = OptionType::kText, .choices = "x|y"},
      {.name = ""},
      {.name = "f", .type = OptionType::kCount, .min = -1},
  };
  EXPECT_EQ(CheckTable(bad).size(), 6u);
}

TEST(OptionValuesDeathTest, CannotBeMadeFromATableThatRefusesItsOwnDefault) {
  static const Option bad[] = {
      {.name = "a", .type = OptionType::kCount, .min = 1, .max = 4, .value = "5"}};
  EXPECT_DEATH(OptionValues("x", bad), "default");
}

TEST(OptionValuesDeathTest, NamesInCodeMustBeInTheTable) {
  const OptionValues values = Values();
  EXPECT_DEATH(values.Count("blok"), "no option");
  EXPECT_DEATH(values.Count("anchor"), "type");
  EXPECT_DEATH(values.Real("keep"), "no value");
}

TEST(SplitSpec, CutsNameKeysAndValues) {
  const NamedSpec spec = SplitSpec("keydiff:budget=2048,invert,label=a=b", "--kv-policy");
  EXPECT_EQ(spec.name, "keydiff");
  EXPECT_THAT(spec.values,
              ElementsAre(Pair("budget", "2048"), Pair("invert", "on"), Pair("label", "a=b")));
  EXPECT_EQ(SplitSpec("h2o", "x").name, "h2o");
  EXPECT_THAT(SplitSpec("h2o", "x").values, IsEmpty());
  EXPECT_THAT(SplitSpec("h2o:k=", "x").values, ElementsAre(Pair("k", "")));
}

TEST(SplitSpec, RefusesWhatHasNoNameOrNoKey) {
  for (const char* spec : {"", ":a=1", "x:", "x:,a=1", "x:a=1,", "x:=1"}) {
    EXPECT_THAT(UsageError([&] { SplitSpec(spec, "--kv-policy"); }), HasSubstr("--kv-policy"))
        << spec;
  }
}

}  // namespace
}  // namespace kvasir
