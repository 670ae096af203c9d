#!/usr/bin/env python3
"""The main job, measured: a long document is read once and questions about it are answered, with the dense cache, with q8,
and with KeyDiff in a half, a quarter and an eighth of the dense bytes. Prints one table of quality, bytes and speed, and
the answers themselves.

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


def keydiff(args, document, questions, target_bytes, entry_bytes):
    """KeyDiff under a hard budget of `target_bytes`: the most entries whose worst case fits, block and fork included."""
    entries = int(target_bytes / entry_bytes) // 64 * 64
    while entries >= 64:
        try:
            return run(args, document, questions, "--kv-policy", f"keydiff:budget={entries}", "--kv-memory",
                       str(target_bytes))
        except Refused as refusal:
            if "KV budget" not in str(refusal):
                raise
            entries -= 64
    raise Refused(f"{target_bytes} bytes hold no entry")


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
    head = ["cache", "right", "same as dense", "peak KV MiB", "of dense", "resident MiB", "prefill tok/s", "decode tok/s"]
    dense = rows[0][1]
    table = [head]
    for name, r in rows:
        right = sum(is_right(a["text"], f["answer"]) for a, f in zip(r["answers"], facts))
        table.append([name, f"{right}/{len(facts)}", f"{100 * agreement(r, dense):.0f} %",
                      f"{r['kv']['bytes_peak'] / MIB:.1f}", f"{r['kv']['bytes_peak'] / dense['kv']['bytes_peak']:.2f}",
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
    dense_peak = rows[0][1]["kv"]["bytes_peak"]
    entry_bytes = dense_peak / rows[0][1]["kv"]["entries_peak_per_lane"]
    measure("dense q8", lambda: run(args, document, questions, "-ctk", "q8_0", "-ctv", "q8_0"))
    for part in (2, 4, 8):
        measure(f"keydiff, 1/{part} of bytes",
                lambda part=part: keydiff(args, document, questions, dense_peak // part, entry_bytes))

    print(f"\nA document of {first['timings']['prompt_n']} tokens (the chronicle of an invented town), read once; each question "
          "answered in a fork of that state.")
    print(f"Of {len(facts)} questions the dense model answers {len(known)}; the {len(chosen)} asked below are chosen among "
          "those, so dense is right by choice.\n")
    print_table(rows, chosen)
    print("\n  right: the answer contains the number. same as dense: share of dense answer tokens before the first difference.")
    print("  peak KV: the ledger's highest, document and fork together. resident: the whole process, weights included.\n")
    print_answers(rows, chosen)
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"facts": chosen, "dense_answers": len(known), "asked": len(facts),
                       "results": [{"name": n, **r} for n, r in rows]}, f, indent=1)


if __name__ == "__main__":
    main()
