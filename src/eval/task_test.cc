#include "eval/task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>

#include "base/error.h"
#include "base/workers.h"
#include "eval/suite.h"
#include "format/gguf.h"
#include "text/tokenizer.h"

namespace kvasir {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// A token is a run of letters of at most 5, a run of digits of at most 3, or one other character;
// spaces are free.
size_t CountWords(std::string_view text) {
  size_t n = 0;
  for (size_t i = 0; i < text.size();) {
    const auto is_letter = [&](size_t at) { return std::isalpha(text[at]) != 0; };
    const auto is_digit = [&](size_t at) { return std::isdigit(text[at]) != 0; };
    const size_t begin = i;
    if (is_letter(i)) {
      while (i < text.size() && i < begin + 5 && is_letter(i)) ++i;
    } else if (is_digit(i)) {
      while (i < text.size() && i < begin + 3 && is_digit(i)) ++i;
    } else {
      ++i;
    }
    n += text[begin] == ' ' ? 0 : 1;
  }
  return n;
}

constexpr uint64_t kSeed = 5, kOverhead = 30;

TaskSampler Sampler(const Task& task, uint64_t length, uint64_t n_samples,
                    const TaskParams& params = {}, uint64_t seed = kSeed) {
  return TaskSampler(task, {params, length, seed, n_samples, kOverhead, CountWords});
}

std::vector<Sample> Samples(const Task& task, uint64_t length, uint64_t n,
                            const TaskParams& params = {}, uint64_t seed = kSeed) {
  const TaskSampler sampler = Sampler(task, length, n, params, seed);
  std::vector<Sample> samples;
  for (uint64_t i = 0; i < n; ++i) samples.push_back(sampler.Make(i));
  return samples;
}

uint64_t Tokens(const Sample& sample, const CountTokens& count) {
  uint64_t tokens = kOverhead + count(sample.context);
  for (const Question& question : sample.questions) {
    tokens += count(question.text) + count(question.answer_prefix) + sample.max_new;
  }
  return tokens;
}

size_t Times(std::string_view text, std::string_view word) {
  size_t n = 0;
  for (size_t at = text.find(word); at != text.npos; at = text.find(word, at + 1)) ++n;
  return n;
}

// What a model that knows everything writes.
std::string Oracle(const Sample& sample, const Question& question) {
  if (!sample.gold.empty()) return sample.gold;
  std::string answer = " ";
  for (const std::string& ref : question.refs) answer += ref + ", ";
  return answer;
}

class EveryTask : public testing::TestWithParam<const Task*> {
 protected:
  const Task& task() const { return *GetParam(); }
};

std::vector<const Task*> Pointers() {
  std::vector<const Task*> all;
  for (const Task& task : AllTasks()) all.push_back(&task);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Tasks, EveryTask, testing::ValuesIn(Pointers()),
                         [](const auto& info) { return std::string(info.param->name); });

TEST_P(EveryTask, FillsTheLengthAndNeverExceedsIt) {
  if (task().trace()) return;
  for (const uint64_t length : {1024, 4096, 12000}) {
    for (const Sample& sample : Samples(task(), length, 12)) {
      const uint64_t tokens = Tokens(sample, CountWords);
      EXPECT_LE(tokens, length) << sample.index;
      EXPECT_GE(tokens, length * 90 / 100) << sample.index;
      EXPECT_EQ(sample.length, length);
    }
  }
}

TEST_P(EveryTask, TheAnswerOccursAsOftenAsTheTaskSays) {
  for (const Sample& sample : Samples(task(), 2048, 20)) {
    ASSERT_FALSE(sample.questions.empty());
    for (const Question& question : sample.questions) {
      ASSERT_FALSE(question.refs.empty());
      for (const std::string& ref : question.refs) {
        if (task().occurrences > 0) {
          EXPECT_EQ(Times(sample.context, ref), task().occurrences) << ref;
        }
        if (!task().trace()) {
          EXPECT_EQ(Times(question.text + question.answer_prefix, ref), 0u) << ref;
        }
      }
    }
  }
}

TEST_P(EveryTask, OraclesScoreOneSilenceZeroAndSwappedAnswersNearChance) {
  const std::vector<Sample> samples = Samples(task(), 2048, 40);
  double swapped = 0;
  for (size_t i = 0; i < samples.size(); ++i) {
    const Sample& sample = samples[i];
    const Sample& other = samples[(i + 1) % samples.size()];
    for (size_t q = 0; q < sample.questions.size(); ++q) {
      const auto& refs = sample.questions[q].refs;
      EXPECT_EQ(Score(sample.metric, refs, Oracle(sample, sample.questions[q])), 1);
      EXPECT_EQ(Score(sample.metric, refs, ""), 0);
      swapped += Score(sample.metric, refs, Oracle(other, other.questions[q]));
    }
  }
  EXPECT_LT(swapped / static_cast<double>(samples.size()), .06);
}

TEST_P(EveryTask, ASampleDependsOnItsIndexAndSeedAndOnNothingElse) {
  const std::vector<Sample> samples = Samples(task(), 2048, 3);
  const std::vector<Sample> again = Samples(task(), 2048, 3);
  EXPECT_EQ(SamplesDigest(samples), SamplesDigest(again));
  EXPECT_EQ(Sampler(task(), 2048, 3).Make(2), samples[2]);  // without the ones before
  EXPECT_NE(samples[0].context, samples[1].context);
  EXPECT_NE(samples[0].context, Samples(task(), 2048, 3, {}, kSeed + 1)[0].context);
}

TEST_P(EveryTask, NeedlesStandWhereTheyAreSaidToBe) {
  for (const Sample& sample : Samples(task(), 2048, 5)) {
    size_t done = 0;
    for (const Needle& needle : sample.needles) {
      // The first place with so many tokens before it where the text fits.
      size_t at = sample.context.find(needle.text, done);
      while (at != sample.context.npos &&
             CountWords(sample.context.substr(0, at)) < needle.token_begin) {
        at = sample.context.find(needle.text, at + 1);
      }
      ASSERT_NE(at, sample.context.npos) << needle.text;
      EXPECT_NEAR(static_cast<double>(CountWords(sample.context.substr(0, at))),
                  static_cast<double>(needle.token_begin), 2 + 2 * sample.needles.size());
      EXPECT_GE(needle.depth, 0);
      EXPECT_LE(needle.depth, 100);
      done = at + needle.text.size();
    }
  }
}

TEST_P(EveryTask, TheContextEndsWithALineAndTheAnswersOpeningWithoutASpace) {
  for (const Sample& sample : Samples(task(), 2048, 2)) {
    EXPECT_TRUE(sample.context.ends_with("\n") && !sample.context.ends_with("\n\n"));
    if (!sample.questions[0].answer_prefix.empty()) {
      EXPECT_NE(sample.questions[0].answer_prefix.back(), ' ');
    }
  }
}

// Samples are byte-equal on all machines. A digest changes with its task's wording or rules, and
// then the task's version has to.
constexpr std::string_view kDigests = R"(
niah_single_1 1 4e953bd717c82f55
niah_single_2 1 b845fe066939c28e
niah_single_3 1 0fc8480729945db9
niah_multikey_1 1 b6231c653ca2571c
niah_multikey_2 1 85a5c0ec67720a62
niah_multikey_3 1 2125ebbce1b5340f
niah_multivalue 1 d515490ba937b0ac
niah_multiquery 1 6bb91b55793e959b
facts 1 c96b91223999045f
passkey 1 7ad83763a52bf6ec
number 1 b32af4089660069d
vt 1 bb491462608f1b2c
cwe 1 9aed36d6e3f7ce0c
fwe 1 0471aad6759f7ea6
rkv_json 1 479160d81b85771e
regs 2 d96f9caf87005ef4
chain 2 40142d5bf4ebc4a8
selfrecall 2 755d0f174808b105
longadd 1 0d6dd457f307e18f
)";

