#include "eval/suite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace kvasir {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

std::string Refusal(std::string_view spec) {
  try {
    ParseSuite(spec, "--suite");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUsage) << spec;
    return error.what();
  }
  ADD_FAILURE() << "no error for " << spec;
  return {};
}

TEST(Suite, EveryTaskBelongsToASuiteThatTakesIt) {
  size_t n = 0;
  for (const std::string_view name : TaskSuites()) {
    if (name == "file") continue;
    const std::string spec =
        name == "trace" ? "trace:task=regs|chain|selfrecall|longadd" : std::string(name);
    for (const SuiteSpec::Run& run : ParseSuite(spec, "--suite").runs) {
      EXPECT_EQ(run.task->suite, name);
      EXPECT_EQ(run.task->trace(), run.length == 0);
      ++n;
    }
  }
  EXPECT_EQ(n, AllTasks().size());
}

TEST(Suite, ReadsTasksLengthsAndCounts) {
  const SuiteSpec ruler =
      ParseSuite("ruler:tasks=vt|niah_single_1,len=4096|8192,n=7,hops=2,chains=3", "--suite");
  EXPECT_EQ(ruler.name, "ruler");
  ASSERT_THAT(ruler.runs, SizeIs(4));
  EXPECT_EQ(ruler.runs[0].task->name, "vt");
  EXPECT_EQ(ruler.runs[1].length, 8192u);
  EXPECT_EQ(ruler.runs[2].task->name, "niah_single_1");
  EXPECT_EQ(ruler.runs[2].length, 4096u);
  EXPECT_EQ(ruler.n, 7u);
  EXPECT_EQ(ruler.params.hops, 2u);
  EXPECT_EQ(ruler.params.chains, 3u);
  EXPECT_EQ(ruler.params.questions, 1u);

  const SuiteSpec facts = ParseSuite("facts:len=1024,n=50,questions=8", "--suite");
  EXPECT_EQ(facts.params.questions, 8u);
  EXPECT_EQ(facts.runs[0].length, 1024u);
  const SuiteSpec trace = ParseSuite("trace:task=chain,n=9,samples=4,steps=12", "--suite");
  EXPECT_EQ(trace.samples, 4u);
  EXPECT_EQ(trace.params.steps, 12u);
  EXPECT_EQ(ParseSuite("ruler:tasks=offline", "--suite").runs.size(), 11u);
  EXPECT_EQ(ParseSuite("file:/a,b=c:d", "--suite").path, "/a,b=c:d");
}

TEST(Suite, RefusesNamingTheNearest) {
  EXPECT_THAT(Refusal("rulr:n=1"), HasSubstr("did you mean ruler?"));
  EXPECT_THAT(Refusal("ruler:task=vt"), HasSubstr("did you mean tasks?"));
  EXPECT_THAT(Refusal("ruler:tasks=niah_singel_1"), HasSubstr("did you mean niah_single_1?"));
  EXPECT_THAT(Refusal("ruler:tasks=regs"), HasSubstr("known are"));
  EXPECT_THAT(Refusal("ruler:tasks=vt|vt"), HasSubstr("twice"));
  EXPECT_THAT(Refusal("ruler:len=4k"),
              AllOf(HasSubstr("--suite ruler"), HasSubstr("whole number")));
  EXPECT_THAT(Refusal("ruler:len=4096|"), HasSubstr("whole number"));
  EXPECT_THAT(Refusal("ruler:n=0"), HasSubstr("from 1"));
  EXPECT_THAT(Refusal("passkey:hops=2"), HasSubstr("unknown key"));
  EXPECT_THAT(Refusal("facts:facts=3,questions=4"), HasSubstr("3 facts"));
  EXPECT_THAT(Refusal("trace:len=4096"), HasSubstr("unknown key"));
  EXPECT_THAT(Refusal("file:"), HasSubstr("file:PATH"));
  EXPECT_THROW(ParseSuite("ruler:prose=/nowhere", "--suite"), Error);
}

}  // namespace
}  // namespace kvasir
