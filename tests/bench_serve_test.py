"""bench serve: against a small server that speaks event streams, and against kvasir serve where there is one."""
import http.server
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.request

from support import BINARY, STORIES, ProcessTest, kvasir, needs_stories


class Answers(http.server.BaseHTTPRequestHandler):
    """Completions of max_tokens pieces, 5 ms apart; prompts that begin with 'fail' are refused."""

    def log_message(self, *_):
        pass

    def send_json(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/v1/models":
            self.send_json(200, {"data": [{"id": "small"}]})
        else:
            self.send_json(404, {"error": {"message": "no such route"}})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":  # two tokens a word
            return self.send_json(200, {"count": 2 * len(body["prompt"].split()), "tokens": []})
        with self.server.lock:
            self.server.bodies.append(body)
        chat = self.path == "/v1/chat/completions"
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        if prompt.startswith("fail"):
            return self.send_json(503, {"error": {"message": "no room", "code": "busy"}})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.end_headers()
        n = body["max_tokens"]
        for i in range(n):
            time.sleep(0.005)
            piece = {"delta": {"content": "x"}} if chat else {"text": "x"}
            piece["finish_reason"] = "length" if i == n - 1 else None
            self.event({"choices": [piece]})
        self.event({"choices": [], "usage": {"prompt_tokens": 2 * len(prompt.split()), "completion_tokens": n,
                                             "prompt_tokens_details": {"cached_tokens": 3}}})
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, document):
        self.wfile.write(b"data: " + json.dumps(document).encode() + b"\n\n")
        self.wfile.flush()


class SmallServer:
    def __enter__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.server.daemon_threads = True
        self.server.bodies, self.server.lock = [], threading.Lock()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    @property
    def bodies(self):
        return self.server.bodies

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"


class BenchServe(ProcessTest):
    def setUp(self):
        self.server = self.enterContext(SmallServer())

    def run_json(self, *flags):
        return self.json("bench", "serve", "--base-url", self.server.url, "--seed", 1, *flags)

    def test_prints_the_block(self):
        done = self.ok("bench", "serve", "--base-url", self.server.url, "--num-prompts", 5, "--input-len", 40, "--output-len", 4,
                       "--max-concurrency", 2, "--seed", 1, "--goodput", "ttft:10000 e2el:0")
        self.assertTrue(done.stdout.startswith("============ Serving Benchmark Result ============\n"), done.stdout)
        values = dict(re.findall(r"^(.+?):\s+([\d.]+)\s*$", done.stdout, re.M))
        self.assertEqual(values["Successful requests"], "5")
        self.assertEqual(values["Failed requests"], "0")
        self.assertEqual(values["Maximum request concurrency"], "2")
        self.assertEqual(values["Total input tokens"], "200")
        self.assertEqual(values["Total generated tokens"], "20")
        self.assertEqual(values["Request goodput (req/s)"], "0.00")
        self.assertEqual(values["Cached input tokens"], "15")
        for name in ("TTFT", "TPOT", "ITL", "E2EL"):
            for kind in ("Mean", "Median", "P99"):
                self.assertGreater(float(values[f"{kind} {name} (ms)"]), 4, name)

    def test_json_agrees_with_itself(self):
        result = self.run_json("--num-prompts", 6, "--input-len", 30, "--output-len", 5, "--save-detailed",
                               "--endpoint", "/v1/chat/completions")
        self.assertEqual((result["completed"], result["failed"], result["model_id"]), (6, 0, "small"))
        self.assertEqual((result["total_input_tokens"], result["total_output_tokens"]), (180, 30))
        self.assertAlmostEqual(result["request_throughput"] * result["duration"], 6, places=6)
        self.assertEqual(result["cached_share"], 0.1)
        self.assertEqual(result["tokens_by"], "server")
        ttfts = sorted(result["ttfts"])
        self.assertAlmostEqual(result["median_ttft_ms"], 1000 * (ttfts[2] + ttfts[3]) / 2, places=6)
        tpots = [(e2el - ttft) / 4 for e2el, ttft in zip(result["e2els"], result["ttfts"])]
        self.assertAlmostEqual(result["mean_tpot_ms"], 1000 * sum(tpots) / 6, places=6)

    def test_a_seed_makes_the_same_requests(self):
        for _ in range(2):
            self.run_json("--num-prompts", 3, "--input-len", 30, "--output-len", 2, "--max-concurrency", 1, "--prefix-len", 20)
        prompts = [body["prompt"] for body in self.server.bodies]
        self.assertEqual(prompts[:3], prompts[3:])
        self.assertEqual(len(set(prompts[:3])), 3)
        self.assertEqual(len({tuple(p.split()[:10]) for p in prompts}), 1)
        self.assertEqual(len({p.split()[10] for p in prompts[:3]}), 3)

    def test_a_rate_spreads_the_arrivals(self):
        result = self.run_json("--num-prompts", 10, "--input-len", 10, "--output-len", 1, "--request-rate", 20)
        self.assertGreater(result["duration"], 0.5)
        self.assertEqual(result["request_rate"], 20)

    def test_conversations_grow(self):
        result = self.run_json("--num-prompts", 2, "--turns", 3, "--input-len", 10, "--output-len", 2, "--max-concurrency", 1)
        self.assertEqual((result["num_prompts"], result["requests"], result["completed"]), (2, 6, 6))
        prompts = [body["prompt"] for body in self.server.bodies]
        self.assertTrue(prompts[1].startswith(prompts[0] + "xx\n"), prompts)
        self.assertTrue(prompts[2].startswith(prompts[1] + "xx\n"), prompts)

    def test_a_dataset_is_sent_as_it_is(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "d.jsonl")
            with open(path, "w") as f:
                f.write('{"prompt": "a b"}\n{"custom_id": "1", "body": {"prompt": "fail", "max_tokens": 2, "top_k": 7}}\n')
            result = self.run_json("--dataset", path, "--output-len", 3, "--max-concurrency", 1)
            self.assertEqual((result["completed"], result["failed"]), (1, 1))
            self.assertEqual(result["failures"], [{"kind": "http 503", "count": 1, "first_message": "no room"}])
            self.assertEqual([b["max_tokens"] for b in self.server.bodies], [3, 2])
            self.assertEqual(self.server.bodies[1]["top_k"], 7)
            self.refused(1, "bench", "serve", "--base-url", self.server.url, "--dataset", path, "--num-prompts", 3,
                         says=["holds 2 requests"])

    def test_exit_code_is_1_when_all_failed_and_the_reasons_are_listed(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "d.jsonl")
            with open(path, "w") as f:
                f.write('{"prompt": "fail"}\n' * 3)
            done = kvasir("bench", "serve", "--base-url", self.server.url, "--dataset", path)
            self.assertEqual(done.returncode, 1)
            self.assertIn("Failed requests:                         3", done.stdout)
            self.assertIn("http 503:                                3", done.stdout)
            self.assertIn("all 3 requests failed", done.stderr)

    def test_result_goes_to_a_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "result.json")
            done = self.ok("bench", "serve", "--base-url", self.server.url, "--num-prompts", 1, "--input-len", 4, "--output-len", 1,
                           "--json", "-o", path, "--server-pid", os.getpid())
            self.assertEqual(done.stdout, "")
            with open(path) as f:
                self.assertGreater(json.load(f)["server_memory"]["resident_peak_bytes"], 1 << 20)


