"""Models in other types: what is written, what it computes, and what is left behind when writing fails."""
import hashlib
import importlib.util
import os
import random
import shutil
import struct
import tempfile
import unittest

from support import ProcessTest, SMOLLM2, STORIES, kvasir, needs_smollm2, needs_stories

FOLDERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src", "model", "testdata")
TEXT = os.path.join(FOLDERS, "text.txt")

def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


class QuantizeTest(ProcessTest):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.out = os.path.join(self.folder.name, "out.gguf")

    def tearDown(self):
        self.folder.cleanup()

    def files(self):
        return sorted(os.listdir(self.folder.name))

    def write(self, name, text):
        path = os.path.join(self.folder.name, name)
        with open(path, "w") as file:
            file.write(text)
        return path


class Folders(QuantizeTest):
    """Small random models: the GGUF file computes what the folder computes."""

    # qwen3_layers has a window in some layers, which GGUF cannot say.
    NAMES = ("llama_bias_gqa4_bf16", "llama_gqa2", "llama_linear", "llama_llama3", "llama_tied", "llama_wide_f16",
             "llama_yarn", "mistral_wide", "mistral_window", "qwen2", "qwen3")

    def nll(self, model):
        rng = random.Random(4)
        ids = self.write("ids.txt", " ".join(str(rng.randrange(40)) for _ in range(30)))
        return self.json("eval", "ppl", "-m", model, "--tokens", ids, "--compute", "f32")["nll"]

    def test_f32_changes_nothing(self):
        for name in self.NAMES:
            with self.subTest(name):
                folder = os.path.join(FOLDERS, name)
                report = self.json("quantize", folder, self.out, "f32")
                self.assertEqual(list(report["types_out"]), ["f32"])
                for expected, found in zip(self.nll(folder), self.nll(self.out), strict=True):
                    self.assertAlmostEqual(found, expected, delta=2e-4)

    def test_what_gguf_cannot_say_is_refused(self):
        self.refused(1, "quantize", os.path.join(FOLDERS, "qwen3_layers"), self.out, "f32", says=("sliding window",))
        self.assertEqual(self.files(), [])


