#include "bench/prompts.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "format/json.h"

namespace kvasir::bench {

namespace {

// Streams of the seed.
constexpr uint64_t kLengths = 1, kTexts = 2, kGroups = 3, kOrder = 4, kWarmups = 5;

constexpr std::string_view kWords =
    "about above across after again air all almost along also always and animal answer any apple "
    "are arm around ask away back bag ball bank bear beautiful because bed before began below best "
    "better between big bird black blue boat body book both box boy bread bring brother brown "
    "build "
    "but buy call came can car carry cat change child city class clean clear close cloud coat cold "
    "color come cook corn could country cover cross cry cup cut dance dark day dear deep did "
    "different dinner do dog door down draw dream dress drink drive drop dry each ear early earth "
    "east easy eat egg end enough even evening ever every eye face fall family far farm fast "
    "father "
    "feel feet few field fight find fine finger fire first fish five floor flower fly follow food "
    "foot for found four free friend from front full game garden gave girl give glass go gold good "
    "grass great green ground group grow had hair half hand happy hard hat have he head hear heart "
    "heavy help her here high hill him his hold hole home horse hot hour house how hundred hurt "
    "ice "
    "idea if in it jump just keep kind king knew land large last late laugh learn leave left leg "
    "letter life light like line list little live long look lot love low made make man many map "
    "mark may mean men might mile milk milky mind miss money moon more morning most mother "
    "mountain "
    "mouth move much music must my name near never new next night nine north nose note nothing now "
    "number ocean of off often old on once one only open or order other our out over own page "
    "paper "
    "part party people picture piece place plan plant play point pretty pull push put question "
    "quick rain ran reach read ready red rest ride right ring river road rock room round run said "
    "same sand saw say school sea second see seed seem seven she ship shoe short should show sick "
    "side sing sister sit six sky sleep slow small snow so some song soon sound south stand star "
    "start stay step still stone stop story street strong such summer sun sure swim table take "
    "talk "
    "tall teach tell ten than that the their them then there these they thing think this those "
    "thought three through time to today together told too took top town train tree true try turn "
    "two under until up us use very voice wait walk wall want war warm was wash watch water way we "
    "week well went were west what wheel when where which white who why will wind window winter "
    "wish with woman wood word work world would write year yellow yes you young your";

// Makes texts of a wanted number of tokens out of words.
class Writer {
 public:
  Writer(uint64_t seed, const CountTokens& count) : count_(count), words_(PromptWords()) {
    // The opening words are dealt in an order of the seed's own, so that runs with different seeds
    // share no beginnings either.
    openings_ = words_;
    Random random(seed, kOrder);
    for (size_t i = openings_.size(); i > 1; --i) {
      std::swap(openings_[i - 1], openings_[random.Below(i)]);
    }
  }

  // `before` + a text of about `tokens` tokens; text number `number` begins with words no other
  // number begins with. *made: the tokens it has.
  std::string Text(const std::string& before, uint32_t tokens, size_t number, Random& random,
                   uint32_t* made) {
    std::vector<std::string_view> words;
    for (size_t rest = number; rest > 0 || words.size() < 2; rest /= openings_.size()) {
      words.push_back(openings_[rest % openings_.size()]);
    }
    const auto joined = [&](size_t n) {
      while (words.size() < n) words.push_back(words_[random.Below(words_.size())]);
      std::string text = before;
      for (size_t i = 0; i < n; ++i) {
        if (!text.empty() && text.back() != ' ') text += ' ';
        text += words[i];
      }
      return text;
    };
    if (!count_) {
      *made = tokens;
      return joined(tokens);
    }
    return Calibrated(joined, before.empty() ? 0 : count_(before), tokens, made);
  }

 private:
  template <typename Joined>
  std::string Calibrated(const Joined& joined, size_t tokens_before, uint32_t tokens,
                         uint32_t* made) {
    std::string best;
    size_t best_distance = SIZE_MAX;
    double n = std::max(1.0, std::round(tokens / tokens_per_word_));
    for (int round = 0; round < 6 && best_distance > 0; ++round) {
      const std::string text = joined(static_cast<size_t>(n));
      const size_t total = count_(text);
      const size_t has = total > tokens_before ? total - tokens_before : 1;
      const double off = static_cast<double>(tokens) - static_cast<double>(has);
      if (static_cast<size_t>(std::abs(off)) < best_distance) {
        best_distance = static_cast<size_t>(std::abs(off));
        best = text;
        *made = static_cast<uint32_t>(has);
      }
      tokens_per_word_ = static_cast<double>(has) / n;
      double step = std::round(off / tokens_per_word_);
      if (step == 0) step = off < 0 ? -1 : 1;
      if (n + step < 1) break;
      n += step;
    }
    return best;
  }

