"""What the package kvpress makes of a prompt, for compare_kvpress.py and score_kvpress.py.

Its methods act on the cache of a whole prompt that was read with full attention, layer by layer, so that one pass serves
all of them. Needs torch, transformers 5.2, accelerate, gguf and kvpress.
"""

import dataclasses
import pathlib
from typing import Callable

import kvpress
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.utils import logging

logging.disable_progress_bar()


@dataclasses.dataclass
class Method:
    press: Callable      # of the share to remove
    eager: bool = False  # reads the probabilities that only plain attention returns


METHODS = {
    "keydiff": Method(lambda r: kvpress.KeyDiffPress(r)),
    "streaming": Method(lambda r: kvpress.StreamingLLMPress(r, n_sink=4)),
    "knorm": Method(lambda r: kvpress.KnormPress(r)),
    "tova": Method(lambda r: kvpress.TOVAPress(r)),
    "snapkv": Method(lambda r: kvpress.SnapKVPress(r, window_size=64, kernel_size=5)),
    "adakv": Method(lambda r: kvpress.AdaKVPress(kvpress.SnapKVPress(r, window_size=64, kernel_size=5), 0.2)),
    "expected": Method(lambda r: kvpress.ExpectedAttentionPress(r, n_future_positions=512, n_sink=4)),
    "h2o": Method(lambda r: kvpress.ObservedAttentionPress(r), eager=True),
    "random": Method(lambda r: kvpress.RandomPress(r)),
}


def expanded(gguf, work):
    """The folder with the weights of `gguf` in f32, and its tokenizer; made once."""
    gguf = pathlib.Path(gguf)
    folder = pathlib.Path(work) / gguf.stem
    if not (folder / "done").exists():
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        vars(model.config).pop("quantization_config", None)  # the weights are no longer those
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
        (folder / "done").touch()
    return folder


def load(folder, eager=False):
    attention = "eager" if eager else "sdpa"
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()


class Kept:
    """What one press left of a prompt."""

    def __init__(self):
        self.cache = DynamicCache()
        self.masked = []  # for each layer: what ragged lists only hide, as kvpress has it, or None
        self.scores = []  # for each layer: [head, position], as the press computed them


class EveryPress(kvpress.BasePress):
    """Lets each press compress a copy of the cache and leaves the cache itself whole."""

    def __init__(self, presses):
        self.presses = presses
        self.kept = {name: Kept() for name in presses}
        for name, press in presses.items():
            self.record(press.press if isinstance(press, kvpress.AdaKVPress) else press, self.kept[name].scores)

    @staticmethod
    def record(scorer, scores):
        score = scorer.score

        def recording(*args, **kwargs):
            out = score(*args, **kwargs)
            scores.append(out[0].clone())  # AdaKV writes into it
            return out

        scorer.score = recording

    def post_init_from_model(self, model):
        for press in self.presses.values():
            press.post_init_from_model(model)

    def compress(self, module, hidden_states, keys, values, attentions, kwargs):
        for name, press in self.presses.items():
            module.masked_key_indices = None
            after = press.compress(module, hidden_states, keys, values, attentions, kwargs)
            self.kept[name].cache.update(after[0].clone(), after[1].clone(), module.layer_idx)
            self.kept[name].masked.append(module.masked_key_indices)
        module.masked_key_indices = None
        return keys, values


@torch.no_grad()
def read(model, ids, presses):
    """Reads the prompt once. The cache of it all, and what each press left."""
    cache, every = DynamicCache(), EveryPress(presses)
    with every(model):
        model.model(input_ids=torch.tensor([ids]), past_key_values=cache)
    return cache, every.kept


def hide(model, masked):
    """Makes attention skip what a press hides; an empty list shows everything."""
    for i, layer in enumerate(model.model.layers):
        layer.self_attn.masked_key_indices = masked[i] if masked else None
