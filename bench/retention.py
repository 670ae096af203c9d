#!/usr/bin/env python3
"""What policies cost and save in time: ratios of runs that take turns, each beside its target.

  bench/retention.py --short                            # small depths on smollm2: minutes
  bench/retention.py --state timings.jsonl              # all of it, in as many sittings as it takes
  bench/retention.py --only T2,T6 -r 9                  # some of it

T1  a policy whose budget is never reached against none: decoding 0.97 of its speed, KeyDiff's prompts in blocks 0.95
T2  decoding behind a long prompt of which 2,048 entries stay: 0.90 of the dense speed at depth 2,048, and not below the
    dense speed at the full depth
T3  a round of RPC against attention of as many prompt rows as judge, over the same entries: 0.75 of its time; and 1 % of
    the time in which the tokens of a round are generated
T4  KeyDiff's evictions in generation, default slack: 3 % of the time
T5  column sums of attention (h2o): 1.5 times the time of attention in a prompt, 1.0 times in generation
T6  RPC's answer of 32,768 tokens (P = 4,096, c = 4): 1.3 times the dense speed at its end. The prompt is as long as what
    the lanes hold then, beside one as long as the whole
T7  perplexity of a text in a stream, 1,000 entries of 8,192 tokens: snapkv < keydiff < knorm < random < knorm turned round;
    needs --text FILE

Every setting is a process of its own (`kvasir bench --on-demand`), those of a line take turns, the order turning. A ratio is
the median over rounds, with a bootstrap interval of 95 %. A line is missed only if its whole interval is on the wrong side.
Attention of a prompt's rows is the time behind a depth less the time behind none, so it leaves out the block itself.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

import peers_report as report
from peers import in_turns

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.expanduser("~/.cache/kvasir")
SMOLLM2 = "smollm2-135m-instruct-q4_1.gguf"
QWEN_05B = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
# Budgets that are never reached.
WIDE = {"keydiff": "", "knorm": "", "streaming": "", "random": "", "h2o": ",recent=0", "tova": "", "snapkv": "",
        "pyramidkv": "", "adakv": "", "expected": "", "rkv": "", "quest": ""}


class Setting:
    """A test under a policy."""

    def __init__(self, model, policy, pp=0, tg=0, depth=0):
        self.model, self.policy, self.pp, self.tg, self.depth = model, policy, pp, tg, depth

    def command(self, args):
        return [args.kvasir, "bench", "-m", os.path.join(args.models, self.model), "-t", str(args.threads), "--kv-policy",
                self.policy, "-p", str(self.pp), "-n", str(self.tg), "-d", str(self.depth), "--on-demand"]


class Line:
    """Something to measure: settings by name, what is made of a round's answers, and its target."""

    def __init__(self, name, what, settings, value, least=None, most=None):
        self.name, self.what, self.settings, self.value, self.least, self.most = name, what, settings, value, least, most


def speed(name, base):
    """How much faster `name` is than `base`."""
    return lambda runs: runs[base]["ns"] / runs[name]["ns"]


def policy_share(name):
    return lambda runs: runs[name]["policy_ns"] / runs[name]["ns"]


def wide(name, tokens):
    if name == "rpc":
        return f"rpc:every={tokens}"
    return f"{name}:budget={tokens}{WIDE[name]}"


