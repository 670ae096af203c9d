"""bench/retention.py: verdicts, state, and a short run on a model with random weights."""
import contextlib
import io
import json
import os
import sys
import tempfile
import unittest

from support import BINARY, ProcessTest

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench")
sys.path.insert(0, BENCH)
import retention  # noqa: E402


def run(*args):
    out, log = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(log):
        code = retention.main(["--kvasir", BINARY, "--short", "-t", "2", *args])
    return code, out.getvalue(), log.getvalue()


class VerdictTest(unittest.TestCase):
    def test_a_line_is_missed_only_if_its_whole_interval_is(self):
        def verdict(ratio, lo, hi, least=None, most=None):
            return retention.verdict({"ratio": ratio, "lo": lo, "hi": hi, "least": least, "most": most})
        self.assertEqual(verdict(1.0, 0.9, 1.1, least=0.97), "met")
        self.assertEqual(verdict(0.96, 0.9, 1.1, least=0.97), "unclear")
        self.assertEqual(verdict(0.9, 0.8, 0.95, least=0.97), "missed")
        self.assertEqual(verdict(0.5, 0.4, 0.6, most=0.75), "met")
        self.assertEqual(verdict(0.8, 0.7, 0.9, most=0.75), "unclear")
        self.assertEqual(verdict(0.9, 0.8, 1.0, most=0.75), "missed")
        self.assertEqual(verdict(-3, -9, 0.5, most=0.75), "unclear")

    def test_every_line_has_a_target_and_a_name_of_its_own(self):
        for short in (False, True):
            lines = list(retention.lines(short))
            self.assertEqual(len({line.what for line in lines}), len(lines))
            self.assertEqual({line.name for line in lines}, {"T1", "T2", "T3", "T4", "T5", "T6"})
            self.assertTrue(all((line.least is None) != (line.most is None) for line in lines))


class RunTest(ProcessTest):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        model = os.path.join(cls.folder.name, retention.SMOLLM2)
        ProcessTest().ok("bench", "--shape", "tiny", "--type", "Q4_0", "--save", model, "-p", "0", "-n", "0")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_measures_what_the_state_has_not(self):
        state, rows = (os.path.join(self.folder.name, name) for name in ("state.jsonl", "rows.json"))
        common = ["--models", self.folder.name, "--state", state, "-r", "2"]
        code, table, log = run("--only", "T3,T4", *common)
        self.assertEqual(code, 0, log)
        self.assertEqual(log.count("T3: "), 2)
        self.assertEqual(table.count("| T3 |"), 2)
        self.assertEqual(table.count("| T4 |"), 1)
        with open(state, "a") as file:
            file.write('{"key": "cut off')
        code, again, log = run("--only", "T3,T4", "--json", rows, *common)
        self.assertEqual((code, again, log), (0, table, ""))
        with open(state) as file:
            self.assertEqual([json.loads(line)["check"] for line in file], ["T3", "T3", "T4"])
        with open(rows) as file:
            share = [row for row in json.load(file) if row["check"] == "T4"]
        self.assertEqual(len(share[0]["values"]), 2)
        self.assertTrue(0 < share[0]["ratio"] < 1)
        self.assertGreater(share[0]["settings"]["keydiff"]["policy_ns"], 0)

    def test_says_what_it_left_out(self):
        code, _, log = run("--only", "T4", "--models", os.path.join(self.folder.name, "nothing"), "-r", "2")
        self.assertEqual(code, 1)
        self.assertIn("T4: left out: ", log)


if __name__ == "__main__":
    unittest.main()
