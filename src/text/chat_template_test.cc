#include "text/chat_template.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "text/jinja/json_value.h"
#include "text/jinja/parser.h"
#include "text/jinja/renderer.h"
#include "text/test_support.h"

namespace kvasir {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

jinja::Value ValueOf(const Json& json) { return jinja::ParseJsonValue(json.dump(), "test"); }

// The clock of the goldens: Thursday, 29 February 2024, 07:08:09.
std::tm Clock() {
  std::tm now{};
  now.tm_year = 124, now.tm_mon = 1, now.tm_mday = 29, now.tm_wday = 4, now.tm_yday = 59;
  now.tm_hour = 7, now.tm_min = 8, now.tm_sec = 9;
  return now;
}

// What comes out, or the code and words of the refusal.
struct Outcome {
  std::string text, error;
  Code code = Code::kIo;
};
template <typename F>
Outcome Try(F&& render) {
  try {
    return {.text = render()};
  } catch (const Error& error) {
    return {.error = error.what(), .code = error.code()};
  }
}
Outcome RenderSource(const std::string& source, const Json& variables = Json::object(),
                     const jinja::Limits& limits = {}) {
  return Try([&] {
    return jinja::Render(jinja::Parse(source), *ValueOf(variables).dict(), limits, Clock());
  });
}

// The goldens with all digits of their numbers.
jinja::Value GoldenText() {
  return jinja::ParseJsonValue(
      ReadWholeFile(KVASIR_SOURCE_DIR "/src/text/testdata/template_goldens.json"), "goldens");
}
jinja::Value GoldenVariables() { return *GoldenText().dict()->Find("variables"); }

void ExpectGolden(const Outcome& outcome, const Json& expect, const std::string& what) {
  if (expect.contains("text")) {
    EXPECT_EQ(outcome.error, "") << what;
    EXPECT_EQ(outcome.text, expect["text"].get<std::string>()) << what;
  } else {
    // What jinja2 fails on may be outside the subset here.
    EXPECT_TRUE(outcome.code == Code::kInvalid || outcome.code == Code::kCorrupt ||
                outcome.code == Code::kUnsupported)
        << what << "\ngave " << outcome.text << outcome.error;
  }
}

TEST(ChatTemplateTest, RendersConversationsAsJinja2Does) {
  const Json goldens = ReadGoldens("template_goldens.json");
  for (const Json& golden : goldens["conversations"]) {
    const std::string name = golden["template"].get<std::string>();
    const ChatTemplate chat(goldens["templates"][name].get<std::string>());
    std::vector<ChatMessage> messages;
    for (const Json& message : golden["messages"]) {
      messages.push_back({message["role"], message["content"]});
    }
    const bool prompt = golden["add_generation_prompt"].get<bool>();
    ExpectGolden(Try([&] { return chat.Render(messages, prompt, "<B>", "<E>"); }), golden["expect"],
                 name + ": " + golden["name"].get<std::string>());
  }
}

TEST(ChatTemplateTest, RendersToolsAsJinja2Does) {
  const Json goldens = ReadGoldens("template_goldens.json");
  for (const Json& golden : goldens["tools"]) {
    const std::string name = golden["template"].get<std::string>();
    ExpectGolden(RenderSource(goldens["templates"][name].get<std::string>(), golden["variables"]),
                 golden["expect"], name);
  }
}

TEST(ChatTemplateTest, RendersSmallTemplatesAsJinja2Does) {
  const Json goldens = ReadGoldens("template_goldens.json");
  const jinja::Value variables = GoldenVariables();
  for (const Json& golden : goldens["small"]) {
    const std::string source = golden["source"].get<std::string>();
    const Outcome outcome =
        Try([&] { return jinja::Render(jinja::Parse(source), *variables.dict(), {}, Clock()); });
    ExpectGolden(outcome, golden["expect"], source);
  }
}

uint64_t Hash(std::string_view text) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  return hash;
}