def lines(short):
    """All of it, in order."""
    small, large = SMOLLM2, SMOLLM2 if short else QWEN_05B
    depth, deep, near = (512, 1024, 256) if short else (2048, 32000, 2048)
    tg = 16 if short else 64
    for name in [*WIDE, "rpc"]:
        yield Line("T1", f"decoding under {name}, budget not reached, behind {depth} tokens",
                   {"none": Setting(small, "none", tg=tg, depth=depth),
                    "policy": Setting(small, wide(name, 2 * (depth + tg)), tg=tg, depth=depth)}, speed("policy", "none"), least=0.97)
    yield Line("T1", f"prompts under keydiff in blocks of 128, behind {depth} tokens",
               {"none": Setting(small, "none", pp=512, depth=depth),
                "policy": Setting(small, wide("keydiff", 2 * (depth + 512)), pp=512, depth=depth)}, speed("policy", "none"), least=0.95)
    keydiff = Setting(large, f"keydiff:budget={near}", tg=tg, depth=deep)
    yield Line("T2", f"decoding behind {deep} tokens, {near} entries, against dense behind {near}",
               {"keydiff": keydiff, "near": Setting(large, "none", tg=tg, depth=near)}, speed("keydiff", "near"), least=0.90)
    yield Line("T2", f"decoding behind {deep} tokens, {near} entries, against dense there",
               {"keydiff": keydiff, "deep": Setting(large, "none", tg=tg, depth=deep)}, speed("keydiff", "deep"), least=1.0)
    every, window = (128, 32) if short else (1024, 32)
    # The last of P + R generated tokens that are read is the one behind which the round is; the one before has recorded as much.
    rpc = f"rpc:every={every},window={window}"
    at_round = Setting(small, rpc, tg=every + window + 1)
    before = Setting(small, rpc, tg=every + window)
    yield Line("T3", f"a round over {every} entries against attention of {window} rows over them",
               {"round": at_round, "before": before,
                "rows": Setting(small, "none", pp=window, depth=every + window), "alone": Setting(small, "none", pp=window)},
               lambda runs: (runs["round"]["policy_ns"] - runs["before"]["policy_ns"]) / (runs["rows"]["ns"] - runs["alone"]["ns"]),
               most=0.75)
    yield Line("T3", f"share of rpc in generating, a round every {every} tokens", {"round": at_round}, policy_share("round"), most=0.01)
    yield Line("T4", f"share of keydiff in generating, {near // 2} entries, default slack",
               {"keydiff": Setting(small, f"keydiff:budget={near // 2}", tg=33 if short else 132, depth=near)},
               policy_share("keydiff"), most=0.03)
    h2o = wide("h2o", 2 * (depth + 512))
    yield Line("T5", f"sums of h2o against attention, 512 rows of a prompt behind {depth} tokens",
               {"h2o": Setting(small, h2o, pp=512, depth=depth), "rows": Setting(small, "none", pp=512, depth=depth),
                "alone": Setting(small, "none", pp=512)},
               lambda runs: runs["h2o"]["policy_ns"] / (runs["rows"]["ns"] - runs["alone"]["ns"]), most=1.5)
    yield Line("T5", f"sums of h2o against attention, decoding behind {depth} tokens",
               {"h2o": Setting(small, h2o, tg=tg, depth=depth), "rows": Setting(small, "none", tg=tg, depth=depth),
                "alone": Setting(small, "none", tg=tg)},
               lambda runs: runs["h2o"]["policy_ns"] / (runs["rows"]["ns"] - runs["alone"]["ns"]), most=1.0)
    left, whole = (356, 1024) if short else (11392, 32640)
    yield Line("T6", f"decoding beside the {left} entries that rpc leaves of {whole}",
               {"left": Setting(large, "none", tg=tg, depth=left), "whole": Setting(large, "none", tg=tg, depth=whole)},
               speed("left", "whole"), least=1.3)


def measure(args, line):
    """Values of the rounds, and of each setting the last answer."""
    commands = {name: setting.command(args) for name, setting in line.settings.items()}
    rounds = list(in_turns(commands, args.rounds))
    return [line.value(answers) for answers in rounds], rounds[-1]


def verdict(row):
    if row["lo"] < 0:  # a difference of times that noise has turned round
        return "unclear"
    if row["least"] is not None:
        return "met" if row["ratio"] >= row["least"] else "missed" if row["hi"] < row["least"] else "unclear"
    return "met" if row["ratio"] <= row["most"] else "missed" if row["lo"] > row["most"] else "unclear"


def row_of(args, line):
    values, last = measure(args, line)
    lo, hi = report.interval(values)
    row = {"check": line.name, "what": line.what, "ratio": statistics.median(values), "lo": lo, "hi": hi, "values": values,
           "least": line.least, "most": line.most,
           "settings": {name: {"policy": setting.policy, "model": setting.model, **last[name]} for name, setting in line.settings.items()}}
    row["verdict"] = verdict(row)
    return row


