// Something said once in a long text: RULER-like needles, facts, passkey and number.
#include <array>
#include <utility>

#include "base/error.h"
#include "eval/tasks/tasks.h"

namespace kvasir {

namespace {

// Depths are drawn from so many equally spaced places, the ends included.
constexpr uint64_t kDepths = 40;

// Where `n` needles go between `gaps` pieces: gap i is in front of piece i.
std::vector<uint64_t> DrawGaps(uint64_t n, uint64_t pieces, Generator& generator) {
  std::vector<uint64_t> gaps = generator.Distinct(n, kDepths);
  for (uint64_t& gap : gaps) gap = (gap * pieces * 2 + (kDepths - 1)) / (2 * (kDepths - 1));
  return gaps;
}

struct Placed {
  std::string text;
  uint64_t gap = 0;
  bool asked = true;
};

// The pieces with the needles in front of their gaps' pieces.
void AddHaystack(const std::vector<std::string>& pieces, std::vector<Placed> needles,
                 char separator, DraftBuilder* builder) {
  std::stable_sort(needles.begin(), needles.end(),
                   [](const Placed& a, const Placed& b) { return a.gap < b.gap; });
  std::vector<std::string> all;
  std::vector<bool> asked;
  auto next = needles.begin();
  for (size_t i = 0; i <= pieces.size(); ++i) {
    for (; next != needles.end() && next->gap == i; ++next) {
      all.push_back(std::move(next->text));
      asked.push_back(next->asked);
    }
    if (i == pieces.size()) break;
    all.push_back(pieces[i]);
    asked.push_back(false);
  }
  CHECK(next == needles.end());
  builder->BeginBody();
  builder->AddPieces(all, separator, [&](size_t i) { return asked[i]; });
  builder->EndBody();
}

// RULER's families differ in what the text is, what keys and values are, and how many are asked.
enum class Haystack { kNoise, kProse, kNeedles };
enum class Form { kWord, kNumber, kUuid };
struct Niah {
  Haystack haystack = Haystack::kProse;
  Form key = Form::kWord, value = Form::kNumber;
  uint64_t keys = 1;    // in the text; a haystack of needles has as many as fit
  uint64_t values = 1;  // per key
  uint64_t asked = 1;   // keys in one question
};

std::vector<std::string> DrawForm(Form form, uint64_t n, Generator& generator) {
  constexpr uint64_t kFirstNumber = 1'000'000, kNumbers = 9'000'000;
  std::vector<std::string> drawn;
  drawn.reserve(n);
  if (form == Form::kUuid) {
    for (uint64_t i = 0; i < n; ++i) drawn.push_back(generator.Uuid());
  } else if (form == Form::kWord) {
    for (const uint64_t i : generator.Distinct(n, WordKeyCount())) drawn.push_back(WordKey(i));
  } else {
    for (const uint64_t i : generator.Distinct(n, kNumbers)) {
      drawn.push_back(fmt::format("{}", kFirstNumber + i));
    }
  }
  return drawn;
}

Question NiahQuestion(std::string_view noun, std::span<const std::string> keys,
                      std::vector<std::string> values) {
  const std::string_view many = values.size() > 1 ? "s" : "";
  const std::string list = JoinWithAnd(keys);
  return {fmt::format("Which special {}{} did the text give for {}? Reply with the {}{} only.",
                      noun, many, list, noun, many),
          fmt::format("The special {}{} of {} in the text {}", noun, many, list,
                      values.size() > 1 ? "are" : "is"),
          std::move(values)};
}

template <Niah kRules>
Draft MakeNiah(const DraftRequest& request, Generator& generator) {
  const bool all_needles = kRules.haystack == Haystack::kNeedles;
  const uint64_t n_keys = all_needles ? request.units : std::max(kRules.keys, kRules.asked);
  const std::vector<std::string> keys = DrawForm(kRules.key, n_keys, generator);
  const std::vector<std::string> values = DrawForm(kRules.value, n_keys * kRules.values, generator);
  const std::string_view noun = kRules.value == Form::kUuid ? "uuid" : "number";

  // Keys are in random order, so the first ones are as good as any.
  const uint64_t n_questions =
      std::min<uint64_t>(std::max<uint64_t>(request.params.questions, 1), n_keys / kRules.asked);
  const uint64_t n_asked = n_questions * kRules.asked;
  DraftBuilder builder;
  builder.Add(kRules.values * kRules.asked * n_questions > 1
                  ? fmt::format("Some special {}s are hidden in the text below. Keep them in mind: "
                                "you will be asked for them at the end.\n\n",
                                noun)
                  : fmt::format("A special {} is hidden in the text below. Keep it in mind: you "
                                "will be asked for it at the end.\n\n",
                                noun));
  std::vector<Placed> needles;
  for (uint64_t i = 0; i < values.size(); ++i) {
    const uint64_t key = i / kRules.values;
    needles.push_back(
        {fmt::format("The special {} of {} is {}.", noun, keys[key], values[i]), 0, key < n_asked});
  }
  builder.draft().distractors = (n_keys - n_asked) * kRules.values;
  std::vector<std::string> pieces;
  if (all_needles) {
    const std::vector<uint64_t> order = generator.Distinct(needles.size(), needles.size());
    for (size_t i = 0; i < needles.size(); ++i) needles[i].gap = order[i];
    pieces.assign(needles.size(), {});
    std::vector<bool> asked(needles.size());
    for (Placed& needle : needles) {
      pieces[needle.gap] = std::move(needle.text);
      asked[needle.gap] = needle.asked;
    }
    builder.BeginBody().AddPieces(pieces, '\n', [&](size_t i) { return asked[i]; }).EndBody();
  } else {
    const std::vector<uint64_t> gaps = DrawGaps(needles.size(), request.units, generator);
    for (size_t i = 0; i < needles.size(); ++i) needles[i].gap = gaps[i];
    const bool noise = kRules.haystack == Haystack::kNoise;
    pieces = noise ? std::vector<std::string>(request.units, std::string(kNoiseLine))
                   : request.params.prose->Sentences(request.units, generator);
    AddHaystack(pieces, std::move(needles), noise ? '\n' : ' ', &builder);
  }
  for (uint64_t q = 0; q < n_questions; ++q) {
    const auto first = static_cast<ptrdiff_t>(q * kRules.asked);
    const auto n_values = static_cast<ptrdiff_t>(kRules.asked * kRules.values);
    const auto first_value = values.begin() + first * static_cast<ptrdiff_t>(kRules.values);
    builder.draft().questions.push_back(
        NiahQuestion(noun, std::span(keys).subspan(q * kRules.asked, kRules.asked),
                     {first_value, first_value + n_values}));
  }
  return std::move(builder.draft());
}

// A small model can do this: plain sentences, numbers of five digits, one city per question.
Draft MakeFacts(const DraftRequest& request, Generator& generator) {
  const uint64_t n = request.params.facts;
  if (n > kDepths || request.params.questions > n) {
    Fail(Code::kInvalid,
         "facts: {} questions about {} facts; there are at most {} facts, and a "
         "question is about one of them",
         request.params.questions, n, kDepths);
  }
  const std::vector<uint64_t> cities = generator.Distinct(n, Cities().size());
  const std::vector<uint64_t> numbers = generator.Distinct(n, 90000);
  const std::vector<uint64_t> gaps = DrawGaps(n, request.units, generator);
  DraftBuilder builder;
  builder.Add("Read the text. Among other things it tells the secret numbers of some cities.\n\n");
  std::vector<Placed> needles;
  for (uint64_t i = 0; i < n; ++i) {
    const std::string_view city = Cities()[cities[i]];
    const std::string number = fmt::format("{}", 10000 + numbers[i]);
    const bool asked = i < request.params.questions;
    needles.push_back(
        {fmt::format("The secret number of {} is {}.", city, number), gaps[i], asked});
    if (!asked) continue;
    builder.draft().questions.push_back({fmt::format("What is the secret number of {}?", city),
                                         fmt::format("The secret number of {} is", city),
                                         {number}});
  }
  builder.draft().distractors = n - request.params.questions;
  AddHaystack(request.params.prose->Sentences(request.units, generator), std::move(needles), ' ',
              &builder);
  return std::move(builder.draft());
}

// Five digits, swept through the noise in equal steps over the samples (arXiv 2305.16300).
Draft AddKeyLine(const DraftRequest& request, std::string_view what, const std::string& key) {
  DraftBuilder builder;
  builder.Add(
      fmt::format("The {} is written somewhere in the text below, among lines that do not "
                  "matter. Find it and keep it in mind.\n\n",
                  what));
  const uint64_t last = std::max<uint64_t>(request.n_samples - 1, 1);
  const uint64_t place = request.n_samples == 1 ? 1 : request.index * 2;  // one sample: the middle
  const uint64_t gap = (request.units * place + last) / (2 * last);
  AddHaystack(std::vector<std::string>(request.units, std::string(kNoiseLine)),
              {{fmt::format("The {} is {}. Keep it: {} is the {}.", what, key, key, what), gap}},
              '\n', &builder);
  builder.draft().questions.push_back(
      {fmt::format("What is the {}?", what), fmt::format("The {} is", what), {key}});
  return std::move(builder.draft());
}

Draft MakePasskey(const DraftRequest& request, Generator& generator) {
  return AddKeyLine(request, "pass key", fmt::format("{}", generator.Between(10000, 99999)));
}

// Ten digits with repeats: copies of five random digits stand next to the digit copied
// (InfiniteBench, arXiv 2402.13718), which a cache that merges equal neighbours gets wrong.
Draft MakeNumber(const DraftRequest& request, Generator& generator) {
  std::string key = fmt::format("{}", generator.Between(10000, 99999));
  for (int i = 0; i < 5; ++i) {
    const size_t at = generator.Below(key.size());
    key.insert(at, 1, key[at]);
  }
  return AddKeyLine(request, "sequence of digits", key);
}

constexpr Niah kSingle1 = {.haystack = Haystack::kNoise};
constexpr Niah kSingle2 = {};
constexpr Niah kSingle3 = {.value = Form::kUuid};
constexpr Niah kMultikey1 = {.keys = 4};
constexpr Niah kMultikey2 = {.haystack = Haystack::kNeedles};
constexpr Niah kMultikey3 = {
    .haystack = Haystack::kNeedles, .key = Form::kUuid, .value = Form::kUuid};
constexpr Niah kMultivalue = {.values = 4};
constexpr Niah kMultiquery = {.keys = 4, .asked = 4};

constexpr uint64_t kSentences = 40;  // about 500 words
constexpr uint64_t kLines = 25;
constexpr uint64_t kMaxLines = 50'000;  // below the number of word keys

template <Niah kRules>
constexpr Task NiahTask(std::string_view name) {
  const bool needles = kRules.haystack == Haystack::kNeedles;
  return {.suite = "ruler",
          .name = name,
          .metric = Metric::kAll,
          .max_new = 128,
          .min_units = 4,
          .max_units = needles ? kMaxLines : UINT32_MAX,
          .max_step = kRules.haystack == Haystack::kProse ? kSentences : kLines,
          .occurrences = 1,
          .make = MakeNiah<kRules>};
}

constexpr Task kTasks[] = {
    NiahTask<kSingle1>("niah_single_1"),
    NiahTask<kSingle2>("niah_single_2"),
    NiahTask<kSingle3>("niah_single_3"),
    NiahTask<kMultikey1>("niah_multikey_1"),
    NiahTask<kMultikey2>("niah_multikey_2"),
    NiahTask<kMultikey3>("niah_multikey_3"),
    NiahTask<kMultivalue>("niah_multivalue"),
    NiahTask<kMultiquery>("niah_multiquery"),
    {.suite = "facts",
     .name = "facts",
     .metric = Metric::kAll,
     .max_new = 24,
     .min_units = 4,
     .max_step = kSentences,
     .occurrences = 1,
     .make = MakeFacts},
    {.suite = "passkey",
     .name = "passkey",
     .metric = Metric::kFirstInteger,
     .max_new = 24,
     .min_units = 4,
     .max_step = kLines,
     .occurrences = 2,
     .make = MakePasskey},
    {.suite = "number",
     .name = "number",
     .metric = Metric::kFirstInteger,
     .max_new = 32,
     .min_units = 4,
     .max_step = kLines,
     .occurrences = 2,
     .make = MakeNumber},
};

}  // namespace

std::span<const Task> NeedleTasks() { return kTasks; }

std::string JoinWithAnd(std::span<const std::string> items) {
  std::string text;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) text += i + 1 == items.size() ? " and " : ", ";
    text += items[i];
  }
  return text;
}

}  // namespace kvasir
