"""llama.cpp as a worker of peers.py: commands as JSON lines on standard input, answers on standard output.

Runs under a Python that has llama-cpp-python, whose C API is used alone: no sampling, no text, nothing but decode calls.
"""
import ctypes
import random
import sys
import time

from peer_worker import serve

from llama_cpp import llama_cpp as api

TYPES = {"f16": 1, "q8_0": 8}  # ggml_type
BLOCK = 512  # rows of a decode call


class Context:
    """A llama_context whose sequences hold `depth` tokens each; every run puts them back to that."""

    def __init__(self, model, threads, variant, depth, seqs, room):
        params = api.llama_context_default_params()
        # A second sequence lets one fill the cache in pieces. Streams apart serve many sequences best.
        params.n_seq_max = seqs if seqs > 1 else 2
        params.kv_unified = seqs == 1
        params.n_ctx = (depth + room) * seqs + 256 * params.n_seq_max
        params.n_batch, params.n_ubatch = 4 * BLOCK, BLOCK
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = 1 if variant["fused"] else 0
        params.type_k = params.type_v = TYPES[variant["type"]]
        params.no_perf = True
        self.context = api.llama_init_from_model(model, params)
        if not self.context:
            raise RuntimeError(f"no context for {variant}")
        self.memory = api.llama_get_memory(self.context)
        self.vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
        self.batch = api.llama_batch_init(4 * BLOCK, 0, 1)
        self.random = random.Random(1)
        self.depth, self.seqs = depth, seqs
        self.fill()

    def close(self):
        api.llama_batch_free(self.batch)
        api.llama_free(self.context)

    def decode(self, rows):
        """rows: (position, sequence, whether logits are wanted)."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (position, sequence, logits) in enumerate(rows):
            batch.token[i] = self.random.randrange(self.vocabulary)
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = logits
        code = api.llama_decode(self.context, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode returned {code}")
        api.llama_synchronize(self.context)

    def prompt(self, begin, n, sequence=0):
        for at in range(begin, begin + n, BLOCK):
            end = min(at + BLOCK, begin + n)
            self.decode([(p, sequence, p == begin + n - 1) for p in range(at, end)])

    def put_back(self):
        for sequence in range(self.seqs):
            api.llama_memory_seq_rm(self.memory, sequence, self.depth, -1)

    def state_of(self, sequence):
        size = api.llama_state_seq_get_size(self.context, sequence)
        data = (ctypes.c_uint8 * size)()
        if api.llama_state_seq_get_data(self.context, data, size, sequence) != size:
            raise RuntimeError("the state of a sequence cannot be copied")
        return data

    def restore(self, data, sequence):
        if api.llama_state_seq_set_data(self.context, data, len(data), sequence) == 0:
            raise RuntimeError("the state of a sequence cannot be restored")

    def fill(self):
        """Real entries everywhere. One sequence: its first block is read, then copied to the places behind it (keys are
        rotated to their positions). Several: one is read, and copied into the others."""
        if self.depth == 0:
            return
        first = self.depth if self.seqs > 1 else min(self.depth, BLOCK)
        self.prompt(0, first)
        data = self.state_of(0)
        for sequence in range(1, self.seqs):
            self.restore(data, sequence)
        for begin in range(first, self.depth if self.seqs == 1 else 0, BLOCK):
            self.restore(data, 1)
            api.llama_memory_seq_add(self.memory, 1, 0, -1, begin)
            api.llama_memory_seq_cp(self.memory, 1, 0, -1, -1)
            api.llama_memory_seq_rm(self.memory, 1, -1, -1)
        self.put_back()
        last = api.llama_memory_seq_pos_max(self.memory, self.seqs - 1)
        if last != self.depth - 1:
            raise RuntimeError(f"the cache was filled up to {last}, not {self.depth - 1}")

    def run(self, test, n):
        """Milliseconds: of a whole prompt, of one step of decoding."""
        start = time.perf_counter()
        if test == "pp":
            self.prompt(self.depth, n)
        else:
            for i in range(n):
                self.decode([(self.depth + i, sequence, True) for sequence in range(self.seqs)])
        ms = (time.perf_counter() - start) * 1000
        self.put_back()
        return ms if test == "pp" else ms / n


class Llama:
    def __init__(self, model, threads):
        api.llama_backend_init()
        self.model = api.llama_model_load_from_file(model.encode(), api.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"{model} cannot be loaded")
        self.threads = threads
        self.contexts = {}

    def phase(self, variant, depth, seqs, pp, tg, rounds):
        context = Context(self.model, self.threads, variant, depth, seqs, max(pp, tg) + 64)
        self.contexts[variant["name"]] = context
        self.sizes = {"pp": pp, "tg": tg}
        for test in ("pp", "tg"):
            if self.sizes[test]:
                context.run(test, min(self.sizes[test], 4))  # warm-up; rotates what was copied
        return {}

    def run(self, variant, test):
        return {"ms": self.contexts[variant["name"]].run(test, self.sizes[test])}

    def end(self, variant):
        context = self.contexts.pop(variant["name"], None)
        if context:
            context.close()
        return {}


if __name__ == "__main__":
    serve(lambda: Llama(sys.argv[1], int(sys.argv[2])))