@needs_stories
class Stories(QuantizeTest):
    """A model whose rows of 64 no block of 256 divides."""

    def test_the_report_says_what_was_written(self):
        before = digest(STORIES)
        report = self.json("quantize", STORIES, self.out, "q6_k")
        self.assertEqual(report["bytes_in"], os.path.getsize(STORIES))
        self.assertEqual(report["bytes_out"], os.path.getsize(self.out))
        self.assertGreaterEqual(report["seconds"], 0)
        self.assertEqual(report["tensors"], sum(report["types_out"].values()))
        self.assertIn({"tensor": "blk.0.attn_q.weight", "wanted": "q6_k", "type": "q8_0"}, report["fallbacks"])
        self.assertEqual(digest(STORIES), before)
        shown = self.json("inspect", self.out)
        self.assertEqual(shown["types"], report["types_out"])
        self.assertEqual(shown["problems"], self.json("inspect", STORIES)["problems"])

    def test_keys_stay_in_their_order(self):
        self.ok("quantize", STORIES, self.out, "q8_0")
        stated = ("general.file_type", "general.quantization_version")
        keys = [[row for row in self.json("inspect", path)["keys"] if row["key"] not in stated]
                for path in (STORIES, self.out)]
        self.assertEqual(keys[0], keys[1])
        self.assertEqual(self.ok("inspect", self.out, "--kv", "general.file_type").stdout, "7\n")
        self.assertEqual(self.ok("inspect", self.out, "--kv", "general.quantization_version").stdout, "2\n")

    def test_people_see_types_and_fallbacks(self):
        text = self.ok("quantize", STORIES, self.out, "Q4_K_M").stdout
        for word in ("q4_k_m", "fallbacks", "blk.0.attn_q.weight", "q5_0 instead of q4_k"):
            self.assertIn(word, text)

    def test_bytes_do_not_depend_on_threads(self):
        digests = set()
        for threads in (1, 3):
            self.ok("quantize", STORIES, self.out, "q4_k_m", "-t", threads)
            digests.add(digest(self.out))
        self.assertEqual(len(digests), 1)

    def test_the_same_type_again_is_a_copy(self):
        self.ok("quantize", STORIES, self.out, "q4_0")
        again = os.path.join(self.folder.name, "again.gguf")
        self.ok("quantize", self.out, again, "q4_0")
        self.assertEqual(digest(self.out), digest(again))

    def test_the_source_is_never_the_result(self):
        source = os.path.join(self.folder.name, "in.gguf")
        shutil.copy(STORIES, source)
        other_name = os.path.join(self.folder.name, "link.gguf")
        os.symlink(source, other_name)
        for out in (source, other_name):
            self.refused(1, "quantize", source, out, "q8_0", says=("name of its own",))
        self.refused(1, "quantize", source, self.folder.name, "q8_0", says=("is a folder",))
        self.assertEqual(digest(source), digest(STORIES))
        self.assertEqual(self.files(), ["in.gguf", "link.gguf"])

    def test_a_failure_leaves_what_was_there(self):
        # NaN in the middle of the file's last tensor.
        source = os.path.join(self.folder.name, "broken.gguf")
        shutil.copy(STORIES, source)
        with open(source, "r+b") as file:
            file.seek(-400, os.SEEK_END)
            file.write(struct.pack("<f", float("nan")))
        self.refused(1, "quantize", source, self.out, "q8_0", says=("the tensor", "nan", "finite"))
        self.assertEqual(self.files(), ["broken.gguf"])
        self.write("out.gguf", "older")
        self.refused(1, "quantize", source, self.out, "q8_0")
        with open(self.out) as file:
            self.assertEqual(file.read(), "older")
        self.assertEqual(self.files(), ["broken.gguf", "out.gguf"])

    def test_an_older_result_is_replaced(self):
        self.write("out.gguf", "older")
        self.ok("quantize", STORIES, self.out, "q8_0")
        self.assertEqual(self.json("inspect", self.out)["problems"], [])

    def test_wrong_words_are_answered(self):
        self.refused(2, "quantize", STORIES, self.out, "q9", says=('"q9"', "q4_k_m", "bf16"))
        self.refused(2, "quantize", STORIES, self.out, says=("TYPE is missing",))
        self.refused(2, "quantize", STORIES, says=("OUT is missing",))
        self.refused(1, "quantize", os.path.join(self.folder.name, "none.gguf"), self.out, "q8_0", says=("none.gguf",))
        self.refused(1, "quantize", STORIES, os.path.join(self.folder.name, "no", "out.gguf"), "q8_0",
                     says=("out.gguf", "cannot be created"))
        self.assertEqual(self.files(), [])

    @unittest.skipUnless(importlib.util.find_spec("gguf"), "no package gguf")
    def test_the_package_gguf_reads_it(self):
        from gguf import GGUFReader
        from gguf.quants import dequantize
        before = {tensor.name: tensor for tensor in GGUFReader(STORIES).tensors}
        self.ok("quantize", STORIES, self.out, "q8_0")
        after = {tensor.name: tensor for tensor in GGUFReader(self.out).tensors}
        self.assertEqual(list(before), list(after))
        for name, tensor in after.items():
            self.assertEqual(list(tensor.shape), list(before[name].shape))
            values = dequantize(before[name].data, before[name].tensor_type)
            error = abs(dequantize(tensor.data, tensor.tensor_type) - values).max()
            self.assertLessEqual(error, abs(values).max() / 120, name)


@needs_smollm2
class SmolLM2(QuantizeTest):
    """Perplexity of weights that were rounded once more, against the file they come from."""

    # A Q4_1 file: types that hold its values nearly exactly, and types that do not.
    MOST_WORSE = {"f16": 0.005, "bf16": 0.005, "q8_0": 0.01, "q6_k": 0.02, "q4_k_m": 0.08, "q5_0": 0.12, "q4_0": 0.25}

    def ppl(self, model):
        return self.json("eval", "ppl", "-m", model, "-f", TEXT)["ppl"]

    def test_types_keep_what_they_can(self):
        expected = self.ppl(SMOLLM2)
        for kind, most in self.MOST_WORSE.items():
            with self.subTest(kind):
                done = kvasir("quantize", "smollm2", self.out, kind)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("rounded once more", done.stderr)
                self.assertEqual(len(done.stderr.splitlines()), 1)
                self.assertLess(abs(self.ppl(self.out) / expected - 1), most)

    def test_from_f16_nobody_is_warned(self):
        full = os.path.join(self.folder.name, "full.gguf")
        self.ok("quantize", "smollm2", full, "f16")
        self.assertEqual(self.ok("quantize", full, self.out, "q8_0").stderr, "")
        text = self.ok("run", "-m", self.out, "-p", "The capital of France is", "--raw", "-n", 4, "--temp", 0).stdout
        self.assertIn("Paris", text)


if __name__ == "__main__":
    unittest.main()