TEST(Tasks, HaveTheDigestsOfTheirVersions) {
  std::string digests = "\n";
  for (const Task& task : AllTasks()) {
    digests += fmt::format("{} {} {:.16}\n", task.name, task.version,
                           SamplesDigest(Samples(task, 4096, 3)));
  }
  EXPECT_EQ(digests, kDigests);
}

TEST(Tasks, ThreadsDoNotChangeSamples) {
  const TaskSampler sampler = Sampler(*FindTask("niah_multikey_1"), 2048, 16);
  std::vector<Sample> samples(16);
  Workers workers(4);
  workers.Run(16, [&](size_t i, size_t) { samples[i] = sampler.Make(i); });
  EXPECT_EQ(samples, Samples(*FindTask("niah_multikey_1"), 2048, 16));
}

class Depths : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Tasks, Depths,
                         testing::Values("niah_single_1", "niah_single_2", "niah_multikey_1",
                                         "niah_multikey_2", "niah_multivalue", "facts", "passkey",
                                         "rkv_json", "vt"));

TEST_P(Depths, AreFiftyPerCentInTheMeanAndReachBothEnds) {
  double sum = 0, n = 0, low = 100, high = 0;
  for (const Sample& sample : Samples(*FindTask(GetParam()), 1200, 1000)) {
    for (const Needle& needle : sample.needles) {
      sum += needle.depth;
      n += 1;
      low = std::min(low, needle.depth);
      high = std::max(high, needle.depth);
    }
  }
  EXPECT_NEAR(sum / n, 50, 3);
  EXPECT_LT(low, 3);
  EXPECT_GT(high, 93);  // a needle at the end begins before its own length
}

