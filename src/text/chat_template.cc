#include "text/chat_template.h"

#include <utility>

#include "base/error.h"
#include "format/quote.h"
#include "text/jinja/json_value.h"
#include "text/jinja/parser.h"
#include "text/jinja/renderer.h"

namespace kvasir {

namespace {

using jinja::Dict;
using jinja::List;
using jinja::Value;

// Bytes of text and number of values in what a template is given.
struct Extent {
  uint64_t bytes = 0, values = 0;

  void Add(const Value& value) {
    ++values;
    if (const std::string* text = value.string()) bytes += text->size();
    if (const List* list = value.list()) {
      for (const Value& item : list->items) Add(item);
    }
    if (const Dict* dict = value.dict()) {
      for (const auto& [key, item] : dict->items) {
        bytes += key.size();
        Add(item);
      }
    }
  }
};

Value ValueOf(const ChatMessage& message) {
  if (message.whole.dict() != nullptr) return message.whole;
  Dict dict;
  dict.Set("role", Value::Of(message.role));
  dict.Set("content", Value::Of(message.content));
  return Value::Of(std::move(dict));
}

Value ValueOf(const TemplateScalar& scalar) {
  return std::visit(
      [](const auto& value) -> Value {
        if constexpr (std::is_same_v<std::decay_t<decltype(value)>, Value>) {
          return value;
        } else {
          return Value::Of(value);
        }
      },
      scalar);
}

std::tm LocalTime() {
  const std::time_t seconds = std::time(nullptr);
  std::tm now{};
  localtime_r(&seconds, &now);
  return now;
}

}  // namespace

TemplateValue ParseTemplateValue(std::string_view json, const std::string& where) {
  return jinja::ParseJsonValue(json, where);
}

std::vector<ChatMessage> MessagesFrom(const TemplateValue& list, const std::string& where) {
  if (list.list() == nullptr) Fail(Code::kInvalid, "{}: not a list of messages", where);
  std::vector<ChatMessage> messages;
  for (const Value& item : list.list()->items) {
    const Dict* dict = item.dict();
    const Value* role = dict == nullptr ? nullptr : dict->Find("role");
    if (role == nullptr || role->string() == nullptr) {
      Fail(Code::kInvalid, "{}: message {} is not an object with a \"role\"", where,
           messages.size());
    }
    const Value* content = dict->Find("content");
    const bool is_text = content != nullptr && content->string() != nullptr;
    messages.push_back({*role->string(), is_text ? *content->string() : "", {}});
    if (!is_text || dict->items.size() > 2) messages.back().whole = item;
  }
  return messages;
}

struct ChatTemplate::Parsed {
  jinja::Body body;
};

ChatTemplate::ChatTemplate(std::string_view source)
    : parsed_(std::make_unique<Parsed>(Parsed{jinja::Parse(source)})) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::Render(const std::vector<ChatMessage>& messages,
                                 bool add_generation_prompt, std::string_view bos_token,
                                 std::string_view eos_token, const TemplateExtras& extras) const {
  Extent extent;
  List list;
  for (const ChatMessage& message : messages) {
    list.items.push_back(ValueOf(message));
    extent.Add(list.items.back());
  }
  Dict context;
  context.Set("messages", Value::Of(std::move(list)));
  // What transformers passes when there are none: defined, but None.
  context.Set("tools", extras.tools);
  context.Set("documents", Value::NoneValue());
  context.Set("add_generation_prompt", Value::Of(add_generation_prompt));
  context.Set("bos_token", Value::Of(std::string(bos_token)));
  context.Set("eos_token", Value::Of(std::string(eos_token)));
  extent.Add(extras.tools);
  for (const auto& [name, scalar] : extras.variables) {
    if (context.Find(name) != nullptr && name != "documents") {
      Fail(Code::kInvalid, "chat template: the variable {} is not free to be set", Quoted(name));
    }
    context.Set(name, ValueOf(scalar));
    extent.Add(*context.Find(name));
  }
  // Honest templates copy a message a few times and look at each value a few hundred times.
  jinja::Limits limits;
  limits.bytes += 64 * extent.bytes;
  limits.steps += 400 * extent.values;
  return jinja::Render(parsed_->body, context, limits, extras.now.value_or(LocalTime()));
}

}  // namespace kvasir
