"""kvasir eval on generated tasks: the same answers however samples are batched, exact agreement where nothing is dropped, bytes
that fall where something is, and reasoning traces."""
import json
import os
import tempfile
import unittest

from support import SMOLLM2, ProcessTest, kvasir, needs_smollm2

FACTS = "facts:len=512,n=4,questions=2"


@needs_smollm2
class Tasks(ProcessTest):
    def eval(self, *args):
        document = self.json("eval", "-m", SMOLLM2, *args)
        rows = {(r["case"], r["task"], r["mode"]): r for r in document["results"]}
        outputs = {(s["case"], s["task"], s["mode"], s["index"]): s["output"] for s in document["samples"]}
        return rows, outputs

    def test_batching_changes_no_answer_and_no_byte(self):
        cases = ["--case", "snap=--kv-policy snapkv:keep=0.5,window=16", "--case", "kd=--kv-policy keydiff:keep=0.5"]
        one = self.eval("--suite", FACTS, *cases, "--jobs", 1)
        four = self.eval("--suite", FACTS, *cases, "--jobs", 4)
        self.assertEqual(one[1], four[1])
        for key, row in one[0].items():
            self.assertEqual(row["score"], four[0][key]["score"])
            for figure in ("kv_peak_bytes", "kv_end_bytes", "live_entries", "peak_entries"):
                self.assertEqual(row["memory"][figure], four[0][key]["memory"][figure], f"{key} {figure}")

    def test_what_drops_nothing_answers_like_dense_and_is_inactive(self):
        rows, outputs = self.eval("--suite", FACTS, "--case", "snap=--kv-policy snapkv:budget=600,window=16", "--case",
                                  "h2o=--kv-policy h2o:budget=600", "--case", "rpc=--kv-policy rpc", "--mode", "agnostic",
                                  "--mode", "aware")
        for (case, task, mode), row in rows.items():
            self.assertEqual(row["inactive"], case != "dense")
            self.assertEqual(row["score"]["delta"]["v"], 0)
            for index in range(4):
                self.assertEqual(outputs[case, task, mode, index], outputs["dense", task, mode, index])

    def test_dense_answers_do_not_depend_on_when_the_question_is_read(self):
        _, after = self.eval("--suite", "facts:len=500,n=3")
        _, together = self.eval("--suite", "facts:len=500,n=3", "--mode", "aware")
        for index in range(3):
            self.assertEqual(after["dense", "facts", "agnostic", index], together["dense", "facts", "aware", index])

    def test_bytes_fall_with_what_is_kept_and_blocks_bound_the_peak(self):
        rows, _ = self.eval("--suite", FACTS, "--case", "half=--kv-policy keydiff:keep=0.5,block=whole", "--case",
                            "quarter=--kv-policy keydiff:keep=0.25,block=whole", "--case",
                            "blocks=--kv-policy keydiff:budget=128,block=64")
        memory = {case: row["memory"] for (case, _, _), row in rows.items()}
        self.assertGreater(memory["dense"]["kv_end_bytes"], memory["half"]["kv_end_bytes"])
        self.assertGreater(memory["half"]["kv_end_bytes"], memory["quarter"]["kv_end_bytes"])
        self.assertAlmostEqual(memory["half"]["ratio_end"], 1.9, delta=0.3)
        # Read whole, the context was there; read in blocks, it never was.
        self.assertGreater(memory["quarter"]["peak_entries"], 400)
        self.assertLessEqual(memory["blocks"]["peak_entries"], 128 + 64)
        self.assertLess(memory["blocks"]["kv_peak_bytes"], 0.6 * memory["dense"]["kv_peak_bytes"])

    def test_traces_are_compressed_while_they_are_written_or_given(self):
        rows, _ = self.eval("--suite", "trace:task=selfrecall,n=2,steps=12", "--mode", "trace", "--mode", "gold", "--case",
                            "rpc=--kv-policy rpc:every=32,window=8,kernel=3")
        for mode in ("trace", "gold"):
            row = rows["rpc", "selfrecall", mode]
            self.assertFalse(row["inactive"], mode)
            self.assertGreater(row["memory"]["ratio_end"], 1.02, mode)
        self.assertGreater(rows["rpc", "selfrecall", "trace"]["trace"]["tok_s"], 0)

    def test_a_run_of_samples_is_resumed_from_its_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "run.json")
            args = ["--suite", "facts:len=400,n=2", "--case", "st=--kv-policy streaming:keep=0.5", "--resume", path]
            first = self.json("eval", "-m", SMOLLM2, *args)
            again = self.json("eval", "-m", SMOLLM2, *args, "--case", "kd=--kv-policy keydiff:keep=0.5")
            for row in first["results"]:
                self.assertIn(row, again["results"])
            self.assertEqual([r["case"] for r in again["results"]], ["dense", "st", "kd"])

    def test_samples_are_written_and_read_back(self):
        with tempfile.TemporaryDirectory() as folder:
            self.json("eval", "-m", SMOLLM2, "--suite", "facts:len=400,n=2", "--dump", folder)
            files = sorted(os.listdir(folder))
            self.assertEqual(files, ["facts-400.ids.jsonl", "facts-400.jsonl"])
            with open(os.path.join(folder, files[0])) as f:
                ids = [json.loads(line) for line in f]
            self.assertEqual(len(ids), 2)
            self.assertLess(len(ids[0]["context_ids"]) + len(ids[0]["questions"][0]["ids"]), 400)
            self.assertGreater(len(ids[0]["context_ids"]), 150)
            made = self.eval("--suite", "facts:len=400,n=2")
            read = self.eval("--suite", "file:" + os.path.join(folder, files[1]))
            self.assertEqual(made[1], read[1])

    def test_refusals(self):
        self.refused(2, "eval", "-m", SMOLLM2, "--suite", "fakts:len=400", says=["fakts"])
        self.refused(2, "eval", "-m", SMOLLM2, "--suite", FACTS, "--mode", "sideways", says=["sideways", "agnostic"])
        self.refused(2, "eval", "-m", SMOLLM2, "--suite", FACTS, "--case", "k=--kv-policy keydiff", says=["case k", "budget"])


if __name__ == "__main__":
    unittest.main()
