// Policy cases as text: src/policy/*/cases/*.txt, one case a file, short enough to compute by hand.
//
//   case NAME policy=SPEC layers=L kv_heads=H group=G dim=D [frequency=F]   (of RoPE, all pairs)
//   pin A..B                          positions that must stay (both ends included)
//   k POS [layer=L head=H]: floats    key of a position, in all lanes or in one
//   v POS [layer=L head=H]: floats    value; zero when absent
//   q POS [layer=L head=H]: floats    query row; H counts query heads; zero when absent
//   p POS [layer=L head=H]: floats    the query row that gives unit keys these probabilities
//                                     (dim of them, up to a common factor)
//   append prompt A..B [of P]         one pass; the prompt has P tokens (B + 1 when absent)
//   decode [N]                        N generated tokens (1 when absent), one pass each
//   expect rows N [of P]              most rows of the next pass (of a prompt of P tokens)
//   expect count BEFORE/AFTER         entries per lane before and after the last commit, all lanes
//   expect score|drop|seen|entries [layer=L head=H][:] numbers|none [tol T]
//       score    of the last pass, in view order, scaled as in the paper; where a policy chooses
//                what a row reads, the bounds of the whole parts
//       drop     view indices that its plan drops
//       seen     positions that its attention saw
//       entries  positions after its commit
//   expect nonfinite N                scores that were NaN so far
//
// A case without a step appends all its keys as one prompt. '#' opens a comment.
#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "policy/quest/quest.h"
#include "policy/retention.h"
#include "policy/retention_state.h"
#include "policy/stride/stride.h"
#include "policy/test_lanes.h"

namespace kvasir {
namespace {

using LaneId = std::pair<uint32_t, uint32_t>;  // layer, head

std::vector<std::string> Words(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

uint32_t Number(std::string_view text) {
  uint32_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size() || text.empty()) {
    throw std::runtime_error("not a whole number: \"" + std::string(text) + "\"");
  }
  return value;
}

PositionSpan Range(const std::string& text) {  // "A..B" as [A, B + 1)
  const size_t dots = text.find("..");
  if (dots == std::string::npos) throw std::runtime_error("not a range: \"" + text + "\"");
  return {Number(text.substr(0, dots)), Number(text.substr(dots + 2)) + 1};
}

// A line cut into what stands before the colon and the words after it. Lines without a colon have
// their numbers after `head` words.
struct Line {
  std::vector<std::string> head;
  std::vector<std::string> rest;

  Line(const std::string& text, size_t words_before_numbers) {
    const size_t colon = text.find(':');
    head = Words(text.substr(0, colon));
    if (colon != std::string::npos) {
      rest = Words(text.substr(colon + 1));
    } else if (head.size() > words_before_numbers) {
      rest.assign(head.begin() + static_cast<ptrdiff_t>(words_before_numbers), head.end());
      head.resize(words_before_numbers);
    }
  }
  std::optional<uint32_t> Key(const std::string& name) const {
    for (const std::string& word : head) {
      if (word.starts_with(name + "=")) return Number(word.substr(name.size() + 1));
    }
    return std::nullopt;
  }
  LaneId Lane() const { return {Key("layer").value_or(0), Key("head").value_or(0)}; }
};

// From the registry; and the example of docs/policies/write-your-own.md, which is not in it.
std::unique_ptr<Policy> Make(const std::string& spec, const PolicyContext& context) {
  const NamedSpec parts = SplitSpec(spec, "case");
  if (parts.name != kStrideTraits.name) return MakePolicy(spec, context);
  OptionValues values("stride", kStrideTraits.options);
  for (const auto& [key, value] : parts.values) values.Set(key, value);
  return MakeStride(values, context);
}

class Case {
 public:
  void Feed(const std::string& text) {
    const std::vector<std::string> words = Words(text.substr(0, text.find('#')));
    if (words.empty()) return;
    const std::string line = text.substr(0, text.find('#'));
    const std::string& verb = words[0];
    if (verb == "case") {
      Open(words);
    } else if (verb == "pin") {
      info_.pinned.push_back(Range(words.at(1)));
    } else if (verb == "k") {
      AddRow(Line(line, 2), &keys_);
    } else if (verb == "v") {
      AddRow(Line(line, 2), &values_);
    } else if (verb == "q" || verb == "p") {
      AddRow(Line(line, 2), &queries_, verb == "p");
    } else if (verb == "append") {
      const auto [begin, end] = Range(words.at(2));
      CHECK(words.at(1) == "prompt");
      prompt_end_ = words.size() > 4 && words[3] == "of" ? Number(words[4]) : end;
      Pass(begin, end);
    } else if (verb == "decode") {
      Start();
      const uint32_t n = words.size() > 1 ? Number(words[1]) : 1;
      for (uint32_t i = 0; i < n; ++i) Pass(sequence_->position(), sequence_->position() + 1);
    } else if (verb == "expect") {
      Expect(words.at(1), line, words);
    } else {
      throw std::runtime_error("unknown word \"" + verb + "\"");
    }
  }
  size_t expectations() const { return expectations_; }

