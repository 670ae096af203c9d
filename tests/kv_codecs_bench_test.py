"""bench/kv_codecs.py: rows of a model with random weights."""
import contextlib
import io
import json
import os
import sys
import tempfile
import unittest

from support import BINARY, ProcessTest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
import kv_codecs as bench  # noqa: E402


def run(*args):
    out, log = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(log):
        code = bench.main(["--kvasir", BINARY, "-t", "2", "-r", "2", "-n", "2", *args])
    return code, out.getvalue(), log.getvalue()


class RunTest(ProcessTest):
    def test_times_and_bytes_of_each_encoding_at_each_depth(self):
        with tempfile.TemporaryDirectory() as folder:
            model, rows = os.path.join(folder, "tiny.gguf"), os.path.join(folder, "rows.json")
            self.ok("bench", "--shape", "tiny", "--type", "Q4_0", "--save", model, "-p", "0", "-n", "0")
            codec = "mustafar:for=k,sparsity=0.7+q8:for=v"
            code, table, log = run("-m", model, "-d", "300,600", "--codec", codec, "--json", rows)
            self.assertEqual(code, 0, log)
            self.assertEqual(table.count("| `f16` |"), 2)
            self.assertEqual(table.count("| `mustafar:for=k,sparsity=0.7` `q8:for=v` |"), 2)
            with open(rows) as file:
                dense, sparse, _, deep = json.load(file)
            self.assertEqual((dense["ratio"], dense["bytes_share"]), (1, 1))
            self.assertEqual((deep["depth"], len(deep["samples_ms"])), (600, 2))
            # The dense window counts less, the deeper the cache is.
            self.assertTrue(deep["bytes_share"] < sparse["bytes_share"] < 1, (sparse, deep))
            code, _, log = run("-m", model, "-d", "300", "--codec", "mustafar:keep=1000")
            self.assertEqual(code, 1)
            self.assertIn("keep=1000", log)


if __name__ == "__main__":
    unittest.main()
