"""Quality gates on a real model and a real text: more bytes never cost likelihood beyond doubt, and a report of how methods
rank. Needs smollm2 and the texts of the data folder."""
import json
import lzma
import os
import tempfile
import unittest

from support import DATA, SMOLLM2, ProcessTest, needs_smollm2

BOOK = os.path.join(DATA, "corpora", "gutenberg-plain.txt.xz")
needs_book = unittest.skipUnless(os.path.exists(BOOK), "no book: set KVASIR_TEST_DATA to the data folder")


@needs_smollm2
@needs_book
class Gates(ProcessTest):
    @classmethod
    def setUpClass(cls):
        cls.file = tempfile.NamedTemporaryFile("w", suffix=".txt")
        with lzma.open(BOOK, "rt", encoding="utf-8") as book:
            book.seek(100_000)
            cls.file.write(book.read(14_000))
        cls.file.flush()

    @classmethod
    def tearDownClass(cls):
        cls.file.close()

    def measure(self, *cases):
        suite = f"ppl:file={self.file.name},mode=stream,tokens=2048,block=32"
        document = self.json("eval", "-m", SMOLLM2, "--suite", suite, *cases)
        return {row["case"]: row for row in document["results"]}

    def test_more_entries_do_not_raise_perplexity(self):
        rows = self.measure("--sweep", "budget=256,512,1024", *(
            word for name in ("keydiff", "snapkv", "streaming")
            for word in ("--case", f"{name}-{{budget}}=--kv-policy {name}:budget={{budget}},block=32")))
        for name in ("keydiff", "snapkv", "streaming"):
            small, middle, large = (rows[f"{name}-{n}"] for n in (256, 512, 1024))
            for fewer, more in ((small, middle), (middle, large)):
                self.assertFalse(fewer["inactive"])
                # Beyond the intervals of both: resampled differences to the same dense run.
                self.assertLessEqual(more["quality_all"]["dppl"]["lo"], fewer["quality_all"]["dppl"]["hi"], more["case"])
                self.assertLess(fewer["memory"]["kv_peak_bytes"], more["memory"]["kv_peak_bytes"])
                self.assertLess(more["quality_all"]["kl"]["mean"], fewer["quality_all"]["kl"]["mean"], more["case"])

    def test_methods_rank_above_their_controls(self):
        n = "budget=512"
        rows = self.measure("--case", f"keydiff=--kv-policy keydiff:{n},slack=0", "--case", f"snapkv=--kv-policy snapkv:{n},block=32",
                            "--case", f"knorm=--kv-policy knorm:{n},slack=0", "--case", f"random=--kv-policy random:{n}",
                            "--case", f"high=--kv-policy knorm:{n},slack=0,invert", "--case",
                            f"most=--kv-policy keydiff:{n},slack=0,invert", "--case", f"q8=--kv-codec q8")
        ppl = {case: row["quality_all"]["ppl"] for case, row in rows.items()}
        print(json.dumps({case: round(value, 3) for case, value in ppl.items()}), flush=True)  # a report
        # The order that has been published for a stream of WikiText-2 on another model.
        order = ("dense", "snapkv", "keydiff", "knorm", "random", "high")
        for better, worse in zip(order, order[1:]):
            self.assertLess(ppl[better], ppl[worse], f"{better} against {worse}")
        self.assertLess(ppl["keydiff"], ppl["most"])
        self.assertLess(abs(ppl["q8"] / ppl["dense"] - 1), 0.01)


if __name__ == "__main__":
    unittest.main()
