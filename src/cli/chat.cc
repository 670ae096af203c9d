// The chat: one conversation whose lanes stay alive between the turns.
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <utility>

#include "base/error.h"
#include "cli/generate.h"
#include "cli/host.h"
#include "cli/run.h"

namespace kvasir {

namespace {

constexpr std::string_view kCommands =
    "/kv shows the ledger, /set name=value changes a sampling flag, /bye ends";

class Conversation {
 public:
  Conversation(const Arguments& args, Session& session)
      : args_(args),
        session_(session),
        prompts_(session.opened().Prompts(args, UsesTemplate(args, true))),
        output_(args) {}

  void Say(const std::string& text) {
    messages_.push_back({"user", text});
    Generation generation;
    try {
      Request request = NextRequest();
      const size_t n_before = history_.size();
      history_.insert(history_.end(), added_.begin(), added_.end());
      try {
        generation = Complete(session_.engine(), std::move(request), &output_);
      } catch (...) {
        history_.resize(n_before);
        throw;
      }
    } catch (const Error&) {
      messages_.pop_back();
      throw;
    }
    output_.Stream("\n");
    session_.PrintNotices();
    if (const std::string note = LengthNote(generation); !note.empty()) Note(note);
    messages_.push_back({"assistant", generation.text});
    history_.insert(history_.end(), generation.tokens.begin(), generation.tokens.end());
    state_ = std::move(generation.state);
  }

  // "temp=0.5"
  void Set(const std::string& assignment) {
    const size_t equals = assignment.find('=');
    if (equals == std::string::npos) {
      Fail(Code::kUsage, "/set: expected name=value, such as temp=0.5");
    }
    const std::string name = assignment.substr(0, equals);
    constexpr std::string_view kSettable[] = {"temp",           "top-k",
                                              "top-p",          "min-p",
                                              "repeat-penalty", "presence-penalty",
                                              "seed",           "frequency-penalty",
                                              "predict",        "ignore-eos"};
    if (std::find(std::begin(kSettable), std::end(kSettable), name) == std::end(kSettable)) {
      Fail(Code::kUsage, "/set: {} cannot be changed; {} can", name, fmt::join(kSettable, ", "));
    }
    std::vector<std::pair<std::string, std::string>> settings = settings_;
    std::erase_if(settings, [&](const auto& setting) { return setting.first == name; });
    settings.emplace_back(name, assignment.substr(equals + 1));
    Values(settings);  // throws before anything is changed
    settings_ = std::move(settings);
  }

  void ShowLedger() {
    const Ledger ledger = session_.engine().ledger();
    const uint64_t dropped = state_ ? state_->lanes->dropped() : 0;
    output_.Stream(fmt::format(
        "{} of {} (peak {}), {} positions, {} entries kept, {} dropped, policy {}, codec {}\n",
        FormatSize(ledger.bytes), FormatSize(ledger.budget_bytes), FormatSize(ledger.bytes_peak),
        state_ ? state_->tokens.size() : 0, ledger.entries, dropped,
        session_.engine().policy() ? session_.engine().policy()->Spec() : "none",
        Name(session_.encoding())));
  }

 private:
  // The flags as typed, except what /set changed since.
  OptionValues Values(const std::vector<std::pair<std::string, std::string>>& settings) const {
    OptionValues values("/set", args_.values().table());
    for (const Option& option : args_.values().table()) {
      const auto changed = std::find_if(settings.begin(), settings.end(),
                                        [&](const auto& s) { return s.first == option.name; });
      if (changed != settings.end()) {
        values.Set(option.name, changed->second);
      } else if (args_.values().Given(option.name)) {
        values.Set(option.name, args_.values().Text(option.name));
      }
    }
    return values;
  }

  // Goes on from the lanes of the last turn: what the template writes after its answer is all that
  // is new. Without lanes (the first turn, or after an error) the whole conversation is read.
  Request NextRequest() {
    Request request = RequestFrom(Values(settings_), args_.List("stop"));
    request.keep_state = true;
    if (state_ && Continue(&request)) return request;
    state_.reset();
    const Prompt prompt = prompts_.Chat(messages_);
    history_.clear();
    added_ = prompt.tokens;
    request.tokens = prompt.tokens;
    Pin(session_.engine(), prompt, &request);
    return request;
  }

  // False when the template leaves no place to go on from.
  bool Continue(Request* request) {
    const size_t last = messages_.size() - 2;
    try {
      added_ = prompts_.ChatCut(messages_, last, messages_[last].content.size()).tail;
    } catch (const Error& error) {
      if (error.code() != Code::kUnsupported) throw;
      return false;
    }
    // The last token of an answer was sampled and not read yet.
    request->tokens.assign(history_.begin() + static_cast<ptrdiff_t>(state_->tokens.size()),
                           history_.end());
    request->tokens.insert(request->tokens.end(), added_.begin(), added_.end());
    request->resume = std::move(state_);
    return true;
  }

  const Arguments& args_;
  Session& session_;
  PromptBuilder prompts_;
  Output output_;
  std::vector<std::pair<std::string, std::string>> settings_;
  std::vector<ChatMessage> messages_;
  std::vector<TokenId> history_;  // every token of the conversation so far
  std::vector<TokenId> added_;    // by the turn that is being prepared
  std::unique_ptr<SequenceState> state_;
};

}  // namespace

void Chat(const Arguments& args, Session& session) {
  const bool terminal = IsTerminal(STDIN_FILENO);
  session.PrintNotices();
  if (terminal) Note(std::string(kCommands));
  const InterruptGuard guard;
  Conversation conversation(args, session);
  std::string line;
  for (;;) {
    if (terminal) Output(args).Stream("> ");
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    try {
      if (line == "/bye") return;
      if (line == "/kv") {
        conversation.ShowLedger();
      } else if (line.starts_with("/set ")) {
        conversation.Set(line.substr(5));
      } else if (line[0] == '/') {
        Note(fmt::format("unknown command {}: {}", line, kCommands));
      } else {
        conversation.Say(line);
      }
    } catch (const Error& error) {
      // Only what was typed failed; the conversation goes on.
      Note(error.what());
    }
  }
}

}  // namespace kvasir
