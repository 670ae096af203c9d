#!/usr/bin/env python3
"""Compares `kvasir template` with jinja2 over made-up conversations.

    tools/compare_templates.py build/kvasir MODEL.gguf [-n 20] [--seed 1] TEMPLATE.jinja...

Each template renders conversations with system text, tools, calls, parts, null and odd content;
texts must be equal, and where jinja2 raises this program must refuse. Needs the package jinja2.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

from make_template_goldens import NOW, environment

WORDS = ["rain", "Oslo", "it's", "\"quoted\"", "tab\there", "\u00e9t\u00e9", "\u4f60\u597d", "\U0001f600", "a & b", "<b>x</b>",
         "{{ messages }}", "{% if x %}", "{# c #}", "{%- raw -%}", "%}", "\\n", "\\u00e9", "\x01\x1f\x7f", "\u2028", "\u200d",
         "\U0001f468\u200d\U0001f469\u200d\U0001f467", "'", "\"", "`code`", "</think>", "<think>", "\r\n", "\n\n", "  ", "0", "None", "true",
         "```json\n{\"a\": 1}\n```", "\u00a0", "\ufeff", "\u0301", "\u0646\u0635", "%s", "{0}", "\\"]
SCALARS = [None, True, False, 0, 1, -7, 1.0, 0.1, -2.5, 1e20, 1e-7, 1e16, 123456789012345678901234567890, 2**63, -2**63,
           2**64 - 1, "", "x", "it's \"so\"", "\u00e9\U0001f600", "<|im_end|>", "a\nb"]


def text(rng):
    kind = rng.random()
    if kind < 0.08:
        return ""
    if kind < 0.12:
        return rng.choice([" ", "\n", " \n\t "])
    if kind < 0.14:
        return "long " * 2000
    if kind < 0.25:
        return "<think>" + rng.choice(WORDS) + "</think>" + rng.choice(["", "\n", " "]) + rng.choice(WORDS)
    return rng.choice(["", " ", "\n"]) + " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 6))) + rng.choice(["", " ", "\n"])


def value(rng, depth=0):
    kind = rng.random()
    if depth > 3 or kind < 0.6:
        return rng.choice(SCALARS)
    if kind < 0.8:
        return [value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return {rng.choice(["b", "a", "Z", "key \u00e9", "items", "_x", "0"]): value(rng, depth + 1) for _ in range(rng.randint(0, 3))}


def schema(rng, depth=0):
    kind = rng.choice(["string", "integer", "number", "boolean", "array", "object", ["string", "null"], "any", "null"])
    out = {"type": kind}
    if rng.random() < 0.7:
        out["description"] = text(rng)
    if rng.random() < 0.2:
        out["enum"] = [rng.choice(SCALARS) for _ in range(3)]
    if rng.random() < 0.2:
        out["default"] = value(rng)
    if kind == "integer" and rng.random() < 0.6:
        out |= {"minimum": -2**40, "maximum": rng.choice([10, 2**64, 10**25]), "multipleOf": 1.5}
    if kind == "array" and depth < 3 and rng.random() < 0.8:
        out["items"] = schema(rng, depth + 1)
    if kind == "object" and depth < 3 and rng.random() < 0.9:
        names = rng.sample(["city", "days", "nested", "Upper", "un\u00efcode", "items", "values"], rng.randint(0, 3))
        out["properties"] = {n: schema(rng, depth + 1) for n in names}
        if rng.random() < 0.5:
            out["required"] = names[:1]
        if rng.random() < 0.2:
            out["additionalProperties"] = rng.choice([False, schema(rng, depth + 1)])
    return out


def tool(rng):
    if rng.random() < 0.05:
        return {"type": "code_interpreter"}
    names = rng.sample(["city", "days", "opts", "list", "items"], rng.randint(0, 4))
    function = {"name": rng.choice(["weather", "get_time", "brave_search", "python"]), "description": text(rng),
                "parameters": {"type": "object", "properties": {n: schema(rng) for n in names}, "required": names[: len(names) // 2]}}
    if rng.random() < 0.1:
        function["return"] = schema(rng)
    if rng.random() < 0.1:
        del function["description"]
    if rng.random() < 0.1:
        return function
    return {"type": "function", "function": function}


def call(rng, n):
    arguments = {rng.choice(["city", "days", "code", "query"]): value(rng) for _ in range(rng.randint(0, 3))}
    if rng.random() < 0.4:
        arguments = json.dumps(arguments)
    out = {"type": "function", "function": {"name": rng.choice(["weather", "get_time", "brave_search"]), "arguments": arguments}}
    if rng.random() < 0.8:
        out["id"] = rng.choice(["call_1", "abcdefghi", "0", str(n), "123456789"])
    if rng.random() < 0.1:
        out = out["function"]
    return out


def content(rng, plain):
    kind = rng.random()
    if plain or kind < 0.85:
        return text(rng)
    if kind < 0.9:
        return None
    return [{"type": "text", "text": text(rng)} for _ in range(rng.randint(0, 3))]


def tame(rng):
    """One that most templates take: turns alternate, contents are texts, tools have plain schemas."""
    names = rng.sample(["city", "days", "opts"], rng.randint(0, 3))
    kinds = ["string", "integer", "number", "boolean", "array", "object"]
    tools = [{"type": "function", "function": {"name": rng.choice(["weather", "get_time"]), "description": text(rng), "parameters": {
        "type": "object", "required": names[:1],
        "properties": {n: {"type": rng.choice(kinds), "description": text(rng), "items": {"type": "string"}, "default": rng.choice(SCALARS),
                           "maximum": rng.choice(SCALARS[3:16])} for n in names}}}} for _ in range(rng.randint(1, 3))]
    messages = [{"role": "system", "content": text(rng)}] if rng.random() < 0.4 else []
    calls = rng.random() < 0.5
    as_text = rng.random() < 0.5
    for n in range(rng.randint(1, 4)):
        messages.append({"role": "user", "content": text(rng)})
        if calls and rng.random() < 0.6:
            arguments = {rng.choice(["city", "days"]): value(rng) for _ in range(rng.randint(0, 2))}
            messages.append({"role": "assistant", "content": rng.choice(["", text(rng)]), "tool_calls": [
                {"id": "abcdef%03d" % n, "type": "function",
                 "function": {"name": "weather", "arguments": json.dumps(arguments) if as_text else arguments}}]})
            messages.append({"role": "tool", "name": "weather", "tool_call_id": "abcdef%03d" % n, "content": text(rng)})
        messages.append({"role": "assistant", "content": text(rng)})
    if rng.random() < 0.7:
        messages.append({"role": "user", "content": text(rng)})
    kwargs = rng.choice([{}, {"functions": "[]", "datetime": "now"}, {"enable_thinking": rng.random() < 0.5}])
    return {"messages": messages, "tools": tools if calls or rng.random() < 0.3 else None, "kwargs": kwargs,
            "add_generation_prompt": rng.random() < 0.7}


def conversation(rng):
    if rng.random() < 0.5:
        return tame(rng)
    plain = rng.random() < 0.6
    messages = []
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": content(rng, plain)})
    for n in range(rng.randint(0, 4)):
        messages.append({"role": "user", "content": content(rng, plain)})
        if rng.random() < 0.35:
            calls = [call(rng, n) for _ in range(rng.choice([1, 1, 1, 2]))]
            messages.append({"role": "assistant", "content": rng.choice([None, "", text(rng)]), "tool_calls": calls})
            if rng.random() < 0.1:
                del messages[-1]["content"]
            for c in calls:
                reply = {"role": rng.choice(["tool", "tool", "ipython"]), "content": content(rng, plain)}
                if rng.random() < 0.7:
                    reply |= {"name": "weather", "tool_call_id": c.get("id", "abcdefghi")}
                messages.append(reply)
        if rng.random() < 0.8:
            messages.append({"role": "assistant", "content": content(rng, plain)})
            if rng.random() < 0.1:
                messages[-1] |= {"reasoning_content": text(rng)}
            if rng.random() < 0.1:
                messages[-1]["tool_calls"] = rng.choice([None, []])
    if rng.random() < 0.6:
        messages.append({"role": "user", "content": content(rng, plain)})
    if rng.random() < 0.1:
        rng.shuffle(messages)
    if rng.random() < 0.05:
        messages.append({"role": rng.choice(["narrator", "developer", "function"]), "content": text(rng)})
    tools = [tool(rng) for _ in range(rng.randint(0, 3))] if rng.random() < 0.5 else None
    kwargs = rng.choice([{}, {}, {}, {"enable_thinking": False}, {"documents": []}, {"date_string": "1 Jan 2025"},
                         {"functions": "[]", "datetime": "now"}, {"tools_in_user_message": False}, {"builtin_tools": ["brave_search"]}])
    return {"messages": messages, "tools": tools, "kwargs": kwargs, "add_generation_prompt": rng.random() < 0.7}


def expected(environment_, source, case, bos, eos):
    variables = {"documents": None, **case["kwargs"], "messages": case["messages"], "tools": case["tools"],
                 "add_generation_prompt": case["add_generation_prompt"], "bos_token": bos, "eos_token": eos}
    try:
        return environment_.from_string(source).render(**variables)
    except Exception:  # noqa: BLE001: what matters is that it fails
        return None


def rendered(program, model, template, case, folder):
    (folder / "messages.json").write_text(json.dumps(case["messages"]))
    command = [program, "template", "-m", model, "--chat-template-file", str(template), "--json", "--messages",
               str(folder / "messages.json"), "--kwargs", json.dumps(case["kwargs"]), "--now", NOW.isoformat()]
    if case["tools"] is not None:
        (folder / "tools.json").write_text(json.dumps(case["tools"]))
        command += ["--tools", str(folder / "tools.json")]
    if not case["add_generation_prompt"]:
        command.append("--no-generation-prompt")
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"{command}: exit {done.returncode}: {done.stderr.decode()}")
    return json.loads(done.stdout)["text"] if done.returncode == 0 else None


def tokens_of(args):
    """The texts of BOS and EOS as this program gives them to templates."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "t").write_text("{{ [bos_token, eos_token] | tojson }}")
        case = {"messages": [{"role": "user", "content": "x"}], "tools": None, "kwargs": {}, "add_generation_prompt": True}
        return json.loads(rendered(args.program, args.model, folder / "t", case, folder))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model", help="file whose tokenizer gives the BOS and EOS tokens")
    parser.add_argument("templates", nargs="+", type=pathlib.Path)
    parser.add_argument("-n", type=int, default=20, help="conversations for each template")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    environment_ = environment()
    bos, eos = tokens_of(args)
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for template in args.templates:
            rng = random.Random(args.seed)
            for i in range(args.n):
                case = conversation(rng)
                want = expected(environment_, template.read_text(), case, bos, eos)
                got = rendered(args.program, args.model, template, case, folder)
                if want != got:
                    bad += 1
                    print(f"{template.name}, conversation {i}:\n  jinja2 {want!r}\n  kvasir {got!r}")
    print(f"{bad} of {len(args.templates) * args.n} differ")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
