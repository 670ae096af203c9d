#!/usr/bin/env python3
"""Writes src/text/testdata/tokenizer_goldens.json: what the package `tokenizers` makes of odd texts.

Needs the packages tokenizers and gguf, and smollm2's GGUF file in ${KVASIR_MODELS:-~/.cache/kvasir/models}.
The tests need none of them. Bytes per piece test the pre-tokenizers; a small vocabulary trained here
tests merging; ids under smollm2's real vocabulary are compared where the model is present.
"""

import json
import os
import pathlib

import gguf
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
PRE_TOKENIZERS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    "smollm": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    ),
    "qwen2": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN2), "isolated", invert=False), BYTES]
    ),
}

TEXTS = [
    "The quick brown fox jumps over the lazy dog, doesn't it? It'll've been 12 times; they're sure.",
    "In 1969, 3.14159 and 2,718,281 met at 10:45 (a.m.) for $1,000.00 \u2014 or \u20ac99.",
    "WE'RE SHOUTING, DON'T YOU SEE? I'D SAY IT'S LOUD. 'tis 'TWAS 'sup 's'",
    "def f(x, *args):\n    if x >= 0x1F:\n        return [i ** 2 for i in range(10)]\n\treturn None\n",
    "#include <vector>\r\nint main() {\r\n  std::vector<int> v{1, 2, 3};\r\n  return v.size() != 3;\r\n}\r\n",
    "a  b   c    d\t\te \t f\n\n\ng \n h\n  \n  i   ",
    "   leading and trailing   ",
    " ",
    "     ",
    "\n",
    " \n \n  \n   x",
    "\t\t\t1\t22  333   4444",
    "  1   2    three 4four5 five6",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u6211\u60f3\u5728apple\u5de5\u4f5c1314151\u5929\uff5e\u3053\u3093\u306b\u3061\u306f \u30ab\u30bf\u30ab\u30ca \ud55c\uad6d\uc5b4",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645\u060c \u0664\u0665\u0666 \u0648 \u06f1\u06f2\u06f3. \u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd 123",
    "\u043d\u0435\u0449\u043e \u043d\u0430 \u0411\u044a\u043b\u0433\u0430\u0440\u0441\u043a\u0438, \u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac, \u0939\u093f\u0928\u094d\u0926\u0940 \u0967\u0968, \u0e44\u0e17\u0e22, \u1780\u17b6\u1793\u17cb",
    "\U0001f680 (normal) \U0001f636\u200d\U0001f32b\ufe0f \u2705\U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea!\U0001f999\U0001f999 ok\U0001f600?",
    "no\u00a0break\u2003em\u3000wide\u2028line\u2029para\u0085next\u200bzero \u00a0 x \u2003\u2003y",
    "\u180e mongolian\u180evowel \u1680ogham\u202fnarrow \u205f math",
    "combining e\u0301 a\u0308o\u0302, \u01c5 \u00aa \u00ba \u00b2\u00b3 \u00bd \u2167 \u2460 \u16ee",
    "http://example.com/a_b-c?d=e&f=%20#g user@host.org __init__ --flag=val ~/.bashrc C:\\dir\\file.txt",
    "!!!!!! ?????? ...... ------ ====== ++++++ ''''''s \"\"\"\"\"\" ((([[[{{{",
    "<|im_start|>user\n<|endoftext|></s><s>[INST] <unk>",
    "supercalifragilisticexpialidocious antidisestablishmentarianism Donaudampfschifffahrtsgesellschaft",
    "\u017fhort 'S 'T 'RE 'Ll 'vE I'M you'D '\u017f",
    "x\u0001\u001f\u007f\u009f\u00ady \ufeffbom \ufffd\ufffd \ue000private",
    "12345678901234567890 1e-10 0x7fff 1_000 v1.2.3-rc4 \u00bc\u0be7",
]

TRAINING = TEXTS * 3 + [
    "the of and to in is that it was for on are as with his they at be this from have or by one had not",
    "    return self.value\n        for item in items:\n            print(item)\n" * 4,
]


def tiny_vocabulary():
    """A byte-level vocabulary small enough to commit, in GGUF's terms."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = PRE_TOKENIZERS["gpt-2"]
    trainer = trainers.BpeTrainer(
        vocab_size=256 + 200,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = sorted(model["vocab"], key=model["vocab"].get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return vocabulary, merges


def ids_of(tokens, merges, pre):
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(m.split(" ")) for m in merges]))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre]
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]


def main():
    models_dir = os.environ.get("KVASIR_MODELS") or os.path.expanduser("~/.cache/kvasir/models")
    reader = gguf.GGUFReader(os.path.join(models_dir, "smollm2-135m-instruct-q4_1.gguf"))
    real = [reader.fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "merges")]

    tokens, merges = tiny_vocabulary()
    goldens = {
        "texts": TEXTS,
        "piece_bytes": {
            # A character of the byte alphabet is a byte.
            name: [[len(piece) for piece, _ in pre.pre_tokenize_str(text)] for text in TEXTS]
            for name, pre in PRE_TOKENIZERS.items()
        },
        "tiny": {
            "tokens": tokens,
            "merges": merges,
            "ids": {name: ids_of(tokens, merges, name) for name in PRE_TOKENIZERS},
        },
        "smollm2_ids": ids_of(*real, "smollm"),
    }
    root = pathlib.Path(__file__).resolve().parent.parent
    path = root / "src" / "text" / "testdata" / "tokenizer_goldens.json"
    lines = ",\n".join(
        f" {json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}"
        for key, value in goldens.items()
    )
    path.write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