TEST(ChatTemplateTest, RendersTemplatesThatPeopleUseAsJinja2Does) {
  const std::string folder = TestDataPath("tokenizers/chat-templates");
  if (folder.empty()) GTEST_SKIP() << "no KVASIR_TEST_DATA with tokenizers/chat-templates";
  const jinja::Value foreign = *GoldenText().dict()->Find("foreign");
  const jinja::List& cases = *foreign.dict()->Find("cases")->list();
  for (const auto& [file, hashes] : foreign.dict()->Find("hashes")->dict()->items) {
    const ChatTemplate chat(ReadWholeFile(folder + "/" + file));
    for (size_t i = 0; i < cases.items.size(); ++i) {
      const jinja::Dict& one = *cases.items[i].dict();
      TemplateExtras extras;
      extras.tools = *one.Find("tools");
      extras.now = Clock();
      for (const auto& [name, value] : one.Find("kwargs")->dict()->items) {
        extras.variables.emplace_back(name, value);
      }
      const auto messages = MessagesFrom(*one.Find("messages"), "messages");
      const bool prompt = jinja::Truthy(*one.Find("add_generation_prompt"));
      const Outcome outcome =
          Try([&] { return chat.Render(messages, prompt, "<B>", "<E>", extras); });
      const std::string* hash = hashes.list()->items[i].string();
      const std::string what = fmt::format("{}, conversation {}", file, i);
      if (hash != nullptr) {
        EXPECT_EQ(outcome.error, "") << what;
        EXPECT_EQ(fmt::format("{:016x}", Hash(outcome.text)), *hash) << what << outcome.text;
      } else {
        EXPECT_EQ(outcome.code, Code::kInvalid) << what << outcome.text << outcome.error;
      }
    }
  }
}

