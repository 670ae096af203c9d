#include "server/prompt.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "format/quote.h"
#include "text/utf8.h"

namespace kvasir {

namespace {

bool IsSystem(const ChatMessage& message) {
  return message.role == "system" || message.role == "developer";
}

size_t LeadingSpace(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t length = Utf8UnitLength(text.substr(at));
    if (!IsUnicodeSpace(DecodeUtf8Unit(text.substr(at, length)))) break;
    at += length;
  }
  return at;
}

size_t TrailingSpace(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t begin = end - 1;
    while (begin > 0 && end - begin < 4 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) {
      --begin;
    }
    const std::string_view unit = text.substr(begin, end - begin);
    if (Utf8UnitLength(unit) != unit.size() || !IsUnicodeSpace(DecodeUtf8Unit(unit))) break;
    end = begin;
  }
  return text.size() - end;
}

}  // namespace

// Collects text between control tokens, encodes it when it is complete, and keeps track of which
// tokens hold the caller's system text.
class PromptBuilder::Encoder {
 public:
  // `continues`: the first text goes on from another one, so no prefix space is put before it.
  Encoder(const PromptBuilder& builder, bool continues)
      : builder_(builder), continues_(continues) {}

  void AddTemplate(std::string_view text) {
    size_t at = 0;
    while (at < text.size()) {
      const AddedTokens::Match match = builder_.control_.FindNext(text, at);
      const size_t end = match.length == 0 ? text.size() : match.begin;
      text_.append(text, at, end - at);
      if (match.length == 0) return;
      Flush();
      prompt_.tokens.push_back(match.id);
      at = end + match.length;
    }
  }
  void AddContent(std::string_view text, bool system) {
    if (system && !text.empty()) marked_.emplace_back(text_.size(), text_.size() + text.size());
    text_.append(text);
  }
  Prompt Take() {
    Flush();
    return std::move(prompt_);
  }

 private:
  void Flush() {
    if (!text_.empty()) {
      const std::vector<TokenId> ids =
          builder_.tokenizer_.Encode(text_, /*special=*/false, /*prefix_space=*/!continues_);
      if (!marked_.empty()) MarkSystem(ids);
      prompt_.tokens.insert(prompt_.tokens.end(), ids.begin(), ids.end());
    }
    continues_ = false;
    text_.clear();
    marked_.clear();
  }

  // Tokens whose bytes touch a marked stretch. Where the pieces do not add up to the text (a
  // vocabulary that replaces characters) all tokens of the text count.
  void MarkSystem(const std::vector<TokenId>& ids) {
    size_t total = 0;
    for (const TokenId id : ids) total += builder_.tokenizer_.Piece(id, true).size();
    const size_t prefix = total - text_.size();  // the prefix space, if the vocabulary adds one
    const auto first = static_cast<uint32_t>(prompt_.tokens.size());
    if (total < text_.size() || prefix > 1) {
      prompt_.system.emplace_back(first, first + static_cast<uint32_t>(ids.size()));
      return;
    }
    for (const auto& [begin, end] : marked_) {
      size_t at = 0;
      uint32_t from = 0, to = 0;
      for (uint32_t i = 0; i < ids.size(); ++i) {
        const size_t next = at + builder_.tokenizer_.Piece(ids[i], true).size();
        if (at < end + prefix && next > begin + prefix) {
          if (to == 0) from = i;
          to = i + 1;
        }
        at = next;
      }
      if (to > from) prompt_.system.emplace_back(first + from, first + to);
    }
  }

  const PromptBuilder& builder_;
  bool continues_;
  std::string text_;
  std::vector<std::pair<size_t, size_t>> marked_;  // bytes of text_ that are system text
  Prompt prompt_;
};

PromptBuilder::PromptBuilder(const Tokenizer& tokenizer, const ChatTemplate* chat_template)
    : tokenizer_(tokenizer), chat_template_(chat_template) {
  for (size_t i = 0; i < tokenizer.vocab_size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (tokenizer.IsControl(id))
      control_.Add(tokenizer.Piece(id, /*special=*/true), {.id = id, .special = true});
  }
  if (tokenizer.bos() != kNoToken) bos_text_ = tokenizer.Piece(tokenizer.bos(), true);
  if (tokenizer.eos() != kNoToken) eos_text_ = tokenizer.Piece(tokenizer.eos(), true);
}

Prompt PromptBuilder::Plain(std::string_view text) const { return PlainCut(text, {}).head; }

CutPrompt PromptBuilder::PlainCut(std::string_view head, std::string_view tail) const {
  CutPrompt cut;
  if (tokenizer_.bos() != kNoToken && (tokenizer_.add_bos() || head.empty())) {
    cut.head.tokens.push_back(tokenizer_.bos());
  } else if (head.empty()) {
    Fail(Code::kInvalid, "prompt: empty: this model has no BOS token, so give at least one word");
  }
  const std::vector<TokenId> ids = tokenizer_.Encode(head, /*special=*/false);
  cut.head.tokens.insert(cut.head.tokens.end(), ids.begin(), ids.end());
  cut.tail = tokenizer_.Encode(tail, /*special=*/false, /*prefix_space=*/false);
  return cut;
}