TEST(Niah, AsksForWhatItsFamilySays) {
  const auto one = [](std::string_view name) { return Samples(*FindTask(name), 2048, 1)[0]; };
  EXPECT_THAT(one("niah_single_1").questions[0].refs, SizeIs(1));
  EXPECT_EQ(one("niah_single_1").questions[0].refs[0].size(), 7u);
  EXPECT_EQ(one("niah_single_3").questions[0].refs[0].size(), 36u);
  EXPECT_EQ(one("niah_multikey_1").distractors, 3u);
  EXPECT_THAT(one("niah_multivalue").questions[0].refs, SizeIs(4));
  EXPECT_THAT(one("niah_multivalue").needles, SizeIs(4));
  EXPECT_THAT(one("niah_multivalue").questions[0].text, HasSubstr("numbers"));
  EXPECT_THAT(one("niah_multiquery").questions[0].refs, SizeIs(4));
  EXPECT_EQ(one("niah_multiquery").distractors, 0u);
  EXPECT_GT(one("niah_multikey_2").distractors, 60u);
  EXPECT_GT(one("niah_multikey_3").distractors, 20u);
}

// Every answer follows from the needle that names the question's key, and from no other.
TEST(Niah, TheNeedleOfTheQuestionsKeyHoldsTheAnswer) {
  for (const char* name :
       {"niah_single_2", "niah_multikey_1", "niah_multikey_2", "niah_multikey_3"}) {
    for (const Sample& sample : Samples(*FindTask(name), 2048, 10)) {
      const Question& question = sample.questions[0];
      // "The special number of KEY in the text is" opens as the needle does.
      const std::string opening =
          question.answer_prefix.substr(0, question.answer_prefix.find(" in the text"));
      EXPECT_EQ(Times(sample.context, opening + " is " + question.refs[0] + "."), 1u) << name;
      EXPECT_EQ(Times(sample.context, opening + " is"), 1u) << name;
    }
  }
}

TEST(Questions, SeveralAreAskedOfOneContextWithDifferentAnswers) {
  TaskParams params;
  params.questions = 6;
  for (const char* name : {"facts", "rkv_json", "niah_multikey_2"}) {
    const Task& task = *FindTask(name);
    for (const Sample& sample : Samples(task, 3000, 10, params)) {
      ASSERT_THAT(sample.questions, SizeIs(6)) << name;
      EXPECT_THAT(sample.needles, SizeIs(6));
      EXPECT_LE(Tokens(sample, CountWords), 3000u);
      std::set<std::string> answers;
      for (const Question& question : sample.questions) {
        answers.insert(question.refs[0]);
        EXPECT_EQ(Times(sample.context, question.refs[0]), 1u);
      }
      EXPECT_EQ(answers.size(), 6u);
    }
  }
}

TEST(Facts, RefusesMoreQuestionsThanFacts) {
  TaskParams params;
  params.questions = 9;
  EXPECT_THROW(Sampler(*FindTask("facts"), 2048, 1, params), Error);
}

// Follows the assignments of the text and returns the variables that hold `value`.
std::set<std::string> Holders(const std::string& text, const std::string& value) {
  std::set<std::string> holders;
  for (size_t at = text.find("VAR "); at != text.npos; at = text.find("\nVAR ", at + 1)) {
    at += text[at] == '\n' ? 1 : 0;
    const std::string line = text.substr(at, text.find('\n', at) - at);
    const std::string name = line.substr(4, line.find(' ', 4) - 4);
    const std::string right = line.substr(line.find(" = ") + 3);
    if (right == value || (right.starts_with("VAR ") && holders.contains(right.substr(4)))) {
      holders.insert(name);
    }
  }
  return holders;
}

