// Cuts text into the pieces inside which byte-level BPE may merge.
//
// The rules are regular expressions known by the names that tokenizer.ggml.pre uses; some have more
// than one name. They see only well-formed UTF-8: any other byte is a piece of its own. Character
// classes are PCRE2's, which for version 10.42 means Unicode 14.
//
// Cost     70 to 90 MB/s; linear in the text. No text can exceed a limit of the matcher: single
//          characters are the only thing these patterns repeat, which takes neither stack nor heap.
// Threads  Immutable after construction.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace kvasir {

class PreTokenizer {
 public:
  // Errors: kUnsupported naming the rules that are known.
  explicit PreTokenizer(std::string_view name);
  ~PreTokenizer();

  // The first of the rule's names.
  std::string_view rule() const { return rule_; }
  // All first names, for messages: "gpt-2, smollm, qwen2".
  static std::string KnownRules();

  // Calls `piece` for each piece in order; together they are the text.
  void Split(std::string_view text, const std::function<void(std::string_view)>& piece) const;

 private:
  void SplitValid(std::string_view text, const std::function<void(std::string_view)>& piece) const;

  struct Pattern;
  std::string_view rule_;
  std::unique_ptr<Pattern> pattern_;
};

}  // namespace kvasir