TEST(ChatTemplateTest, RendersTheTemplatesOfTheModels) {
  for (const char* file :
       {"smollm2-135m-instruct-q4_1.gguf", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"}) {
    const std::string path = ModelPath(file);
    if (path.empty()) GTEST_SKIP() << "the model " << file << " is not there";
    const auto tokenizer = TokenizerOf(path);
    const ChatTemplate chat(tokenizer->chat_template());
    EXPECT_EQ(chat.Render({{"system", "S"}, {"user", "U"}}, true, "", ""),
              "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
              "<|im_start|>assistant\n");
  }
}

TEST(ChatTemplateTest, PassesOnTheTemplatesOwnWords) {
  const ChatTemplate chat("{{ raise_exception('roles must ' + 'alternate') }}");
  const Outcome outcome = Try([&] { return chat.Render({}, true, "", ""); });
  EXPECT_EQ(outcome.code, Code::kInvalid);
  EXPECT_EQ(outcome.error, "roles must alternate");
}

TEST(ChatTemplateTest, GivesTheTokensOfTheModel) {
  const ChatTemplate chat("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}");
  EXPECT_EQ(chat.Render({{"user", "x"}}, false, "<s>", "</s>"), "<s>x</s>");
}

TEST(ChatTemplateTest, NamesTheLineOfASyntaxError) {
  for (const auto& [source, word] :
       std::vector<std::pair<std::string, std::string>>{{"a\n\n{% if %}", "value"},
                                                        {"\n\n{{ 'open }}", "string"},
                                                        {"\n\n{{ 1", "closed"},
                                                        {"\n\n{# x", "comment"},
                                                        {"\n\n{% endfor %}", "endfor"},
                                                        {"\n\n{{ (1 }}", "missing"},
                                                        {"\n\n{{ 1 ] }}", "unexpected"},
                                                        {"\n\n{{ a b }}", "\"b\""},
                                                        {"\n\n{% for x y %}{% endfor %}", "in"},
                                                        {"\n\n{% break %}", "outside a loop"},
                                                        {"\n\n{% if 1 %}", "endif"},
                                                        {"\n\n{{ '\\ud800' }}", "escape"},
                                                        {"\n\n{{ 1 ! 2 }}", "!"}}) {
    const Outcome outcome = RenderSource(source);
    EXPECT_EQ(outcome.code, Code::kCorrupt) << source << outcome.error;
    EXPECT_THAT(outcome.error, HasSubstr("line 3")) << source;
    EXPECT_THAT(outcome.error, HasSubstr(word)) << source;
  }
}

TEST(ChatTemplateTest, NamesWhatIsOutsideTheSubset) {
  for (const auto& [source, word] : std::vector<std::pair<std::string, std::string>>{
           {"\n{% include 'x' %}", "include"},
           {"\n{% block a %}{% endblock %}", "block"},
           {"\n{{ x | pprint }}", "pprint"},
           {"\n{{ x is outer }}", "outer"},
           {"\n{{ x.encode() }}", "encode"},
           {"\n{{ cycler(1, 2) }}", "cycler"},
           {"\n{% for x in y %}{% filter pprint %}{% endfilter %}{% endfor %}", "pprint"},
           {"\n{{ x[1, 2] }}", "subscripts"},
           {"\n{{ 99999999999999999999 }}", "64 bits"}}) {
    const Outcome outcome = RenderSource(source);
    EXPECT_EQ(outcome.code, Code::kUnsupported) << source << outcome.error;
    EXPECT_THAT(outcome.error, HasSubstr("line 2")) << source;
    EXPECT_THAT(outcome.error, HasSubstr(word)) << source;
  }
}

std::string Repeated(const std::string& text, int n) {
  std::string result;
  for (int i = 0; i < n; ++i) result += text;
  return result;
}

TEST(ChatTemplateTest, BoundsHowDeepATemplateNests) {
  for (const std::string& source :
       {"{{ " + Repeated("(", 100'000) + "1",
        "{{ " + Repeated("[", 5'000) + Repeated("]", 5'000) + " }}",
        "{{ " + Repeated("not ", 100'000) + "1 }}", "{{ " + Repeated("-", 100'000) + "1 }}",
        "{{ 1" + Repeated(" + 1", 100'000) + " }}", "{{ x" + Repeated(".a", 100'000) + " }}",
        "{{ x" + Repeated("|trim", 100'000) + " }}", "{{ x" + Repeated("[0]", 100'000) + " }}",
        "{{ 1" + Repeated(" if 1 else 1", 100'000) + " }}",
        "{{ 1" + Repeated(" or 1", 100'000) + " }}", Repeated("{% if 1 %}", 60'000),
        Repeated("{% for i in [1] %}", 50'000), "{{ x" + Repeated(" is defined", 50'000) + " }}"}) {
    const Outcome outcome = RenderSource(source);
    EXPECT_TRUE(outcome.code == Code::kUnsupported || outcome.code == Code::kCorrupt)
        << source.substr(0, 40) << outcome.error;
  }
  EXPECT_EQ(RenderSource("{{ " + Repeated("(", 30) + "1" + Repeated(")", 30) + " }}").text, "1");
  EXPECT_EQ(RenderSource("{{ 1" + Repeated(" + 1", 150) + " }}").text, "151");
}

TEST(ChatTemplateTest, BoundsTimeAndMemory) {
  // A tenth of the real limits, so that this also ends soon under sanitizers.
  const jinja::Limits limits = {.steps = 1'000'000, .bytes = 25 << 20};
  for (const char* source :
       {"{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for a in range(99) %}{% set ns.s = ns.s + ns.s %}{% "
        "endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for a in range(99) %}{% set ns.s = ns.s + ns.s %}{% "
        "endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for a in range(250) %}{% set ns.s = [ns.s, ns.s] %}{% "
        "endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for a in range(50) %}{% set ns.s = [ns.s, ns.s] %}{% "
        "endfor %}{{ ns.s }}",
        "{% set ns = namespace(s=[1]) %}{% for a in range(50) %}{% set ns.s = [ns.s, ns.s] %}{% "
        "endfor %}{{ ns.s | tojson }}",
        "{% set a = namespace(s=[1]) %}{% set b = namespace(s=[1]) %}{% for i in range(50) %}{% "
        "set a.s = [a.s, a.s] %}{% set b.s = [b.s, b.s] %}{% endfor %}{{ a.s == b.s }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(n) %}{{ m(n + 1) ~ m(n + 2) }}{% endmacro %}{{ m(0) }}",
        "{{ 'x' * 9999999999 }}",
        "{{ [1] * 9999999999 }}",
        "{{ 'a' | indent(9999999999) }}",
        "{{ [[1]] | tojson(indent=9999999999) }}",
        "{{ ('a' * 100000).replace('', 'b' * 100000) }}",
        "{% for i in range(100000) %}{{ 'y' * 100000 }}{% endfor %}",
        "{{ 'x' | center(999999999) }}",
        "{{ 'x'.center(999999999) }}",
        "{{ 'x'.ljust(999999999) }}",
        "{{ 'x'.zfill(999999999) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%.999999999f' % 1 }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ '{:.999999999f}'.format(1.0) }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ [1] | batch(999999999, 0) | list }}",
        "{{ [1] | slice(999999999) | list }}",
        "{{ range(1000000000) | list }}",
        "{{ strftime_now('%999999999d') }}",
        "{{ [[1] * 1000] * 1000 | sum(start=[]) }}",
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% macro m() %}{{ caller() }}{% endmacro %}{% macro n() %}{% call m() %}{{ n() }}"
        "{% endcall %}{% endmacro %}{{ n() }}",
        "{% set a = namespace(s=[1]) %}{% for i in range(50) %}{% set a.s = [a.s, a.s] %}{% endfor "
        "%}{{ [a.s, a.s] | sort }}",
        "{% set a = namespace(s='<') %}{% for i in range(50) %}{% set a.s = a.s | forceescape "
        "%}{% endfor %}{{ a.s * 9999999 }}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% macro m() %}{% endmacro %}"
        "{% endfor %}{% endfor %}",
        "{% set a = namespace(s='x') %}{% for i in range(99) %}{% set a.s = '%s%s' % (a.s, a.s) "
        "%}{% endfor %}",
        "{% set a = namespace(s='x') %}{% for i in range(99) %}{% set a.s = '{0}{0}'.format(a.s) "
        "%}{% endfor %}",
        "{{ 9223372036854775807 + 1 }}",
        "{{ 9 ** 99 }}",
        "{{ -9223372036854775807 - 2 }}"}) {
    const Outcome outcome = RenderSource(source, Json::object(), limits);
    EXPECT_EQ(outcome.code, Code::kInvalid) << source << " " << outcome.text.substr(0, 40);
  }
}

TEST(ChatTemplateTest, BoundsWhatAWholeRenderingMakes) {
  const ChatTemplate chat(
      "{% for i in range(1000) %}{% for j in range(1000) %}{{ messages[0].content }}"
      "{% endfor %}{% endfor %}");
  EXPECT_EQ(Try([&] { return chat.Render({{"user", std::string(1000, 'x')}}, true, "", ""); }).code,
            Code::kInvalid);
}

TEST(ChatTemplateTest, AllowsLongConversations) {
  const Json goldens = ReadGoldens("template_goldens.json");
  std::vector<ChatMessage> messages;
  for (int i = 0; i < 20'000; ++i) {
    messages.push_back({i % 2 == 0 ? "user" : "assistant", std::string(2'000, 'x')});
  }
  for (const auto& [name, source] : goldens["templates"].items()) {
    const ChatTemplate chat(source.get<std::string>());
    EXPECT_GT(chat.Render(messages, true, "", "").size(), 40'000'000u) << name;
  }
}

TEST(ChatTemplateTest, SeesTheVariablesOfARequest) {
  const ChatTemplate chat(
      "{% if thinking is defined %}{{ thinking }}{% endif %}|{{ depth }}|{{ scale }}|{{ style }}");
  EXPECT_EQ(chat.Render({{"user", "x"}}, true, "", ""), "|||");
  EXPECT_EQ(
      chat.Render({{"user", "x"}}, true, "", "",
                  TemplateVariables{
                      {"thinking", false}, {"depth", int64_t{3}}, {"scale", 0.5}, {"style", "s"}}),
      "False|3|0.5|s");
  for (const char* name : {"messages", "tools", "add_generation_prompt", "bos_token"}) {
    const Outcome outcome = Try([&] {
      return chat.Render({{"user", "x"}}, true, "", "", TemplateVariables{{name, true}});
    });
    EXPECT_EQ(outcome.code, Code::kInvalid) << name;
    EXPECT_NE(outcome.error.find(name), std::string::npos) << outcome.error;
  }
}

TEST(ChatTemplateTest, SeesMessagesAsTheyCame) {
  const ChatTemplate chat("{{ messages | tojson }}{{ tools | tojson }}");
  const auto messages = MessagesFrom(
      ParseTemplateValue(R"([{"content": null, "role": "assistant", "n": 18446744073709551616},
                             {"role": "user", "content": [{"type": "text"}]}])",
                         "m"),
      "m");
  EXPECT_EQ(messages[0].content, "");
  EXPECT_EQ(chat.Render(messages, true, "", ""),
            R"([{"content": null, "role": "assistant", "n": 18446744073709551616}, )"
            R"({"role": "user", "content": [{"type": "text"}]}]null)");
  for (const char* wrong : {"{}", "[1]", R"([{"content": "x"}])", R"([{"role": 1}])"}) {
    EXPECT_EQ(Try([&] {
                MessagesFrom(ParseTemplateValue(wrong, "m"), "m");
                return std::string();
              }).code,
              Code::kInvalid)
        << wrong;
  }
}

TEST(ChatTemplateTest, RefusesWhatIsNoJson) {
  for (const std::string& wrong : {std::string("{"), std::string("[1] 2"), std::string("nul"),
                                   std::string("\"\xff\""), std::string("[1,]"), std::string("")}) {
    EXPECT_EQ(Try([&] {
                ParseTemplateValue(wrong, "m");
                return std::string();
              }).code,
              Code::kCorrupt)
        << wrong;
  }
  EXPECT_EQ(Try([&] {
              ParseTemplateValue(Repeated("[", 100'000), "m");
              return std::string();
            }).code,
            Code::kInvalid);
}

}  // namespace
}  // namespace kvasir
