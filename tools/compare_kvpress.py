#!/usr/bin/env python3
"""Compares what `kvasir eval keep` keeps of a prompt with what the package kvpress keeps.

    tools/compare_kvpress.py build/kvasir MODEL.gguf --work DIR (-f TEXT | --tokens IDS) [--keep 0.5]

Both read the same token ids in f32 and choose once, after the whole prompt. Weights are expanded by transformers, once,
into DIR. What kvpress kept is read off its caches: rows of the compressed keys are looked up among those of the whole one.
Printed are equal entries |A & B| / |A| over all lanes, the worst lane, and the first differences. The gap of a difference is
the widest distance of the scores in question, as kvpress has them, relative to the largest: within rounding, either is right.

Exit status 1: a lane has less than --least of its entries equal; 2: none has, but the program refused some method.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import torch
from kvpress.utils import compute_n_kept

from kvpress_oracle import METHODS, expanded, load, read

# What a policy is told besides its budget to be what kvpress has under this name.
SPECS = {
    "keydiff": "",
    "streaming": "sink=4",
    "knorm": "",
    "tova": "recent=1",
    "snapkv": "window=64,kernel=5,pool=avg",
    "adakv": "window=64,kernel=5,pool=avg,floor=0.2,compat=kvpress",
    "expected": "sink=4",
    "h2o": "recent=0,norm=lifetime",
}
# Keys that take away what kvpress does not have; those that a policy lists are set.
NEUTRAL = {"pin": "none", "slack": "0", "skip": "0"}


class Refused(Exception):
    pass


def run(program, *args):
    done = subprocess.run([program, *map(str, args)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refused(done.stderr.strip())
    return done.stdout


def spec_of(program, name, budget):
    known = set(re.findall(r"^  ([a-z][a-z0-9-]*)(?: |$)", run(program, "help", "policies"), re.MULTILINE))
    if name not in known:
        raise Refused(f"no policy {name}; there are {', '.join(sorted(known))}")
    listed = set(re.findall(r"^  ([a-z][a-z0-9_-]*)(?: |$)", run(program, "help", name), re.MULTILINE))
    keys = [f"{key}={value}" for key, value in NEUTRAL.items() if key in listed]
    return f"{name}:" + ",".join(filter(None, [f"budget={budget}", SPECS[name], *keys]))


def kept_by_program(args, ids, spec):
    """[layer][head][positions]."""
    with tempfile.NamedTemporaryFile("w", suffix=".ids") as file:
        file.write(" ".join(map(str, ids)))
        file.flush()
        out = run(args.program, "eval", "keep", "-m", args.model, "--tokens", file.name, "--kv-policy", spec, "--block",
                  "whole", "--compute", "f32", "--json")
    return json.loads(out)["kept"]


def positions_of(rows, whole):
    """Where each of `rows` stands among the rows of `whole`; they are copies, so bits are equal."""
    place = {row.numpy().tobytes(): i for i, row in enumerate(whole)}
    if len(place) != len(whole):
        sys.exit("two tokens have the same key: positions cannot be told apart")
    return sorted(place[row.numpy().tobytes()] for row in rows)


def kept_by_press(kept, whole):
    lanes = []
    for after, before, masked in zip(kept.cache.layers, whole.layers, kept.masked):
        heads = [positions_of(a, b) for a, b in zip(after.keys[0], before.keys[0])]
        if masked is not None:  # ragged lists leave the rows where they are
            gone = set(zip(masked[1].tolist(), masked[2].tolist()))
            heads = [[p for p in positions if (head, p) not in gone] for head, positions in enumerate(heads)]
        lanes.append(heads)
    return lanes


def gap_of(score, entries):
    """How far the scores of `entries` (head, position) are apart."""
    values = [score[head, position].item() for head, position in entries]
    return (max(values) - min(values)) / max(map(abs, values)) if any(values) else 0.0


def differences_of(layer, theirs, ours, score):
    """Lanes of a layer whose lists differ."""
    found, entries = [], []
    for head, (a, b) in enumerate(zip(theirs, ours, strict=True)):
        if a != b:
            only = {"kvpress": sorted(set(a) - set(b)), "kvasir": sorted(set(b) - set(a))}
            mine = [(head, position) for side in only.values() for position in side]
            found.append({"layer": layer, "head": head, **only, "gap": gap_of(score, mine)})
            entries += mine
    if any(not d["kvpress"] or not d["kvasir"] for d in found):  # heads compete: entries were exchanged between lanes
        for d in found:
            d["gap"] = gap_of(score, entries)
    return found


def compare(theirs, ours, scores):
    lanes = [(set(a), set(b)) for layer in zip(theirs, ours, strict=True) for a, b in zip(*layer, strict=True)]
    differences = [d for layer, (a, b) in enumerate(zip(theirs, ours)) for d in differences_of(layer, a, b, scores[layer].double())]
    entries = sum(len(a) for a, _ in lanes)
    return {"equal": sum(len(a & b) for a, b in lanes) / entries, "worst_lane": min(len(a & b) / max(len(a), len(b)) for a, b in lanes),
            "entries": entries, "program_entries": sum(len(b) for _, b in lanes), "lanes_that_differ": len(differences),
            "widest_gap": max((d["gap"] for d in differences), default=0.0), "differences": differences}


def text_of(result, shown):
    if "refused" in result:
        return f"{result['method']:10} not compared: {result['refused']}"
    lines = [f"{result['method']:10} equal {result['equal']:.6f}, worst lane {result['worst_lane']:.4f}, {result['lanes_that_differ']} "
             f"lanes differ, widest gap {result['widest_gap']:.1e} ({result['spec']})"]
    if result["entries"] != result["program_entries"]:
        lines.append(f"  kvpress keeps {result['entries']} entries, kvasir {result['program_entries']}")
    for d in result["differences"][:shown]:
        lines.append(f"  layer {d['layer']} head {d['head']}: only kvpress {d['kvpress'][:8]}, only kvasir {d['kvasir'][:8]}, "
                     f"gap {d['gap']:.1e}")
    return "\n".join(lines)


def token_ids(args):
    if args.tokens:
        ids = list(map(int, pathlib.Path(args.tokens).read_text().split()))
    else:
        ids = json.loads(run(args.program, "tokenize", "-m", args.model, "-f", args.file, "--json"))["tokens"]
    return ids[: args.most] if args.most else ids


def measure(args, ids, names):
    """Results of methods that take one kind of attention, one after another."""
    ratio = 1 - args.keep
    budget = compute_n_kept(len(ids), ratio)
    ours, specs, results = {}, {}, []
    for name in names:
        try:
            specs[name] = spec_of(args.program, name, budget)
            ours[name] = kept_by_program(args, ids, specs[name])
        except Refused as refusal:
            results.append({"method": name, "refused": str(refusal)})
    if ours:
        model = load(expanded(args.model, args.work), METHODS[names[0]].eager)
        whole, kept = read(model, ids, {name: METHODS[name].press(ratio) for name in ours})
        for name, lists in ours.items():
            results.append({"method": name, "spec": specs[name], "budget": budget,
                            **compare(kept_by_press(kept[name], whole), lists, kept[name].scores)})
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("--work", required=True, help="folder for the expanded weights")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-f", "--file", help="text")
    source.add_argument("--tokens", help="file with token ids")
    parser.add_argument("--most", type=int, help="read only so many tokens")
    parser.add_argument("--keep", type=float, default=0.5, help="share of the prompt that is kept")
    parser.add_argument("--methods", default=",".join(SPECS), help="names, separated by commas")
    parser.add_argument("--least", type=float, default=0.99, help="share of equal entries that each lane must have")
    parser.add_argument("--show", type=int, default=3, help="differences that are printed for each method")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    names = args.methods.split(",")
    if unknown := set(names) - set(SPECS):
        parser.error(f"no method {', '.join(sorted(unknown))}; there are {', '.join(SPECS)}")
    torch.set_num_threads(args.threads)
    ids = token_ids(args)
    results = []
    for eager in (False, True):
        if some := [name for name in names if METHODS[name].eager == eager]:
            results += measure(args, ids, some)
    if args.json:
        print(json.dumps({"tokens": len(ids), "methods": results}))
    else:
        print(f"{len(ids)} tokens", *(text_of(result, args.show) for result in results), sep="\n")
    if any(result.get("worst_lane", 1.0) < args.least for result in results):
        return 1
    return 2 if any("refused" in result for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
