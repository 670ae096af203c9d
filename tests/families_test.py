"""Model families through the binary: folders without a tokenizer, and what a sliding window frees."""
import os
import random
import tempfile
import unittest

from support import ProcessTest

FOLDERS = os.path.join(os.path.dirname(__file__), "..", "src", "model", "testdata")


class Folders(ProcessTest):
    def ppl(self, folder, n_tokens, *args):
        rng = random.Random(3)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as ids:
            ids.write(" ".join(str(rng.randrange(48)) for _ in range(n_tokens)))
            ids.flush()
            return self.json("eval", "ppl", "-m", os.path.join(FOLDERS, folder), "--tokens", ids.name,
                             "--compute", "f32", *args)

    def test_a_window_of_all_layers_frees_what_lies_behind_it(self):
        windowed = self.ppl("mistral_window", 250)
        dense = self.ppl("mistral_window", 250, "--kv-policy", "none")
        self.assertEqual(windowed["nll"], dense["nll"])
        self.assertEqual(windowed["tokens"], dense["tokens"])
        self.assertIn("streaming:budget=6,", windowed["kv"]["policy"])
        self.assertEqual(dense["kv"]["policy"], "none")
        # 250 positions are four pages a lane; the window and a block of rows are three.
        self.assertLess(windowed["kv"]["bytes_peak"], dense["kv"]["bytes_peak"])
        self.assertLess(windowed["kv"]["bytes_end"], dense["kv"]["bytes_end"] / 3)

    def test_a_window_of_some_layers_changes_nothing_in_the_others(self):
        self.assertEqual(self.ppl("qwen3_layers", 100)["kv"]["policy"], "none")

    def test_a_folder_without_a_tokenizer_reads_ids_alone(self):
        self.refused(1, "run", "-m", os.path.join(FOLDERS, "qwen3"), "-p", "hello", says=("--tokens",))


if __name__ == "__main__":
    unittest.main()
