#!/usr/bin/env python3
"""Writes src/text/testdata/template_goldens.json: what jinja2 makes of chat templates.

Of the templates in the folder ${KVASIR_TEST_DATA}/tokenizers/chat-templates only hashes of their
output are stored, for conversations that compare_templates.py makes up.

Needs the packages jinja2 and gguf, and the GGUF files of smollm2, qwen-0.5b and qwen-1.5b in
${KVASIR_MODELS:-~/.cache/kvasir/models}, whose templates (Apache-2.0) are stored with the results. The
environment is the one that transformers sets up, with the clock at NOW. The tests need none of this.
"""

import datetime
import json
import os
import pathlib
import random

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2024, 2, 29, 7, 8, 9)
MODELS = {
    "smollm2": "smollm2-135m-instruct-q4_1.gguf",
    "qwen-0.5b": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "qwen-1.5b": "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
}


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            call = self.call_method("_text")
            return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

        def _text(self, caller):
            return caller()

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def turn(role, content):
    return {"role": role, "content": content}


ODD = "  {{ not }} {% a %} tag {# x #}\n\r\n\ttabs \"quotes\" 'single' \\n \u00e9\U0001f600\u4f60 <|im_end|>\n"
CONVERSATIONS = {
    "one user turn": [turn("user", "Hello!")],
    "a system turn": [turn("system", "Be brief."), turn("user", "Hi")],
    "several turns": [
        turn("system", "You are a pirate."),
        turn("user", "Who are you?"),
        turn("assistant", "Arr."),
        turn("user", "And now?"),
    ],
    "turns without a system": [turn("user", "1"), turn("assistant", "2"), turn("user", "3")],
    "a late system turn": [turn("user", "1"), turn("system", "2"), turn("user", "3")],
    "odd content": [turn("system", ODD), turn("user", ODD), turn("assistant", ODD)],
    "empty content": [turn("system", ""), turn("user", ""), turn("assistant", "")],
    "a tool turn": [turn("user", "w?"), turn("tool", "rain"), turn("tool", "sun"), turn("user", "?")],
    "an unknown role": [turn("narrator", "Once"), turn("user", "Go on")],
}

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Says \"what\" it's like \u2014 there",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": ["integer", "null"]}},
            "required": ["city"],
        },
    },
}
CALLS = [
    turn("user", "Weather in Oslo?"),
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo", "days": 2}}}
        ],
    },
    turn("tool", "rain"),
    turn("assistant", "It rains."),
]

# Variables of the small templates below.
VARIABLES = {
    "messages": CALLS,
    "tools": [WEATHER],
    "text": "  Hello, W\u00f6rld!  ",
    "words": ["alpha", "Beta", "gamma", "beta", "alpha"],
    "numbers": [3, 1, 2, 1],
    "nested": {"a": {"b": [1, {"c": "deep"}]}, "list": [], "n": 1.5, "t": True, "none": None},
    "rows": [{"k": "x", "v": 1}, {"k": "y", "v": 2, "w": True}, {"k": "x", "v": 3}],
    "html": "<a href=\"x\">'&'</a>",
    "lines": "one\n\ntwo\n  three",
    "empty": "",
    "bos_token": "<s>",
    "big": 10**30,
    "people": [
        {"name": "Bo", "age": 3, "city": {"n": "x"}},
        {"name": "al", "age": 1, "city": {"n": "y"}},
        {"name": "Cy", "age": 2, "city": {"n": "x"}},
    ],
    "tree": [
        {"n": "a", "c": [{"n": "b", "c": []}, {"n": "c", "c": [{"n": "d", "c": []}]}]},
        {"n": "e", "c": []},
    ],
}

