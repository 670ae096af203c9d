// Any JSON as messages, tools and variables of some templates: what comes out is a text or an
// Error. The first byte picks the template.
#include <array>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "text/chat_template.h"

namespace kvasir {
namespace {

constexpr std::string_view kSources[] = {
    "{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}{{ m.tool_calls | tojson "
    "}}{% endfor %}{{ tools | tojson(indent=2, sort_keys=true) }}",
    "{% macro kind(s) %}{% if s.type is string %}{{ s.type }}{% elif s.type is iterable %}{{ "
    "s.type | join('|') }}{% endif %}{% for k, v in (s.properties or {}).items() %}{{ k }}: {{ "
    "kind(v) }},{% endfor %}{% if s.items is mapping %}[{{ kind(s.items) }}]{% endif %}"
    "{% endmacro %}{% for t in tools %}{{ t.function.name ~ kind(t.function.parameters) }}"
    "{% endfor %}",
    "{% set ns = namespace(last='') %}{% for m in messages | rejectattr('role', 'equalto', 'x') "
    "%}{% if m.content is string %}{% set ns.last = m.content.split('</think>')[-1] %}{% elif "
    "m.content is iterable %}{% for p in m.content %}{{ p.text | default('-') }}{% endfor "
    "%}{% endif %}{{ loop.index ~ ns.last[1:-1][::-1] }}{% endfor %}",
    "{{ messages }}{{ messages | map(attribute='content') | list }}{{ messages | "
    "groupby('role') }}{{ tools | string | indent(2) | title }}{{ x | dictsort }}",
    "{{ messages[0].content | safe + messages[1].content }}{{ '%s %5.2s %r' % (messages[0], x, "
    "tools) }}{{ '{0} {1!r:>9}'.format(messages[0].role, x) }}",
    "{% for n in messages recursive %}{{ n.role }}{{ loop.depth }}{{ loop.changed(n) }}"
    "{% if n.content is iterable and n.content is not string %}{{ loop(n.content) }}{% endif "
    "%}{% endfor %}{{ messages | sum(attribute='n', start=0) }}{{ messages | sort(attribute="
    "'n') | unique | list }}{{ x | round(2) }}{{ x | int }}{{ x == tools }}{{ x < tools }}",
};

}  // namespace
}  // namespace kvasir

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  static const std::array<ChatTemplate, std::size(kSources)> templates = {
      ChatTemplate(kSources[0]), ChatTemplate(kSources[1]), ChatTemplate(kSources[2]),
      ChatTemplate(kSources[3]), ChatTemplate(kSources[4]), ChatTemplate(kSources[5])};
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    const TemplateValue input = ParseTemplateValue(text, "input");
    if (input.dict() == nullptr || input.dict()->Find("messages") == nullptr) return 0;
    TemplateExtras extras;
    extras.now.emplace();
    for (const auto& [name, value] : input.dict()->items) {
      if (name == "tools") {
        extras.tools = value;
      } else if (name != "messages") {
        extras.variables.emplace_back(name, value);
      }
    }
    const auto messages = MessagesFrom(*input.dict()->Find("messages"), "input");
    const ChatTemplate& chat = templates[data[0] % templates.size()];
    const std::string rendered = chat.Render(messages, true, "<s>", "</s>", extras);
    CHECK(rendered == chat.Render(messages, true, "<s>", "</s>", extras));
  } catch (const Error&) {
  }
  return 0;
}
