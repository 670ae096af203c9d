// Chat templates: the Jinja source inside a model file, parsed once, rendered for a conversation.
//
// A subset of Jinja as transformers sets it up (trim_blocks, lstrip_blocks, loop controls, its
// sandbox without automatic escapes, tojson, raise_exception, strftime_now): output equals jinja2's
// for the subset; anything outside it is an Error{kUnsupported} that names the construct and its
// line when the template is parsed. The subset:
//   statements  if, for (else, if, recursive, the variable loop), set, set blocks with filters,
//               macro (varargs, kwargs, caller), call, filter, with, raw, generation, break,
//               continue
//   functions   range, dict, namespace, raise_exception, strftime_now
//   others      all operators; the filters, tests and methods listed in jinja/filters_*.cc,
//   tests.cc
//               and methods.cc; Markup as | safe and | escape make it
// Bounds: integers have 64 bits (longer ones of a message are printed and compared), dicts have
// string keys, and upper, lower and title map one character to one. Statements that read other
// files (include, import, extends, block) are not there.
// Rendering touches nothing but its arguments and is bounded in steps and bytes, parsing in depth.
//
// Cost     About 100 ns a step; a message is copied three or four times.
// Threads  Immutable after construction.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja/value.h"

namespace kvasir {

// A JSON document for templates: tools, a message with all its fields, a variable. Undefined by
// default. Cheap to copy.
using TemplateValue = jinja::Value;

// Errors: kCorrupt, `where` first.
TemplateValue ParseTemplateValue(std::string_view json, const std::string& where);

struct ChatMessage {
  std::string role;
  std::string content;
  // The message as it came, a dict, if it is more than a role and a text; then templates see this
  // instead, and role and content are copies for others. content is empty where it is no text.
  TemplateValue whole = {};
};

// From a list of messages. Errors: kInvalid, with the number of the message, for one that is not a
// dict with a role.
std::vector<ChatMessage> MessagesFrom(const TemplateValue& list, const std::string& where);

// Further variables that a template may look at, such as enable_thinking.
using TemplateScalar = std::variant<bool, int64_t, double, std::string, TemplateValue>;
using TemplateVariables = std::vector<std::pair<std::string, TemplateScalar>>;

// What a template is given besides messages.
struct TemplateExtras {
  TemplateExtras() = default;
  TemplateExtras(TemplateVariables v) : variables(std::move(v)) {}

  TemplateVariables variables;
  TemplateValue tools = TemplateValue::NoneValue();  // a list
  std::optional<std::tm> now;                        // for strftime_now; absent: the local time
};

class ChatTemplate {
 public:
  // Errors: kCorrupt (syntax, with line), kUnsupported.
  explicit ChatTemplate(std::string_view source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  // Errors: kInvalid with the template's own words (raise_exception), for what jinja2 refuses, when
  // a bound is passed, or when a variable has the name of one that every template gets.
  std::string Render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                     std::string_view bos_token, std::string_view eos_token,
                     const TemplateExtras& extras = {}) const;

 private:
  struct Parsed;
  std::unique_ptr<Parsed> parsed_;
};

}  // namespace kvasir
