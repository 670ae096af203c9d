"""bench/peers.py without its peers: statistics, rows, table, picture, state, and a run with engines that are made up."""
import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import unittest
import xml.dom.minidom

from support import BINARY, ProcessTest

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench")
sys.path.insert(0, BENCH)
import peers  # noqa: E402
import peers_report as report  # noqa: E402

CASE = {"model": "m", "type": "Q4_0", "test": "tg8", "depth": 64, "kv": "f16"}


class StatisticsTest(unittest.TestCase):
    def test_ratios_pair_the_rounds(self):
        # Twice as slow a machine in the second round changes no ratio.
        self.assertEqual(report.ratio([10, 20, 10], [15, 30, 15]), (1.5, 1.5, 1.5))
        middle, lo, hi = report.ratio([10, 10, 10, 10], [10, 12, 14, 30])
        self.assertAlmostEqual(middle, 1.3)
        self.assertTrue(1.0 <= lo < 1.3 < hi <= 3.0)
        # A slow peer has fewer samples.
        self.assertEqual(report.ratio([10, 10, 1], [20, 20])[0], 2)

    def test_intervals_narrow_with_samples_and_repeat(self):
        few, many = report.interval([1, 2, 3]), report.interval([1, 2, 3] * 30)
        self.assertLess(many[1] - many[0], few[1] - few[0])
        self.assertEqual(few, report.interval([1, 2, 3]))

    def test_rows_name_the_best_peer(self):
        samples = {"kvasir": [10, 10], "llama.cpp fused": [30, 30], "llama.cpp unfused": [20, 20], "openvino": []}
        rows = {row["engine"]: row for row in report.rows_of(CASE, samples, {"openvino": "no such type"})}
        self.assertEqual({row["best_peer"] for row in rows.values()}, {"llama.cpp unfused"})
        self.assertEqual(rows["kvasir"]["ratio"], 2)
        self.assertEqual(rows["llama.cpp fused"]["ratio"], 3)
        self.assertIsNone(rows["openvino"]["median"])
        self.assertEqual(rows["openvino"]["error"], "no such type")
        self.assertLessEqual({"model", "type", "test", "depth", "kv", "engine", "ms", "median", "best_peer", "ratio", "lo", "hi"},
                             rows["kvasir"].keys())

    def test_rows_without_peers_or_without_kvasir(self):
        alone, = report.rows_of(CASE, {"kvasir": [1, 2]}, {})
        self.assertEqual((alone["median"], alone["best_peer"], alone["ratio"]), (1.5, None, None))
        rows = report.rows_of(CASE, {"kvasir": [], "openvino": [3, 3]}, {"kvasir": "broken"})
        self.assertEqual([row["ratio"] for row in rows], [None, None])

    def test_table_and_picture(self):
        rows = report.rows_of(CASE, {"kvasir": [10], "llama.cpp fused": [30], "openvino": []}, {"openvino": "refused"})
        text = report.table(rows).splitlines()
        self.assertIn("| 10.00     | 30.00        | failed      | llama.cpp fused | 3.00   | 3.00 to 3.00 |", text[2])
        self.assertEqual(text[3], "m Q4_0, tg8 @ d64, f16 KV: openvino: refused")
        picture = xml.dom.minidom.parseString(report.plot(rows + report.rows_of({**CASE, "model": "<&>"}, {"kvasir": [1], "x": [2]}, {})))
        self.assertEqual(len(picture.getElementsByTagName("rect")), 3)  # the ground, a bar each
        xml.dom.minidom.parseString(report.plot([]))


class MadeUp:
    """An engine whose tests take a number of milliseconds each, or fail from a call on."""

    def __init__(self, ms, fails_at=None, log=None):
        self.ms, self.fails_at, self.calls, self.log = ms, fails_at, 0, log

    def phase(self, depth, seqs, pp, tg, rounds):
        if self.fails_at == 0:
            raise RuntimeError("no room")

    def run(self, test):
        self.calls += 1
        if self.fails_at is not None and self.calls >= self.fails_at:
            raise RuntimeError("fell over")
        if self.log is not None:
            self.log.append(self.ms)
        return self.ms

    def end(self):
        pass


