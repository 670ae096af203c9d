"""The default model through the whole program: a long document inside a byte budget, questions in forks, chat."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

from support import ProcessTest, needs_smollm2

CHRONICLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scripts", "chronicle.py")


@needs_smollm2
class LongDocument(ProcessTest):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        subprocess.run([sys.executable, CHRONICLE, "--out", cls.folder.name, "--years", "24", "--facts", "8"], check=True)
        cls.document = os.path.join(cls.folder.name, "chronicle.txt")
        cls.questions = os.path.join(cls.folder.name, "questions.txt")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def read(self, *flags, n=8):
        return self.json("run", "-m", "smollm2", "-f", self.document, "-n", n, "--temp", 0, *flags)

    def test_eviction_frees_the_bytes_of_the_ledger_and_of_the_process(self):
        dense = self.read()
        n, block = 256, 128
        evicted = self.read("--kv-policy", f"keydiff:budget={n},block={block}")
        self.assertGreater(dense["prompt_tokens"], 2000)
        self.assertLessEqual(evicted["kv"]["entries_peak_per_lane"], n + block)
        self.assertEqual(evicted["kv"]["positions"], dense["kv"]["positions"])
        saved = dense["kv"]["bytes_peak"] - evicted["kv"]["bytes_peak"]
        self.assertGreater(saved, 0.8 * dense["kv"]["bytes_peak"])
        resident = dense["memory"]["resident_peak_bytes"] - evicted["memory"]["resident_peak_bytes"]
        self.assertGreater(resident, 0.8 * saved)

    def test_an_explicit_memory_size_is_kept_and_gives_the_policy_its_budget(self):
        size = 12 * 1024 * 1024
        result = self.read("--kv-policy", "keydiff", "--kv-memory", size)
        self.assertLessEqual(result["kv"]["bytes_peak"], size)
        self.assertGreater(result["kv"]["bytes_peak"], size // 2)
        self.assertIn("budget=", result["kv"]["policy"])
        self.refused(1, "run", "-m", "smollm2", "-f", self.document, "-n", 8, "--kv-memory", size, "--json",
                     says=(size, "needs"))

    def test_q8_takes_little_more_than_half_the_bytes(self):
        dense, q8 = self.read(), self.read("-ctk", "q8_0", "-ctv", "q8_0")
        ratio = q8["kv"]["bytes_peak"] / dense["kv"]["bytes_peak"]
        self.assertLess(ratio, 0.55)  # 34 bytes for 64
        q4 = self.read("-ctk", "q8_0", "-ctv", "q4_0")
        self.assertEqual(q4["kv"]["codec"], "k=q8,v=q4")
        self.assertLess(q4["kv"]["bytes_peak"] / dense["kv"]["bytes_peak"], 0.44)  # (34 + 20) / 128

    def test_questions_are_answered_in_forks_of_one_reading(self):
        def ask(*flags):
            return self.json("run", "-m", "smollm2", "-f", self.document, "--ask", self.questions, "-n", 12, "--temp", 0, *flags)
        result = ask()
        self.assertEqual(len(result["answers"]), 8)
        self.assertEqual(result["text"], "")
        again = ask("-t", 1, "--chunk", 100)
        self.assertEqual([a["tokens"] for a in again["answers"]], [a["tokens"] for a in result["answers"]])
        with open(self.questions) as f:
            questions = f.read().splitlines()
        self.assertEqual([a["question"] for a in result["answers"]], questions)
        # A fork answers as one whole message would.
        with open(self.document) as f:
            document = f.read()
        with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
            json.dump([{"role": "user", "content": document + "\n\n" + questions[3]}], f)
            f.flush()
            whole = self.json("run", "-m", "smollm2", "--messages", f.name, "-n", 12, "--temp", 0)
        if whole["prompt_tokens"] == result["prompt_tokens"] + result["answers"][3]["timings"]["prompt_n"]:
            self.assertEqual(whole["tokens"], result["answers"][3]["tokens"])
        evicted = ask("--kv-policy", "keydiff:budget=512")
        self.assertLess(evicted["kv"]["bytes_peak"], 0.45 * result["kv"]["bytes_peak"])


@needs_smollm2
class Chat(ProcessTest):
    def test_a_prompt_goes_through_the_template_unless_raw(self):
        chat = self.json("run", "-m", "smollm2", "-p", "What is the capital of France?", "-n", 16, "--temp", 0, "--compute", "f32")
        raw = self.json("run", "-m", "smollm2", "-p", "What is the capital of France?", "-n", 16, "--temp", 0, "--raw")
        self.assertIn("Paris", chat["text"])
        self.assertEqual(chat["stop_reason"], "eos")
        self.assertGreater(chat["prompt_tokens"], raw["prompt_tokens"] + 10)

    def test_control_tokens_in_a_users_text_stay_text(self):
        plain = self.json("run", "-m", "smollm2", "-p", "Say <|im_end|> now", "-n", 1, "--temp", 0)
        other = self.json("run", "-m", "smollm2", "-p", "Say now", "-n", 1, "--temp", 0)
        self.assertGreater(plain["prompt_tokens"], other["prompt_tokens"] + 3)  # several tokens, not one control token

    def test_batch_answers_chats_as_run_does(self):
        questions = ["Name a colour.", "What is 2 + 2?", "Who wrote Hamlet?"]
        with tempfile.TemporaryDirectory() as folder:
            source, target = os.path.join(folder, "in"), os.path.join(folder, "out")
            with open(source, "w") as f:
                for i, q in enumerate(questions):
                    f.write(json.dumps({"custom_id": str(i), "method": "POST", "url": "/v1/chat/completions", "body": {
                        "model": "m", "messages": [{"role": "user", "content": q}], "max_tokens": 20, "temperature": 0}}) + "\n")
            self.ok("batch", "-m", "smollm2", "-i", source, "-o", target, "--kv-memory", "64MiB")
            with open(target) as f:
                bodies = [json.loads(line)["response"]["body"] for line in f]
        for q, body in zip(questions, bodies):
            run = self.json("run", "-m", "smollm2", "-p", q, "-n", 20, "--temp", 0)
            self.assertEqual(body["choices"][0]["message"]["content"], run["text"])
            self.assertEqual(body["usage"]["prompt_tokens"], run["prompt_tokens"])


if __name__ == "__main__":
    unittest.main()
