#!/usr/bin/env python3
"""Writes what the package `tokenizers` makes of odd texts to src/text/testdata/:

tokenizer_goldens.json      bytes per piece test the pre-tokenizers; a small vocabulary trained here tests merging;
                            ids under smollm2's real vocabulary are compared where the model is present
hf_tokenizer_goldens.json   tokenizer.json files of small vocabularies, with ids; a megabyte of mixed text, as the
                            order in which fragments follow each other, with the number and a hash of its ids under
                            the real vocabularies of the data folder

Needs the packages tokenizers and gguf, smollm2's GGUF file in ${KVASIR_MODELS:-~/.cache/kvasir/models}, and the data
folder in KVASIR_TEST_DATA. The tests of small vocabularies need none of them. The package takes no broken UTF-8: text
is encoded between the broken bytes, which are a token each.
"""

import base64
import json
import os
import pathlib

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
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
    **{
        name: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated", invert=False), BYTES])
        for name, regex in (("qwen2", QWEN2), ("llama3", LLAMA3), ("tekken", TEKKEN))
    },
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


SPACE = "\u2581"
# Control tokens, tokens that are no control tokens, and every flag that says how they are matched.
ADDED = [
    AddedToken("<|im_start|>", special=True, normalized=False),
    AddedToken("<|im_end|>", special=True, normalized=False),
    AddedToken("<tool>", normalized=False),
    AddedToken("<norm>", normalized=True),
    AddedToken("caf\u00e9!", normalized=True),
    AddedToken("<left>", lstrip=True, normalized=False),
    AddedToken("<right>", rstrip=True, normalized=False),
    AddedToken("whole", single_word=True, normalized=False),
]
ADDED_TEXTS = [
    "<|im_start|>user\nhello <tool>x</tool><|im_end|>\n <|im_start|>",
    " <norm> a<norm>b  <norm>",
    "caf\u00e9! cafe\u0301! caf\u00e9 !",
    "a  \u2003<left>  b \n<left><left> c <right> \u3000 d<right>\n\ne<right>",
    "whole a whole, wholesome unwhole whole\u0301 \u00e9whole whole",
    "<left> <right> <left>",
    "<|im_end|> <tool> <|im_end|>",
    "",
]


def character_vocabulary():
    """A vocabulary over characters, with bytes to fall back on."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False, initial_alphabet=["\u00e9"])
    tokenizer.train_from_iterator([t for t in TRAINING if t.isascii()], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokens += sorted(model["vocab"], key=model["vocab"].get)
    return {token: i for i, token in enumerate(tokens)}, model["merges"]


def small_tokenizers():
    tokens, merges = tiny_vocabulary()
    byte_vocabulary = {token: i for i, token in enumerate(tokens)}
    byte_merges = [tuple(m.split(" ")) for m in merges]
    characters, character_merges = character_vocabulary()

    def byte_level(name, nfc=False, ignore_merges=False):
        tokenizer = Tokenizer(models.BPE(byte_vocabulary, byte_merges, ignore_merges=ignore_merges))
        tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]
        if nfc:
            tokenizer.normalizer = normalizers.NFC()
        return tokenizer

    def over_characters(normalizer, pre_tokenizer):
        tokenizer = Tokenizer(
            models.BPE(
                characters,
                [tuple(m) for m in character_merges],
                unk_token="<unk>",
                fuse_unk=True,
                byte_fallback=True,
            )
        )
        tokenizer.normalizer = normalizer
        if pre_tokenizer:
            tokenizer.pre_tokenizer = pre_tokenizer
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        return tokenizer

    def escaping(*before):
        return normalizers.Sequence([*before, normalizers.Replace(" ", SPACE)])

    def metaspace(scheme, split):
        return pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme, split=split)

    return {
        "gpt-2": byte_level("gpt-2"),
        "smollm": byte_level("smollm"),
        "qwen2": byte_level("qwen2", nfc=True),
        "llama3": byte_level("llama3", ignore_merges=True),
        "tekken": byte_level("tekken"),
        "prepend": over_characters(escaping(normalizers.Prepend(SPACE)), None),
        "escape": over_characters(escaping(), None),
        "first": over_characters(None, metaspace("first", False)),
        "always": over_characters(None, metaspace("always", False)),
        "split": over_characters(None, metaspace("never", True)),
    }


def small_goldens():
    models_by_kind, documents = {}, {}
    for name, tokenizer in small_tokenizers().items():
        for token in ADDED:
            if token.special:
                tokenizer.add_special_tokens([token])
            else:
                tokenizer.add_tokens([token])
        document = json.loads(tokenizer.to_str())
        # Vocabulary and merges are the same for all of a kind.
        kind = "characters" if document["model"]["byte_fallback"] else "bytes"
        models_by_kind[kind] = {key: document["model"].pop(key) for key in ("vocab", "merges")}
        ids = {}
        for special in (True, False):
            tokenizer.encode_special_tokens = not special
            texts = ADDED_TEXTS + TEXTS if special else ADDED_TEXTS
            ids["special" if special else "plain"] = [
                tokenizer.encode(text, add_special_tokens=False).ids for text in texts
            ]
        documents[name] = {"kind": kind, "document": document, **ids}
    return {"texts": ADDED_TEXTS + TEXTS, "models": models_by_kind, "tokenizers": documents}


# A megabyte of mixed text: fragments and broken bytes in the order that a generator gives.
FRAGMENTS = TEXTS + [
    "a" * 400, " " * 500, "\n" * 300, "7" * 300, "\u4e2d\u6587\u5b57" * 60, "\U0001f600" * 80, "!" * 200, " \n" * 150,
    "\u0301\u0323" * 60, "\ud55c\u1100\u1161\u11a8" * 20, "qzxj" * 90, "\u0e01\u0e33" * 40, "o\u0308\u0332 A\u030a \u212b",
    "for (size_t i = 0; i < n; ++i) {\n        sum += values[i] * weights[i];\n    }\n",
]
BROKEN = ["ff", "c3", "e4bd", "f09f98", "80", "eda080", "c0af", "f8888080"]
MEGABYTE = 1_000_000


def mixed_text():
    """Well-formed texts and broken bytes in turn."""
    state, size, parts = 1, 0, [""]

    def pick(n):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % n

    while size < MEGABYTE:
        if pick(16) == 0:
            broken = bytes.fromhex(BROKEN[pick(len(BROKEN))])
            parts += [broken, ""]
            size += len(broken)
        # Also after broken bytes, two of which might make a character.
        fragment = FRAGMENTS[pick(len(FRAGMENTS))]
        parts[-1] += fragment
        size += len(fragment.encode())
    return parts


def fnv(ids):
    value = 0xCBF29CE484222325
    for token in ids:
        for byte in token.to_bytes(4, "little"):
            value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def real_tokenizers(data):
    """By name: the tokenizer of a text's beginning, that of the rest, and the tokens of bytes."""
    alphabet = {bytes([b]): c for b, c in byte_alphabet().items()}

    def byte_level(vocabulary, merges, name, **options):
        tokenizer = Tokenizer(models.BPE(vocabulary, merges, **options))
        tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]
        if name == "qwen2":
            tokenizer.normalizer = normalizers.NFC()
        return tokenizer, tokenizer, lambda byte: vocabulary.get(alphabet[byte])

    def files(folder, merges):
        vocabulary = json.loads((data / folder / "vocab.json").read_text())
        lines = (data / folder / merges).read_text().split("\n")
        return vocabulary, [tuple(x.split(" ")) for x in lines if x and not x.startswith("#version")]

    ranks = {}
    for line in (data / "llama3" / "tokenizer.model").read_bytes().split(b"\n"):
        if line:
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
    spelled = {token: "".join(alphabet[bytes([b])] for b in token) for token in ranks}
    splits = [
        (spelled[t[:i]], spelled[t[i:]])
        for t in sorted(ranks, key=ranks.get)
        for i in range(1, len(t))
        if t[:i] in ranks and t[i:] in ranks
    ]
    return {
        "gpt-2": byte_level(*files("gpt2", "vocab.bpe"), "gpt-2"),
        "smollm": byte_level(*files("smollm", "merges.txt"), "smollm"),
        "qwen2": byte_level(*files("qwen2.5", "merges.txt"), "qwen2"),
        "llama3": byte_level({spelled[t]: r for t, r in ranks.items()}, splits, "llama3", ignore_merges=True),
        "llama": llama2(data),
    }


