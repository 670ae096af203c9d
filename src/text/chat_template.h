// Chat templates: the Jinja source inside a model file, parsed once, rendered for a conversation.
//
// A subset of Jinja as transformers sets it up (trim_blocks, lstrip_blocks, loop controls, its
// sandbox, no clock): output equals jinja2's for the subset; anything outside it is an
// Error{kUnsupported} that names the construct and its line when the template is parsed. The
// subset: if, for, set, macro, break, continue, generation; the filters, tests and methods listed
// in jinja/filters.cc, tests.cc and methods.cc; integers of 64 bits; dicts with string keys.
// Rendering touches nothing but its arguments and is bounded in steps and bytes, parsing in depth.
//
// Cost     About 100 ns a step; a message is copied three or four times.
// Threads  Immutable after construction.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace kvasir {

struct ChatMessage {
  std::string role;
  std::string content;
};

// Further variables that a template may look at, such as enable_thinking.
using TemplateScalar = std::variant<bool, int64_t, double, std::string>;
using TemplateVariables = std::vector<std::pair<std::string, TemplateScalar>>;

class ChatTemplate {
 public:
  // Errors: kCorrupt (syntax, with line), kUnsupported.
  explicit ChatTemplate(std::string_view source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  // Errors: kInvalid with the template's own words (raise_exception), when a bound is passed, or
  // when a variable has the name of one that every template gets.
  std::string Render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                     std::string_view bos_token, std::string_view eos_token,
                     const TemplateVariables& variables = {}) const;

 private:
  struct Parsed;
  std::unique_ptr<Parsed> parsed_;
};

}  // namespace kvasir
