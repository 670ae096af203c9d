"""stories260K through the whole program: golden text, budgets, batch against run, damaged files."""
import json
import os
import random
import tempfile
import unittest

from support import DATA, STORIES, ProcessTest, kvasir, needs_stories


@needs_stories
class Golden(ProcessTest):
    def test_empty_prompt_gives_the_golden_story(self):
        with open(os.path.join(DATA, "models", "stories260K", "golden_t0_n200.txt"), "rb") as f:
            golden = f.read().decode()
        for compute in ("f32", "fast"):
            result = self.json("run", "-m", STORIES, "-p", "", "-n", 200, "--temp", 0, "--compute", compute)
            self.assertEqual(result["text"].strip("\n"), golden.strip("\n"), compute)
            self.assertEqual(result["stop_reason"], "length")
            self.assertEqual(len(result["tokens"]), 200)

    def test_every_target_and_thread_count_tells_the_same_story(self):
        targets = self.json("doctor")["simd"]["present"]
        for target in targets:
            texts = {self.ok("run", "-m", STORIES, "-p", "", "-n", 60, "--temp", 0, "-t", t, "--simd", target).stdout
                     for t in (1, 2, 3)}
            self.assertEqual(len(texts), 1, target)


@needs_stories
class Budget(ProcessTest):
    PROMPT = "Once upon a time there was a little girl named Lily. " * 12

    def test_bytes_never_exceed_the_budget_and_eviction_drops(self):
        for size in ("192KiB", "256KiB"):
            result = self.json("run", "-m", STORIES, "-p", self.PROMPT, "--raw", "-n", 40, "--temp", 0, "--kv-memory", size,
                               "--kv-policy", "keydiff:budget=32,block=32")
            kv = result["kv"]
            self.assertEqual(kv["budget_bytes"], int(size[:-3]) * 1024)
            self.assertLessEqual(kv["bytes_peak"], kv["budget_bytes"])
            self.assertLessEqual(kv["entries_peak_per_lane"], 32 + 32)
            self.assertGreater(kv["entries_dropped"], 0)
            self.assertEqual(kv["entries_kept"] + kv["entries_dropped"], kv["positions"] * 5 * 4)

    def test_what_a_policy_records_is_in_the_ledger(self):
        def read(policy):
            return self.json("run", "-m", STORIES, "-p", self.PROMPT, "--raw", "-n", 4, "--temp", 0, "--kv-policy", policy)["kv"]

        self.assertEqual(read("knorm:budget=32")["bytes_side"], 0)
        kv = read("snapkv:budget=32,window=8")
        self.assertEqual(kv["bytes_side"], 5 * 8 * 8 * 8 * 2)  # layers, rows, heads, channels of f16
        self.assertLess(kv["bytes_side"], kv["bytes_end"])
        derived = self.json("run", "-m", STORIES, "-p", self.PROMPT, "--raw", "-n", 4, "--kv-memory", "192KiB",
                            "--kv-policy", "h2o:block=16")["kv"]
        self.assertLessEqual(derived["bytes_peak"], 192 * 1024)
        self.assertGreater(derived["bytes_side"], 0)
        self.assertGreater(derived["entries_dropped"], 0)

    def test_a_budget_that_is_never_reached_changes_nothing(self):
        dense = self.json("run", "-m", STORIES, "-p", self.PROMPT, "--raw", "-n", 40, "--temp", 0)
        for policy in ("keydiff:budget=500", "streaming:budget=500", "random:budget=500"):
            same = self.json("run", "-m", STORIES, "-p", self.PROMPT, "--raw", "-n", 40, "--temp", 0, "--kv-policy", policy)
            self.assertEqual(same["tokens"], dense["tokens"], policy)

    def test_a_prompt_that_cannot_fit_is_refused_with_both_numbers(self):
        self.refused(1, "run", "-m", STORIES, "-p", self.PROMPT, "--raw", "-n", 4, "--kv-memory", "32KiB", "--json",
                     says=("32768", "needs"))

    def test_a_static_contradiction_is_refused_at_start(self):
        self.refused(2, "run", "-m", STORIES, "-p", "x", "--kv-policy", "keydiff:budget=8,sink=4,recent=4", says=("budget",))
        self.refused(2, "run", "-m", STORIES, "-p", "x", "--kv-policy", "keydiff:buget=8", says=("buget", "budget"))
        self.refused(2, "run", "-m", STORIES, "-p", "x", "--kv-policy", "keydif:budget=8", says=("keydif", "keydiff"))


def requests(n, seed=3):
    """Mixed bodies, greedy and seeded; every tenth can never fit, one line is malformed."""
    rng = random.Random(seed)
    words = "Once upon a time there was a big red dog who liked to play in the park with his friend Tom".split()
    lines = []
    for i in range(n):
        body = {"model": "any", "prompt": " ".join(rng.choices(words, k=rng.randint(1, 60))), "max_tokens": rng.randint(1, 40),
                "temperature": 0 if i % 2 else 0.9, "seed": i}
        if i % 5 == 2:
            body["stop"] = [" the", "."]
        if i % 10 == 7:
            body["prompt"] = " ".join(words * 60)
        lines.append({"custom_id": f"r{i}", "method": "POST", "url": "/v1/completions", "body": body})
    return lines


