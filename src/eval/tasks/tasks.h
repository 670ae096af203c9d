// The groups of tasks, and what they build drafts with.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/task.h"

namespace kvasir {

std::span<const Task>
NeedleTasks();                      // something said once in a text: niah_*, facts, passkey, number
std::span<const Task> ListTasks();  // what is spread over the text: vt, cwe, fwe
std::span<const Task> RecordTasks();  // every line looks like the one asked for: rkv_json
std::span<const Task> TraceTasks();  // the model writes the steps: regs, chain, selfrecall, longadd

// Puts pieces of a context together and remembers where needles begin.
class DraftBuilder {
 public:
  DraftBuilder& Add(std::string_view text) {
    draft_.context += text;
    return *this;
  }
  DraftBuilder& AddNeedle(std::string_view text) {
    draft_.needles.push_back({std::string(text), draft_.context.size()});
    return Add(text);
  }
  DraftBuilder& BeginBody() {
    draft_.body_begin = draft_.context.size();
    return *this;
  }
  // The haystack ends here, and the context with the line. One end of line, not two: all tokenizers
  // we know cut behind it whether or not the question follows in the same text.
  DraftBuilder& EndBody() {
    draft_.body_end = draft_.context.size();
    return Add("\n");
  }
  // Pieces with `separator` between them; `needle(i)` says whether piece i is asked for.
  template <typename IsNeedle>
  DraftBuilder& AddPieces(const std::vector<std::string>& pieces, char separator,
                          const IsNeedle& needle) {
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (i > 0) draft_.context += separator;
      needle(i) ? AddNeedle(pieces[i]) : Add(pieces[i]);
    }
    return *this;
  }
  Draft& draft() { return draft_; }

 private:
  Draft draft_;
};

// "a", "a and b", "a, b and c".
std::string JoinWithAnd(std::span<const std::string> items);

}  // namespace kvasir