ORDER = {"snapkv": "snapkv:budget={n},every={b}", "keydiff": "keydiff:budget={n}", "knorm": "knorm:budget={n}",
         "random": "random:budget={n}", "high norm": "knorm:budget={n},invert=on"}


def quality(args):
    """T7: perplexities in order."""
    n, tokens, block = (256, 1024, 32) if args.short else (1000, 8192, 32)
    cases = [f"{name}=--kv-policy {spec.format(n=n, b=block)}" for name, spec in ORDER.items()]
    command = [args.kvasir, "eval", "-m", os.path.join(args.models, SMOLLM2), "-t", str(args.threads), "--json", "--suite",
               f"ppl:file={args.text},mode=stream,tokens={tokens},block={block}"]
    done = subprocess.run([*command, *(word for case in cases for word in ("--case", case))], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    ppl = {result["case"]: result["quality"]["ppl"] for result in json.loads(done.stdout)["results"]}
    steps = [ppl[b] / ppl[a] for a, b in zip(ORDER, list(ORDER)[1:])]
    row = {"check": "T7", "what": "perplexity " + " < ".join(f"{name} {ppl[name]:.2f}" for name in ORDER) + ": least step",
           "ratio": min(steps), "lo": min(steps), "hi": min(steps), "least": 1.0, "most": None, "ppl": ppl}
    row["verdict"] = verdict(row)
    return row


class State:
    """Rows so far, one a line in a file if there is one, so that a run that was stopped goes on from there."""

    def __init__(self, path):
        self.path, self.rows = path, {}
        if not path or not os.path.exists(path):
            return
        with open(path) as file:
            texts = list(file)
        if texts and not texts[-1].endswith("\n"):  # cut off while it was written
            texts.pop()
            with open(path, "w") as file:
                file.writelines(texts)
        for text in texts:
            row = json.loads(text)
            self.rows[row["key"]] = row

    def add(self, key, row):
        row["key"] = key
        self.rows[key] = row
        if self.path:
            with open(self.path, "a") as file:
                file.write(json.dumps(row) + "\n")


def table(rows):
    text = "| | | measured | 95 % | target | |\n|---|---|---|---|---|---|\n"
    for row in rows:
        target = f"≥ {row['least']}" if row["least"] is not None else f"≤ {row['most']}"
        text += f"| {row['check']} | {row['what']} | {row['ratio']:.3f} | {row['lo']:.3f}–{row['hi']:.3f} | {target} | {row['verdict']} |\n"
    return text


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="small depths, smollm2 alone: shows that it works, not what holds")
    parser.add_argument("--only", default="", metavar="LIST", help="these checks, as in T1,T4")
    parser.add_argument("--state", metavar="FILE", help="rows that are done, one a line; those in it are not measured again")
    parser.add_argument("--text", metavar="FILE", help="a text of 8,192 tokens and more, for T7")
    parser.add_argument("--json", metavar="FILE", help="rows as one list")
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--kvasir", default=os.path.join(HERE, "..", "build", "kvasir"), help="the binary (build/kvasir)")
    parser.add_argument("--models", default=os.environ.get("KVASIR_MODELS", os.path.join(CACHE, "models")))
    args = parser.parse_args(argv)
    if args.rounds < 2:
        parser.error("--rounds: at least 2 are needed for an interval")
    args.kvasir = os.path.abspath(args.kvasir)
    return args


def main(argv=None):
    args = parse_args(argv)
    only = set(filter(None, args.only.split(",")))
    state = State(args.state)
    failed = 0

    def take(check, what, make):
        nonlocal failed
        if (only and check not in only) or what in state.rows:
            return
        print(f"{check}: {what}", file=sys.stderr, flush=True)
        try:
            state.add(what, make())
        except RuntimeError as error:
            failed += 1
            print(f"{check}: left out: {error}", file=sys.stderr, flush=True)

    for line in lines(args.short):
        take(line.name, line.what, lambda line=line: row_of(args, line))
    if args.text:
        take("T7", f"order of {'short ' if args.short else ''}perplexities of {os.path.basename(args.text)}", lambda: quality(args))
    rows = list(state.rows.values())
    print(table(rows))
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)
            file.write("\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