TEST(Vt, TheChainsOfTheTextGiveTheAnswer) {
  for (const uint64_t chains : {1, 3}) {
    for (const uint64_t hops : {4, 7}) {
      TaskParams params;
      params.chains = chains;
      params.hops = hops;
      for (const Sample& sample : Samples(*FindTask("vt"), 3000, 10, params)) {
        const std::string text = sample.context.substr(sample.context.find("\nText:\n") + 7);
        const Question& question = sample.questions[0];
        const size_t at = question.text.find_first_of("0123456789");
        const std::string value = question.text.substr(at, 5);
        EXPECT_EQ(Holders("\n" + text, value),
                  std::set<std::string>(question.refs.begin(), question.refs.end()));
        EXPECT_EQ(question.refs.size(), hops + 1);
        EXPECT_EQ(Times(text, "VAR "), chains * (2 * hops + 1));
      }
    }
  }
}

std::map<std::string, size_t> Frequencies(const std::string& text, size_t words_per_item) {
  std::map<std::string, size_t> times;
  size_t n = 0;
  for (size_t at = 0; at < text.size(); ++n) {
    const size_t end = std::min(text.find_first_of(" \n", at), text.size());
    if (end > at && n % words_per_item == words_per_item - 1) ++times[text.substr(at, end - at)];
    if (end == at) break;  // the empty line after the list
    at = end + 1;
  }
  return times;
}

TEST(Cwe, TheAnswersAreTheMostFrequentWordsAndTheirPlacesDiffer) {
  for (const uint64_t length : {2048, 6000, 20000}) {
    std::set<std::vector<uint64_t>> places;
    for (const Sample& sample : Samples(*FindTask("cwe"), length, 8)) {
      const std::string text = sample.context.substr(sample.context.find("\nList:\n") + 7);
      const auto times = Frequencies(text, 2);
      const std::vector<std::string>& refs = sample.questions[0].refs;
      ASSERT_EQ(refs.size(), 10u);
      for (const auto& [word, n] : times) {
        const bool asked = std::find(refs.begin(), refs.end(), word) != refs.end();
        EXPECT_EQ(n, length < 4096 ? (asked ? 6u : 1u) : (asked ? 30u : 3u)) << word;
        for (const std::string& ref : refs) {
          EXPECT_TRUE(word == ref || word.find(ref) == word.npos) << ref << " in " << word;
        }
      }
      std::vector<uint64_t> begins;
      for (const Needle& needle : sample.needles) begins.push_back(needle.token_begin);
      ASSERT_THAT(begins, SizeIs(10));
      places.insert(begins);
    }
    EXPECT_THAT(places, SizeIs(8));
  }
}

TEST(Fwe, TheAnswersAreRanksTwoToFour) {
  std::vector<size_t> counts;
  for (const Sample& sample : Samples(*FindTask("fwe"), 4096, 5)) {
    const std::string text = sample.context.substr(sample.context.find("\n\n") + 2);
    std::vector<std::pair<size_t, std::string>> ranks;
    for (const auto& [word, n] : Frequencies(text, 1)) ranks.emplace_back(n, word);
    std::sort(ranks.rbegin(), ranks.rend());
    EXPECT_EQ(ranks[0].second, "......");
    const std::vector<std::string>& refs = sample.questions[0].refs;
    ASSERT_THAT(refs, SizeIs(3));
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(ranks[i + 1].second, refs[i]);
    EXPECT_GT(ranks[3].first, ranks[4].first);
  }
}

// Of 1000 words, by hand: 607.9, 152.0, 67.5, 38.0, 24.3 ... 1.06 (rank 24), .97 (rank 25).
TEST(Fwe, FrequenciesFollowTheSquaresOfRanks) {
  Generator generator(1);
  const TaskParams params;
  const Draft draft = FindTask("fwe")->make({params, 4096, 1000}, generator);
  std::vector<size_t> counts;
  for (const auto& [word, n] : Frequencies(draft.context.substr(draft.body_begin), 1)) {
    counts.push_back(n);
  }
  std::sort(counts.rbegin(), counts.rend());
  ASSERT_THAT(counts, SizeIs(24));
  size_t total = 0;
  for (const size_t n : counts) total += n;
  EXPECT_EQ(total, 964u);
  counts.resize(7);
  EXPECT_THAT(counts, ElementsAre(607, 151, 67, 37, 24, 16, 12));
}

