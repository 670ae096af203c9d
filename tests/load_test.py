"""Mixed load from many clients, with cancels: no request is lost or gets another's text, and every byte comes back.

KVASIR_LOAD_SECONDS says how long, all tests together (20), KVASIR_LOAD_CLIENTS how many (32), KVASIR_LOAD_BUDGET the
KV budget (3MiB), KVASIR_LOAD_SLACK_MIB how much resident memory may grow beside it (32).
"""
import json
import os
import random
import tempfile
import threading
import time
import unittest

from support import STORIES, ProcessTest, Server, needs_stories

SECONDS = float(os.environ.get("KVASIR_LOAD_SECONDS", "20")) / 3  # for each test
CLIENTS = int(os.environ.get("KVASIR_LOAD_CLIENTS", "32"))
BUDGET = os.environ.get("KVASIR_LOAD_BUDGET", "3MiB")
WORDS = "Once upon a time there was a big red dog who liked to play in the park with his friend Tom".split()
# Beside lanes: threads and buffers of the connections, and what the allocator keeps of them.
SLACK_BYTES = int(os.environ.get("KVASIR_LOAD_SLACK_MIB", "32")) << 20


def bodies(n, rng):
    """Requests of many lengths, greedy and seeded; groups of them begin alike."""
    openings = [" ".join(rng.choices(WORDS, k=rng.randint(5, 60))) for _ in range(6)]
    made = []
    for i in range(n):
        text = rng.choice(openings) + " " + " ".join(rng.choices(WORDS, k=rng.randint(1, 50)))
        body = {"max_tokens": rng.choice((1, 5, 20, 60, 150)), "temperature": 0 if i % 2 else 0.9, "seed": i,
                "ignore_eos": True}
        if i % 5 == 2:
            body["stop"] = [" the", "."]
        if i % 7 == 3:
            body["repetition_penalty"] = 1.2
        if i % 4 == 1:
            made.append(("/v1/chat/completions", {**body, "messages": [{"role": "user", "content": text}]}))
        else:
            made.append(("/v1/completions", {**body, "prompt": text}))
    return made


def text_of(route, choice, key):
    """Of a whole answer (key "message") or a chunk ("delta")."""
    if route == "/v1/completions":
        return choice["text"]
    return choice[key].get("content") or ""


class Client(threading.Thread):
    """Sends requests one after another until the end, and checks each answer."""

    def __init__(self, server, requests, texts, seed, end):
        super().__init__()
        self.server, self.requests, self.texts, self.end = server, requests, texts, end
        self.rng = random.Random(seed)
        self.n_whole = self.n_streamed = self.n_left = 0
        self.problems = []

    def run(self):
        while time.monotonic() < self.end and not self.problems:
            i = self.rng.randrange(len(self.requests))
            route, body = self.requests[i]
            way = self.rng.random()
            try:
                if way < 0.4:
                    self.whole(i, route, body)
                elif way < 0.75:
                    self.stream(i, route, body, None)
                elif way < 0.95:
                    self.stream(i, route, body, self.rng.randint(0, 30))
                else:
                    self.leave_early(route, body)
            except Exception as problem:  # pylint: disable=broad-except
                self.problems.append((i, repr(problem)))

    def check(self, i, right, what):
        if not right:
            self.problems.append((i, what))

    def whole(self, i, route, body):
        status, _, answer = self.server.post(route, body, timeout=120)
        self.check(i, status == 200, (status, answer))
        if status == 200:
            self.check(i, text_of(route, answer["choices"][0], "message") == self.texts[i], answer)
        self.n_whole += 1

    def stream(self, i, route, body, leave_after):
        """Reads to the end, or leaves after so many chunks."""
        connection, response = self.server.send("POST", route, {**body, "stream": True}, timeout=120)
        text, n, done = "", 0, False
        if response.status != 200:
            self.check(i, False, (response.status, response.read()))
        for line in response:
            if leave_after is not None and n >= leave_after:
                break
            if line.startswith(b"data: [DONE]"):
                done = True
            elif line.startswith(b"data: "):
                chunk = json.loads(line[6:])
                self.check(i, "error" not in chunk, chunk)
                if "choices" in chunk:
                    text += text_of(route, chunk["choices"][0], "delta")
                n += 1
        connection.close()
        if leave_after is None:
            self.check(i, done and text == self.texts[i], (done, text, self.texts[i]))
            self.n_streamed += 1
        else:
            self.check(i, self.texts[i].startswith(text), (text, self.texts[i]))
            self.n_left += 1

    def leave_early(self, route, body):
        """Goes before there can be an answer."""
        connection = self.server.connect()
        connection.request("POST", route, json.dumps(body))
        time.sleep(self.rng.random() * 0.02)
        connection.close()
        self.n_left += 1


