// Any bytes as a template: parsing and rendering end in a text or an Error, within their bounds.
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "text/jinja/json_value.h"
#include "text/jinja/parser.h"
#include "text/jinja/renderer.h"

namespace kvasir {
namespace {

using jinja::Value;

// One of everything, under names short enough to be found.
jinja::Dict Context() {
  jinja::List messages;
  for (const char* role : {"system", "user", "assistant", "tool"}) {
    jinja::Dict message;
    message.Set("role", Value::Of(std::string(role)));
    message.Set("content", Value::Of(std::string(" a\xC3\xA9 \xF0\x9F\x98\x80 \xFF\n")));
    messages.items.push_back(Value::Of(std::move(message)));
  }
  jinja::Dict context;
  context.Set("messages", Value::Of(std::move(messages)));
  context.Set("add_generation_prompt", Value::Of(true));
  context.Set("bos_token", Value::Of(std::string("<s>")));
  context.Set("tools", Value::NoneValue());
  context.Set("n", Value::Of(int64_t{-3}));
  context.Set("f", Value::Of(2.5));
  context.Set("o", jinja::ParseJsonValue(
                       R"([{"b": 1, "a": [null, "<x>"]}, {"b": 0, "a": 1e30, "c": {}}])", "o"));
  return context;
}

}  // namespace
}  // namespace kvasir

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  static const jinja::Dict context = Context();
  const jinja::Limits limits = {.steps = 20'000, .bytes = 1 << 20};
  try {
    const jinja::Body body = jinja::Parse({reinterpret_cast<const char*>(data), size});
    const std::string text = jinja::Render(body, context, limits, {});
    CHECK(text.size() <= limits.bytes);
    CHECK(text == jinja::Render(body, context, limits, {}));
  } catch (const Error&) {
  }
  return 0;
}