 private:
  void Open(const std::vector<std::string>& words) {
    uint32_t layers = 1, kv_heads = 1, group = 1;
    std::string spec;
    for (const std::string& word : words) {
      const size_t equals = word.find('=');
      const std::string key = word.substr(0, equals);
      const std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
      if (key == "policy") spec = value;
      if (key == "layers") layers = Number(value);
      if (key == "kv_heads") kv_heads = Number(value);
      if (key == "group") group = Number(value);
      if (key == "dim") dim_ = Number(value);
    }
    info_.shape = F32Shape(layers, kv_heads, dim_);
    query_heads_ = kv_heads * group;
    PolicyContext context = {.shape = info_.shape, .facts = FactsFor(info_.shape, group)};
    for (const std::string& word : words) {
      if (!word.starts_with("frequency=")) continue;
      context.facts.inverse_frequencies.assign(dim_ / 2, std::stof(word.substr(10)));
    }
    policy_ = Make(spec, context);
    CHECK(policy_ != nullptr);
    // The canonical spec names the same policy.
    EXPECT_EQ(Make(policy_->Spec(), context)->Spec(), policy_->Spec());
  }
  struct RowSet {
    std::map<uint32_t, std::vector<float>> all;
    std::map<std::pair<LaneId, uint32_t>, std::vector<float>> of_lane;
    std::vector<float> At(uint32_t layer, uint32_t head, uint32_t position, uint32_t dim) const {
      const auto own = of_lane.find({{layer, head}, position});
      if (own != of_lane.end()) return own->second;
      const auto any = all.find(position);
      return any != all.end() ? any->second : std::vector<float>(dim);
    }
  };
  // `weights`: the numbers are probabilities p; the row becomes ln(p) * sqrt(dim), whose products
  // with unit keys are scores with just these probabilities.
  void AddRow(const Line& line, RowSet* rows, bool weights = false) {
    std::vector<float> row;
    for (const std::string& word : line.rest) {
      const float number = std::stof(word);
      row.push_back(weights ? std::sqrt(static_cast<float>(dim_)) *
                                  (number > 0 ? std::log(number) : -1000.0f)
                            : number);
    }
    CHECK(row.size() == dim_);
    const uint32_t position = Number(line.head.at(1));
    if (rows == &keys_) last_position_ = std::max(last_position_, position);
    if (line.Key("layer") || line.Key("head")) {
      rows->of_lane[{line.Lane(), position}] = row;
    } else {
      rows->all[position] = row;
    }
  }
  void Start() {
    if (sequence_) return;
    uint64_t pinned = 0;
    for (const PositionSpan& span : info_.pinned) pinned += span.second - span.first;
    const uint64_t tokens = uint64_t{last_position_} + 1;
    const Growth growth =
        policy_->MaxGrowth(prompt_end_ > 0 ? prompt_end_ : tokens, tokens, pinned);
    const auto rows_of = [this](const RowSet* rows) {
      return [this, rows](uint32_t layer, uint32_t head, uint32_t position) {
        return rows->At(layer, head, position, dim_);
      };
    };
    sequence_.emplace(info_.shape, MaxDemand(info_.shape, growth), rows_of(&keys_));
    sequence_->SetQueries(rows_of(&queries_));
    sequence_->SetValues(rows_of(&values_));
    state_ = policy_->Begin(info_);
    auto* const retention = dynamic_cast<RetentionState*>(state_.get());
    if (retention == nullptr) return;
    retention->WatchScores([this](uint32_t layer, int32_t head, std::span<const float> scores) {
      for (uint32_t h = 0; h < info_.shape.n_kv_heads; ++h) {
        if (head >= 0 && head != static_cast<int32_t>(h)) continue;
        scores_[{layer, h}].assign(scores.begin(), scores.end());
      }
    });
  }
  void Pass(uint32_t begin, uint32_t end) {
    Start();
    CHECK(begin == sequence_->position());
    EXPECT_LE(end - begin, state_->MaxRows({begin, prompt_end_})) << "a pass straddles the grid";
    sequence_->ShowQueries(state_.get(), end - begin, query_heads_);
    sequence_->Append(end - begin);
    seen_ = sequence_->AllPositions();
    scores_.clear();
    if (state_->Selects({begin, prompt_end_})) Choose();
    const auto* const policy = dynamic_cast<const RetentionPolicy*>(policy_.get());
    if (policy && !policy->traits().needs.queries) {  // else only where a selection is made
      for (const auto& [lane, positions] : seen_) {
        scores_[lane] =
            Scores(policy->scorer(), BestKernels(), sequence_->View().lane(lane.first, lane.second),
                   lane.first, lane.second);
      }
    }
    plan_.Clear();
    state_->Observe({end, prompt_end_}, sequence_->View(), nullptr, &plan_);
    sequence_->Commit(plan_);
    sequence_->store().CheckIntegrity();
    entries_ = sequence_->AllPositions();
  }
  // What the row reads, and by which bounds of parts.
  void Choose() {
    for (uint32_t layer = 0; layer < info_.shape.n_layers; ++layer) {
      const std::vector<LaneView> lanes = sequence_->Chosen(state_.get(), layer, query_heads_);
      for (uint32_t head = 0; head < lanes.size(); ++head) {
        GatherPositions(lanes[head], &seen_[{layer, head}]);
        const std::span<const float> bounds = dynamic_cast<const QuestState&>(*state_).bounds(head);
        scores_[{layer, head}].assign(bounds.begin(), bounds.end());
      }
    }
  }
  std::vector<uint32_t> Dropped(const LaneId& lane) const {
    std::vector<uint32_t> indices;
    for (const DropOp& drop : plan_.drops) {
      const bool all = drop.head == kAllHeads;
      if (drop.layer != lane.first || (!all && drop.head != static_cast<int32_t>(lane.second))) {
        continue;
      }
      indices.insert(indices.end(), drop.indices.begin(), drop.indices.end());
    }
    return indices;
  }
  void Expect(const std::string& what, const std::string& line,
              const std::vector<std::string>& words) {
    ++expectations_;
    Start();
    if (what == "rows") {
      if (words.size() > 4 && words[3] == "of") prompt_end_ = Number(words[4]);
      EXPECT_EQ(state_->MaxRows({sequence_->position(), prompt_end_}), Number(words.at(2)));
      return;
    }
    if (sequence_->position() == 0) {
      prompt_end_ = last_position_ + 1;
      Pass(0, prompt_end_);
    }
    const Line parts(line, 2);
    if (what == "score") {
      ExpectScores(scores_.at(parts.Lane()), parts.rest);
    } else if (what == "drop") {
      EXPECT_EQ(Dropped(parts.Lane()), Numbers(parts.rest));
    } else if (what == "seen") {
      EXPECT_EQ(seen_.at(parts.Lane()), Numbers(parts.rest));
    } else if (what == "entries") {
      EXPECT_EQ(entries_.at(parts.Lane()), Numbers(parts.rest));
    } else if (what == "nonfinite") {
      EXPECT_EQ(state_->nonfinite_scores(), Number(words.at(2)));
    } else if (what == "count") {
      const size_t slash = words.at(2).find('/');
      for (const auto& [lane, positions] : seen_) {
        EXPECT_EQ(positions.size(), Number(words[2].substr(0, slash)));
        EXPECT_EQ(entries_.at(lane).size(), Number(words[2].substr(slash + 1)));
      }
    } else {
      throw std::runtime_error("unknown expectation \"" + what + "\"");
    }
  }
  static std::vector<uint32_t> Numbers(const std::vector<std::string>& words) {
    std::vector<uint32_t> numbers;
    for (const std::string& word : words) {
      if (word != "none") numbers.push_back(Number(word));
    }
    return numbers;
  }
  static void ExpectScores(const std::vector<float>& scores, std::vector<std::string> words) {
    float tolerance = 0;
    if (words.size() >= 2 && words[words.size() - 2] == "tol") {
      tolerance = std::stof(words.back());
      words.resize(words.size() - 2);
    }
    ASSERT_EQ(scores.size(), words.size());
    for (size_t i = 0; i < words.size(); ++i) {
      const float expected = std::stof(words[i]);
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(scores[i])) << "score " << i << " is " << scores[i];
      } else {
        EXPECT_NEAR(scores[i], expected, tolerance) << "score " << i;
      }
    }
  }