SMALL = [
    # white space
    "a\n{% if true %}\nb\n{% endif %}\nc\n",
    "a\n  {% if true %}  \n  b\n  {%- endif -%}  \n  c\n\n",
    "  {%+ if true %}x{% endif +%}\n y",
    "x {#- gone -#} y {# here #}\nz\n  {# line #}\nw",
    "{{ 'a' }}\n{{- 'b' -}}\n  {{ 'c' }}  \n",
    "a\r\nb\rc{% set x = 'd\r\ne' %}\r\n{{ x }}\r\n",
    "\n\n{% set x = 1 %}\n\n{{ x }}\n\n",
    "{{ 'x' }}\u00a0\u2003{{- 'y' }}",
    "{{ '{{' }}{{ '%}' }}{{ \"}}\" }}{{ {'a': {'b': 1}}['a']['b'] }}",
    "\t{%- for i in [1, 2] %}\n\t {{ i }}\n\t{%- endfor %}\nend",
    # literals and escapes
    r'''{{ 'a\n\t\\\'\"\x41\u00e9\U0001F600\101\q' ~ "it's" 'joined' }}''',
    "{{ 1 }} {{ 1.0 }} {{ 1e3 }} {{ 1.5e-7 }} {{ 1e16 }} {{ 123456789.125 }} {{ 1_000 }} {{ true }} {{ None }} {{ none }}",
    "{{ [1, 'a', \"it's\", 2.5, none, true, [], {'k': 'v\\n'}] }} {{ (1, 2) }} {{ (1,) }} {{ () }} {{ {} }}",
    "{{ 1, 2 }}",
    # operators
    "{{ 1 + 2 * 3 - 4 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }}",
    "{{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ not 1 == 2 }} {{ +3 - -3 }}",
    "{{ 'a' + 'b' ~ 1 ~ none ~ true ~ 1.0 }} {{ 'ab' * 3 }} {{ 2 * 'x' }} {{ [1] * 2 + [3] }}",
    "{{ 1 < 2 <= 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 1 == '1' }} {{ true == 1 }}",
    "{{ 'a' in 'cat' }} {{ 'x' not in words }} {{ 'beta' in words }} {{ 'a' in nested }} {{ 2 in numbers }} {{ 1 in nothing }}",
    "{{ 0 or 'x' }} {{ '' and 'y' }} {{ 1 and 2 }} {{ none or [] }} {{ not [] }} {{ not 'a' and 1 }}",
    "{{ 'a' if 1 }}|{{ 'a' if 0 }}|{{ 'a' if 0 else 'b' if 0 else 'c' }}",
    "{{ numbers[0] }} {{ numbers[-1] }} {{ numbers[9] }} {{ numbers.1 }} {{ text[2] }} {{ nested.a.b[1].c }} {{ nested['a']['b'][0] }} {{ nested.zzz }}",
    "{{ words[1:] }} {{ words[:-1] }} {{ words[::2] }} {{ words[::-1] }} {{ words[5:1:-2] }} {{ text[2:7] }} {{ text[::-1] }} {{ words[-2:] }} {{ 'h\u00e9llo'[1:3] }} {{ words[9:] }}",
    # statements
    "{% for w in words %}{{ loop.index }}/{{ loop.length }}:{{ w }}{{ ',' if not loop.last }}{% endfor %}",
    "{% for w in words %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.depth }}{{ loop.previtem }}<{{ loop.nextitem }}>{% endfor %}",
    "{% for w in words if w != 'alpha' %}{{ loop.index }}{{ w }} {% else %}none{% endfor %}",
    "{% for w in [] %}x{% else %}empty{% endfor %}{% for w in nothing %}x{% else %}undefined{% endfor %}",
    "{% for k, v in nested.items() %}{{ k }}={{ v }};{% endfor %}{% for k in nested %}{{ k }}{% endfor %}{% for c in 'h\u00e9' %}[{{ c }}]{% endfor %}",
    "{% for (k, v) in nested | items %}{{ k }}{% endfor %}",
    "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %} {{ range(5, 1, -2) | list }}",
    "{% for i in [1, 2] %}{% for j in [1, 2] %}{{ loop.index }}{{ i }}{{ j }} {% endfor %}{{ loop.index }}{% endfor %}",
    "{% for i in [1, 2, 3] %}{{ loop.cycle('odd', 'even') }}{% endfor %}",
    "{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}",
    "{% set ns = namespace(n=0, s='') %}{% for i in numbers %}{% set ns.n = ns.n + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.n }} {{ ns.s }} {{ ns.zzz }}",
    "{% if nothing %}a{% elif numbers %}b{% else %}c{% endif %}{% if 0 %}a{% elif '' %}b{% else %}c{% endif %}",
    "{% set a, b = 1, 'two' %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t }}",
    "{% set x %}\n block {{ 1 + 1 }}\n{% endset %}[{{ x }}]",
    "{% if true %}{% set y = 5 %}{% endif %}{{ y }}",
    "{% macro m(a, b='B', c=none) %}<{{ a }}{{ b }}{{ c }}>{% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m('x', b=m(2)) }}{{ m() }}",
    "{% macro down(n) %}{{ n }}{% if n > 0 %}{{ down(n - 1) }}{% endif %}{% endmacro %}{{ down(5) }}",
    "{% set g = 'early' %}{% macro m() %}{{ g }}{% endmacro %}{% set g = 'late' %}{{ m() }}",
    "{% for x in messages %}{% if loop.first %}{% continue %}{% endif %}{{ loop.previtem.role }}>{{ x.role }} {% endfor %}",
    "{% set tool_calls = messages[1].tool_calls %}{{ tool_calls[0].function.arguments | tojson }}{{ messages[0].tool_calls is defined }}",
    # filters
    "[{{ text | trim }}] [{{ text.strip() }}] [{{ text.lstrip() }}] [{{ text.rstrip() }}] [{{ 'xxaxx'.strip('x') }}] [{{ 'xyayx' | trim('xy') }}]",
    "{{ text | upper }}{{ text | lower }}{{ 'hELLO wORLD-foo (bar' | title }}{{ 'hELLO' | capitalize }}{{ '\u00e9T\u00c9' | upper }}{{ '\u00c9' | lower }}",
    "{{ words | length }}{{ text | length }}{{ nested | count }}{{ nothing | length }}{{ 'h\u00e9' | length }}",
    "{{ words | join(', ') }}|{{ numbers | join }}|{{ rows | join('-', attribute='k') }}|{{ [1, none, 'x'] | join('/') }}",
    "{{ words | first }}{{ words | last }}{{ [] | first }}{{ 'abc' | last }}{{ nested | first }}",
    "{{ nothing | default('d') }}{{ empty | default('d') }}{{ empty | default('d', true) }}{{ none | d('x') }}{{ nothing | default }}",
    "{{ 'aaa' | replace('a', 'b', 2) }}{{ 'a.b' | replace('.', '') }}{{ 'abc' | replace('', '-') }}{{ 12 | replace('1', 'x') }}",
    "{{ html }}{{ html | tojson }}{{ nested | tojson }}",
    "{{ nested | tojson(indent=2) }}\n{{ [1, [], {}] | tojson(indent=4) }}{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}{{ '\u00e9\U0001f600' | tojson(ensure_ascii=true) }}{{ {'a': [1, 2]} | tojson(separators=(',', ':')) }}",
    "{{ 'ctrl \u0001\u001f\u007f \\\\ \" / \b\f\n\r\t \u2028 \u00e9' | tojson }}{{ 1.0 | tojson }}{{ 1e20 | tojson }}{{ -0.5 | tojson }}",
    "{{ tools | tojson(indent=4) }}",
    "{{ rows | map(attribute='k') | list }}{{ rows | map(attribute='w', default='-') | join(',') }}{{ words | map('upper') | join(' ') }}{{ rows | map(attribute='zzz') | list | length }}",
    "{{ rows | selectattr('w') | list }}{{ rows | selectattr('k', 'equalto', 'x') | map(attribute='v') | list }}{{ rows | rejectattr('w', 'defined') | list | length }}",
    "{{ numbers | select('odd') | list }}{{ numbers | reject('equalto', 1) | list }}{{ numbers | select('in', [1, 2]) | list }}{{ [0, 1, ''] | select | list }}",
    "{{ words | unique | list }}{{ words | unique(case_sensitive=true) | list }}{{ rows | unique(attribute='k') | map(attribute='v') | list }}",
    "{{ lines | indent }}|{{ lines | indent(2, true) }}|{{ lines | indent(2, blank=true) }}|{{ lines | indent('> ', first=true) }}|{{ '' | indent }}|{{ 'a\n' | indent }}",
    "{{ '42' | int }}{{ ' 7 ' | int }}{{ 'x' | int }}{{ 'x' | int(5) }}{{ '3.9' | int }}{{ 3.9 | int }}{{ '2.5' | float }}{{ 'y' | float }}{{ 2 | float }}{{ -3 | abs }}{{ 2.5 | abs }}",
    "{{ 5 | string + 'x' }}{{ words | list | string }}{{ 'abc' | list }}{{ 'abc' | reverse }}{{ numbers | reverse | list }}",
    "{{ nested | items | list }}{{ nothing | items | list }}",
    "{{ 'y' if rows | selectattr('zzz') else 'n' }}{{ 'y' if {}.items() else 'n' }}{{ range(3)[1] }}{{ nested.items() | length }}{{ (rows | map(attribute='v'))[0] }}{{ range(2) == [0, 1] }}",
    "{% set g = rows | map(attribute='v') %}{{ 2 in g }}{{ words | map('upper') | first }}{{ words | map('upper') | reverse }}{{ g is sequence }}{{ range(2) is sequence }}{{ nested.keys() is sequence }}{{ g is iterable }}",
    # tests
    "{{ nothing is defined }}{{ nothing is undefined }}{{ text is defined }}{{ none is none }}{{ nothing is none }}{{ text is not none }}",
    "{{ text is string }}{{ 1 is string }}{{ nested is mapping }}{{ words is mapping }}{{ words is iterable }}{{ 1 is iterable }}{{ nothing is iterable }}{{ 'a' is sequence }}{{ words is sequence }}",
    "{{ 1 is number }}{{ true is number }}{{ 1 is integer }}{{ true is integer }}{{ 1.0 is float }}{{ true is boolean }}{{ true is true }}{{ 1 is true }}{{ false is false }}",
    "{{ 3 is odd }}{{ 4 is even }}{{ 9 is divisibleby 3 }}{{ 9 is divisibleby(2) }}{{ 1 is eq 1 }}{{ 1 is ne(2) }}{{ 1 is lt 2 }}{{ 2 is ge 2 }}{{ 'a' is in 'abc' }}{{ 1 is not in numbers }}{{ 'a' is lower }}{{ 'A1' is upper }}{{ '1' is upper }}",
    "{{ x is defined and x or 'no' }}{{ 'a' if x is not defined else 'b' }}{{ not x is defined }}",
    # methods
    "{{ 'a,b,,c'.split(',') }}{{ ' a  b c '.split() }}{{ 'a b c d'.split(' ', 2) }}{{ 'a b c d '.split(none, 2) }}{{ 'a b c d'.rsplit(' ', 1) }}{{ 'a</t>b'.split('</t>')[-1] }}{{ ' a b  c '.rsplit(none, 1) }}",
    "{{ 'hello'.startswith('he') }}{{ 'hello'.endswith('lo') }}{{ 'hello'.startswith(('x', 'h')) }}{{ 'hello'.find('l') }}{{ 'h\u00e9llo'.find('l') }}{{ 'hello'.find('z') }}{{ 'hello'.count('l') }}{{ 'hi'.count('') }}",
    "{{ 'Hello'.upper() }}{{ 'Hello'.lower() }}{{ 'hello'.capitalize() }}{{ '12'.isdigit() }}{{ ''.isdigit() }}{{ '-'.join(['a', 'b']) }}{{ 'a-b'.replace('-', '+') }}{{ 'prefix-x'.removeprefix('prefix-') }}{{ 'x.py'.removesuffix('.py') }}",
    "{{ 'a\nb\r\nc\n'.splitlines() }}{{ 'a\nb\n'.splitlines(true) }}",
    "{{ nested.get('n') }}{{ nested.get('zzz') }}{{ nested.get('zzz', 'd') }}{{ nested.keys() | list }}{{ nested.values() | list | length }}{{ numbers.count(1) }}",
    "{{ dict(a=1, b='x') }}{{ dict({'a': 1}, b=2) | tojson }}",
    # what fails
    "{{ raise_exception('Roles must alternate, they don\\'t') }}",
    "{{ nothing.attribute }}",
    "{{ nothing + 'x' }}",
    "{{ 'x' + 1 }}",
    "{{ 1 // 0 }}",
    "{{ none | length }}",
    "{% for x in none %}{% endfor %}",
    "{{ words.append('x') }}",
    "{{ unknown_function() }}",
    "{% set nested.x = 1 %}",
    "{{ range(1000000) | length }}",
    "{{ rows | map(attribute='v') | length }}",
    "{{ rows | map(attribute='v') | last }}",
    "{{ rows | map(attribute='v') | tojson }}",
    "{{ range(2) + [3] }}",
    "{{ 1 < 'a' }}",
    "{% set a, b = [1] %}",
    "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{% endmacro %}{{ m(z=2) }}",
    "{{ 'abc'.split('') }}",
    "{{ messages[0]['content']['x'].y }}",
]


