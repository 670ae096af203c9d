#!/usr/bin/env python3
"""Writes small valid inputs for the fuzz targets: one folder per target under the folder given.

    tools/make_fuzz_seeds.py seeds
    build-fuzz/src/format/gguf_fuzz -max_total_time=60 corpus seeds/gguf_fuzz
"""

import argparse
import json
import pathlib
import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
NUMBERS = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q", I64: "<q",
           F64: "<d"}

# GGUF's number of a weight type: elements and bytes of a block.
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
          11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136), 30: (1, 2)}


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind, item):
    if kind == STRING:
        return text(item)
    if kind == ARRAY:
        element, items = item
        body = b"".join(value(element, i) for i in items)
        return struct.pack("<IQ", element, len(items)) + body
    return struct.pack(NUMBERS[kind], item)


def gguf(keys, tensors, alignment=32):
    """keys: (name, kind, value); tensors: (name, type number, shape, bytes)."""
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for name, kind, item in keys:
        out += text(name) + struct.pack("<I", kind) + value(kind, item)
    data = b""
    for name, kind, shape, raw in tensors:
        data += b"\0" * (-len(data) % alignment)
        out += text(name) + struct.pack("<I", len(shape))
        out += b"".join(struct.pack("<Q", d) for d in shape) + struct.pack("<IQ", kind, len(data))
        data += raw
    return out + b"\0" * (-len(out) % alignment) + data


def model_shapes(arch, hidden, heads, kv_heads, size, inner, vocab):
    q, kv = heads * size, kv_heads * size
    shapes = {"token_embd.weight": [hidden, vocab], "output_norm.weight": [hidden]}
    layer = {
        "attn_norm.weight": [hidden], "attn_q.weight": [hidden, q], "attn_k.weight": [hidden, kv],
        "attn_v.weight": [hidden, kv], "attn_output.weight": [q, hidden],
        "ffn_norm.weight": [hidden], "ffn_gate.weight": [hidden, inner],
        "ffn_up.weight": [hidden, inner], "ffn_down.weight": [inner, hidden],
    }
    if arch == "qwen2":
        layer |= {"attn_q.bias": [q], "attn_k.bias": [kv], "attn_v.bias": [kv]}
        shapes["output.weight"] = [hidden, vocab]
    if arch == "qwen3":
        layer |= {"attn_q_norm.weight": [size], "attn_k_norm.weight": [size]}
    return shapes | {f"blk.0.{name}": shape for name, shape in layer.items()}


def tensor_bytes(kind, shape):
    """Weights around 0.5, whatever the type."""
    n = 1
    for dim in shape:
        n *= dim
    block, size = BLOCKS[kind]
    half = {0: struct.pack("<f", 0.5), 1: struct.pack("<e", 0.5), 30: b"\x00\x3f"}
    if kind in half:
        return half[kind] * n
    return (b"\x00\x2c" * size)[:size] * (n // block)


SPM_TOKENS = ["<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab"]
BPE_TOKENS = ["a", "b", "ab", "\u0120", "<|im_end|>", "<", "|", ">"]
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"


def tokenizer_keys(arch):
    keys = [("tokenizer.chat_template", STRING, TEMPLATE)]
    if arch == "llama":
        return keys + [
            ("tokenizer.ggml.model", STRING, "llama"),
            ("tokenizer.ggml.tokens", ARRAY, (STRING, SPM_TOKENS)),
            ("tokenizer.ggml.token_type", ARRAY, (I32, [2, 3, 3, 1, 1, 1, 1])),
            ("tokenizer.ggml.scores", ARRAY, (F32, [0.0, 0.0, 0.0, -1.0, -2.0, -3.0, -4.0])),
            ("tokenizer.ggml.bos_token_id", U32, 1), ("tokenizer.ggml.eos_token_id", U32, 2),
            ("tokenizer.ggml.add_bos_token", BOOL, True),
        ]
    return keys + [
        ("tokenizer.ggml.model", STRING, "gpt2"), ("tokenizer.ggml.pre", STRING, "qwen2"),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, BPE_TOKENS)),
        ("tokenizer.ggml.token_type", ARRAY, (I32, [1, 1, 1, 1, 3, 1, 1, 1])),
        ("tokenizer.ggml.merges", ARRAY, (STRING, ["a b"])),
        ("tokenizer.ggml.eos_token_id", U32, 4),
    ]


