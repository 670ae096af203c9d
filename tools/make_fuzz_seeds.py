#!/usr/bin/env python3
"""Writes small valid inputs for the fuzz targets: one folder per target under the folder given.

    tools/make_fuzz_seeds.py seeds
    build-fuzz/src/format/gguf_fuzz -max_total_time=60 corpus seeds/gguf_fuzz
"""

import argparse
import json
import pathlib
import struct

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9


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
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], item)


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
    return shapes | {f"blk.0.{name}": shape for name, shape in layer.items()}


def model_gguf(arch):
    keys = [("general.architecture", STRING, arch)]
    numbers = {"block_count": 1, "embedding_length": 4, "feed_forward_length": 6,
               "attention.head_count": 2, "attention.head_count_kv": 1, "context_length": 16,
               "rope.dimension_count": 2, "vocab_size": 3}
    keys += [(f"{arch}.{name}", U32, number) for name, number in numbers.items()]
    keys += [
        (f"{arch}.rope.freq_base", F32, 10000.0),
        (f"{arch}.attention.layer_norm_rms_epsilon", F32, 1e-5),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, ["a", "b", "ab"])),
        ("tokenizer.ggml.token_type", ARRAY, (I32, [1, 1, 3])),
        ("tokenizer.ggml.scores", ARRAY, (F32, [0.0, -1.0, -2.0])),
        ("tokenizer.ggml.add_bos_token", BOOL, True),
    ]
    tensors = []
    for name, shape in model_shapes(arch, 4, 2, 1, 2, 6, 3).items():
        n = 1
        for dim in shape:
            n *= dim
        tensors.append((name, 0, shape, struct.pack("<f", 0.5) * n))
    return gguf(keys, tensors)


def block_types_gguf():
    """One block of every quantized type."""
    blocks = {2: (32, 18), 3: (32, 20), 6: (32, 22), 8: (32, 34), 12: (256, 144), 14: (256, 210)}
    tensors = [(f"t{kind}", kind, [n], bytes(size)) for kind, (n, size) in blocks.items()]
    return gguf([("general.alignment", U32, 8)], tensors, alignment=8)


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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    root = parser.parse_args().folder
    index = {"metadata": {"total_size": 8}, "weight_map": {"lm_head.weight": "a.safetensors"}}
    new_rope = {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}
    seeds = {
        "gguf_fuzz/llama": model_gguf("llama"),
        "gguf_fuzz/qwen2": model_gguf("qwen2"),
        "gguf_fuzz/blocks": block_types_gguf(),
        "safetensors_fuzz/small": safetensors(),
        "hf_config_fuzz/old_llama": hf_config("llama", {"rope_theta": 10000, "rope_scaling": None}),
        "hf_config_fuzz/new_qwen2": hf_config("qwen2", new_rope),
        "hf_config_fuzz/index": json.dumps(index).encode(),
        "hf_config_fuzz/name": b"model.layers.0.self_attn.q_proj.weight",
        "template_fuzz/chat": CHAT_TEMPLATE,
        "template_fuzz/words": b"{% set n = namespace(a=1) %}{{ n.a ~ 'x'[0:1] | trim }}{# c #}{%- for i in range(3) -%}{{ loop.index }}{% else %}{% endfor %}",
        "tokenizer_fuzz/text": "It's 12 o'clock,  na\u00efve \u4e2d\u6587\n\n\t<|end|>".encode() + b"\xff\xc3",
        "openai_fuzz/chat": json.dumps({
            "model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [
                {"type": "text", "text": "hi"}]}], "max_completion_tokens": 5, "temperature": 0.5, "stop": ["a", "b"]}).encode(),
        "openai_fuzz/completion": json.dumps({
            "model": "m", "prompt": [1, 2, 3], "max_tokens": 5, "seed": 7, "top_p": 0.9, "n": 1, "stream": False}).encode(),
        "http_fuzz/pipelined": b"\0GET /s HTTP/1.1\r\nHost: localhost\r\n\r\nPOST /p HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 2\r\n\r\nab",
        "http_fuzz/chunked": b"\5POST /p HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nA: b\r\n\r\n",
        "http_fuzz/preflight": b"\0OPTIONS /k HTTP/1.1\r\nHost: localhost\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n\r\n",
        "http_fuzz/key": b"\0POST /k HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer fuzz-key-0123456789\r\nContent-Length: 1\r\n\r\nx",
    }
    for name, content in seeds.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