  SequenceInfo info_;
  std::unique_ptr<Policy> policy_;
  std::unique_ptr<PolicyState> state_;
  RowSet keys_, values_, queries_;
  uint32_t query_heads_ = 0;
  std::optional<TestSequence> sequence_;
  uint32_t dim_ = 0, last_position_ = 0, prompt_end_ = 0;
  size_t expectations_ = 0;
  // Of the last pass.
  Plan plan_;
  std::map<LaneId, std::vector<float>> scores_;
  std::map<LaneId, std::vector<uint32_t>> seen_, entries_;
};

std::vector<std::string> CaseFiles(const char* folder = KVASIR_SOURCE_DIR "/src/policy") {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(
           folder, std::filesystem::directory_options::follow_directory_symlink)) {
    if (entry.path().extension() == ".txt" && entry.path().parent_path().filename() == "cases") {
      files.push_back(entry.path().string());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

class PolicyCase : public testing::TestWithParam<std::string> {};

TEST_P(PolicyCase, GivesTheExpectedPlans) {
  std::ifstream file(GetParam());
  ASSERT_TRUE(file.good());
  Case test;
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    SCOPED_TRACE(fmt::format("{}:{}: {}", GetParam(), ++number, line));
    try {
      test.Feed(line);
    } catch (const std::exception& error) {
      FAIL() << error.what();
    }
    if (HasFailure()) return;
  }
  EXPECT_GT(test.expectations(), 0u) << "expects nothing";
}

std::string FileName(const testing::TestParamInfo<std::string>& info) {
  const std::filesystem::path path(info.param);
  std::string name =
      path.parent_path().parent_path().filename().string() + "_" + path.stem().string();
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); },
      '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Files, PolicyCase, testing::ValuesIn(CaseFiles()), FileName);
INSTANTIATE_TEST_SUITE_P(Example, PolicyCase,
                         testing::ValuesIn(CaseFiles(KVASIR_SOURCE_DIR "/docs/policies/example")),
                         FileName);

TEST(PolicyCases, EveryPolicyHasSome) {
  const std::vector<std::string> files = CaseFiles();
  for (const Traits* traits : AllPolicies()) {
    const std::string folder = fmt::format("/{}/cases/", traits->name);
    EXPECT_TRUE(std::any_of(files.begin(), files.end(), [&](const std::string& file) {
      return file.find(folder) != std::string::npos;
    })) << traits->name;
  }
}

}  // namespace
}  // namespace kvasir