def model_parts(arch, extra=(), kinds=(0,), hidden=4, inner=6, size=2):
    """Keys and tensors of a model of one layer; matrices take turns at the types in `kinds`."""
    vocab = len(SPM_TOKENS if arch == "llama" else BPE_TOKENS)
    keys = [("general.architecture", STRING, arch)]
    numbers = {"block_count": 1, "embedding_length": hidden, "feed_forward_length": inner,
               "attention.head_count": 2, "attention.head_count_kv": 1, "context_length": 16,
               "attention.key_length": size, "rope.dimension_count": size, "vocab_size": vocab}
    keys += [(f"{arch}.{name}", U32, number) for name, number in numbers.items()]
    keys += [(f"{arch}.rope.freq_base", F32, 10000.0), (f"{arch}.attention.layer_norm_rms_epsilon", F32, 1e-5)]
    keys += [(f"{arch}.{name}", kind, item) for name, kind, item in extra]
    keys += tokenizer_keys(arch)
    tensors = []
    for i, (name, shape) in enumerate(model_shapes(arch, hidden, 2, 1, size, inner, vocab).items()):
        fitting = [kind for kind in kinds if shape[0] % BLOCKS[kind][0] == 0]
        kind = fitting[i % len(fitting)] if len(shape) > 1 and fitting else 0
        tensors.append((name, kind, shape, tensor_bytes(kind, shape)))
    return keys, tensors


def model_gguf(arch, **form):
    return gguf(*model_parts(arch, **form))


def run_models():
    """One of every form that the engine computes."""
    yarn = [("rope.scaling.type", STRING, "yarn"), ("rope.scaling.factor", F32, 4.0),
            ("rope.scaling.original_context_length", U32, 8)]
    keys, tensors = model_parts("llama")
    divisors = [("rope_freqs.weight", 0, [1], struct.pack("<f", 2.0))]
    return {
        "llama": model_gguf("llama"), "qwen2": model_gguf("qwen2"), "qwen3": model_gguf("qwen3"),
        "yarn": model_gguf("llama", extra=yarn),
        "window": model_gguf("llama", extra=[("attention.sliding_window", U32, 2)]),
        "divisors": gguf(keys, tensors + divisors), "halves": model_gguf("qwen2", kinds=(1, 30)),
        "blocks": model_gguf("llama", kinds=(2, 3, 6, 7, 8, 20), hidden=32, inner=32, size=16),
        "k_blocks": model_gguf("qwen3", kinds=(10, 11, 12, 13, 14, 23), hidden=256, inner=4, size=2),
    }


def block_types_gguf():
    """One block of every type."""
    tensors = [(f"t{kind}", kind, [n], bytes(size)) for kind, (n, size) in BLOCKS.items()]
    return gguf([("general.alignment", U32, 8)], tensors, alignment=8)


def values_gguf():
    """A key of every type, and an array of it."""
    keys = []
    for kind in NUMBERS:
        keys += [(f"n{kind}", kind, 1), (f"a{kind}", ARRAY, (kind, [0, 1]))]
    return gguf(keys + [("s", STRING, "text"), ("e", ARRAY, (STRING, []))], [])


def pieces(kind, *files):
    """The input of survey_fuzz: files behind their lengths, the last one without."""
    return bytes([kind]) + b"".join(struct.pack("<H", len(f)) + f for f in files[:-1]) + files[-1]


def split_model():
    keys, tensors = model_parts("llama")
    parts = []
    for i, some in enumerate((tensors[:5], tensors[5:])):
        split = [("split.no", U16, i), ("split.count", U16, 2), ("split.tensors.count", I32, len(tensors))]
        parts.append(gguf((keys if i == 0 else []) + split, some))
    return pieces(0, *parts)