@needs_stories
class Batch(ProcessTest):
    N = 40

    def batch(self, lines, *flags, malformed=True):
        with tempfile.TemporaryDirectory() as folder:
            source, target = os.path.join(folder, "in.jsonl"), os.path.join(folder, "out.jsonl")
            with open(source, "w") as f:
                for i, line in enumerate(lines):
                    if malformed and i == 5:
                        f.write('{"custom_id": "broken", \n')
                    f.write(json.dumps(line) + "\n")
            summary = self.json("batch", "-m", STORIES, "-i", source, "-o", target, *flags)
            with open(target) as f:
                return summary, [json.loads(line) for line in f]

    def alone(self, body):
        args = ["run", "-m", STORIES, "-p", body["prompt"], "--raw", "-n", body["max_tokens"], "--temp", body["temperature"],
                "--seed", body["seed"]]
        for stop in body.get("stop", []):
            args += ["--stop", stop]
        return self.json(*args)

    def test_each_request_gets_the_text_run_gives_it(self):
        lines = requests(self.N)
        expected = {}
        for line in lines:
            if len(line["body"]["prompt"]) < 1000:
                expected[line["custom_id"]] = self.alone(line["body"])["text"]
        size = 600 * 1024
        for flags, shuffle in ((["-t", 1], None), (["-t", 3, "--step-tokens", 40], 1), (["--step-tokens", 40, "-np", 7], 2)):
            order = list(lines)
            if shuffle is not None:
                random.Random(shuffle).shuffle(order)
            summary, out = self.batch(order, "--kv-memory", size, *flags)
            self.assertEqual(summary["requests"], self.N + 1)
            self.assertLessEqual(summary["kv"]["bytes_peak"], size)
            self.assertEqual(summary["kv"]["bytes_end"], 0)
            self.assertEqual(len(out), self.N + 1)
            answered = 0
            for line in out:
                if line["custom_id"] not in expected:
                    continue
                self.assertEqual(line["response"]["status_code"], 200, line)
                self.assertIsNone(line["error"])
                self.assertEqual(line["response"]["body"]["choices"][0]["text"], expected[line["custom_id"]], line["custom_id"])
                answered += 1
            self.assertEqual(answered, len(expected))
            broken = out[5]
            self.assertIsNone(broken["response"])
            self.assertEqual(broken["error"]["code"], "invalid_line")
            self.assertIn("line 6", broken["error"]["message"])
            self.assertEqual([l["custom_id"] for i, l in enumerate(out) if i != 5], [l["custom_id"] for l in order])
            for line in out:
                if line["custom_id"] and line["custom_id"].endswith("7") and line["response"]:
                    self.assertGreaterEqual(line["response"]["status_code"], 400)
                    self.assertIn("error", line["response"]["body"])

    def test_bad_bodies_fail_alone(self):
        def line(i, **body):
            return {"custom_id": f"b{i}", "method": "POST", "url": "/v1/completions",
                    "body": {"model": "m", "prompt": "Once", "max_tokens": 3, "temperature": 0, **body}}
        lines = [line(0), line(1, n=2), line(2, temperature=9), line(3, stream=True), line(4, prompt=5),
                 {**line(5), "url": "/v1/embeddings"}, line(0), line(6, logprobs=3), line(7)]
        _, out = self.batch(lines, malformed=False)
        status = [l["response"]["status_code"] for l in out]
        self.assertEqual(status[0], 200)
        self.assertEqual(status[8], 200)
        for i in range(1, 8):
            self.assertEqual(status[i], 400, out[i])
            self.assertIn("message", out[i]["response"]["body"]["error"])

    def test_a_grid_policy_needs_a_budget_of_its_own(self):
        with tempfile.TemporaryDirectory() as folder:
            source = os.path.join(folder, "in.jsonl")
            with open(source, "w") as f:
                f.write(json.dumps(requests(1)[0]) + "\n")
            self.refused(2, "batch", "-m", STORIES, "-i", source, "-o", os.path.join(folder, "out"), "--kv-memory", "1MiB",
                         "--kv-policy", "keydiff", says=("budget",))
            self.assertFalse(os.path.exists(os.path.join(folder, "out")))

    def test_with_eviction_texts_equal_run(self):
        lines = [l for l in requests(12, seed=9) if len(l["body"]["prompt"]) < 1000]
        policy = ["--kv-policy", "keydiff:budget=40,block=32"]
        _, out = self.batch(lines, *policy, "--step-tokens", 24, malformed=False)
        for line, answer in zip(lines, out):
            body = line["body"]
            args = ["run", "-m", STORIES, "-p", body["prompt"], "--raw", "-n", body["max_tokens"], "--temp",
                    body["temperature"], "--seed", body["seed"], *policy]
            for stop in body.get("stop", []):
                args += ["--stop", stop]
            self.assertEqual(answer["response"]["body"]["choices"][0]["text"], self.json(*args)["text"])


