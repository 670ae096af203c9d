// Answers that are spread over the whole text: variable chains and frequent words.
#include <numbers>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "eval/tasks/tasks.h"

namespace kvasir {

namespace {

// Below this length examples and lists are smaller, as in RULER.
constexpr uint64_t kShort = 4096;

// --- vt -----------------------------------------------------------------------------------------

struct Chain {
  uint64_t value = 0;
  std::vector<std::string> names;
};

std::vector<Chain> DrawChains(uint64_t n, uint64_t hops, size_t letters, Generator& generator) {
  std::unordered_set<std::string> taken;
  std::vector<Chain> chains(n);
  const std::vector<uint64_t> values = generator.Distinct(n, 89'999);
  for (uint64_t i = 0; i < n; ++i) {
    chains[i].value = 10'000 + values[i];
    while (chains[i].names.size() <= hops) {
      std::string name = generator.Letters(letters, 'A');
      if (taken.insert(name).second) chains[i].names.push_back(std::move(name));
    }
  }
  return chains;
}

// Assignments at sorted random places among the lines of noise; each chain keeps its order.
void AddAssignments(const std::vector<Chain>& chains, uint64_t n_noise, Generator& generator,
                    DraftBuilder* builder, bool is_example) {
  const uint64_t per_chain = chains[0].names.size();
  const uint64_t n_lines = n_noise + per_chain * chains.size();
  std::vector<std::string> lines(n_lines);
  std::vector<bool> asked(n_lines);
  // Places of all assignments, dealt to the chains at random.
  const std::vector<uint64_t> places = generator.Ascending(per_chain * chains.size(), n_lines);
  std::vector<uint64_t> owner;
  for (uint64_t c = 0; c < chains.size(); ++c) owner.insert(owner.end(), per_chain, c);
  generator.Shuffle(owner);
  std::vector<uint64_t> next(chains.size());
  for (size_t i = 0; i < places.size(); ++i) {
    const Chain& chain = chains[owner[i]];
    const uint64_t link = next[owner[i]]++;
    lines[places[i]] =
        link == 0 ? fmt::format("VAR {} = {}", chain.names[0], chain.value)
                  : fmt::format("VAR {} = VAR {}", chain.names[link], chain.names[link - 1]);
    asked[places[i]] = owner[i] == 0 && !is_example;
  }
  for (std::string& line : lines) {
    if (line.empty()) line = kNoiseLine;
  }
  builder->AddPieces(lines, '\n', [&](size_t i) { return asked[i]; });
}

std::string JoinWithCommas(std::span<const std::string> items) {
  return fmt::format("{}", fmt::join(items, ", "));
}

constexpr std::string_view kVtQuestion = "Which variables hold the value {}, directly or by copy?";
constexpr std::string_view kVtPrefix = "The {} variables that hold {} are";

Draft MakeVt(const DraftRequest& request, Generator& generator) {
  const TaskParams& params = request.params;
  DraftBuilder builder;
  builder.Add(
      "Lines of the text below assign values to variables: VAR X = 5 sets X, and VAR Y = VAR X "
      "copies X to Y. Keep track of them.\n\nExample text:\n");
  const std::vector<Chain> example = DrawChains(1, params.hops, 3, generator);
  AddAssignments(example, request.length < kShort ? 4 : 18, generator, &builder, true);
  builder.Add(fmt::format("\n\nExample question: {}\nExample answer: {} {}.\n\nText:\n",
                          fmt::format(kVtQuestion, example[0].value),
                          fmt::format(kVtPrefix, params.hops + 1, example[0].value),
                          JoinWithCommas(example[0].names)));
  const std::vector<Chain> chains = DrawChains(params.chains, params.hops, 5, generator);
  builder.BeginBody();
  AddAssignments(chains, request.units, generator, &builder, false);
  builder.EndBody();
  builder.draft().distractors = (params.chains - 1) * (params.hops + 1);
  builder.draft().questions.push_back({fmt::format(kVtQuestion, chains[0].value),
                                       fmt::format(kVtPrefix, params.hops + 1, chains[0].value),
                                       chains[0].names});
  return std::move(builder.draft());
}

// --- cwe ----------------------------------------------------------------------------------------

// Single words as long as there are enough, otherwise all are compounds of two: in a list all words
// are of one kind. (Where compounds begin, lists that just did not fit are shorter by a tenth.)
std::vector<std::string> DrawWords(uint64_t n, Generator& generator) {
  const uint64_t n_nouns = Nouns().size(), n_single = n_nouns + Adjectives().size();
  std::vector<std::string> words;
  if (n <= n_single) {
    std::unordered_set<uint64_t> seen;
    for (const uint64_t i : generator.Distinct(n, n_single)) {
      words.emplace_back(i < n_nouns ? Nouns()[i] : Adjectives()[i - n_nouns]);
    }
  } else {
    for (const uint64_t i : generator.Distinct(n, n_nouns * n_nouns)) {
      words.push_back(fmt::format("{}{}", Nouns()[i / n_nouns], Nouns()[i % n_nouns]));
    }
  }
  return words;
}

// Moves words that occur inside other ones behind the first `n`, so that a substring that is found
// is the word itself.
void PutUnambiguousFirst(uint64_t n, std::vector<std::string>* words) {
  const auto ambiguous = [&](const std::string& word) {
    return std::count_if(words->begin(), words->end(), [&](const std::string& other) {
             return other.find(word) != std::string::npos;
           }) > 1;
  };
  size_t candidate = n;
  for (size_t i = 0; i < n; ++i) {
    while (ambiguous((*words)[i]) && candidate < words->size()) {
      std::swap((*words)[i], (*words)[candidate++]);
    }
  }
}

struct Frequencies {
  uint64_t words, often, seldom;
};

constexpr uint64_t kAsked = 10;

// The numbered list of the first ten words `often` times and the others `seldom` times.
std::vector<std::string> FrequencyList(std::span<const std::string> words, Frequencies f,
                                       Generator& generator) {
  std::vector<std::string> items;
  for (size_t i = 0; i < words.size(); ++i) {
    items.insert(items.end(), i < kAsked ? f.often : f.seldom, words[i]);
  }
  generator.Shuffle(items);
  for (size_t i = 0; i < items.size(); ++i) items[i] = fmt::format("{}. {}", i + 1, items[i]);
  return items;
}

std::string_view WordOf(std::string_view item) { return item.substr(item.find(' ') + 1); }

constexpr std::string_view kCweQuestion = "Which ten words occur most often in the list?";
constexpr std::string_view kCwePrefix = "The ten words that occur most often in the list are";

Draft MakeCwe(const DraftRequest& request, Generator& generator) {
  const bool is_short = request.length < kShort;
  const Frequencies sizes = is_short ? Frequencies{kAsked + request.units, 6, 1}
                                     : Frequencies{kAsked + request.units, 30, 3};
  const Frequencies example_sizes = is_short ? Frequencies{20, 3, 1} : Frequencies{40, 10, 3};
  std::vector<std::string> example = DrawWords(sizes.words + example_sizes.words, generator);
  std::vector<std::string> words(example.begin() + static_cast<ptrdiff_t>(example_sizes.words),
                                 example.end());
  example.resize(example_sizes.words);
  PutUnambiguousFirst(kAsked, &words);

  DraftBuilder builder;
  builder.Add(
      "Below is a numbered list of words. Some of them occur more often than the others. "
      "Remember which.\n\nExample list:\n");
  builder.AddPieces(FrequencyList(example, example_sizes, generator), ' ',
                    [](size_t) { return false; });
  builder.Add(fmt::format("\n\nExample question: {}\nExample answer: {} {}.\n\nList:\n",
                          kCweQuestion, kCwePrefix,
                          JoinWithCommas(std::span(example).first(kAsked))));
  const std::vector<std::string> items = FrequencyList(words, sizes, generator);
  words.resize(kAsked);
  // The needles are the answers' first occurrences.
  std::unordered_set<std::string_view> open(words.begin(), words.end());
  builder.BeginBody();
  builder.AddPieces(items, ' ', [&](size_t i) { return open.erase(WordOf(items[i])) > 0; });
  builder.EndBody();
  builder.draft().questions.push_back(
      {std::string(kCweQuestion), std::string(kCwePrefix), std::move(words)});
  return std::move(builder.draft());
}

// --- fwe ----------------------------------------------------------------------------------------

// Of `total` words, how often rank k = 1, 2, ... occurs: the exponent is 2, so the share is
// k^-2 / zeta(2), and zeta(2) = pi^2 / 6. Ranks that do not occur are left out.
std::vector<uint64_t> ZipfCounts(uint64_t total, uint64_t n_words) {
  constexpr double kZeta2 = std::numbers::pi * std::numbers::pi / 6;
  std::vector<uint64_t> counts;
  for (uint64_t k = 1; k <= n_words; ++k) {
    const double rank = static_cast<double>(k);
    const auto count = static_cast<uint64_t>(static_cast<double>(total) / (rank * rank * kZeta2));
    if (count == 0) break;
    counts.push_back(count);
  }
  return counts;
}

Draft MakeFwe(const DraftRequest& request, Generator& generator) {
  const uint64_t n_words =
      std::max<uint64_t>(request.length > 50 ? (request.length - 50) / 50 : 0, 5);
  const std::vector<uint64_t> counts = ZipfCounts(request.units, n_words);
  std::unordered_set<std::string> taken;
  std::vector<std::string> words = {"......"};  // the first rank is noise
  while (words.size() < counts.size()) {
    std::string word = generator.Letters(6, 'a');
    if (taken.insert(word).second) words.push_back(std::move(word));
  }
  std::vector<std::string> text;
  for (size_t k = 0; k < counts.size(); ++k) text.insert(text.end(), counts[k], words[k]);
  generator.Shuffle(text);
  std::vector<std::string> answers(words.begin() + 1, words.begin() + 4);

  DraftBuilder builder;
  builder.Add(
      "Below is a text in an unknown code. Groups of dots mean nothing; find out which coded "
      "words it uses most.\n\n");
  std::unordered_set<std::string_view> open(answers.begin(), answers.end());
  builder.BeginBody();
  builder.AddPieces(text, ' ', [&](size_t i) { return open.erase(text[i]) > 0; });
  builder.EndBody();
  builder.draft().questions.push_back(
      {"Which three coded words occur most often in the text? Leave the dots out and explain "
       "nothing.",
       "The three coded words that occur most often are", std::move(answers)});
  return std::move(builder.draft());
}

constexpr Task kTasks[] = {
    {.suite = "ruler",
     .name = "vt",
     .metric = Metric::kAll,
     .max_new = 30,
     .min_units = 1,
     .max_step = 10,
     .make = MakeVt},
    {.suite = "ruler",
     .name = "cwe",
     .metric = Metric::kAll,
     .max_new = 120,
     .min_units = 20,
     .max_units = 100'000,  // below the number of compounds
     .max_step = 10,
     .make = MakeCwe},
    {.suite = "ruler",
     .name = "fwe",
     .metric = Metric::kAll,
     .max_new = 50,
     .min_units = 100,        // ranks 2 to 5 occur 15, 6, 3 and 2 times
     .max_step = UINT32_MAX,  // a word in seven is the same: what it costs varies much
     .make = MakeFwe},
};

}  // namespace

std::span<const Task> ListTasks() { return kTasks; }

}  // namespace kvasir
