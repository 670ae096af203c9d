// From a conversation, or a plain text, to the tokens of a prompt.
//
// A chat template's own text and the contents it is filled with are kept apart until they are
// tokens: control tokens ("<|im_end|>") are recognised in the template's text alone, so no message
// can end a turn or open another one. Everything between two control tokens is encoded as one text;
// a conversation without control tokens in its messages therefore gives the ids of the rendered
// text as a whole.
//
// A chat prompt carries no BOS but the one its template writes; a plain text begins with BOS if
// that is the model's own rule. A model without a template takes a conversation as the contents of
// its messages, a blank line between two.
//
// Cost     A look at every vocabulary entry once; two renderings and one encoding for each prompt.
// Threads  Immutable after construction. Tokenizer and template must outlive it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/added_tokens.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace kvasir {

struct Prompt {
  std::vector<TokenId> tokens;
  // Positions [begin, end) of system text that the caller wrote; what a template adds is not among
  // them.
  std::vector<std::pair<uint32_t, uint32_t>> system;
};

// A prompt in two pieces, each encoded alone; together they are the prompt.
struct CutPrompt {
  Prompt head;
  std::vector<TokenId> tail;
};

class PromptBuilder {
 public:
  // `chat_template` may be null: the model has none.
  PromptBuilder(const Tokenizer& tokenizer, const ChatTemplate* chat_template);

  bool has_template() const { return chat_template_ != nullptr; }

  // An empty text is BOS alone. Errors: kInvalid when the vocabulary has none.
  Prompt Plain(std::string_view text) const;
  CutPrompt PlainCut(std::string_view head, std::string_view tail) const;

  // Errors: kInvalid (no message, a role that is no plain word, extras without a template, the
  // template's own refusals).
  // `extras`: what the template may look at besides. Neither its texts nor those of a message's
  // other fields hold control tokens.
  Prompt Chat(const std::vector<ChatMessage>& messages, bool add_generation_prompt = true,
              const TemplateExtras& extras = {}) const;
  // Cut after the first `offset` bytes of the content of message `index`, which the template must
  // print. Errors: also kUnsupported when the template leaves no such place.
  CutPrompt ChatCut(const std::vector<ChatMessage>& messages, size_t index, size_t offset) const;

  // The text of the conversation as the template writes it.
  std::string Render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                     const TemplateExtras& extras = {}) const;

 private:
  // A stretch of rendered text from one source.
  struct Part {
    std::string text;
    int message = -1;   // whose content this is; -1: the template's own text
    size_t offset = 0;  // where in that content it begins (a template may trim)
  };
  class Encoder;

  void CheckMessages(const std::vector<ChatMessage>& messages) const;
  void CheckExtras(const TemplateExtras& extras) const;
  void CheckNoControl(const TemplateValue& value, std::string_view what, bool is_message) const;
  std::vector<Part> Parts(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                          const TemplateExtras& extras) const;
  std::vector<Part> MarkedParts(const std::vector<ChatMessage>& messages,
                                bool add_generation_prompt, const TemplateExtras& extras,
                                const std::string& marker) const;
  Prompt Encode(const std::vector<Part>& parts, const std::vector<ChatMessage>& messages,
                bool continues) const;
  bool HasControl(std::string_view text) const { return control_.FindNext(text, 0).length > 0; }

  const Tokenizer& tokenizer_;
  const ChatTemplate* chat_template_;
  AddedTokens control_;
  std::string bos_text_, eos_text_;
};

}  // namespace kvasir