TEST(Number, RepeatsDigitsNextToThemselves) {
  for (const Sample& sample : Samples(*FindTask("number"), 1024, 30)) {
    const std::string& key = sample.questions[0].refs[0];
    ASSERT_EQ(key.size(), 10u);
    std::string folded = key;
    folded.erase(std::unique(folded.begin(), folded.end()), folded.end());
    EXPECT_LE(folded.size(), 5u) << key;
  }
}

// --- traces: the gold solution is recomputed from the prompt
// ---------------------------------------

std::vector<long> Numbers(std::string_view text) {
  std::vector<long> numbers;
  for (size_t i = 0; i < text.size(); ++i) {
    if (std::isdigit(text[i]) == 0) continue;
    size_t end = i;
    while (end < text.size() && std::isdigit(text[end]) != 0) ++end;
    numbers.push_back(std::stol(std::string(text.substr(i, end - i))));
    i = end;
  }
  return numbers;
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

// The problem itself, behind the examples.
std::string ProblemOf(const Sample& sample) {
  const std::string_view opening = "\n\nProblem:\n";
  const size_t at = sample.context.find(opening);
  EXPECT_NE(at, sample.context.npos);
  return sample.context.substr(at + opening.size());
}

TEST(Traces, RegistersHoldWhatTheUpdatesGive) {
  TaskParams params;
  params.steps = 40;
  params.registers = 5;
  for (const Sample& sample : Samples(*FindTask("regs"), 0, 10, params)) {
    std::vector<std::string> names;  // in the order of the start
    std::map<std::string, long> registers;
    for (const std::string& line : Lines(ProblemOf(sample))) {
      std::istringstream words(line);
      std::string word, target, source, sign;
      if (line.starts_with("Start:")) {  // "Start: red is 5, blue is 7"
        words >> word;
        for (long value = 0; words >> target >> word >> value; words.ignore()) {
          names.push_back(target);
          registers[target] = value;
        }
      } else {  // "update 7: red = blue + 12"
        long change = 0;
        words >> word >> word >> target >> word >> source >> sign >> change;
        registers[target] = registers[source] + (sign == "+" ? change : -change);
        EXPECT_TRUE(registers[target] >= 0 && registers[target] < 100) << line;
      }
    }
    ASSERT_THAT(registers, SizeIs(5));
    std::string answer;
    for (const std::string& name : names) {
      answer += fmt::format("{} is {}, ", name, registers[name]);
    }
    answer.resize(answer.size() - 2);
    EXPECT_THAT(sample.questions[0].refs, ElementsAre(answer));
    EXPECT_EQ(Lines(sample.gold).size(), 41u);
  }
}

TEST(Traces, ChainsFollowTheRecurrence) {
  TaskParams params;
  params.steps = 20;
  for (const Sample& sample : Samples(*FindTask("chain"), 0, 10, params)) {
    const std::vector<std::string> lines = Lines(ProblemOf(sample));
    const std::vector<long> head = Numbers(lines[0]);  // "Each time multiply by 3. x0 is 5."
    long x = head[2];
    const std::vector<std::string> gold = Lines(sample.gold);
    ASSERT_THAT(lines, SizeIs(21));
    for (size_t i = 1; i <= 20; ++i) {
      x = (head[0] * x + Numbers(lines[i]).back()) % 100;
      EXPECT_EQ(Numbers(gold[i - 1]).back(), x);
    }
    EXPECT_THAT(sample.questions[0].refs, ElementsAre(fmt::format("x20 is {}", x)));
  }
}

TEST(Traces, SelfRecallAsksForAStepOfItsOwnOutput) {
  std::set<long> asked;
  for (const Sample& sample : Samples(*FindTask("selfrecall"), 0, 30)) {
    const std::vector<long> head = Numbers(ProblemOf(sample));  // start, odd, even, steps, asked
    ASSERT_THAT(head, SizeIs(5));
    asked.insert(head[4]);
    const long add = head[4] % 2 == 1 ? head[1] : head[2];
    const long before = head[0] + head[4] / 2 * head[1] + (head[4] - 1) / 2 * head[2];
    EXPECT_THAT(sample.questions[0].refs, ElementsAre(fmt::format("step {}: {} + {} = {}", head[4],
                                                                  before, add, before + add)));
    EXPECT_EQ(Lines(sample.gold).size(), static_cast<size_t>(head[3]) + 1);
  }
  EXPECT_GT(asked.size(), 12u);
}

TEST(Traces, LongAddAdds) {
  TaskParams params;
  params.steps = 15;  // fits into 64 bits
  for (const Sample& sample : Samples(*FindTask("longadd"), 0, 20, params)) {
    std::string digits = ProblemOf(sample);
    std::erase(digits, ' ');
    const std::vector<long> numbers = Numbers(digits);
    ASSERT_THAT(numbers, SizeIs(2));
    EXPECT_THAT(sample.questions[0].refs, ElementsAre(fmt::format("{}", numbers[0] + numbers[1])));
  }
}

TEST(Traces, ReferenceSolutionsFitIntoTheLimitTwice) {
  for (const char* name : {"regs", "chain", "selfrecall", "longadd"}) {
    const Sample sample = Samples(*FindTask(name), 0, 1)[0];
    EXPECT_EQ(sample.max_new, 2 * CountWords(sample.gold) + 64);
    TaskParams params;
    params.max_new = 77;
    EXPECT_EQ(Samples(*FindTask(name), 0, 1, params)[0].max_new, 77u);
  }
}

// --- sizes
// ----------------------------------------------------------------------------------------

TEST(TaskSampler, RefusesALengthThatIsTooShortAndSaysWhatItTakes) {
  try {
    Sampler(*FindTask("cwe"), 200, 1);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalid);
    EXPECT_THAT(error.what(), HasSubstr("200"));
  }
}

