// Request bodies: whatever the bytes are, the answer is a request whose promises hold, or an Error.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "format/json.h"
#include "server/openai.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  if (size == 0) return 0;
  const ApiRoute route = data[0] % 2 == 0 ? ApiRoute::kChat : ApiRoute::kCompletions;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    const ApiRequest request = ParseApiRequest(route, ParseJson(text, "body"), {});
    CHECK(route == ApiRoute::kChat ? !request.messages.empty() : request.messages.empty());
    CHECK(request.sampling.temperature >= 0 && request.sampling.temperature <= 2);
    CHECK(request.sampling.repeat_penalty > 0);
    CHECK(request.n_choices() >= 1 && request.n_choices() <= kMaxChoices);
    for (const auto& [id, bias] : request.sampling.logit_bias) CHECK(id >= 0);
    for (const std::string& stop : request.stop) CHECK(!stop.empty());
  } catch (const Error& error) {
    CHECK(!DumpJson(ApiErrorBody(error)).empty());
  }
  return 0;
}