class MeasureTest(unittest.TestCase):
    def measure(self, engines, rounds=3, seqs=1):
        errors = {}
        with contextlib.redirect_stderr(io.StringIO()):
            samples = peers.measure(argparse.Namespace(rounds=rounds), engines, errors, 64, seqs, 8)
        return samples, errors

    def test_engines_take_turns(self):
        log = []
        engines = {("f16", "kvasir"): MadeUp(1, log=log), ("f16", "openvino"): MadeUp(2, log=log), ("q8", "kvasir"): MadeUp(3, log=log)}
        samples, errors = self.measure(engines, seqs=8)
        self.assertEqual(log, [1, 2, 3, 2, 3, 1, 3, 1, 2])
        self.assertEqual(samples, {"tg": {key: [e.ms] * 3 for key, e in engines.items()}})
        self.assertEqual(errors, {})

    def test_who_fails_is_out_and_the_others_go_on(self):
        engines = {("f16", "kvasir"): MadeUp(1), ("f16", "openvino"): MadeUp(2, fails_at=2), ("q8", "openvino"): MadeUp(3, fails_at=0)}
        samples, errors = self.measure(engines)
        self.assertEqual(samples["pp"][("f16", "kvasir")], [1, 1, 1])
        self.assertEqual(samples["pp"][("f16", "openvino")], [2])
        self.assertEqual(samples["tg"][("f16", "openvino")], [])
        self.assertEqual(errors, {("f16", "openvino"): "fell over", ("q8", "openvino"): "no room"})

    def test_slow_peers_run_less_often(self):
        engines = {("f16", "kvasir"): MadeUp(30000), ("f16", "openvino"): MadeUp(30000)}
        samples, _ = self.measure(engines, rounds=4)
        self.assertEqual([len(ms) for ms in samples["pp"].values()], [4, 2])


class StateTest(unittest.TestCase):
    def test_goes_on_where_it_stopped(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "state.jsonl")
            peers.State(path).add(["m", "Q4_0", 0, 1], [{"a": 1}])
            peers.State(path).add(["m", "Q4_0", 64, 1], [{"a": 2}])
            with open(path, "a") as file:
                file.write('{"phase": ["m"')  # stopped while writing
            state = peers.State(path)
            self.assertEqual(state.rows, [{"a": 1}, {"a": 2}])
            self.assertIn(("m", "Q4_0", 64, 1), state.done)


class RunTest(ProcessTest):
    def test_kvasir_alone(self):
        """Real runs of the binary; peers that are not installed are rows that say so."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "tiny.gguf")
            self.ok("bench", "--shape", "tiny", "--save", path, "-p", 0, "-n", 0)
            args = argparse.Namespace(kvasir=BINARY, peer_python=os.path.join(folder, "none"), threads=1, rounds=2)
            rows = []
            model = peers.Model("tiny", "Q4_0", lambda: path, [(0, 1, 4), (600, 1, 4), (64, 3, 4)])
            with contextlib.redirect_stderr(io.StringIO()):
                peers.measure_model(args, model, {("tiny", "Q4_0", 0, 1)}, lambda phase, more: rows.extend(more))
        own = [row for row in rows if row["engine"] == "kvasir"]
        self.assertEqual([(row["test"], row["depth"], row["kv"]) for row in own],
                         [("pp512", 600, "f16"), ("pp512", 600, "q8"), ("tg4", 600, "f16"), ("tg4", 600, "q8"),
                          ("tg4 x3", 64, "f16"), ("tg4 x3", 64, "q8")])
        for row in own:
            self.assertEqual(len(row["ms"]), 2)
            self.assertGreater(min(row["ms"]), 0)
        self.assertTrue(all("not installed" in row["error"] for row in rows if row["engine"] != "kvasir"))
        self.assertEqual(len(rows), 3 * 7)  # tests, and engines of both kinds of cache
        json.dumps(rows)


if __name__ == "__main__":
    unittest.main()
