"""kvasir eval: exact zeros, what is inactive, agreement with `eval ppl`, resumed runs, tables, plots and refusals."""
import json
import math
import os
import tempfile
import unittest
import xml.etree.ElementTree

from support import SMOLLM2, STORIES, ProcessTest, kvasir, needs_smollm2, needs_stories

WORDS = "the little dog ran to a big red tree and saw one cat that did not want any of its new toys".split()


def story(n):
    """Words in an order that does not repeat soon."""
    return "Once upon a time " + " ".join(WORDS[(i * i + 3 * i // 2) % len(WORDS)] for i in range(n)) + "."


@needs_stories
class EvalTest(ProcessTest):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.text = cls.path("story.txt")
        with open(cls.text, "w") as f:
            f.write(story(600))

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder.name, name)

    def suite(self, **keys):
        return "ppl:" + ",".join(f"{k}={v}" for k, v in {"file": self.text, **keys}.items())

    def eval(self, *args, code=0):
        done = kvasir("eval", "-m", STORIES, *args, "--json")
        self.assertEqual(done.returncode, code, done.stderr)
        return json.loads(done.stdout)

    def rows(self, *args, **options):
        document = self.eval(*args, **options)
        self.assertEqual(document["schema"], "kvasir.eval/1")
        self.assertEqual(document["cases"][0]["label"], "dense")
        self.assertTrue(document["cases"][0]["reference"])
        return {row["case"]: row for row in document["results"]}

    def assert_same_as_dense(self, row):
        for quality in (row["quality"], row["quality_all"]):
            self.assertEqual(quality["dppl"], {"v": 0, "lo": 0, "hi": 0})
            self.assertEqual((quality["kl"]["mean"], quality["kl"]["max"]), (0, 0))
            self.assertEqual((quality["top1"], quality["rms_dp"]), (1, 0))
            self.assertEqual(quality["ppl"], quality["ppl_dense"])

    def test_dense_and_budgets_beyond_the_text_are_exactly_zero(self):
        cases = ("--case", "none=--kv-policy none", "--case", "kd=--kv-policy keydiff:budget=500",
                 "--case", "st=--kv-policy streaming:budget=500", "--case", "rnd=--kv-policy random:budget=500")
        for keys in ({"tokens": 500}, {"mode": "windows", "tokens": 500, "window": 250}, {"mode": "forced", "p": 20, "tokens": 500},
                     {"tokens": 500, "block": 7}):
            rows = self.rows("--suite", self.suite(**keys), *cases)
            self.assertEqual(list(rows), ["dense", "none", "kd", "st", "rnd"])
            for label, row in rows.items():
                self.assert_same_as_dense(row)
                self.assertEqual(row["inactive"], label != "dense", (label, keys))
                self.assertEqual(row["memory"]["ratio_mean"], 1)
                self.assertIsNone(row["first_drop"])

    def test_what_drops_is_active_and_scored_behind_its_first_drop(self):
        rows = self.rows("--suite", self.suite(tokens=500, block=16), "--case", "kd=--kv-policy keydiff:budget=100",
                         "--case", "own=--kv-policy keydiff:budget=100,block=64", "--case", "q8=--kv-codec q8", "--strict")
        kd, own, q8 = rows["kd"], rows["own"], rows["q8"]
        self.assertEqual((kd["block"], kd["policy_block"], kd["first_drop"]), (16, 16, 112))
        self.assertEqual((own["block"], own["policy_block"], own["first_drop"]), (16, 64, 128))
        self.assertEqual((kd["n"], own["n"], q8["n"]), (500 - 113, 500 - 129, 499))
        for row in (kd, own, q8):
            self.assertFalse(row["inactive"])
            self.assertGreater(row["quality"]["kl"]["mean"], 0)
            self.assertEqual(row["quality_all"]["scored"], 499)
            self.assertEqual(sum(b["scored"] for b in row["buckets"]), 499)
            self.assertEqual(sum(row["memory"]["by_owner"].values()), row["memory"]["kv_end_bytes"])
        for row in (kd, own):
            self.assertEqual(row["memory"]["ratio_end"], 5)
            self.assertEqual(row["memory"]["peak_entries"], 100 + row["policy_block"])
        # Before the first drop nothing differs.
        self.assertEqual([b["kl"] for b in kd["buckets"] if b["end"] <= 112], [0] * 6)
        self.assertEqual(q8["memory"]["bytes_ratio"], 1.6)  # 8 bytes and a scale for 16

    def test_losses_are_those_of_eval_ppl(self):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as ids:
            ids.write(" ".join(map(str, self.json("tokenize", "-m", STORIES, "-f", self.text)["tokens"][:400])))
            ids.flush()
            policy = "keydiff:budget=100,block=32"
            rows = self.rows("--suite", self.suite(tokens=400), "--case", f"kd=--kv-policy {policy}")
            for label, flags in (("dense", ()), ("kd", ("--kv-policy", policy))):
                alone = self.json("eval", "ppl", "-m", STORIES, "--tokens", ids.name, *flags)
                self.assertTrue(math.isclose(rows[label]["quality_all"]["ppl"], alone["ppl"], rel_tol=1e-9), label)
                self.assertEqual(rows[label]["memory"]["live_entries"], alone["kv"]["entries_kept"])

    def test_a_drop_that_nothing_reads_is_inactive(self):
        flags = ("--case", "kd=--kv-policy keydiff:budget=250,block=300")
        late = self.rows("--suite", self.suite(tokens=300), *flags, "--strict", code=4)["kd"]
        self.assertEqual((late["first_drop"], late["inactive"], late["n"]), (300, True, 299))
        seen = self.rows("--suite", self.suite(tokens=302), *flags, "--strict")["kd"]
        self.assertEqual((seen["first_drop"], seen["inactive"], seen["n"]), (300, False, 1))
        window = self.rows("--suite", self.suite(tokens=400, mode="windows", window=200), *flags)["kd"]
        self.assertTrue(window["inactive"])

    def test_threads_do_not_change_results(self):
        args = ("--suite", self.suite(tokens=200), "--case", "kd=--kv-policy keydiff:budget=64")
        alone, together = (self.eval(*args, "-t", t)["results"] for t in (1, 3))
        self.assertEqual(alone, together)

    def test_a_run_is_resumed(self):
        kept = self.path("kept.json")
        first, second = self.suite(tokens=120), self.suite(tokens=150, mode="forced", p=50)
        a, b = "a=--kv-policy keydiff:budget=40", "b=--kv-policy streaming:budget=40"
        self.eval("--suite", first, "--case", a, "--resume", kept)
        with open(kept) as f:
            document = json.load(f)
        marked = document["results"][1]
        marked["quality"]["ppl"] = 12345  # shows that it was not measured again
        with open(kept, "w") as f:
            json.dump(document, f)
        both = self.eval("--suite", first, "--suite", second, "--case", a, "--case", b, "--resume", kept)
        self.assertEqual([(r["case"], r["mode"]) for r in both["results"]],
                         [(c, m) for m in ("stream", "forced") for c in ("dense", "a", "b")])
        self.assertEqual(both["results"][1], marked)
        self.assertNotEqual(both["results"][2]["quality"]["ppl"], 12345)
        with open(kept) as f:
            self.assertEqual(json.load(f), both)
        # Other flags under the same label are another case; what was made differently is refused.
        changed = self.rows("--suite", first, "--case", "a=--kv-policy keydiff:budget=44", "--resume", kept)
        self.assertEqual(changed["a"]["memory"]["peak_entries"], 44 + 32)
        self.refused(1, "eval", "-m", STORIES, "--suite", first, "--resume", kept, "--seed", 2, says=("seed", kept))
        with open(kept, "w") as f:
            f.write('{"schema":"kvasir.eval/1"}')
        self.refused(1, "eval", "-m", STORIES, "--suite", first, "--resume", kept, says=("build", "missing"))

    def test_tables_plots_and_sweeps(self):
        plot = self.path("plot.svg")
        text = self.ok("eval", "-m", STORIES, "--suite", self.suite(tokens=200), "--sweep", "budget=48,64,1000",
                       "--case", "kd=--kv-policy keydiff:budget={budget}", "--kv-codec", "q8", "--plot", plot).stdout
        lines = [line for line in text.splitlines() if line.startswith("|")]
        self.assertEqual([line.split()[1] for line in lines[2:]], ["dense", "q8", "kd@48", "kd@64", "kd@1000"])
        self.assertIn("inactive", lines[-1])
        self.assertIn("stream/32", lines[2])
        for word in ("sha256", "seed 1", "reference: dense, f16", "scored range: kd@1000"):
            self.assertIn(word, text)
        root = xml.etree.ElementTree.parse(plot).getroot()
        self.assertEqual(len(list(root.iter("{http://www.w3.org/2000/svg}circle"))), 2 * 3 + 2)

    def test_assertions(self):
        checks = self.path("checks.txt")
        args = ("eval", "-m", STORIES, "--suite", self.suite(tokens=400), "--case", "kd=--kv-policy keydiff:budget=64", "--check", checks)

        def run(*lines):
            with open(checks, "w") as f:
                f.write("\n".join(lines))
            return kvasir(*args)

        done = run("ppl kd.kl > 0", "ppl kd.kv_peak_bytes <= 0.75 * dense.kv_peak_bytes", "ppl dense.dppl <= 0")
        self.assertEqual(done.returncode, 0, done.stderr)
        done = run("ppl kd.kl > 0", "ppl kd.ratio_end >= 9")
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1)
        self.assertIn("checks.txt, line 2: ppl kd.ratio_end >= 9: stream stream has 6.25, the bound is 9", done.stderr)
        self.assertIn("| kd ", done.stdout)
        done = run("ppl nobody.kl > 0")
        self.assertEqual((done.returncode, done.stdout), (2, ""))

    def test_refusals(self):
        suite = ("--suite", self.suite(tokens=100))
        for args, says in (((), "--suite is missing"), (("--suite", "rulr:n=3"), "unknown suite"),
                           (("--suite", "ppl:tokens=9"), "file=TEXT"), ((*suite, "--case", "x"), "LABEL="),
                           ((*suite, "--case", "dense=--kv-codec q8"), "reference"),
                           ((*suite, "--case", "a=--kv-policy nobody:x=1"), "case a"),
                           ((*suite, "--case", "a=--temp 3"), "--case a"),
                           ((*suite, "--sweep", "budget=1,2"), "no case")):
            self.refused(2, "eval", "-m", STORIES, *args, says=(says,))
        self.refused(1, "eval", "-m", STORIES, "--suite", self.suite(tokens=100000), says=("tokens=100000", "story.txt"))
        self.refused(1, "eval", "-m", STORIES, "--suite", self.suite(tokens=513), says=("513", "512"))
        self.refused(1, "eval", "-m", STORIES, *suite, "--case", "a=--kv-memory 8KiB", says=("case a", "KV budget"))


@needs_smollm2
class RealModel(ProcessTest):
    def test_dense_twice_is_exactly_zero_and_eviction_is_not(self):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as f:
            f.write(story(400))
            f.flush()
            document = self.json("eval", "-m", SMOLLM2, "--suite", f"ppl:file={f.name},tokens=192", "--case", "none=--kv-policy none",
                                 "--case", "kd=--kv-policy keydiff:budget=64")
        _, none, kd = document["results"]
        self.assertEqual((none["quality"]["kl"]["max"], none["quality"]["dppl"]["v"], none["quality"]["top1"]), (0, 0, 1))
        self.assertTrue(none["inactive"])
        self.assertFalse(kd["inactive"])
        self.assertGreater(kd["quality"]["kl"]["mean"], 0.001)
        self.assertEqual(kd["first_drop"], 96)
        self.assertEqual(kd["memory"]["ratio_end"], 3)


if __name__ == "__main__":
    unittest.main()
