// The word lists of generated tasks, and text made of them.
//
// Prose has words and punctuation only: no digits, no hyphens, and none of the words that label
// what is asked ("number", "secret", "key" ...), so that nothing in it can be taken for an answer.
//
// Threads  Any; the lists are immutable.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/generator.h"

namespace kvasir {

std::span<const std::string_view> Adjectives();
std::span<const std::string_view> Nouns();
std::span<const std::string_view> Cities();  // none contains another

// "adjective-noun" pairs are numbered from 0.
uint64_t WordKeyCount();
std::string WordKey(uint64_t number);

// One line that carries no information, without an end of line.
extern const std::string_view kNoiseLine;

// A sentence of the built-in prose.
std::string ProseSentence(Generator& generator);

// Sentences of prose, from the built-in grammar or from a text of the user.
class Prose {
 public:
  Prose() = default;  // built-in
  // The text is cut after . ! ? before white space, which is folded. Errors: kInvalid naming
  // `where` (no sentence, text that is no UTF-8).
  Prose(std::string_view text, const std::string& where);

  // From a text: consecutive ones from a random place on, beginning anew at its end.
  std::vector<std::string> Sentences(uint64_t count, Generator& generator) const;

 private:
  std::vector<std::string> sentences_;
};

}  // namespace kvasir