void PromptBuilder::CheckMessages(const std::vector<ChatMessage>& messages) const {
  if (messages.empty()) Fail(Code::kInvalid, "messages: none: give at least one");
  for (const ChatMessage& message : messages) {
    if (message.whole.dict() != nullptr && !chat_template_) {
      Fail(Code::kInvalid,
           "messages: this model has no chat template that could look at more than "
           "a role and a text");
    }
    CheckNoControl(message.whole, "a field of a message", /*is_message=*/true);
    // Templates print roles as their own text.
    const auto plain = [](unsigned char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             c == '_' || c == '-';
    };
    if (message.role.empty() || message.role.size() > 64 ||
        !std::all_of(message.role.begin(), message.role.end(), plain)) {
      Fail(Code::kInvalid,
           "messages: role {}: a role is one word of letters, digits, _ and -, such as user",
           Quoted(message.role));
    }
  }
}

// These texts become the template's own, where control tokens count.
void PromptBuilder::CheckNoControl(const TemplateValue& value, std::string_view what,
                                   bool is_message) const {
  if (const std::string* text = value.string(); text != nullptr && HasControl(*text)) {
    Fail(Code::kInvalid, "chat template: {} holds a control token", what);
  }
  if (const jinja::List* list = value.list()) {
    for (const TemplateValue& item : list->items) CheckNoControl(item, what, false);
  }
  if (const jinja::Dict* dict = value.dict()) {
    for (const auto& [key, item] : dict->items) {
      if (HasControl(key)) Fail(Code::kInvalid, "chat template: {} holds a control token", what);
      // The content of a message is told apart from the template's text.
      const bool is_content = is_message && key == "content" && item.string() != nullptr;
      if (!is_content) CheckNoControl(item, what, false);
    }
  }
}

void PromptBuilder::CheckExtras(const TemplateExtras& extras) const {
  const bool any = !extras.variables.empty() || !extras.tools.IsNone();
  if (any && !chat_template_) {
    Fail(Code::kInvalid, "chat template: this model has none that could look at {}",
         extras.variables.empty() ? "tools" : Quoted(extras.variables[0].first));
  }
  CheckNoControl(extras.tools, "a text of the tools", false);
  for (const auto& [name, scalar] : extras.variables) {
    const std::string what = "the variable " + Quoted(name);
    if (const auto* text = std::get_if<std::string>(&scalar); text && HasControl(*text)) {
      Fail(Code::kInvalid, "chat template: {} holds a control token", what);
    }
    if (const auto* value = std::get_if<TemplateValue>(&scalar)) {
      CheckNoControl(*value, what, false);
    }
  }
}

std::string PromptBuilder::Render(const std::vector<ChatMessage>& messages,
                                  bool add_generation_prompt, const TemplateExtras& extras) const {
  CHECK(chat_template_ != nullptr);
  return chat_template_->Render(messages, add_generation_prompt, bos_text_, eos_text_, extras);
}

// The rendering with a marker in place of each content, cut at the markers.
std::vector<PromptBuilder::Part> PromptBuilder::MarkedParts(
    const std::vector<ChatMessage>& messages, bool add_generation_prompt,
    const TemplateExtras& extras, const std::string& marker) const {
  std::vector<ChatMessage> marked = messages;
  for (size_t i = 0; i < marked.size(); ++i) {
    // An empty content stays: templates ask for it.
    if (marked[i].content.empty()) continue;
    marked[i].content = fmt::format("{}{}E", marker, i);
    if (marked[i].whole.dict() == nullptr) continue;
    jinja::Dict whole = *marked[i].whole.dict();
    whole.Set("content", TemplateValue::Of(marked[i].content));
    marked[i].whole = TemplateValue::Of(std::move(whole));
  }
  const std::string text = Render(marked, add_generation_prompt, extras);
  std::vector<Part> parts;
  size_t at = 0;
  for (size_t hit; (hit = text.find(marker, at)) != std::string::npos;) {
    size_t end = hit + marker.size();
    size_t index = 0;
    while (end < text.size() && text[end] >= '0' && text[end] <= '9' && index < messages.size()) {
      index = index * 10 + static_cast<size_t>(text[end++] - '0');
    }
    if (end >= text.size() || text[end] != 'E' || index >= messages.size()) break;
    parts.push_back({text.substr(at, hit - at), -1, 0});
    parts.push_back({messages[index].content, static_cast<int>(index), 0});
    at = end + 1;
  }
  parts.push_back({text.substr(at), -1, 0});
  return parts;
}

