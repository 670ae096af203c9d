#!/usr/bin/env python3
"""The main job, measured: a long document is read once and questions about it are answered, with the dense cache, with
smaller entries, and with fewer of them in about a quarter and an eighth of the dense bytes. Prints one table of quality, bytes
and speed, and the answers themselves. The last row reads every question together with the document: what it is worth to know
the question when entries are dropped.

The questions are those that the dense model answers rightly, chosen here out of all that the chronicle offers: a method
cannot be blamed for what the model never knew. What eviction loses on them is shown.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MIB = 1024 * 1024
ANSWER_TOKENS = 24


class Refused(Exception):
    """The engine said no; its own words."""


def run(args, document, questions, *flags):
    """One `kvasir run --ask`, as its JSON."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as asks:
        asks.write("".join(q + "\n" for q in questions))
        asks.flush()
        command = [args.kvasir, "run", "-m", args.model, "-f", document, "--ask", asks.name, "-n", str(ANSWER_TOKENS),
                   "--temp", "0", "--json", *flags]
        if args.threads:
            command += ["-t", str(args.threads)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Refused(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}")
    return json.loads(done.stdout)


def is_right(text, answer):
    return answer in re.findall(r"\d+", text.replace(",", ""))


def run_known(args, document, questions, *flags):
    """Every question in one prompt with the document; as the JSON of run, of the largest and slowest."""
    with open(document) as f:
        text = f.read()
    results = []
    for question in questions:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as messages:
            json.dump([{"role": "user", "content": f"{text}\n\n{question}"}], messages)
            messages.flush()
            command = [args.kvasir, "run", "-m", args.model, "--messages", messages.name, "-n", str(ANSWER_TOKENS), "--temp", "0",
                       "--json", *flags]
            if args.threads:
                command += ["-t", str(args.threads)]
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Refused(done.stderr.strip().splitlines()[-1])
        results.append(json.loads(done.stdout))
    whole = max(results, key=lambda r: r["kv"]["bytes_peak"])
    return {**whole, "answers": results}


def decode_rate(result):
    tokens = sum(a["timings"]["predicted_n"] for a in result["answers"])
    ms = sum(a["timings"]["predicted_ms"] for a in result["answers"])
    return 1000 * tokens / ms if ms else 0.0


def common_prefix(a, b):
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


def agreement(result, dense):
    """Share of the dense answers' tokens that come out the same before the first difference."""
    same = total = 0
    for ours, theirs in zip(result["answers"], dense["answers"]):
        same += common_prefix(ours["tokens"], theirs["tokens"])
        total += len(theirs["tokens"])
    return same / total if total else 1.0


def print_table(rows, facts):
    head = ["cache", "right", "same as dense", "KV MiB: peak", "kept", "kept of dense", "resident MiB", "prefill tok/s",
            "decode tok/s"]
    dense = rows[0][1]
    table = [head]
    for name, r in rows:
        right = sum(is_right(a["text"], f["answer"]) for a, f in zip(r["answers"], facts))
        table.append([name, f"{right}/{len(facts)}", f"{100 * agreement(r, dense):.0f} %",
                      f"{r['kv']['bytes_peak'] / MIB:.1f}", f"{r['kv']['bytes_end'] / MIB:.1f}",
                      f"{r['kv']['bytes_end'] / dense['kv']['bytes_end']:.2f}",
                      f"{r['memory']['resident_peak_bytes'] / MIB:.0f}", f"{r['timings']['prompt_per_second']:.0f}",
                      f"{decode_rate(r):.0f}"])
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    for row in table:
        print("  " + "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))))


def print_answers(rows, facts):
    for i, fact in enumerate(facts):
        print(f"  {fact['question']}  ({fact['answer']}, at {100 * fact['at']:.0f} % of the document)")
        for name, r in rows:
            text = " ".join(r["answers"][i]["text"].split())
            mark = "right" if is_right(text, fact["answer"]) else "WRONG"
            print(f"      {name:<22} {mark}  {text}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kvasir", default=os.path.join(ROOT, "build", "kvasir"))
    parser.add_argument("-m", "--model", default="smollm2")
    parser.add_argument("-t", "--threads", type=int)
    parser.add_argument("--questions", type=int, default=8, help="at most this many of those the dense model answers")
    parser.add_argument("--json", metavar="FILE", help="also write all results here")
    args = parser.parse_args()

    folder = os.path.join(ROOT, "build", "quickstart")
    subprocess.run([sys.executable, os.path.join(ROOT, "scripts", "chronicle.py"), "--out", folder], check=True)
    document = os.path.join(folder, "chronicle.txt")
    with open(os.path.join(folder, "facts.json")) as f:
        facts = json.load(f)

    print(f"Choosing questions: asking the dense cache all {len(facts)} ...", file=sys.stderr)
    try:
        first = run(args, document, [f["question"] for f in facts])
    except Refused as refusal:
        sys.exit(f"quickstart: {refusal}")
    known = [f for f, a in zip(facts, first["answers"]) if is_right(a["text"], f["answer"])]
    if not known:
        sys.exit("quickstart: the dense model answers none of the questions; nothing to compare")
    chosen = [known[i * len(known) // min(len(known), args.questions)] for i in range(min(len(known), args.questions))]
    questions = [f["question"] for f in chosen]

    rows = []

    def measure(name, work):
        print(f"Running: {name} ...", file=sys.stderr)
        try:
            rows.append((name, work()))
        except Refused as refusal:
            sys.exit(f"quickstart: {name}: {refusal}")

    measure("dense f16", lambda: run(args, document, questions))
    tokens = rows[0][1]["timings"]["prompt_n"]
    q8, mixed = ("-ctk", "q8_0", "-ctv", "q8_0"), ("-ctk", "q8_0", "-ctv", "q4_0")
    measure("dense q8", lambda: run(args, document, questions, *q8))
    measure("dense, K q8, V q4", lambda: run(args, document, questions, *mixed))
    # The settings that keep most on this model at about their bytes, and KeyDiff beside them.
    for method, share, codec, name in (("streaming", 0.65, mixed, "K q8, V q4"), ("keydiff", 0.65, mixed, "K q8, V q4"),
                                       ("tova", 0.25, q8, "q8"), ("keydiff", 0.25, q8, "q8")):
        policy = f"{method}:budget={int(tokens * share)}"
        measure(f"{method}, {100 * share:.0f} % of entries, {name}",
                lambda policy=policy, codec=codec: run(args, document, questions, "--kv-policy", policy, *codec))
    policy = f"snapkv:budget={tokens // 2}"
    measure("question known: dense", lambda: run_known(args, document, questions))
    measure("question known: snapkv, 50 %, q8", lambda: run_known(args, document, questions, "--kv-policy", policy, *q8))

    print(f"\nA document of {first['timings']['prompt_n']} tokens (the chronicle of an invented town), read once; each question "
          "answered in a fork of that state.")
    print(f"Of {len(facts)} questions the dense model answers {len(known)}; the {len(chosen)} asked below are chosen among "
          "those, so dense is right by choice.\n")
    print_table(rows, chosen)
    print("\n  right: the answer contains the number. same as dense: share of dense answer tokens before the first difference.")
    print("  peak: the ledger's highest, before drops too. kept: what it held at the end. resident: the whole process, weights included.\n")
    print_answers(rows, chosen)
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"facts": chosen, "dense_answers": len(known), "asked": len(facts),
                       "results": [{"name": n, **r} for n, r in rows]}, f, indent=1)


if __name__ == "__main__":
    main()