TEST(TaskSampler, CountsFewTexts) {
  for (const Task& task : AllTasks()) {
    if (task.trace()) continue;
    uint64_t bytes = 0, longest = 0;
    const CountTokens counter = [&](std::string_view text) {
      bytes += text.size();
      return CountWords(text);
    };
    const TaskSampler sampler(task, {{}, 32768, kSeed, 20, kOverhead, counter});
    for (uint64_t i = 0; i < 20; ++i) {
      longest = std::max<uint64_t>(longest, sampler.Make(i).context.size());
    }
    EXPECT_LT(bytes, 60 * longest) << task.name;  // 20 samples and the search
  }
}

TEST(TaskSampler, AnsweringTextOfTheUserIsDrawnAgainOrRefused) {
  TaskParams params;
  params.prose = std::make_shared<Prose>("Nothing here. The weather was fine.", "text");
  const Sample sample = Samples(*FindTask("niah_single_2"), 1024, 1, params)[0];
  EXPECT_THAT(sample.context, HasSubstr("The weather was fine."));
  std::string all;
  for (int i = 10000; i < 100000; ++i) all += fmt::format("{} ", i);
  params.prose = std::make_shared<Prose>(all + ".", "text");
  TaskSampler::Options options{
      params, 2'000'000, kSeed,
      1,      kOverhead, [](std::string_view text) { return text.size() / 1000 + 1; }};
  EXPECT_THROW(MakeSample(*FindTask("facts"), options, 0), Error);
}

TEST(TaskSampler, KeepsToTheLengthOfARealTokenizer) {
  const char* models = std::getenv("KVASIR_MODELS");
  const char* home = std::getenv("HOME");
  const std::string folder =
      models != nullptr ? models
                        : std::string(home == nullptr ? "" : home) + "/.cache/kvasir/models";
  const std::string path = folder + "/smollm2-135m-instruct-q4_1.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << ": absent (scripts/get-model.sh)";
  const std::unique_ptr<Tokenizer> tokenizer = Tokenizer::FromGguf(ReadGgufMetadata(path));
  const CountTokens counter = [&](std::string_view text) {
    return tokenizer->Encode(text, /*special=*/false).size();
  };
  for (const Task& task : AllTasks()) {
    if (task.trace()) continue;
    const TaskSampler sampler(task, {{}, 4096, kSeed, 4, kOverhead, counter});
    for (uint64_t i = 0; i < 4; ++i) {
      const Sample sample = sampler.Make(i);
      EXPECT_LE(Tokens(sample, counter), 4096u) << task.name;
      EXPECT_GE(Tokens(sample, counter), 4096u * 93 / 100) << task.name;
      // A cache of the context serves the whole: its tokens are the first ones of the joined text.
      const Question& question = sample.questions[0];
      const std::vector<TokenId> context = tokenizer->Encode(sample.context, false);
      const std::vector<TokenId> whole = tokenizer->Encode(sample.context + question.text, false);
      EXPECT_TRUE(whole.size() > context.size() &&
                  std::equal(context.begin(), context.end(), whole.begin()))
          << task.name;
      const uint64_t room = sample.max_new;
      EXPECT_LE(counter(" " + fmt::format("{}", fmt::join(question.refs, ", ")) + "."), room)
          << task.name;
    }
  }
}

}  // namespace
}  // namespace kvasir
