#!/usr/bin/env python3
"""Makes the expected values of src/model/*_test.cc with the transformers library.

    make_model_goldens.py random                      small random models and their logits
    make_model_goldens.py nll GGUF NAME               per-token losses of a text through a real GGUF file

Needs torch, transformers, safetensors, gguf, accelerate. Results go to src/model/testdata/ and are
committed; the tests themselves need none of this.

A random model is a folder with config.json and model.safetensors (or one model.gguf), tokens.txt (ids), and
logits.bin (little-endian f32, one row of vocab_size values per token).
"""

import json
import pathlib
import sys

import gguf
import numpy as np
import torch
import transformers
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent / "src" / "model" / "testdata"
N_TOKENS = 40
transformers.logging.disable_progress_bar()

# Dimensions are chosen to leave remainders: of vectors, of groups of outputs, of blocks of 32.
RANDOM = {
    "llama_tied": dict(
        kind="llama", vocab_size=67, hidden_size=40, intermediate_size=36, num_attention_heads=5,
        num_key_value_heads=5, head_dim=8, tie_word_embeddings=True, rope_theta=10000.0),
    "llama_gqa2": dict(
        kind="llama", vocab_size=80, hidden_size=32, intermediate_size=40, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, tie_word_embeddings=False, rope_theta=500000.0),
    "llama_bias_gqa4_bf16": dict(
        kind="llama", vocab_size=64, hidden_size=32, intermediate_size=48, num_attention_heads=4,
        num_key_value_heads=1, head_dim=40, tie_word_embeddings=False, rope_theta=10000.0,
        attention_bias=True, dtype=torch.bfloat16),
    "llama_wide_f16": dict(
        kind="llama", vocab_size=64, hidden_size=48, intermediate_size=48, num_attention_heads=2,
        num_key_value_heads=1, head_dim=64, tie_word_embeddings=True, rope_theta=10000.0,
        dtype=torch.float16),
    "qwen2": dict(
        kind="qwen2", vocab_size=80, hidden_size=32, intermediate_size=56, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, tie_word_embeddings=True, rope_theta=1000000.0),
    "llama_linear": dict(
        kind="llama", vocab_size=48, hidden_size=24, intermediate_size=40, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, tie_word_embeddings=True, rope_theta=10000.0,
        rope_scaling=dict(type="linear", factor=2.5)),
    "llama_llama3": dict(
        kind="llama", vocab_size=48, hidden_size=24, intermediate_size=20, num_attention_heads=2,
        num_key_value_heads=2, head_dim=48, tie_word_embeddings=True, rope_theta=5000.0,
        mlp_bias=True,
        rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                          original_max_position_embeddings=64)),
    "llama_yarn": dict(
        kind="llama", new=True, vocab_size=48, hidden_size=24, intermediate_size=24,
        num_attention_heads=3, num_key_value_heads=1, head_dim=32, tie_word_embeddings=False,
        rope_theta=2000.0,
        rope_scaling=dict(rope_type="yarn", factor=6.0, original_max_position_embeddings=40,
                          beta_fast=8.0)),
    "mistral_window": dict(
        kind="mistral", vocab_size=48, hidden_size=24, intermediate_size=40, num_attention_heads=4,
        num_key_value_heads=2, head_dim=20, tie_word_embeddings=False, rope_theta=10000.0,
        sliding_window=7),
    "mistral_wide": dict(
        kind="mistral", new=True, vocab_size=40, hidden_size=16, intermediate_size=24,
        num_attention_heads=2, num_key_value_heads=1, head_dim=256, tie_word_embeddings=True,
        rope_theta=1000000.0, sliding_window=None),
    "qwen2_window_yarn": dict(
        kind="qwen2", vocab_size=48, hidden_size=32, intermediate_size=40, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True, rope_theta=1000.0,
        use_sliding_window=True, sliding_window=9, max_window_layers=1,
        rope_scaling=dict(type="yarn", factor=4.0, original_max_position_embeddings=64)),
    "qwen3": dict(
        kind="qwen3", vocab_size=48, hidden_size=24, intermediate_size=40, num_attention_heads=4,
        num_key_value_heads=2, head_dim=20, tie_word_embeddings=True, rope_theta=1000000.0),
    "qwen3_layers": dict(
        kind="qwen3", new=True, vocab_size=48, hidden_size=24, intermediate_size=40,
        num_attention_heads=2, num_key_value_heads=1, head_dim=32, tie_word_embeddings=False,
        rope_theta=10000.0, attention_bias=True, use_sliding_window=True, sliding_window=5,
        layer_types=["sliding_attention", "full_attention"]),
}
CONFIGS = dict(llama=transformers.LlamaConfig, mistral=transformers.MistralConfig,
               qwen2=transformers.Qwen2Config, qwen3=transformers.Qwen3Config)


