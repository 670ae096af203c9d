#include "text/chat_template.h"

#include <utility>

#include "base/error.h"
#include "format/quote.h"
#include "text/jinja/parser.h"
#include "text/jinja/renderer.h"

namespace kvasir {

struct ChatTemplate::Parsed {
  jinja::Body body;
};

ChatTemplate::ChatTemplate(std::string_view source)
    : parsed_(std::make_unique<Parsed>(Parsed{jinja::Parse(source)})) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::Render(const std::vector<ChatMessage>& messages,
                                 bool add_generation_prompt, std::string_view bos_token,
                                 std::string_view eos_token,
                                 const TemplateVariables& variables) const {
  using jinja::Value;
  jinja::Limits limits;
  jinja::List list;
  for (const ChatMessage& message : messages) {
    jinja::Dict dict;
    dict.Set("role", Value::Of(message.role));
    dict.Set("content", Value::Of(message.content));
    list.items.push_back(Value::Of(std::move(dict)));
    // Honest templates copy a message a few times and look at each message a few hundred times.
    limits.bytes += 64 * (message.role.size() + message.content.size());
    limits.steps += 1000;
  }
  jinja::Dict context;
  context.Set("messages", Value::Of(std::move(list)));
  // What transformers passes when there are none: defined, but None.
  context.Set("tools", Value::NoneValue());
  context.Set("documents", Value::NoneValue());
  context.Set("add_generation_prompt", Value::Of(add_generation_prompt));
  context.Set("bos_token", Value::Of(std::string(bos_token)));
  context.Set("eos_token", Value::Of(std::string(eos_token)));
  for (const auto& [name, scalar] : variables) {
    if (context.Find(name) != nullptr) {
      Fail(Code::kInvalid, "chat template: the variable {} is not free to be set", Quoted(name));
    }
    context.Set(name, std::visit([](const auto& value) { return Value::Of(value); }, scalar));
  }
  return jinja::Render(parsed_->body, context, limits);
}

}  // namespace kvasir
