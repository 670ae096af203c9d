#!/usr/bin/env python3
"""How fast encodings decode: the dense cache and each encoding in turns, on the same file, at the same depths.

  bench/kv_codecs.py -m smollm2 -d 2048,7600
  bench/kv_codecs.py -m qwen2.5-coder-0.5b-instruct-q4_k_m -d 4096,16384 --codec q8 --codec mustafar:sparsity=0.7 --json rows.json

A codec that is several flags is written with + between them: mustafar:for=k,type=i8+mustafar:for=v. Every encoding is a
process of its own (`kvasir bench --on-demand`); at each depth all of them take turns, the order turning. `against f16` is the
median over rounds of the time that f16 takes / the time that the encoding takes, with a bootstrap interval of 95 %: above 1 the
encoding is faster. Bytes are the ledger's at that depth, the dense window included.
"""
import argparse
import json
import os
import statistics
import sys

import peers_report as report
from peers import in_turns

HERE = os.path.dirname(os.path.abspath(__file__))
BASE = "f16"
CODECS = ["bf16", "q8", "q4", "mustafar", "mustafar:sparsity=0.7", "mustafar:sparsity=0.8",
          "mustafar:for=k,type=i8+mustafar:for=v", "mustafar:type=i8", "mustafar:sparsity=0.7,type=i8"]


def command(args, codec, depth):
    flags = [word for flag in codec.split("+") for word in ("--kv-codec", flag)]
    return [args.kvasir, "bench", "-m", args.model, "-t", str(args.threads), *args.flags.split(), *flags, "-p", "0", "-n", str(args.steps),
            "-d", str(depth), "--on-demand"]


def rows_of(args, depth):
    commands = {codec: command(args, codec, depth) for codec in [BASE, *args.codec]}
    rounds = list(in_turns(commands, args.rounds))
    ms = {codec: [answers[codec]["ns"] / 1e6 / args.steps for answers in rounds] for codec in commands}
    kv_bytes = {codec: answer["kv_peak_bytes"] for codec, answer in rounds[-1].items()}
    for codec in commands:
        ratio, lo, hi = report.ratio(ms[codec], ms[BASE])
        yield {"depth": depth, "codec": codec, "ms": statistics.median(ms[codec]), "ratio": ratio, "lo": lo, "hi": hi,
               "kv_bytes": kv_bytes[codec], "bytes_share": kv_bytes[codec] / kv_bytes[BASE], "samples_ms": ms[codec]}


def line(row):
    return (f"| {row['depth']} | `{row['codec'].replace('+', '` `')}` | {row['kv_bytes'] / 2**20:.1f} | {row['bytes_share']:.2f} | "
            f"{row['ms']:.2f} | {row['ratio']:.2f} ({row['lo']:.2f}–{row['hi']:.2f}) |")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="smollm2", help="as kvasir takes it")
    parser.add_argument("-d", "--depths", default="2048,7600", help="tokens in the cache, a list")
    parser.add_argument("-n", "--steps", type=int, default=24, help="tokens that a run generates")
    parser.add_argument("--codec", action="append", help="may be given several times; without it a list of all kinds")
    parser.add_argument("--flags", default="", help="more flags of kvasir bench, as in '--simd avx2'")
    parser.add_argument("--json", metavar="FILE", help="rows as one list")
    parser.add_argument("-r", "--rounds", type=int, default=7)
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--kvasir", default=os.path.join(HERE, "..", "build", "kvasir"), help="the binary (build/kvasir)")
    args = parser.parse_args(argv)
    args.codec = args.codec or CODECS
    if args.rounds < 2:
        parser.error("--rounds: at least 2 are needed for an interval")
    rows = []
    print("| depth | codec | KV MiB | of f16 | ms a token | against f16 |\n|---|---|---|---|---|---|")
    for depth in map(int, args.depths.split(",")):
        try:
            for row in rows_of(args, depth):
                rows.append(row)
                print(line(row), flush=True)
        except RuntimeError as error:
            print(f"kv_codecs: depth {depth}: {error}", file=sys.stderr)
            return 1
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
