"""OpenVINO GenAI as a worker of peers.py: its continuous batching pipeline, one step at a time, each step timed.

A step takes up to 512 tokens: a piece of a prompt, or one token of every sequence that generates. The prefix cache is off,
and no two prompts begin alike. A cache cannot be forked there, so the prompt of a depth is read once and rests at its last
pieces: those are the samples of prefill at that depth, and the steps behind them those of decoding.
"""
import sys
import time

import numpy
import openvino
import openvino_genai as genai
from peer_worker import serve

PIECE = 512
WARM_UP = 4  # steps: shapes that are new to the pipeline compile in the first one


def slope(xs, ys):
    """Of the least squares line."""
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    squares = sum((a - x) ** 2 for a in xs)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys)) / squares if squares else 0.0


class OpenVino:
    def __init__(self, model, threads, precision, cache_gib):
        scheduler = genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False
        scheduler.dynamic_split_fuse = True
        scheduler.max_num_batched_tokens = PIECE
        scheduler.max_num_seqs = 16
        scheduler.cache_size = cache_gib
        self.pipeline = genai.ContinuousBatchingPipeline(
            model, scheduler, "CPU", {"KV_CACHE_PRECISION": precision, "INFERENCE_NUM_THREADS": threads})
        self.random = numpy.random.default_rng(1)
        self.next_id = 0
        self.handles = []

    def add(self, n_prompt, n_new):
        config = genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = n_new, True, False
        ids = self.random.integers(300, 500, (1, n_prompt)).astype(numpy.int64)
        self.next_id += 1
        # A request whose handle goes is dropped.
        self.handles.append(self.pipeline.add_request(self.next_id, openvino.Tensor(ids), config))

    def step(self):
        if not self.pipeline.has_non_finished_requests():
            raise RuntimeError("the pipeline has nothing left to do")
        start = time.perf_counter()
        self.pipeline.step()
        return (time.perf_counter() - start) * 1000

    def finish(self):
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
        self.handles.clear()

    def phase(self, depth, seqs, pp, tg, rounds):
        self.depth, self.seqs, self.sizes = depth, seqs, {"pp": pp, "tg": tg}
        self.decodes = False
        if depth == 0:
            self.run_shallow("pp", pp)
            self.run_shallow("tg", WARM_UP)
            return {}
        new = rounds * tg + WARM_UP + seqs * (depth // PIECE + 2) + 2
        for _ in range(seqs):
            self.add(depth, new)
        if not pp:
            self.begin_decoding(-(-seqs * depth // PIECE) + seqs)
            return {}
        if seqs > 1 or depth // PIECE < rounds + 2:
            raise RuntimeError(f"depth {depth} has too few pieces for {rounds} rounds")
        self.pieces = depth // PIECE  # whole ones
        self.times = [self.step() for _ in range(self.pieces - rounds)]
        return {}

    def begin_decoding(self, steps):
        for _ in range(steps + WARM_UP):
            self.step()
        running = self.pipeline.get_metrics().requests
        if running != self.seqs:
            raise RuntimeError(f"{running} of {self.seqs} sequences decode")
        self.decodes = True

    def run_shallow(self, test, n):
        if test == "pp":
            self.add(n, 1)
            return self.step()
        self.add(1, n + WARM_UP + 2)
        for _ in range(WARM_UP):
            self.step()
        ms = sum(self.step() for _ in range(n)) / n
        self.finish()
        return ms

    def run(self, test):
        n = self.sizes[test]
        if self.depth == 0:
            return {"ms": self.run_shallow(test, n)}
        if test == "tg":
            if not self.decodes:
                self.begin_decoding(self.pieces - len(self.times) + 1)
            return {"ms": sum(self.step() for _ in range(n)) / n}
        # The next whole piece, at a depth a little less than the one asked for; time grows linearly with it.
        if len(self.times) == self.pieces:
            raise RuntimeError("no piece of the prompt is left")
        self.times.append(self.step())
        starts = [PIECE * i for i in range(len(self.times))]
        return {"ms": self.times[-1] + slope(starts[1:], self.times[1:]) * (self.depth - starts[-1])}

    def end(self):
        self.finish()
        return {}


if __name__ == "__main__":
    serve(lambda: OpenVino(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