@needs_stories
class Likelihood(ProcessTest):
    def test_blocks_and_targets_agree_on_the_likelihood(self):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as f:
            f.write("Once upon a time, there was a little boy. He liked to play with his toys. One day he went to the park.\n")
            f.flush()
            whole = self.json("eval", "ppl", "-m", STORIES, "-f", f.name, "--compute", "f32")
            self.assertEqual(len(whole["nll"]), len(whole["tokens"]) - 1)
            self.assertEqual(len(whole["top1"]), len(whole["nll"]))
            self.assertAlmostEqual(sum(whole["nll"]) / len(whole["nll"]), whole["mean_nll"], places=9)
            self.assertLess(whole["mean_nll"], 2.0)  # the model knows such stories; ln 512 = 6.2 is chance
            blocks = self.json("eval", "ppl", "-m", STORIES, "-f", f.name, "--compute", "f32", "--chunk", 3, "-t", 1)
            self.assertEqual(blocks["nll"], whole["nll"])
            with tempfile.NamedTemporaryFile("w", suffix=".ids") as ids:
                ids.write("\n".join(map(str, whole["tokens"])))
                ids.flush()
                again = self.json("eval", "ppl", "-m", STORIES, "--tokens", ids.name, "--compute", "f32")
            self.assertEqual(again["nll"], whole["nll"])

    def test_a_text_longer_than_the_context_is_refused_with_both_numbers(self):
        with tempfile.NamedTemporaryFile("w", suffix=".ids") as ids:
            ids.write(" ".join(["5"] * 513))
            ids.flush()
            self.refused(1, "eval", "ppl", "-m", STORIES, "--tokens", ids.name, "--json", says=("513", "512"))


@needs_stories
class Keep(ProcessTest):
    N = 300

    def keep(self, policy, *flags):
        with tempfile.NamedTemporaryFile("w", suffix=".ids") as ids:
            ids.write(" ".join(str(3 + i * 37 % 500) for i in range(self.N)))
            ids.flush()
            result = self.json("eval", "keep", "-m", STORIES, "--tokens", ids.name, "--kv-policy", policy, *flags)
        self.assertEqual(set(result), {"tokens", "kept", "bytes_end"})
        self.assertEqual(result["tokens"], self.N)
        self.assertEqual([len(heads) for heads in result["kept"]], [4] * 5)
        for lane in (lane for heads in result["kept"] for lane in heads):
            self.assertEqual(lane, sorted(set(lane)))
        return result

    def test_lists_are_as_long_as_the_budget_and_bytes_follow(self):
        dense = self.keep("none")
        self.assertEqual(dense["kept"], [[list(range(self.N))] * 4] * 5)
        for policy in ("keydiff:budget=64", "streaming:budget=64", "random:budget=64"):
            result = self.keep(policy)
            self.assertEqual({len(lane) for heads in result["kept"] for lane in heads}, {64}, policy)
            self.assertLess(result["bytes_end"], dense["bytes_end"] / 2, policy)
        self.assertEqual(self.keep("streaming:budget=64,sink=4")["kept"][3][2], [0, 1, 2, 3, *range(self.N - 60, self.N)])

    def test_one_choice_after_the_whole_text_is_another_than_one_a_block(self):
        policy = "keydiff:budget=64,slack=0"
        whole = self.keep(policy, "--compute", "f32", "--block", "whole")
        self.assertEqual(whole, self.keep(policy + ",block=32", "--compute", "f32", "--block", 5000))
        self.assertEqual(whole, self.keep(policy, "--compute", "f32", "--block", "whole", "--chunk", 7, "-t", 1))
        self.assertNotEqual(whole["kept"], self.keep(policy, "--compute", "f32", "--block", 32)["kept"])

    def test_a_block_that_is_none_is_refused(self):
        args = ("eval", "keep", "-m", STORIES, "--tokens", "/dev/null", "--kv-policy", "keydiff:budget=64")
        self.refused(2, *args, "--block", "some", says=("--block", "whole"))
        self.refused(2, *args, "--block", 0, says=("block", 1))
        self.refused(2, *args[:-2], says=("--kv-policy",))


@needs_stories
class DamagedFiles(ProcessTest):
    """Whatever is done to a model file, the answer is text or one line, never a crash."""

    def test_truncated_and_flipped_files_end_in_one_line_or_in_text(self):
        with open(STORIES, "rb") as f:
            original = f.read()
        rng = random.Random(11)
        # The table of keys and tensors is what parsers read: damage it most.
        header = original.index(b"blk.4") + 200
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "damaged.gguf")
            for i in range(60):
                data = bytearray(original)
                if i % 3 == 0:
                    data = data[:rng.randrange(len(data) if i % 2 else header)]
                else:
                    for _ in range(rng.choice((1, 1, 4, 16))):
                        data[rng.randrange(header)] ^= 1 << rng.randrange(8)
                with open(path, "wb") as f:
                    f.write(data)
                done = kvasir("run", "-m", path, "-p", "Once", "--raw", "-n", 2, "--temp", 0, timeout=60)
                self.assertIn(done.returncode, (0, 1), (i, done.stderr))
                if done.returncode == 1:
                    self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)


if __name__ == "__main__":
    unittest.main()
