// From a request body to what the engine is asked: the same prompts and parameters wherever a body
// comes from, so that it gets the same text from a server and from a file of requests.
//
// Threads  Immutable after construction; what it refers to must outlive it.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/engine.h"
#include "server/openai.h"
#include "server/prompt.h"

namespace kvasir {

struct EngineRequests {
  std::vector<Prompt> prompts;
  std::vector<Request> requests;  // in the order of the choices: prompt after prompt, n for each
};

class RequestBuilder {
 public:
  // `raw` and `chat` build prompts of texts and of conversations. `pins`: the policy keeps system
  // text.
  RequestBuilder(const PromptBuilder& raw, const PromptBuilder& chat, uint32_t context, bool pins)
      : raw_(raw), chat_(chat), context_(context), pins_(pins) {}

  // The choices of a prompt have the seeds s, s + 1, ...; without one in the body s is random.
  // Errors: RequestError for a prompt that is no prompt or is longer than the context, naming the
  // field.
  EngineRequests Build(const ApiRequest& body) const;

 private:
  Prompt PromptOf(const ApiRequest& body, size_t index) const;

  const PromptBuilder& raw_;
  const PromptBuilder& chat_;
  uint32_t context_;
  bool pins_;
};

}  // namespace kvasir
