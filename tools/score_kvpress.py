#!/usr/bin/env python3
"""Answers questions about contexts that the package kvpress compressed, to compare the scores of its methods with ours.

    tools/score_kvpress.py MODEL.gguf --work DIR SAMPLES.jsonl [--methods dense,keydiff,...] [--keep 0.5] [-n 16]

A line is {"context_ids":[...],"questions":[{"ids":[...],"refs":["..."]}],"max_new":N}: token ids, so that no tokenizer stands
between two programs. A context is read once and compressed without any question; each question then goes on from it at the
true positions, greedily, in f32. A question scores the share of its references that occur in the answer, letters of either
case. `equal` counts answers with the same token ids as the dense ones.
"""

import argparse
import json
import pathlib
import sys

import torch
from transformers import AutoTokenizer

from kvpress_oracle import METHODS, Kept, expanded, hide, load, read


@torch.no_grad()
def answer(model, cache, start, question, max_new, ends):
    """Token ids of the greedy answer; the cache is as before then."""
    before = [layer.keys.shape[2] for layer in cache.layers]
    tokens, new = list(question), []
    position = start
    while len(new) < max_new:
        positions = torch.arange(position, position + len(tokens))[None]
        out = model(input_ids=torch.tensor([tokens]), past_key_values=cache, position_ids=positions, logits_to_keep=1)
        position += len(tokens)
        tokens = [out.logits[0, -1].argmax().item()]
        if tokens[0] in ends:
            break
        new += tokens
    for layer, length in zip(cache.layers, before):
        layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]
    return new


def share_found(refs, text):
    return sum(ref.lower() in text.lower() for ref in refs) / len(refs)


def ends_of(model, tokenizer):
    ends = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}


def answers_of(model, sample, names, ratio, ends):
    """For each method, the token ids of each answer."""
    presses = {name: METHODS[name].press(ratio) for name in names if name != "dense"}
    whole, kept = read(model, sample["context_ids"], presses)
    if "dense" in names:
        kept["dense"] = Kept()
        kept["dense"].cache = whole
    answers = {}
    for name in names:
        hide(model, kept[name].masked)
        answers[name] = [answer(model, kept[name].cache, len(sample["context_ids"]), question["ids"], sample["max_new"], ends)
                         for question in sample["questions"]]
        hide(model, [])
    return answers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("samples", help="JSON lines")
    parser.add_argument("--work", required=True, help="folder for the expanded weights")
    parser.add_argument("--methods", default="dense,keydiff,snapkv,expected,streaming,tova,knorm,random", help="names, separated by commas")
    parser.add_argument("--keep", type=float, default=0.5, help="share of the context that is kept")
    parser.add_argument("-n", type=int, help="only so many samples")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="of the method random")
    parser.add_argument("--json", action="store_true", help="every answer too")
    args = parser.parse_args()
    names = args.methods.split(",")
    if unknown := set(names) - {"dense", *METHODS}:
        parser.error(f"no method {', '.join(sorted(unknown))}; there are dense, {', '.join(METHODS)}")
    eager = any(name != "dense" and METHODS[name].eager for name in names)
    if eager and "adakv" in names:
        parser.error("adakv refuses the plain attention that h2o needs: run them apart")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    folder = expanded(args.model, args.work)
    model, tokenizer = load(folder, eager), AutoTokenizer.from_pretrained(folder)
    ends = ends_of(model, tokenizer)
    samples = [json.loads(line) for line in pathlib.Path(args.samples).read_text().splitlines() if line.strip()][: args.n]
    scores, equal, answers = {name: [] for name in names}, dict.fromkeys(names, 0), []
    for i, sample in enumerate(samples):
        found = answers_of(model, sample, names, 1 - args.keep, ends)
        for name, lists in found.items():
            texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in lists]
            scores[name] += [share_found(q["refs"], text) for q, text in zip(sample["questions"], texts)]
            equal[name] += sum(ids == dense for ids, dense in zip(lists, found.get("dense", lists)))
            answers += [{"sample": i, "question": j, "method": name, "tokens": ids, "text": text}
                        for j, (ids, text) in enumerate(zip(lists, texts))]
        print(f"\r{i + 1}/{len(samples)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    report = {name: {"score": sum(s) / len(s), "questions": len(s), "equal": equal[name] / len(s)} for name, s in scores.items()}
    if args.json:
        print(json.dumps({"keep": args.keep, "methods": report, "answers": answers}))
    else:
        for name, r in report.items():
            print(f"{name:10} {100 * r['score']:5.1f} % of {r['questions']} questions, {100 * r['equal']:5.1f} % answered as dense")
    return 0


if __name__ == "__main__":
    sys.exit(main())