def byte_alphabet():
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in visible]
    return {b: chr(b) for b in visible} | {b: chr(0x100 + i) for i, b in enumerate(others)}


def llama2(data):
    fields = gguf.GGUFReader(data / "ggml-vocab" / "ggml-vocab-llama-spm.gguf").fields
    tokens, scores, types = (
        fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "scores", "token_type")
    )
    ids = {token: i for i, token in enumerate(tokens)}
    splits = [
        (token[:i], token[i:], score)
        for token, score, kind in zip(tokens, scores, types)
        if kind == 1
        for i in range(1, len(token))
        if token[:i] in ids and token[i:] in ids
    ]
    splits.sort(key=lambda split: -split[2])

    def tokenizer(normalizer):
        model = models.BPE(ids, [s[:2] for s in splits], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
        made = Tokenizer(model)
        made.normalizer = normalizer
        return made

    escape = normalizers.Replace(" ", SPACE)
    first = tokenizer(normalizers.Sequence([normalizers.Prepend(SPACE), escape]))
    return first, tokenizer(escape), lambda byte: ids[f"<0x{byte[0]:02X}>"]


def mixed_goldens():
    parts = mixed_text()
    results = {}
    for name, (first, rest, byte_token) in real_tokenizers(pathlib.Path(os.environ["KVASIR_TEST_DATA"]) / "tokenizers").items():
        ids = []
        for i, part in enumerate(parts):
            if isinstance(part, str):
                ids += (first if i == 0 else rest).encode(part, add_special_tokens=False).ids
            else:
                found = [byte_token(part[k : k + 1]) for k in range(len(part))]
                ids += [token for token in found if token is not None]
        results[name] = {"n": len(ids), "hash": fnv(ids)}
    return {"bytes": MEGABYTE, "fragments": FRAGMENTS, "broken": BROKEN, "ids": results}


def write(name, goldens):
    path = pathlib.Path(__file__).resolve().parent.parent / "src" / "text" / "testdata" / name
    lines = ",\n".join(
        f" {json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in goldens.items()
    )
    path.write_text("{\n" + lines + "\n}\n")


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
    write("tokenizer_goldens.json", goldens)
    write("hf_tokenizer_goldens.json", {**small_goldens(), "mixed": mixed_goldens()})


if __name__ == "__main__":
    main()