class Refusals(ProcessTest):
    def test_wrong_flags(self):
        for flags, says in [
            (["--base-url", "nowhere"], "expected http://HOST:PORT"),
            (["--request-rate", "fast"], "--request-rate"),
            (["--request-rate", "0"], "--request-rate"),
            (["--goodput", "itl:3"], "--goodput"),
            (["--endpoint", "/v1/embeddings"], "/v1/chat/completions"),
            (["--prefix-len", "5", "--prefix-share", "0.5"], "give one"),
            (["--num-prefixes", "5"], "--prefix-len"),
            (["--dataset", "x", "--turns", "2"], "--turns"),
            (["--max-concurency", "2"], "did you mean --max-concurrency?"),
        ]:
            self.refused(2, "bench", "serve", *flags, says=[says])
        self.refused(1, "bench", "surf", says=["surf"])  # a model's name

    def test_nobody_there(self):
        self.refused(1, "bench", "serve", "--base-url", "http://127.0.0.1:1", says=["no server answers there"])


def serves():
    return kvasir("serve", "--help").returncode == 0


@needs_stories
class KvasirServe(ProcessTest):
    def setUp(self):
        if not serves():
            self.skipTest("this binary has no verb serve")
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as free:
            port = free.server_address[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen([BINARY, "serve", "-m", STORIES, "--port", str(port)], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        self.addCleanup(self.end)
        for _ in range(300):
            try:
                urllib.request.urlopen(self.url + "/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.1)
        self.fail("the server never became ready")

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def test_lengths_are_those_asked_for_and_memory_is_shown(self):
        result = self.json("bench", "serve", "--base-url", self.url, "--num-prompts", 6, "--input-len", 60, "--output-len", 12,
                           "--prefix-len", 128, "--ignore-eos", "--max-concurrency", 3, "--seed", 3, "--server-pid",
                           self.process.pid)
        self.assertEqual((result["completed"], result["failed"]), (6, 0), result)
        self.assertEqual(result["tokens_by"], "server")
        self.assertAlmostEqual(result["total_input_tokens"], 6 * 188, delta=6 * 4)
        self.assertEqual(result["total_output_tokens"], 72)
        self.assertGreater(result["kv"]["bytes_peak"], 0)
        self.assertGreater(result["server_memory"]["resident_peak_bytes"], 1 << 20)
        self.assertIsNotNone(result["cached_tokens"])

    def test_chat_route(self):
        result = self.json("bench", "serve", "--base-url", self.url, "--num-prompts", 2, "--input-len", 20, "--output-len", 5,
                           "--ignore-eos", "--endpoint", "/v1/chat/completions")
        self.assertEqual(result["completed"], 2, result)


if __name__ == "__main__":
    unittest.main()