@needs_stories
class Load(ProcessTest):
    def references(self, requests, policy):
        with tempfile.TemporaryDirectory() as folder:
            source, target = os.path.join(folder, "in"), os.path.join(folder, "out")
            with open(source, "w") as f:
                for i, (route, body) in enumerate(requests):
                    f.write(json.dumps({"custom_id": str(i), "method": "POST", "url": route, "body": body}) + "\n")
            self.ok("batch", "-m", STORIES, "-i", source, "-o", target, "--kv-memory", "64MiB", *policy)
            texts = []
            with open(target) as f:
                for (route, _), line in zip(requests, f):
                    answer = json.loads(line)["response"]["body"]
                    texts.append(text_of(route, answer["choices"][0], "message"))
            return texts

    def load(self, *flags, policy=()):
        requests = bodies(80, random.Random(7))
        texts = self.references(requests, policy)
        with tempfile.NamedTemporaryFile("w") as key:
            key.write("operator\n")
            key.flush()
            with Server("-m", STORIES, "--kv-memory", BUDGET, "--admin-key-file", key.name, *policy,
                        *flags) as server:
                for i in range(4):  # what is allocated once is there before the idle level is taken
                    server.post(*requests[i])
                admin = {"Authorization": "Bearer operator"}
                self.assertEqual(server.post("/reset_prefix_cache", {}, headers=admin)[0], 200)
                idle_bytes = server.resident_bytes()
                end = time.monotonic() + SECONDS
                clients = [Client(server, requests, texts, seed, end) for seed in range(CLIENTS)]
                for client in clients:
                    client.start()
                most_resident = n_polls = 0
                while any(client.is_alive() for client in clients):
                    _, _, kv = server.get("/v1/kv")
                    for name in ("bytes", "bytes_peak", "bytes_reserved", "bytes_committed"):
                        self.assertLessEqual(kv[name], kv["budget_bytes"], name)
                    most_resident = max(most_resident, server.resident_bytes())
                    n_polls += 1
                    time.sleep(0.05)
                for client in clients:
                    client.join()
                problems = [problem for client in clients for problem in client.problems]
                self.assertEqual(problems, [])
                kv = server.idle()
                self.assertEqual(kv["sequences"], [])
                self.assertEqual(kv["bytes"], kv["snapshot_bytes"])
                self.assertEqual(server.post("/reset_prefix_cache", {}, headers=admin)[0], 200)
                kv = server.idle()
                self.assertEqual((kv["bytes"], kv["bytes_reserved"], kv["entries"], kv["snapshots"]), (0, 0, 0, 0))
                self.assertLessEqual(most_resident, idle_bytes + kv["budget_bytes"] + SLACK_BYTES)
                self.assertLessEqual(server.resident_bytes(), idle_bytes + SLACK_BYTES)
                whole, streamed, left = (sum(getattr(c, n) for c in clients) for n in ("n_whole", "n_streamed", "n_left"))
                self.assertGreater(min(whole, streamed, left, n_polls), 0)
                print(f"\n{whole} whole, {streamed} streamed, {left} left; resident {idle_bytes >> 20} MiB idle, "
                      f"{most_resident >> 20} most, {server.resident_bytes() >> 20} at the end", flush=True)

    def test_dense_lanes_under_a_small_budget(self):
        self.load("-np", "16")

    def test_without_shared_prefixes(self):
        self.load("--prefix-cache", "off", "-np", "40")

    def test_a_policy_that_drops(self):
        self.load("--prefix-cache", "64", policy=("--kv-policy", "keydiff:budget=64,block=32"))


if __name__ == "__main__":
    unittest.main()
