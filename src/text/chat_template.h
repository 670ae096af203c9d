// Chat templates: the Jinja source inside a model file, parsed once, rendered for a conversation.
//
// A subset of Jinja as transformers sets it up (trim_blocks, lstrip_blocks): output equals jinja2's for the
// subset; anything outside it is an Error{kUnsupported} that names the construct and its line when the
// template is parsed. Rendering touches nothing but its arguments and is bounded in steps and output.
// Threads  Immutable after construction.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace kvasir {

struct ChatMessage {
  std::string role;
  std::string content;
};

class ChatTemplate {
 public:
  // Errors: kCorrupt (syntax, with line), kUnsupported.
  explicit ChatTemplate(std::string_view source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  // Errors: kInvalid with the template's own words (raise_exception), or when a bound is passed.
  std::string Render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                     std::string_view bos_token, std::string_view eos_token) const;

 private:
  struct Parsed;
  std::unique_ptr<Parsed> parsed_;
};

}  // namespace kvasir