  const CountTokens& count_;
  std::vector<std::string_view> words_, openings_;
  double tokens_per_word_ = 1;
};

// Which prefix each conversation has: as many of each as the numbers allow, in mixed order.
std::vector<size_t> Groups(size_t n, size_t groups, Random random) {
  std::vector<size_t> of(n);
  for (size_t i = 0; i < n; ++i) of[i] = i % groups;
  for (size_t i = n; i > 1; --i) std::swap(of[i - 1], of[random.Below(i)]);
  return of;
}

bool IsPrompt(const nlohmann::json& value) { return value.is_string() || value.is_array(); }

nlohmann::json BodyFor(Route route, nlohmann::json line, const std::string& where) {
  nlohmann::json body = line.contains("body") ? line["body"] : std::move(line);
  if (!body.is_object()) Fail(Code::kInvalid, "{}: \"body\" must be an object", where);
  const bool messages = body.contains("messages") && body["messages"].is_array();
  const bool prompt = body.contains("prompt") && IsPrompt(body["prompt"]);
  if (messages == prompt) {
    Fail(Code::kInvalid, "{}: expected either \"prompt\" or \"messages\"", where);
  }
  if (messages && route == Route::kCompletions) {
    Fail(Code::kInvalid, "{}: messages need --endpoint /v1/chat/completions", where);
  }
  if (prompt && route == Route::kChat) {
    if (!body["prompt"].is_string()) {
      Fail(Code::kInvalid, "{}: token ids need --endpoint /v1/completions", where);
    }
    body["messages"] = {{{"role", "user"}, {"content", body["prompt"]}}};
    body.erase("prompt");
  }
  return body;
}

std::optional<uint32_t> TakeLength(nlohmann::json& body, const char* key,
                                   const std::string& where) {
  if (!body.contains(key)) return std::nullopt;
  const nlohmann::json& value = body[key];
  if (!value.is_number_unsigned() || value.get<uint64_t>() > UINT32_MAX) {
    Fail(Code::kInvalid, "{}: \"{}\" must be a whole number", where, key);
  }
  const uint32_t length = value.get<uint32_t>();
  body.erase(key);
  return length;
}

Conversation ParseLine(std::string_view line, const std::string& where, Route route,
                       uint32_t output_tokens) {
  nlohmann::json parsed = ParseJson(line, where);
  if (!parsed.is_object()) Fail(Code::kInvalid, "{}: expected an object", where);
  Turn turn;
  turn.body = BodyFor(route, std::move(parsed), where);
  turn.max_tokens = output_tokens;
  for (const char* key : {"output_len", "max_tokens", "max_completion_tokens"}) {
    if (const std::optional<uint32_t> length = TakeLength(turn.body, key, where)) {
      turn.max_tokens = length;
    }
  }
  return {{std::move(turn)}};
}

}  // namespace

std::vector<std::string_view> PromptWords() {
  std::vector<std::string_view> words;
  for (std::string_view rest = kWords; !rest.empty();) {
    const size_t space = rest.find(' ');
    words.push_back(rest.substr(0, space));
    rest = space == std::string_view::npos ? std::string_view() : rest.substr(space + 1);
  }
  return words;
}

std::vector<Conversation> MakePrompts(const PromptOptions& options, const CountTokens& count,
                                      const std::function<void(double)>& progress) {
  Writer writer(options.seed, count);
  Random lengths(options.seed, kLengths), texts(options.seed, kTexts);
  size_t number = 0;
  struct Prefix {
    std::string text;
    uint32_t tokens = 0;
  };
  std::vector<Prefix> prefixes(options.prefix_tokens > 0 ? options.prefixes : 1);
  for (Prefix& prefix : prefixes) {
    if (options.prefix_tokens == 0) break;
    prefix.text = writer.Text({}, options.prefix_tokens, number++, texts, &prefix.tokens);
  }
  const std::vector<size_t> groups =
      Groups(options.conversations, prefixes.size(), Random(options.seed, kGroups));
  std::vector<Conversation> conversations(options.conversations);
  for (size_t i = 0; i < conversations.size(); ++i) {
    const Prefix& prefix = prefixes[groups[i]];
    for (uint32_t t = 0; t < options.turns; ++t) {
      Turn turn;
      const uint32_t tokens = DrawLength(options.shape, options.input_tokens, lengths);
      turn.max_tokens = DrawLength(options.shape, options.output_tokens, lengths);
      turn.text = writer.Text(t == 0 ? prefix.text : std::string(), tokens, number++, texts,
                              &turn.input_tokens);
      if (t == 0) turn.input_tokens += prefix.tokens;
      conversations[i].turns.push_back(std::move(turn));
    }
    if (progress) progress(static_cast<double>(i + 1) / static_cast<double>(conversations.size()));
  }
  return conversations;
}

std::vector<Conversation> MakeWarmups(const PromptOptions& options, size_t n,
                                      const CountTokens& count) {
  PromptOptions plain = options;
  plain.conversations = n;
  plain.turns = 1;
  plain.input_tokens += plain.prefix_tokens;
  plain.prefix_tokens = 0;
  plain.seed = Random(options.seed, kWarmups).Next();
  return MakePrompts(plain, count, {});
}

std::vector<Conversation> ParseDataset(std::string_view text, const std::string& where, Route route,
                                       uint32_t output_tokens, size_t limit) {
  std::vector<Conversation> conversations;
  size_t number = 0;
  while (!text.empty() && conversations.size() < limit) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    conversations.push_back(
        ParseLine(line, fmt::format("{}: line {}", where, number), route, output_tokens));
  }
  if (conversations.empty()) {
    Fail(Code::kInvalid, "{}: holds no requests; expected one JSON object a line", where);
  }
  return conversations;
}

}  // namespace kvasir::bench
