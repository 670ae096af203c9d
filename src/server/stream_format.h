// The bytes of an event stream in OpenAI's form.
//
// Chunks are put together by hand: what is the same in all of them is written once, and a chunk of
// text costs little more than its own bytes.
//
// Threads  Functions of their arguments.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>

#include "server/openai.h"

namespace kvasir {

class StreamFormat {
 public:
  static constexpr std::string_view kDone = "data: [DONE]\n\n";
  // A comment, which clients pass over and proxies take for a sign of life.
  static constexpr std::string_view kKeepAlive = ": \n\n";

  // Both must outlive it.
  StreamFormat(const ApiRequest& request, const ApiEcho& echo);

  // The chunk that opens a choice of a chat; empty for completions, which have none.
  std::string Role(size_t choice) const;
  // `logprobs`: JSON text, or "null".
  std::string Text(size_t choice, std::string_view text, std::string_view logprobs) const;
  // The last of a choice. `last`: of all choices together, so what belongs to the response as a
  // whole comes with it.
  std::string Finish(size_t choice, std::string_view logprobs, const Generation& generation,
                     std::span<const Generation> last) const;
  std::string Usage(std::span<const Generation> choices) const;
  static std::string Failure(const Error& error);

 private:
  std::string Chunk(size_t choice, std::string_view content, std::string_view logprobs,
                    std::string_view finish_reason, std::string_view more) const;

  const ApiRequest& request_;
  const ApiEcho& echo_;
  std::string head_;  // up to the list of choices
};

// `text` as a JSON string; bytes that are no UTF-8 become U+FFFD.
void AppendJsonString(std::string_view text, std::string* out);

}  // namespace kvasir