HF_LAYER = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
            "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
            "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def hf_folder(sharded):
    header, data = {}, b""
    for name, shape in model_shapes("llama", 8, 2, 1, 4, 12, 16).items():
        part = name.removesuffix(".weight").removeprefix("blk.0.")
        top = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}
        hf_name = top.get(part) or f"model.layers.0.{HF_LAYER[part]}.weight"
        raw = tensor_bytes(30, shape)
        header[hf_name] = {"dtype": "BF16", "shape": shape[::-1], "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    index = json.dumps({"weight_map": {name: "a.safetensors" for name in header}}).encode() if sharded else b""
    config = hf_config("llama", {"rope_theta": 10000, "rope_scaling": None})
    return pieces(1, config, index, struct.pack("<Q", len(text)) + text + data)


def safetensors():
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "BF16", "shape": [1, 3], "data_offsets": [8, 14]},
        "c": {"dtype": "F16", "shape": [], "data_offsets": [14, 16]},
    }
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(16)


def hf_config(arch, rope):
    return json.dumps({
        "architectures": [{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[arch]],
        "model_type": arch, "hidden_act": "silu", "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
        "vocab_size": 16, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True, **rope,
    }).encode()


CHAT_TEMPLATE = b"""{%- if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% endif %}
{% for m in messages if m.role != 'system' %}{{ '<|' + m['role'] + '|>' }}{{ m.content }}{% if not loop.last %}
{% endif %}{% endfor %}{% if add_generation_prompt %}{{ bos_token }}{% endif %}"""


TEMPLATE_FORMS = b"""{% macro m(a, b=1) %}{{ varargs }}{{ caller(a) }}{% endmacro %}{% call(x) m(1, *[2]) %}{{ x }}{% endcall %}
{%- for x in o recursive %}{{ loop.changed(x.b) }}{{ loop(x.a) }}{% endfor %}{% filter upper | trim %} q {% endfilter %}{% raw %}{{{% endraw %}
{{ '%5.2f|%s' % (f, n) }}{{ '{:>8,}'.format(n) }}{{ o | sort(attribute='b') | map(attribute='a') | list | tojson(indent=2) }}
{% with y = 1 %}{{ y is divisibleby 2 }}{% endwith %}{{ ('<' | safe) + '<' }}{{ strftime_now('%d %b %Y') }}{{ o | groupby('b') | batch(2) | list }}"""


def template_input_seeds():
    """For template_input_fuzz: a byte that picks the template, then messages, tools and variables."""
    schema = {"type": "object", "properties": {"city": {"type": ["string", "null"], "default": 10**25}}, "items": {"type": "any"}}
    document = json.dumps({
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                     {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1.5}}}]}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}], "x": 2.5})
    return {f"template_input_fuzz/{i}": bytes([i]) + document.encode() for i in range(6)}