def more_small():
    """Those of template_cases.txt, separated by lines of "====="."""
    path = pathlib.Path(__file__).parent / "template_cases.txt"
    return path.read_text().removesuffix("\n").split("\n=====\n")


def expectation(env, source, variables):
    try:
        return {"text": env.from_string(source).render(**variables)}
    except Exception as error:  # noqa: BLE001: what matters is that it fails
        return {"error": str(error)}


def conversation_cases(env, sources):
    for template in sources:
        for name, messages in CONVERSATIONS.items():
            for prompt in (True, False):
                variables = {
                    "messages": messages,
                    "tools": None,
                    "documents": None,
                    "add_generation_prompt": prompt,
                    "bos_token": "<B>",
                    "eos_token": "<E>",
                }
                yield {
                    "template": template,
                    "name": name,
                    "messages": messages,
                    "add_generation_prompt": prompt,
                    "expect": expectation(env, sources[template], variables),
                }


def tool_cases(env, sources):
    for template, source in sources.items():
        variables = {"messages": CALLS, "tools": [WEATHER], "add_generation_prompt": True}
        if template == "smollm2":
            continue  # its template knows no tools and adds content that is null
        yield {
            "template": template,
            "variables": variables,
            "expect": expectation(env, source, variables),
        }


def fnv(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def foreign_cases(env):
    """Conversations, and for each template file the hashes of what becomes of them, null for a refusal."""
    from compare_templates import conversation, expected, tame

    cases = []
    for seed in range(100):
        case = (tame if seed % 2 else conversation)(random.Random(seed))
        if len(cases) < 24 and len(json.dumps(case)) < 6000:
            cases.append(case)
    hashes = {}
    folder = pathlib.Path(os.environ["KVASIR_TEST_DATA"]) / "tokenizers" / "chat-templates"
    for path in sorted(folder.glob("*.jinja")):
        texts = [expected(env, path.read_text(), case, "<B>", "<E>") for case in cases]
        hashes[path.name] = [None if text is None else fnv(text) for text in texts]
    return {"cases": cases, "hashes": hashes}


def main():
    import gguf  # for the templates alone

    models_dir = os.environ.get("KVASIR_MODELS") or os.path.expanduser("~/.cache/kvasir/models")
    sources = {
        name: gguf.GGUFReader(os.path.join(models_dir, file))
        .fields["tokenizer.chat_template"]
        .contents()
        for name, file in MODELS.items()
    }
    env = environment()
    goldens = {
        "templates": sources,
        "conversations": list(conversation_cases(env, sources)),
        "tools": list(tool_cases(env, sources)),
        "variables": VARIABLES,
        "small": [{"source": s, "expect": expectation(env, s, VARIABLES)} for s in SMALL + more_small()],
        "foreign": foreign_cases(env),
    }
    root = pathlib.Path(__file__).resolve().parent.parent
    path = root / "src" / "text" / "testdata" / "template_goldens.json"
    path.write_text(json.dumps(goldens, indent=1) + "\n")


if __name__ == "__main__":
    main()
