#include "server/requests.h"

#include <utility>

namespace kvasir {

Prompt RequestBuilder::PromptOf(const ApiRequest& body, size_t index) const {
  const bool chat = body.route == ApiRoute::kChat;
  const char* field = chat ? "messages" : "prompt";
  Prompt prompt;
  try {
    if (chat) {
      prompt = chat_.Chat(body.messages, /*add_generation_prompt=*/true, body.variables);
    } else if (!body.prompts[index].tokens.empty()) {
      prompt.tokens = body.prompts[index].tokens;
    } else {
      prompt = raw_.Plain(body.prompts[index].text);
    }
  } catch (const Error& error) {
    throw RequestError(error.code(), error.what(), field);
  }
  if (prompt.tokens.size() > context_) {
    throw RequestError(Code::kInvalid,
                       fmt::format("{}: {} tokens are more than the context of {}", field,
                                   prompt.tokens.size(), context_),
                       field, "context_length_exceeded");
  }
  return prompt;
}

EngineRequests RequestBuilder::Build(const ApiRequest& body) const {
  EngineRequests built;
  const uint64_t seed = body.sampling.seed.value_or(RandomSeed());
  for (size_t p = 0; p < body.n_prompts(); ++p) {
    built.prompts.push_back(PromptOf(body, p));
    const Prompt& prompt = built.prompts.back();
    for (uint32_t j = 0; j < body.n; ++j) {
      Request r;
      r.tokens = prompt.tokens;
      r.max_tokens = body.max_tokens;
      r.sampling = body.sampling;
      r.sampling.seed = seed + j;
      r.stop = body.stop;
      r.stop_tokens = body.stop_tokens;
      // Harnesses that score a text ask for one token after it and strip the last of the list, so
      // it has to be there, also when it would end the text.
      const bool scores = body.echo && body.logprobs && body.max_tokens == 1u;
      r.ignore_eos = body.ignore_eos || scores;
      r.logprobs = body.logprobs;
      if (body.echo) r.prompt_logprobs = body.logprobs;
      r.salt = body.salt;
      if (pins_) r.pinned = prompt.system;
      built.requests.push_back(std::move(r));
    }
  }
  return built;
}

}  // namespace kvasir