def hf_tokenizers():
    """Files of Hugging Face tokenizers, each after the byte that names it."""
    tokens = ["a", "b", "ab", "\u0120", "\u0120a", "1", "<|end|>", "\u2581", "<unk>", "<s>", "<0x61>"]
    model = {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)}, "merges": [["a", "b"]], "unk_token": None,
             "fuse_unk": False, "byte_fallback": False, "ignore_merges": True, "dropout": None}
    flags = {"single_word": False, "lstrip": True, "rstrip": True, "normalized": False, "special": True}
    split = {"type": "Split", "behavior": "Isolated", "invert": False, "pattern": {
        "Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                 r"|\s*[\r\n]+|\s+(?!\S)|\s+"}}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [9], "tokens": ["<s>"]}}}
    qwen = {"added_tokens": [{"id": 6, "content": "<|end|>", **flags}], "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]}, "post_processor": template,
            "model": model}
    smollm = {**qwen, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True}, {**byte_level, "use_regex": True}]}}
    pieces = {**model, "byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True, "ignore_merges": False,
              "merges": ["a b"]}
    escape = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
    legacy = {"added_tokens": [{"id": 9, "content": "<s>", **flags, "normalized": True}], "normalizer": escape,
              "pre_tokenizer": None, "model": pieces}
    metaspace = {**legacy, "normalizer": None, "pre_tokenizer": {
        "type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}}
    config = {"bos_token": {"content": "<s>"}, "eos_token": "<|end|>", "add_bos_token": True, "tokenizer_class":
              "GPT2Tokenizer", "chat_template": [{"name": "default", "template": "x"}],
              "added_tokens_decoder": {"6": {"content": "<|end|>", **flags}}}

    def joined(**files):
        return b"\0".join(key.encode() + (value if isinstance(value, str) else json.dumps(value)).encode()
                          for key, value in files.items())

    return {
        "qwen": joined(t=qwen, c=config), "smollm": joined(t=smollm), "legacy": joined(t=legacy),
        "metaspace": joined(t=metaspace, g={"eos_token_id": [6, 9]}),
        "files": joined(v=model["vocab"], m="#version: 0.2\na b\n", a={"<x>": 11}, c=config,
                        s={"pad_token": "a"}, k={"model_type": "qwen2", "eos_token_id": 6}, j="{{ x }}"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    root = parser.parse_args().folder
    index = {"metadata": {"total_size": 8}, "weight_map": {"lm_head.weight": "a.safetensors"}}
    new_rope = {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}
    seeds = {
        "gguf_fuzz/llama": model_gguf("llama"),
        "gguf_fuzz/qwen2": model_gguf("qwen2"),
        "gguf_fuzz/qwen3": model_gguf("qwen3"),
        "gguf_fuzz/blocks": block_types_gguf(),
        "gguf_fuzz/values": values_gguf(),
        "survey_fuzz/split": split_model(),
        "survey_fuzz/folder": hf_folder(sharded=False),
        "survey_fuzz/shards": hf_folder(sharded=True),
        "safetensors_fuzz/small": safetensors(),
        "hf_config_fuzz/old_llama": hf_config("llama", {"rope_theta": 10000, "rope_scaling": None}),
        "hf_config_fuzz/new_qwen2": hf_config("qwen2", new_rope),
        "hf_config_fuzz/index": json.dumps(index).encode(),
        "hf_config_fuzz/name": b"model.layers.0.self_attn.q_proj.weight",
        "template_fuzz/chat": CHAT_TEMPLATE,
        **template_input_seeds(),
        "template_fuzz/forms": TEMPLATE_FORMS,
        "template_fuzz/words": b"{% set n = namespace(a=1) %}{{ n.a ~ 'x'[0:1] | trim }}{# c #}{%- for i in range(3) -%}{{ loop.index }}{% else %}{% endfor %}",
        "tokenizer_fuzz/text": "It's 12 o'clock,  na\u00efve \u4e2d\u6587\n\n\t<|end|>".encode() + b"\xff\xc3",
        "openai_fuzz/chat": json.dumps({
            "model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [
                {"type": "text", "text": "hi"}]}], "max_completion_tokens": 5, "temperature": 0.5, "stop": ["a", "b"]}).encode(),
        "openai_fuzz/completion": json.dumps({
            "model": "m", "prompt": [1, 2, 3], "max_tokens": 5, "seed": 7, "top_p": 0.9, "n": 1, "stream": False}).encode(),
        "sample_fuzz/own": json.dumps({
            "suite": "s", "task": "t", "version": 1, "seed": 1, "length": 9, "index": 0, "context": "c", "question": "q",
            "answer_prefix": "a", "refs": ["r"], "more_questions": [{"question": "p", "refs": ["1 2"]}],
            "metric": "answer", "max_new": 5, "needles": [{"text": "n", "token_begin": 1, "depth": 33.3}],
            "distractors": 2, "gold": "1. x\nanswer: r\n"}).encode(),
        "sample_fuzz/ruler": b'{"index": 0, "input": "a\\nWhich?", "outputs": ["x"], "answer_prefix": " y"}\n\n',
        "http_fuzz/pipelined": b"\0GET /s HTTP/1.1\r\nHost: localhost\r\n\r\nPOST /p HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 2\r\n\r\nab",
        "http_fuzz/chunked": b"\5POST /p HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nA: b\r\n\r\n",
        "http_fuzz/preflight": b"\0OPTIONS /k HTTP/1.1\r\nHost: localhost\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n\r\n",
        "http_fuzz/key": b"\0POST /k HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer fuzz-key-0123456789\r\nContent-Length: 1\r\n\r\nx",
    }
    tree = pathlib.Path(__file__).parent.parent / "src"
    for config in sorted(tree.glob("model/testdata/*/config.json")):  # one of every family and form
        seeds[f"hf_config_fuzz/{config.parent.name}"] = config.read_bytes()
    seeds |= {f"run_fuzz/{name}": model for name, model in run_models().items()}
    seeds |= {f"tokenizer_json_fuzz/{name}": files for name, files in hf_tokenizers().items()}
    for name, content in seeds.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