std::vector<PromptBuilder::Part> PromptBuilder::Parts(const std::vector<ChatMessage>& messages,
                                                      bool add_generation_prompt,
                                                      const TemplateExtras& extras) const {
  CheckMessages(messages);
  CheckExtras(extras);
  std::vector<Part> parts;
  if (!chat_template_) {
    for (size_t i = 0; i < messages.size(); ++i) {
      if (i > 0) parts.push_back({"\n\n", -1, 0});
      parts.push_back({messages[i].content, static_cast<int>(i), 0});
    }
    return parts;
  }
  const std::string text = Render(messages, add_generation_prompt, extras);
  std::string marker = "KvasirContent";
  for (int salt = 0; text.find(marker) != std::string::npos; ++salt) {
    marker = fmt::format("Kvasir{}Content", salt);
  }
  parts = MarkedParts(messages, add_generation_prompt, extras, marker);

  // The same parts in the true rendering, where a template may have trimmed a content.
  const auto align = [&]() -> std::optional<std::vector<Part>> {
    std::vector<Part> aligned = parts;
    size_t at = 0;
    for (size_t i = 0; i < aligned.size(); ++i) {
      Part& part = aligned[i];
      if (part.message < 0) {
        if (text.compare(at, part.text.size(), part.text) != 0) return std::nullopt;
        at += part.text.size();
        continue;
      }
      const std::string_view content = part.text;
      const size_t left = LeadingSpace(content);
      const size_t right = left == content.size() ? 0 : TrailingSpace(content);
      const std::string& next = aligned[i + 1].text;  // the last part is the template's
      bool found = false;
      for (const auto& [l, r] :
           {std::pair<size_t, size_t>{0, 0}, {left, right}, {0, right}, {left, 0}}) {
        const std::string_view form = content.substr(l, content.size() - l - r);
        const size_t end = at + form.size();
        if (text.compare(at, form.size(), form) != 0 || text.compare(end, next.size(), next) != 0 ||
            (i + 2 == aligned.size() && end + next.size() != text.size())) {
          continue;
        }
        part = {std::string(form), part.message, l};
        at = end;
        found = true;
        break;
      }
      if (!found) return std::nullopt;
    }
    if (at != text.size()) return std::nullopt;
    return aligned;
  };
  if (auto aligned = align()) return std::move(*aligned);

  // The template does more with a content than print it. Its text as a whole is safe to encode if
  // no message holds a control token; otherwise contents go in as they are, at their places.
  const bool safe = std::none_of(messages.begin(), messages.end(), [&](const ChatMessage& message) {
    return HasControl(message.content);
  });
  if (safe) parts = {{text, -1, 0}};
  return parts;
}

Prompt PromptBuilder::Encode(const std::vector<Part>& parts,
                             const std::vector<ChatMessage>& messages, bool continues) const {
  Encoder encoder(*this, continues);
  for (const Part& part : parts) {
    if (part.message < 0) {
      encoder.AddTemplate(part.text);
    } else {
      encoder.AddContent(part.text, IsSystem(messages[static_cast<size_t>(part.message)]));
    }
  }
  Prompt prompt = encoder.Take();
  // Without a template the conversation is a plain text, and begins like one.
  if (!chat_template_ && !continues && tokenizer_.add_bos() && tokenizer_.bos() != kNoToken) {
    prompt.tokens.insert(prompt.tokens.begin(), tokenizer_.bos());
    for (auto& [begin, end] : prompt.system) ++begin, ++end;
  }
  return prompt;
}

Prompt PromptBuilder::Chat(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                           const TemplateExtras& extras) const {
  Prompt prompt =
      Encode(Parts(messages, add_generation_prompt, extras), messages, /*continues=*/false);
  if (prompt.tokens.empty()) Fail(Code::kInvalid, "messages: no text: give at least one word");
  return prompt;
}

CutPrompt PromptBuilder::ChatCut(const std::vector<ChatMessage>& messages, size_t index,
                                 size_t offset) const {
  CHECK(index < messages.size() && offset <= messages[index].content.size());
  std::vector<Part> head = Parts(messages, /*add_generation_prompt=*/true, {}), tail;
  auto at = std::find_if(head.rbegin(), head.rend(),
                         [&](const Part& part) { return part.message == static_cast<int>(index); });
  size_t end = 0;  // bytes of the part that belong to the head
  if (at != head.rend()) {
    end = std::min(offset > at->offset ? offset - at->offset : 0, at->text.size());
  } else {
    // The rendering could not be taken apart: look for the text itself.
    const std::string_view text = std::string_view(messages[index].content).substr(0, offset);
    at = std::find_if(head.rbegin(), head.rend(), [&](const Part& part) {
      return part.message < 0 && part.text.rfind(text) != std::string::npos;
    });
    if (at == head.rend()) {
      Fail(Code::kUnsupported,
           "chat template: it does not print the text of message {} as it is, so the prompt cannot "
           "be "
           "cut there; use --raw",
           index);
    }
    end = at->text.rfind(text) + text.size();
  }
  const auto cut = at.base() - 1;
  tail.push_back({cut->text.substr(end), cut->message, cut->offset + end});
  cut->text.resize(end);
  tail.insert(tail.end(), cut + 1, head.end());
  head.erase(cut + 1, head.end());
  return {Encode(head, messages, /*continues=*/false),
          Encode(tail, messages, /*continues=*/true).tokens};
}

}  // namespace kvasir
