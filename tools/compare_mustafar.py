#!/usr/bin/env python3
"""Compares what encodings cost in `kvasir eval` with a torch model that reads the same keys and values.

    tools/compare_mustafar.py build/kvasir MODEL.gguf --work DIR -f TEXT [--tokens 1024] [--prompt 512]

Torch reads the text in one pass in f32. It makes of all keys and values what the encoding makes of them, by the rules of
docs/encodings.md written down a second time, and a query sees of each entry the dense or the encoded form, whichever it has at
that moment. Printed for the dense cache and each encoding: perplexity of both programs and how far they are apart, divergence from
the dense cache and equal most likely tokens. `when=prompt` and `mode=exact` read all behind --prompt tokens as if it had been
generated. With --double torch computes in f64: what its two ways are apart is the noise of rounding keys and values to 16 bits,
which turns out another way where they differ in the last bit of f32. Needs torch, transformers 5.2, accelerate, gguf and kvpress.

Exit status 1: a perplexity is further apart than --most (a share).
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from typing import Callable

import torch
from transformers import AttentionInterface

from compare_kvpress import run
from kvpress_oracle import expanded, load

PAGE = 64


def narrow(dtype):
    return lambda x: x.to(dtype).to(x.dtype)


bf16, f16 = narrow(torch.bfloat16), narrow(torch.float16)


def pruned(x, keep):
    """The `keep` largest magnitudes of each row stay; of equal ones those of lower channels."""
    order = torch.sort(x.abs(), dim=-1, descending=True, stable=True).indices[..., :keep]
    return torch.zeros_like(x).scatter(-1, order, x.gather(-1, order))


def int8_rows(x):
    """A scale per row, rounded up to f16; codes to the nearest, ties to even."""
    exact = x.abs().amax(-1, keepdim=True) / 127
    scale = exact.half()
    scale = torch.where(scale.to(x.dtype) < exact, torch.nextafter(scale, torch.full_like(scale, torch.inf)), scale).to(x.dtype)
    codes = torch.where(scale > 0, x / scale, torch.zeros_like(x)).round().clamp(-127, 127)
    return codes * scale


def q8(x):
    """A scale per 32 elements, stored as f16; codes to the nearest, halves away from zero."""
    groups = x.unflatten(-1, (-1, 32))
    scale = groups.abs().amax(-1, keepdim=True) / 127
    ratio = torch.where(scale > 0, groups / scale, torch.zeros_like(groups))
    codes = ratio.sign() * (ratio.abs() + 0.5).floor()
    return (codes * scale.half().to(x.dtype)).flatten(-2)


def kept_of(size, sparsity):
    """Of `size` elements; thousandths and integers only."""
    return 2 * -(-size * (1000 - round(1000 * sparsity)) // 2000)


def sealed(form, sparsity, integers=False):
    def encode(x):
        rows = pruned(form(x), kept_of(x.shape[-1], sparsity))
        return int8_rows(rows) if integers else rows

    return encode


@dataclasses.dataclass
class Encoding:
    flags: list[str]
    keys: Callable    # of rows as the model makes them
    values: Callable
    tail: Callable = bf16
    recent: int = 32  # 0: encoded as it arrives
    prompt: bool = False  # a prompt's own attention is dense
    exact: bool = False   # rows leave the window one by one

    def sees_sealed(self, n, start):
        """[query, entry]: whether the query reads the entry in its final form. `start`: of generation."""
        p, t = torch.arange(n)[:, None], torch.arange(n)[None]
        if not self.recent:
            return torch.ones(n, n, dtype=torch.bool)
        behind = t <= p - self.recent if self.exact else p >= PAGE * (t // PAGE + 1) + self.recent
        return behind & (p >= start) if self.prompt else behind


def mustafar(options, keys, values=None, form=bf16, **rules):
    return Encoding([f"mustafar:{options}"], sealed(form, keys), sealed(form, values or keys), tail=form, **rules)


ENCODINGS = {
    "dense": Encoding([], f16, f16, recent=0),
    "q8": Encoding(["q8"], q8, q8, recent=0),
    "0.5": mustafar("sparsity=0.5", 0.5),
    "0.7": mustafar("sparsity=0.7", 0.7),
    "0.8": mustafar("sparsity=0.8", 0.8),
    "0.5, f16": mustafar("sparsity=0.5,type=f16", 0.5, form=f16),
    "keys 0.5, values 0.7": Encoding(["mustafar:for=k,sparsity=0.5", "mustafar:for=v,sparsity=0.7"], sealed(bf16, 0.5), sealed(bf16, 0.7)),
    "keys alone 0.7": Encoding(["mustafar:for=k,sparsity=0.7", "bf16:for=v"], sealed(bf16, 0.7), bf16),
    "values alone 0.7": Encoding(["bf16:for=k", "mustafar:for=v,sparsity=0.7"], bf16, sealed(bf16, 0.7)),
    "0.5, int8": Encoding(["mustafar:sparsity=0.5,type=i8"], sealed(bf16, 0.5, True), sealed(bf16, 0.5, True)),
    "0.7, int8": Encoding(["mustafar:sparsity=0.7,type=i8"], sealed(bf16, 0.7, True), sealed(bf16, 0.7, True)),
    "0.5, prompt dense": mustafar("sparsity=0.5,when=prompt", 0.5, prompt=True),
    "0.7, prompt dense": mustafar("sparsity=0.7,when=prompt", 0.7, prompt=True),
    "0.7, row by row": mustafar("sparsity=0.7,mode=exact", 0.7, prompt=True, exact=True),
}


class Attention:
    """Attention of a whole text under one encoding; plain sums in f32. GGUF files of Llama models have the two channels that
    RoPE turns together side by side (`interleaved`), which decides ties and groups of 32."""

    def __init__(self, encoding, start, interleaved):
        self.encoding, self.start, self.interleaved = encoding, start, interleaved

    def __call__(self, module, query, key, value, mask, scaling, **_):
        group, n, e = query.shape[1] // key.shape[1], query.shape[2], self.encoding
        seen = e.sees_sealed(n, self.start)
        causal = torch.ones(n, n, dtype=torch.bool).tril()
        if self.interleaved:
            query, key = (x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2) for x in (query, key))
        final_keys, keys, final_values, values = e.keys(key), e.tail(key), e.values(value), e.tail(value)
        heads = []
        for head in range(query.shape[1]):
            q, at = query[:, head] * scaling, head // group
            scores = torch.where(seen, q @ final_keys[:, at].mT, q @ keys[:, at].mT)
            weights = scores.masked_fill(~causal, -torch.inf).softmax(-1)
            heads.append((weights * seen) @ final_values[:, at] + (weights * ~seen) @ values[:, at])
        return torch.stack(heads, 2), None


@torch.no_grad()
def logarithms(model, ids, encoding, start):
    """[row, vocabulary]: log-probabilities."""
    AttentionInterface.register("kvasir", Attention(encoding, start, model.config.model_type == "llama"))
    model.set_attn_implementation("kvasir")
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)


def figures(dense, case, ids, start):
    """Of targets from `start` on, which rows before them predict."""
    rows = slice(max(start, 1) - 1, len(ids) - 1)
    targets = torch.tensor(ids[max(start, 1):])[:, None]
    d, c = dense[rows], case[rows]
    return {
        "ppl": (-c.gather(1, targets).double().mean()).exp().item(),
        "kl": (d.exp() * (d - c)).sum(-1).double().mean().item(),
        "top1": (d.argmax(-1) == c.argmax(-1)).double().mean().item(),
    }


def evaluated(args, names, mode):
    """What kvasir prints of the same cases, by name."""
    suite = f"ppl:file={args.file},tokens={args.tokens},block=256,mode={mode}"
    suite += f",p={args.prompt}" if mode == "forced" else ""
    cases = []
    for name in names:
        flags = " ".join(f"--kv-codec {flag}" for flag in ENCODINGS[name].flags)
        cases += ["--case", f"{name}={flags}"] if flags else []
    out = run(args.program, "eval", "-m", args.model, "--compute", args.compute, "--json", "--suite", suite, *cases)
    return {result["case"]: result["quality"] for result in json.loads(out)["results"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("--work", required=True, help="folder for the expanded weights")
    parser.add_argument("-f", "--file", required=True, help="text")
    parser.add_argument("--tokens", type=int, default=1024, help="of the text")
    parser.add_argument("--prompt", type=int, default=512, help="tokens that are prompt where that makes a difference")
    parser.add_argument("--compute", default="f32", help="of kvasir")
    parser.add_argument("--most", type=float, default=0.001, help="share that perplexities may be apart")
    parser.add_argument("--cases", default="", help="separated by ;")
    parser.add_argument("--double", action="store_true", help="torch in f64")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    names = args.cases.split(";") if args.cases else list(ENCODINGS)
    if unknown := set(names) - set(ENCODINGS):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {'; '.join(ENCODINGS)}")
    torch.set_num_threads(args.threads)
    ids = json.loads(run(args.program, "tokenize", "-m", args.model, "-f", args.file, "--json"))["tokens"][: args.tokens]
    model = load(expanded(args.model, args.work)).to(torch.float64 if args.double else torch.float32)
    dense = logarithms(model, ids, ENCODINGS["dense"], 0)

    print(f"{pathlib.Path(args.model).name}, {len(ids)} tokens of {pathlib.Path(args.file).name}, --compute {args.compute}\n")
    print("| case | ppl, torch | ppl | apart | KL, torch | KL | same top-1, torch | same top-1 |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    widest = 0.0
    for mode, start in (("stream", 0), ("forced", args.prompt)):
        some = [name for name in names if ENCODINGS[name].prompt == (mode == "forced") and name != "dense"]
        if not some:
            continue
        mine = evaluated(args, some, mode)
        for name in ["dense", *some]:
            theirs = figures(dense, logarithms(model, ids, ENCODINGS[name], start), ids, start)
            ours = mine[name]
            apart = ours["ppl"] / theirs["ppl"] - 1
            widest = max(widest, abs(apart))
            shown = f"{name}, behind {start} tokens" if start else name
            print(f"| {shown} | {theirs['ppl']:.4f} | {ours['ppl']:.4f} | {100 * apart:+.3f} % | {theirs['kl']:.5f} | "
                  f"{ours['kl']['mean']:.5f} | {100 * theirs['top1']:.1f} % | {100 * ours['top1']:.1f} % |", flush=True)
    print(f"\nwidest: {100 * widest:.3f} %")
    return 1 if widest > args.most else 0


if __name__ == "__main__":
    sys.exit(main())
