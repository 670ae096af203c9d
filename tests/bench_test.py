"""kvasir bench: rows, keys, depths, limits, random weights and refusals. What is fast is not asked here."""
import csv
import io
import json
import os
import tempfile
import unittest

from support import STORIES, ProcessTest, kvasir, needs_stories

MODEL = ("--shape", "tiny", "--kv-memory", "64MiB")
TINY = (*MODEL, "-p", 16, "-n", 4, "-r", 2)
KEYS = {"case", "build_commit", "cpu_info", "backends", "model_filename", "model_type", "model_size", "model_n_params", "n_batch",
        "n_ubatch", "n_threads", "type_k", "type_v", "n_prompt", "n_gen", "n_depth", "n_parallel", "test_time", "avg_ns", "stddev_ns",
        "avg_ts", "stddev_ts", "samples_ns", "samples_ts", "policy_ns", "kv_policy", "kv_codec", "kv_peak_bytes", "kv_bytes_per_token",
        "read_bytes_per_step"}
# tiny: 2 layers, 2 KV heads of 64 channels; K and V in f16.
ENTRY = 2 * 2 * 64 * 2 * 2


class BenchTest(ProcessTest):
    def test_one_object_a_test_and_depth(self):
        rows = self.json("bench", *TINY, "-d", "0,64-128+64", "-pg", "8,3", "-t", 1)
        self.assertEqual([row["test"] for row in rows],
                         ["pp16", "tg4", "pp8+tg3", "pp16 @ d64", "tg4 @ d64", "pp8+tg3 @ d64", "pp16 @ d128", "tg4 @ d128",
                          "pp8+tg3 @ d128"])
        for row in rows:
            self.assertLessEqual(KEYS, row.keys())
            self.assertEqual(row["case"], "dense")
            self.assertEqual(row["n_threads"], 1)
            self.assertEqual(len(row["samples_ns"]), 2)
            tokens = row["n_prompt"] + row["n_gen"]
            for ns, ts in zip(row["samples_ns"], row["samples_ts"]):
                self.assertAlmostEqual(ts * ns / 1e9, tokens, delta=tokens / 1000)
            self.assertAlmostEqual(row["avg_ts"], sum(row["samples_ts"]) / 2, delta=1e-6 * row["avg_ts"])
            pages = -(-(row["n_depth"] + tokens) // 64)
            self.assertEqual(row["kv_peak_bytes"], pages * 64 * ENTRY)
        deep = rows[-2]
        self.assertEqual(deep["read_bytes_per_step"], (128 + 132 + 1) * ENTRY // 2)

    def test_policies_and_codecs_are_a_case(self):
        row, = self.json("bench", *MODEL, "-p", 0, "-n", 4, "-d", 512, "-r", 1, "--kv-policy", "keydiff:budget=128,block=32", "--kv-codec", "q8")
        self.assertEqual(row["case"], "keydiff:budget=128,block=32 q8")
        self.assertTrue(row["kv_policy"].startswith("keydiff:budget=128,block=32,"), row["kv_policy"])
        self.assertEqual((row["kv_codec"], row["type_k"], row["type_v"]), ("q8", "q8_0", "q8_0"))
        self.assertLess(row["read_bytes_per_step"], 200 * ENTRY)
        self.assertLess(row["kv_bytes_per_token"], ENTRY / 2)
        table = self.ok("bench", *TINY, "--kv-codec", "q8").stdout
        self.assertIn("| q8 ", table)
        self.assertIn("| policy |", table)

    def test_sequences_together(self):
        alone, together = (self.json("bench", *MODEL, "-p", 0, "-n", 4, "-d", 64, "-r", 2, "-np", n)[0] for n in (1, 3))
        self.assertEqual(together["test"], "tg4 x3 @ d64")
        self.assertEqual(together["n_parallel"], 3)
        self.assertEqual(together["kv_peak_bytes"], 3 * alone["kv_peak_bytes"])
        self.assertAlmostEqual(together["samples_ts"][0] * together["samples_ns"][0] / 1e9, 12, delta=0.01)

    def test_limits(self):
        *rows, last = self.json("bench", *TINY, "-pg", "8,3", "--limits")
        self.assertEqual(set(last), {"limits"})
        limits = last["limits"]
        self.assertEqual(set(limits), {"read_gb_s", "f32_gflop_s", "bf16_gflop_s", "int8_gop_s", "ms_fork_join"})
        self.assertGreater(limits["read_gb_s"], 0)
        self.assertGreater(limits["f32_gflop_s"], 0)
        decode = rows[1]
        bytes_read = (decode["weight_bytes"] + decode["read_bytes_per_step"]) * 4
        share = bytes_read / (sum(decode["samples_ns"]) / 2) / limits["read_gb_s"]
        self.assertAlmostEqual(decode["limit_share"], share, delta=0.01 * share)
        self.assertNotIn("limit_share", rows[2])
        alone = self.ok("bench", "--limits", "--simd", "portable").stdout
        self.assertEqual(len(alone.splitlines()), 1)
        self.assertIn("bf16 none", alone)

    def test_runs_on_demand(self):
        done = self.ok("bench", *TINY, "-d", "0,64", "--on-demand", stdin="3\n0\n3\n")
        first, *runs = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(first["tests"], ["pp16", "tg4", "pp16 @ d64", "tg4 @ d64"])
        self.assertEqual([run["test"] for run in runs], ["tg4 @ d64", "pp16", "tg4 @ d64"])
        self.assertTrue(all(run["ns"] > 0 for run in runs))
        self.assertEqual(runs[0]["kv_peak_bytes"], 128 * ENTRY)
        wrong = kvasir("bench", *TINY, "--on-demand", stdin="2\n")
        self.assertEqual(wrong.returncode, 1)
        self.assertIn("a number below 2", wrong.stderr)

    def test_forms(self):
        table = self.ok("bench", *TINY).stdout.splitlines()
        self.assertEqual(len(table), 4)
        self.assertRegex(table[2], r"^\| llama 1M Q4_0 \| .* \| pp16 \| +[0-9.]+ ± [0-9.]+ \| +0\.1 \|$")
        rows = list(csv.DictReader(io.StringIO(self.ok("bench", *TINY, "--format", "csv").stdout)))
        self.assertEqual([row["n_prompt"] for row in rows], ["16", "0"])
        lines = self.ok("bench", *TINY, "--format", "jsonl").stdout.splitlines()
        self.assertEqual([json.loads(line)["n_gen"] for line in lines], [0, 4])
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "out.json")
            self.assertEqual(self.ok("bench", *TINY, "--json", "--output", path).stdout, "")
            with open(path) as f:
                self.assertEqual(len(json.load(f)), 2)

    def test_saved_shapes_are_models(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "tiny.gguf")
            nothing = self.ok("bench", "--shape", "tiny", "--type", "q8_0", "--save", path, "-p", 0, "-n", 0)
            self.assertEqual(nothing.stdout, "")
            row = self.json("bench", "-m", path, "-p", 4, "-n", 0, "-r", 1, "--kv-memory", "64MiB")[0]
            self.assertEqual(row["model_type"], "llama 1M Q8_0")
            again = os.path.join(folder, "again.gguf")
            self.ok("bench", "--shape", "tiny", "--type", "q8_0", "--save", again, "-p", 0, "-n", 0)
            with open(path, "rb") as a, open(again, "rb") as b:
                self.assertEqual(a.read(), b.read())  # the same seed
            text = self.json("run", "-m", path, "-p", "abc", "-n", 3, "--temp", 0, "--ignore-eos", "--kv-memory", "64MiB")
            self.assertEqual(len(text["tokens"]), 3)

    @needs_stories
    def test_a_file(self):
        rows = self.json("bench", STORIES, "-p", "8,16", "-n", 0, "-r", 1, "--kv-memory", "64MiB")
        self.assertEqual([row["test"] for row in rows], ["pp8", "pp16"])
        self.assertEqual(rows[0]["model_filename"], STORIES)

    def test_refuses(self):
        self.refused(2, "bench", says=["--model"])
        self.refused(2, "bench", *MODEL, "-n", "4-1", says=["--n-gen", "4-1"])
        self.refused(2, "bench", *TINY, "-pg", "4", says=["--prompt-gen"])
        self.refused(2, "bench", *MODEL, "-p", 0, "-n", 0, says=["nothing to measure"])
        self.refused(2, "bench", *TINY, "-d", 4096, says=["4096", "context"])
        self.refused(2, "bench", "--shape", "tinny", says=["did you mean tiny"])
        self.refused(2, "bench", "--shape", "tiny", "--type", "q9", says=["Q8_0"])
        self.refused(2, "bench", "--shape", "tiny", "-m", "x", says=["--shape"])
        self.refused(2, "bench", "-m", "x", "--save", "y", says=["--save", "--shape"])
        self.refused(2, "bench", *TINY, "--json", "--format", "csv", says=["--json"])
        self.refused(2, "bench", *MODEL, "-r", 0, says=["repetitions"])
        self.refused(1, "bench", "--shape", "tiny", "-d", 3000, "--kv-memory", "1MiB", says=["KV"])
        self.refused(2, "bench", *TINY, "--kv-policy", "keydif:budget=5", says=["keydiff"])


if __name__ == "__main__":
    unittest.main()
