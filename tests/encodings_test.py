"""Encodings through the binary: what a text costs, how it is printed, and what is refused with a remedy."""
import os
import random
import tempfile
import unittest

from support import ProcessTest

FOLDERS = os.path.join(os.path.dirname(__file__), "..", "src", "model", "testdata")
MODEL = os.path.join(FOLDERS, "llama_gqa2")  # two layers, heads of 16


class Encodings(ProcessTest):
    @classmethod
    def setUpClass(cls):
        rng = random.Random(3)
        cls.ids = tempfile.NamedTemporaryFile("w", suffix=".txt")
        cls.ids.write(" ".join(str(rng.randrange(48)) for _ in range(250)))
        cls.ids.flush()
        cls.addClassCleanup(cls.ids.close)

    def ppl(self, *args):
        return self.json("eval", "ppl", "-m", MODEL, "--tokens", self.ids.name, *args)

    def test_the_same_likelihood_whatever_the_passes(self):
        for codec in ("mustafar", "mustafar:sparsity=0.7,type=i8", "mustafar:score=query", "q4:recent=64"):
            whole = self.ppl("--kv-codec", codec, "-t", 1)
            self.assertTrue(whole["kv"]["codec"].startswith(codec.split(":")[0]), whole["kv"])
            for chunk in (1, 63, 100):
                self.assertEqual(self.ppl("--kv-codec", codec, "--chunk", chunk, "-t", 2)["nll"], whole["nll"], codec)

    def test_a_text_needs_fewer_bytes_and_reads_differently(self):
        dense, sparse = self.ppl(), self.ppl("--kv-codec", "mustafar")
        self.assertNotEqual(dense["nll"], sparse["nll"])
        # Four lanes: four dense pages of 64 entries each, or three sealed ones and one dense.
        page = 2 * 64 * 16 * 2
        sealed = 2 * 64 * (8 * 2 + 8)
        self.assertEqual(dense["kv"]["bytes_end"], 4 * 4 * page)
        self.assertEqual(sparse["kv"]["bytes_end"], 4 * (3 * sealed + page))
        # A prompt that is read dense is there as a whole before.
        at_end = self.ppl("--kv-codec", "mustafar:when=prompt")
        self.assertEqual(at_end["kv"]["bytes_end"], sparse["kv"]["bytes_end"])
        self.assertGreater(at_end["kv"]["bytes_peak"], dense["kv"]["bytes_peak"])

    def test_layers_and_planes_apart(self):
        both = self.ppl("--kv-codec", "mustafar:layers=0", "--kv-codec", "mustafar:layers=1-1")
        self.assertEqual(both["nll"], self.ppl("--kv-codec", "mustafar")["nll"])
        keys = self.ppl("--kv-codec", "mustafar:for=k,keep=4", "--kv-codec", "q8:for=v,recent=32")
        self.assertEqual(keys["kv"]["codec"], "k=mustafar:keep=4,type=bf16,recent=32,v=q8:recent=32")

    def test_refusals(self):
        def refused(codec, *says):
            self.refused(2, "eval", "ppl", "-m", MODEL, "--tokens", self.ids.name, "--kv-codec", codec,
                         says=("--kv-codec", *says))

        refused("mustafar:keep=17", "keep=17", "16 elements", "give keep=16")
        refused("mustafar:layers=1-2", "layers=1-2", "0-1")
        refused("mustafar:recent=33", "multiple of 32")
        refused("mustafar:sparsity=1", "sparsity")
        refused("mustafar:sparsity=0.99", "keep=N")
        refused("mustafar:spars=0.5", "sparsity")
        refused("mustafar:mode=exact,type=i8", "type=bf16")

    def test_a_model_and_a_machine_say_what_they_can_do(self):
        tokens = self.json("inspect", "-m", MODEL)["kv_bytes_per_token"]
        self.assertEqual(tokens["f16"], 4 * 2 * 16 * 2)
        self.assertEqual(tokens["mustafar:sparsity=0.5,type=bf16,recent=32"], 4 * 2 * (8 * 2 + 8))
        doctor = self.json("doctor")
        self.assertIn("mustafar", doctor["codecs"])
        self.assertEqual(doctor["sparse_is_slow"], doctor["simd"]["chosen"] != "avx512")
        self.assertIn("sparsity", self.ok("help", "mustafar").stdout)


if __name__ == "__main__":
    unittest.main()
