"""Tokenizers of Hugging Face folders through the binary: ids and back, and the verbs that read text."""
import json
import os
import shutil
import tempfile
import unittest

from support import ProcessTest, Server, kvasir

ROOT = os.path.join(os.path.dirname(__file__), "..", "src")
MODEL = os.path.join(ROOT, "model", "testdata", "qwen3")  # 48 tokens, no tokenizer


def letters():
    """A vocabulary that fits the model: letters, space and line break, a merge, an end."""
    tokens = [chr(c) for c in range(ord("a"), ord("z") + 1)] + ["\u0120", "\u010a", ".", "th", "\u0120th", "<|im_end|>"]
    return {
        "vocab.json": json.dumps({token: i for i, token in enumerate(tokens)}),
        "merges.txt": "#version: 0.2\nt h\n\u0120 th\n",
        "tokenizer_config.json": json.dumps({"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"}),
    }


class Tokenizers(ProcessTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def write(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as f:
            f.write(content if isinstance(content, bytes) else content.encode())
        return path

    def test_ids_are_those_of_the_package_tokenizers(self):
        with open(os.path.join(ROOT, "text", "testdata", "hf_tokenizer_goldens.json"), encoding="utf-8") as f:
            goldens = json.load(f)
        for name in ("qwen2", "prepend"):
            golden = goldens["tokenizers"][name]
            document = golden["document"]
            document["model"].update(goldens["models"][golden["kind"]])
            self.write("tokenizer.json", json.dumps(document))
            bos = [1] if golden["kind"] == "characters" else []
            for text, ids in list(zip(goldens["texts"], golden["special"]))[:12]:
                path = self.write("text", text)
                found = self.json("tokenize", "-m", self.folder, "-f", path, "--special")
                self.assertEqual(found["tokens"], bos + ids, text)
                plain = self.ok("tokenize", "-m", self.folder, "-f", path, "--special").stdout
                self.assertEqual([int(word) for word in plain.split()], bos + ids)

    def test_bytes_that_are_no_text_survive(self):
        with open(os.path.join(ROOT, "text", "testdata", "hf_tokenizer_goldens.json"), encoding="utf-8") as f:
            goldens = json.load(f)
        document = goldens["tokenizers"]["gpt-2"]["document"]
        document["model"].update(goldens["models"]["bytes"])
        self.write("tokenizer.json", json.dumps(document))
        text = bytes(range(256)) * 700  # some parts of output
        ids, back = os.path.join(self.folder, "ids"), os.path.join(self.folder, "back")
        self.ok("tokenize", "-m", self.folder, "-f", self.write("text", text), "--output", ids)
        self.ok("tokenize", "-m", self.folder, "--ids", ids, "--output", back)
        with open(back, "rb") as f:
            self.assertEqual(f.read(), text)
        self.refused(1, "tokenize", "-m", self.folder, "--ids", self.write("wrong", "1 2 99999"), says=("99999",))

    def test_a_folder_without_a_tokenizer_names_the_flag_for_ids(self):
        self.refused(1, "tokenize", "-m", self.folder, "-p", "x", says=("tokenizer.json", "--tokens"))
        self.write("tokenizer.json", '{"model": {"type": "Unigram"}}')
        self.refused(1, "tokenize", "-m", self.folder, "-p", "x", says=("Unigram", "BPE", "--tokens"))

    def test_a_folder_with_a_tokenizer_reads_text(self):
        shutil.copytree(MODEL, self.folder, dirs_exist_ok=True)
        for name, content in letters().items():
            self.write(name, content)
        text = "that is the other path."
        ids = self.json("tokenize", "-m", self.folder, "-p", text)["tokens"]
        self.assertEqual(ids[:3], [29, 0, 19])  # th a t
        by_text = self.json("eval", "ppl", "-m", self.folder, "-f", self.write("text", text))
        by_ids = self.json("eval", "ppl", "-m", self.folder, "--tokens", self.write("ids", " ".join(map(str, ids))))
        self.assertEqual(by_text["tokens"], ids)
        self.assertEqual(by_text["nll"], by_ids["nll"])
        ran = self.json("run", "-m", self.folder, "-f", self.write("text", text), "-n", "4", "--temp", "0")
        self.assertEqual(ran["prompt_tokens"], len(ids))
        requests = self.write("in.jsonl", json.dumps({
            "custom_id": "1", "method": "POST", "url": "/v1/completions",
            "body": {"prompt": text, "max_tokens": 2, "temperature": 0}}) + "\n")
        done = self.json("batch", "-m", self.folder, "-i", requests, "-o", os.path.join(self.folder, "out.jsonl"))
        self.assertEqual((done["failed"], done["prompt_tokens"]), (0, len(ids)))
        with Server("-m", self.folder) as server:
            status, _, answer = server.post("/tokenize", {"content": text})
            self.assertEqual((status, answer["tokens"]), (200, ids))

    def test_a_template_takes_tools_variables_and_a_time(self):
        for name, content in letters().items():
            self.write(name, content)
        template = self.write("t", "{% for m in messages %}{{ m.content }}{% endfor %}{% for t in tools %}{{ t.name }}"
                                   "{% endfor %}{{ mood }}{{ strftime_now('%Y') | replace('2031', 'z') }}<|im_end|>")
        messages = self.write("m.json", json.dumps([{"role": "user", "content": "the"}]))

        def rendered(tool):
            tools = self.write("tools.json", json.dumps([{"name": tool}]))
            return ("template", "-m", self.folder, "--messages", messages, "--chat-template-file", template, "--tools", tools,
                    "--kwargs", '{"mood": "b"}', "--now", "2031-05-06")

        self.assertEqual(self.json(*rendered("a")), {"text": "theabz<|im_end|>", "tokens": [29, 4, 0, 1, 25, 31]})
        self.assertEqual(self.ok(*rendered("a")).stdout.rstrip("\n"), "theabz<|im_end|>")
        # A control token in a tool cannot be told from the template's own.
        done = self.ok(*rendered("<|im_end|>"), "--json")
        self.assertEqual(json.loads(done.stdout)["tokens"], [29, 4, 31, 1, 25, 31])
        self.assertIn("control token", done.stderr)

    def test_a_tokenizer_that_is_not_known_leaves_ids(self):
        shutil.copytree(MODEL, self.folder, dirs_exist_ok=True)
        self.write("tokenizer.json", '{"model": {"type": "Unigram"}}')
        done = kvasir("eval", "ppl", "-m", self.folder, "--tokens", self.write("ids", "1 2 3"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.refused(1, "run", "-m", self.folder, "-p", "x", says=("Unigram", "--tokens"))


if __name__ == "__main__":
    unittest.main()