def random_model(kind, dtype=torch.float32, new=False, rope_scaling=None, **shape):
    """A model whose every parameter is random, norms and biases included."""
    rope = {"rope_type": "default", "rope_theta": shape.pop("rope_theta")}
    rope.update(rope_scaling or {})
    rope["rope_type"] = rope.pop("type", rope["rope_type"])
    config = CONFIGS[kind](
        num_hidden_layers=2, max_position_embeddings=256, rms_norm_eps=1e-5, rope_parameters=rope,
        bos_token_id=1, eos_token_id=2, **shape)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                p.normal_(0, 0.5)
            elif "embed" in name:
                p.normal_(0, 1.0)
            else:
                p.normal_(0, 1.5 / p.shape[-1] ** 0.5)
            p.copy_(p.to(dtype).float())
    model.tie_weights()
    return model


def write_case(folder, model, vocab_size):
    tokens = torch.randint(0, vocab_size, (N_TOKENS,))
    with torch.no_grad():
        logits = model(tokens[None]).logits[0].float().numpy()
    (folder / "tokens.txt").write_text(" ".join(str(int(t)) for t in tokens) + "\n")
    (folder / "logits.bin").write_bytes(logits.astype("<f4").tobytes())


def write_folder(name, options):
    dtype = options.get("dtype", torch.float32)
    model = random_model(**options)
    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.to(dtype).clone() for k, v in model.state_dict().items()}
    if options["tie_word_embeddings"]:
        state.pop("lm_head.weight", None)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    config = model.config.to_dict()
    keep = ["architectures", "model_type", "vocab_size", "hidden_size", "intermediate_size",
            "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
            "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "hidden_act",
            "attention_bias", "mlp_bias", "sliding_window", "use_sliding_window",
            "max_window_layers"]
    if options.get("new"):  # as this version of the library writes it
        plain = config | {"architectures": [type(model).__name__]}
        del plain["transformers_version"]
    else:  # as most published folders spell it
        plain = {key: config[key] for key in keep if key in config}
        plain["architectures"] = [type(model).__name__]
        plain["rope_theta"] = options["rope_theta"]
        plain["rope_scaling"] = options.get("rope_scaling")
        plain["torch_dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n")
    write_case(folder, model, options["vocab_size"])


def write_gguf(name):
    """Quantized matrices and interleaved RoPE pairs: transformers reads the file itself."""
    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    vocab, hidden, inter, heads, kv_heads, head_dim = 96, 64, 96, 4, 2, 16
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_block_count(2)
    writer.add_context_length(256)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inter)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([f"t{i}" for i in range(vocab)])
    writer.add_token_types([1] * vocab)
    writer.add_token_merges(["t 0"])
    rng = np.random.default_rng(5)
    q8, q4, q41 = (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0,
                   gguf.GGMLQuantizationType.Q4_1)

    def matrix(tensor, rows, cols, scale, dtype):
        data = rng.normal(0, scale, (rows, cols)).astype(np.float32)
        writer.add_tensor(tensor, gguf.quants.quantize(data, dtype), raw_dtype=dtype)

    def norm(tensor):
        writer.add_tensor(tensor, rng.uniform(0.5, 1.5, hidden).astype(np.float32))

    matrix("token_embd.weight", vocab, hidden, 1.0, q8)
    for i in range(2):
        norm(f"blk.{i}.attn_norm.weight")
        norm(f"blk.{i}.ffn_norm.weight")
        for part, rows, cols, dtype in [
                ("attn_q", heads * head_dim, hidden, q8), ("attn_k", kv_heads * head_dim, hidden, q4),
                ("attn_v", kv_heads * head_dim, hidden, q41),
                ("attn_output", hidden, heads * head_dim, q4), ("ffn_gate", inter, hidden, q8),
                ("ffn_up", inter, hidden, q41), ("ffn_down", hidden, inter, q4)]:
            matrix(f"blk.{i}.{part}.weight", rows, cols, 1.5 / cols ** 0.5, dtype)
    norm("output_norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="model.gguf", dtype=torch.float32).eval()
    write_case(folder, model, vocab)


def write_random():
    for name, options in RANDOM.items():
        torch.manual_seed(20)
        print(name)
        write_folder(name, options)
    torch.manual_seed(20)
    write_gguf("llama_gguf")


def write_nll(path, name):
    """NAME_nll.txt: one line per token of text.txt, "id nll top1" (nll and top1 of the token after the first)."""
    path = pathlib.Path(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    ids = tokenizer((ROOT / "text.txt").read_text(), add_special_tokens=False).input_ids
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    logp = torch.log_softmax(logits, -1)
    lines = [f"{ids[0]} 0 0"]
    for i in range(1, len(ids)):
        lines.append(f"{ids[i]} {-logp[i - 1, ids[i]].item():.6f} {int(logits[i - 1].argmax())}")
    (ROOT / f"{name}_nll.txt").write_text("\n".join(lines) + "\n")
    print(name, len(ids), "tokens, mean", -logp[:-1].gather(1, torch.tensor(ids[1:])[:, None]).mean().item())


if __name__ == "__main__":
    if sys.argv[1:] == ["random"]:
        write_random()
    elif len(sys.argv) == 4 and sys.argv[1] == "nll":
        write_nll(sys.argv[2], sys.argv[3])
    else:
        sys.exit(__doc__)
