"""The server as clients meet it: routes, streams, errors, keys, the end, and texts equal to those of run and batch."""
import json
import math
import os
import re
import signal
import tempfile
import threading
import time
import unittest

from support import SMOLLM2, STORIES, ProcessTest, Server, kvasir, needs_smollm2, needs_stories

try:
    import openai
except ImportError:
    openai = None

PROMPT = "Once upon a time there was a little girl named Lily."


def body(**more):
    return {"prompt": PROMPT, "max_tokens": 24, "temperature": 0, **more}


class ServedTest(ProcessTest):
    """One server for all tests of a class."""
    FLAGS = []

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.FLAGS)
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)

    def answer(self, path, request, **options):
        status, _, document = self.server.post(path, request, **options)
        self.assertEqual(status, 200, document)
        return document

    def refused_body(self, status, path, request, param=None, code=None):
        got, headers, document = self.server.post(path, request)
        self.assertEqual(got, status, document)
        error = document["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        if param is not None:
            self.assertEqual(error["param"], param, error)
        if code is not None:
            self.assertEqual(error["code"], code, error)
        return error, headers

    def batch(self, bodies, url="/v1/completions", flags=()):
        with tempfile.TemporaryDirectory() as folder:
            source, target = os.path.join(folder, "in"), os.path.join(folder, "out")
            with open(source, "w") as f:
                for i, request in enumerate(bodies):
                    f.write(json.dumps({"custom_id": str(i), "method": "POST", "url": url, "body": request}) + "\n")
            self.json("batch", *self.FLAGS[:2], "-i", source, "-o", target, *flags)
            with open(target) as f:
                return [json.loads(line)["response"]["body"] for line in f]


@needs_stories
class Stories(ServedTest):
    FLAGS = ["-m", STORIES, "--kv-memory", "16MiB"]

    def test_says_what_it_serves(self):
        self.assertRegex(self.server.ready, r"^kvasir: serving stories260K on http://127\.0\.0\.1:\d+: .*16\.0 MiB")
        status, _, models = self.server.get("/v1/models")
        self.assertEqual((status, models["data"][0]["id"], models["data"][0]["max_model_len"]), (200, "stories260K", 512))
        self.assertEqual(self.server.get("/health")[0], 200)
        self.assertEqual(self.server.get("/health")[2]["status"], "ok")
        version = kvasir("--version").stdout.split()[1]
        self.assertEqual(self.server.get("/version")[2], {"version": version})
        self.assertEqual(self.server.get("/nowhere")[0], 404)
        self.assertEqual(self.server.get("/v1/completions")[0], 405)

    def test_texts_are_those_of_run_and_batch(self):
        bodies = [body(), body(temperature=0.9, seed=5), body(stop=[" She", "."]), body(prompt="", max_tokens=40),
                  body(repetition_penalty=1.3, seed=1, temperature=1), body(prompt=[1, 403, 407], max_tokens=9)]
        texts = [self.answer("/v1/completions", b)["choices"][0]["text"] for b in bodies]
        again = [self.answer("/v1/completions", b)["choices"][0]["text"] for b in bodies]
        self.assertEqual(texts, again)
        for b, text, line in zip(bodies, texts, self.batch(bodies)):
            self.assertEqual(text, line["choices"][0]["text"], b)
        alone = self.json("run", "-m", STORIES, "-p", PROMPT, "--raw", "-n", 24, "--temp", 0.9, "--seed", 5)
        self.assertEqual(texts[1], alone["text"])

    def test_the_answer_is_openais_object(self):
        answer = self.answer("/v1/completions", body(kv={"report": True}, cache_salt="object"))
        self.assertEqual(answer["object"], "text_completion")
        self.assertEqual(answer["choices"][0]["finish_reason"], "length")
        usage = answer["usage"]
        self.assertEqual(usage["completion_tokens"], 24)
        self.assertEqual(usage["total_tokens"], usage["prompt_tokens"] + 24)
        self.assertEqual(usage["prompt_tokens_details"]["cached_tokens"], 0)
        self.assertEqual(answer["timings"]["predicted_n"], 24)
        self.assertEqual(answer["kv"]["policy"], "none")
        self.assertEqual(answer["kv"]["entries_kept"], answer["kv"]["positions"] * 5 * 4)
        self.assertEqual(answer["kv"]["cached"], {"tokens": 0, "tier": "none"})

    def test_a_prompt_that_came_before_is_taken_from_the_cache_unless_salted(self):
        request = body(prompt=PROMPT * 4, max_tokens=8, cache_salt="a", kv={"report": True})
        cold = self.answer("/v1/completions", request)
        warm = self.answer("/v1/completions", request)
        other = self.answer("/v1/completions", {**request, "cache_salt": "b"})
        cached = [a["usage"]["prompt_tokens_details"]["cached_tokens"] for a in (cold, warm, other)]
        self.assertEqual((cached[0], cached[2]), (0, 0))
        self.assertGreater(cached[1], 0)
        self.assertEqual(warm["timings"]["cache_n"], cached[1])
        self.assertEqual(warm["kv"]["cached"]["tier"], "memory")
        self.assertEqual(len({a["choices"][0]["text"] for a in (cold, warm, other)}), 1)

    def test_no_tokens_only_read_the_prompt(self):
        answer = self.answer("/v1/completions", body(max_tokens=0))
        self.assertEqual(answer["choices"][0]["text"], "")
        self.assertEqual(answer["usage"]["completion_tokens"], 0)
        self.assertEqual(answer["choices"][0]["finish_reason"], "length")

    def test_choices_have_seeds_of_their_own_and_prompts_their_places(self):
        request = body(prompt=[PROMPT, [1, 403]], n=3, temperature=1, seed=40, max_tokens=12)
        answer = self.answer("/v1/completions", request)
        self.assertEqual([c["index"] for c in answer["choices"]], list(range(6)))
        for p, prompt in enumerate(request["prompt"]):
            for j in range(3):
                one = self.answer("/v1/completions", {**request, "prompt": prompt, "n": 1, "seed": 40 + j})
                self.assertEqual(one["choices"][0]["text"], answer["choices"][p * 3 + j]["text"], (p, j))
        self.assertEqual(len({c["text"] for c in answer["choices"][:3]}), 3)
        self.assertEqual(answer["usage"]["completion_tokens"], 72)

    def test_streams_give_the_same_text(self):
        for more in ({}, {"n": 3, "temperature": 1, "seed": 3}, {"stop": ["play"]}, {"max_tokens": 0}):
            whole = self.answer("/v1/completions", body(**more))
            events = self.server.events("/v1/completions", body(**more, stream_options={"include_usage": True}))
            usage = events.pop()
            self.assertEqual(usage["choices"], [])
            self.assertEqual(usage["usage"]["completion_tokens"], whole["usage"]["completion_tokens"])
            for choice in whole["choices"]:
                mine = [e["choices"][0] for e in events if e["choices"][0]["index"] == choice["index"]]
                self.assertEqual("".join(c["text"] for c in mine), choice["text"])
                self.assertEqual([c["finish_reason"] for c in mine], [None] * (len(mine) - 1) + [choice["finish_reason"]])
            self.assertTrue(all(e["usage"] is None for e in events))
            self.assertIn("timings", events[-1])

    def test_a_chat_stream_opens_with_the_role(self):
        request = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 10, "temperature": 0, "logprobs": True}
        whole = self.answer("/v1/chat/completions", request)
        events = self.server.events("/v1/chat/completions", request)
        self.assertEqual(events[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
        choices = [e["choices"][0] for e in events]
        self.assertEqual("".join(c["delta"].get("content", "") for c in choices), whole["choices"][0]["message"]["content"])
        streamed = [t for c in choices if c["logprobs"] for t in c["logprobs"]["content"]]
        self.assertEqual(streamed, whole["choices"][0]["logprobs"]["content"])
        self.assertEqual(len(streamed), 10)
        self.assertNotIn("usage", events[-1])

    def test_logprobs_are_the_models_own(self):
        loss = None
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as f:
            f.write(PROMPT)
            f.flush()
            loss = self.json("eval", "ppl", "-m", STORIES, "-f", f.name)
        for prompt in (PROMPT, loss["tokens"]):
            answer = self.answer("/v1/completions", body(prompt=prompt, echo=True, logprobs=2, max_tokens=0))
            choice = answer["choices"][0]
            self.assertEqual(choice["text"].strip(), PROMPT)
            logprobs = choice["logprobs"]
            self.assertEqual(len(logprobs["tokens"]), len(loss["tokens"]))
            self.assertIsNone(logprobs["token_logprobs"][0])
            for mine, nll in zip(logprobs["token_logprobs"][1:], loss["nll"]):
                self.assertAlmostEqual(-mine, nll, delta=1e-3)
            for token, offset in list(zip(logprobs["tokens"], logprobs["text_offset"]))[2:]:
                self.assertEqual(choice["text"][offset:offset + len(token)], token)
        one = self.answer("/v1/completions", body(echo=True, logprobs=1, max_tokens=1))["choices"][0]
        self.assertEqual(len(one["logprobs"]["tokens"]), len(loss["tokens"]) + 1)
        self.assertTrue(one["text"].startswith(PROMPT) and len(one["text"]) > len(PROMPT))
        # A harness strips the last token, also where the text could end.
        end = self.answer("/v1/completions", body(echo=True, logprobs=1, max_tokens=1, logit_bias={"2": 100}))["choices"][0]
        self.assertEqual(len(end["logprobs"]["tokens"]), len(loss["tokens"]) + 1)
        self.assertEqual(end["text"], PROMPT)

    def test_top_logprobs_hold_the_token_itself(self):
        answer = self.answer("/v1/completions", body(logprobs=3, temperature=1, seed=2))
        logprobs = answer["choices"][0]["logprobs"]
        for token, logprob, top in zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"]):
            self.assertEqual(top[token], logprob)
            self.assertIn(len(top), (3, 4))
            self.assertLessEqual(sum(math.exp(v) for v in top.values()), 1.0001)

    def test_bias_and_stop_tokens_act(self):
        plain = self.answer("/v1/completions", body(logprobs=0))
        ids = self.answer("/tokenize", {"content": plain["choices"][0]["text"]})["tokens"]
        banned = ids[1]
        biased = self.answer("/v1/completions", body(logit_bias={str(banned): -100}))
        self.assertNotEqual(biased["choices"][0]["text"], plain["choices"][0]["text"])
        stopped = self.answer("/v1/completions", body(stop_token_ids=[banned]))
        self.assertEqual(stopped["choices"][0]["finish_reason"], "stop")
        self.assertLess(stopped["usage"]["completion_tokens"], 24)
        self.assertTrue(plain["choices"][0]["text"].startswith(stopped["choices"][0]["text"]))

    def test_texts_become_tokens_and_come_back(self):
        vllm = self.answer("/tokenize", {"prompt": PROMPT})
        self.assertEqual(vllm["tokens"], self.json("tokenize", "-m", STORIES, "-p", PROMPT)["tokens"])
        self.assertEqual((vllm["count"], vllm["max_model_len"]), (len(vllm["tokens"]), 512))
        llama = self.answer("/tokenize", {"content": PROMPT})
        self.assertEqual(llama, {"tokens": vllm["tokens"][1:]})
        back = self.answer("/detokenize", {"tokens": vllm["tokens"]})
        self.assertEqual(back, {"prompt": PROMPT, "content": PROMPT})
        self.refused_body(400, "/detokenize", {"tokens": [512]}, param="tokens")
        self.refused_body(400, "/tokenize", {}, param="prompt")
        self.refused_body(400, "/apply-template", {"messages": [{"role": "user", "content": "x"}]}, param="messages")

    def test_unknown_fields_are_named_in_a_header(self):
        names = {f"field_{i}": 1 for i in range(20)}
        status, headers, _ = self.server.post("/v1/completions", body(**names, **{"bad\r\nname: x": 1}))
        self.assertEqual(status, 200)
        ignored = headers["x-kvasir-ignored"].split(", ")
        self.assertEqual(len(ignored), 16)
        self.assertTrue(set(ignored) <= set(names))
        self.assertIsNone(self.server.post("/v1/completions", body())[1]["x-kvasir-ignored"])

    def test_wrong_bodies_are_refused_by_name_and_the_server_goes_on(self):
        for request, param in ((body(n=9), "n"), (body(temperature=3), "temperature"), (body(prompt=5), "prompt"),
                               (body(prompt=[512]), "prompt"), (body(tools=[1], functions=[1]), None),
                               (body(response_format={"type": "json_object"}), "response_format"),
                               (body(logit_bias={"512": 1}), "logit_bias"), (body(stop_token_ids=[512]), "stop_token_ids"),
                               (body(max_tokens=-1), "max_tokens"), (body(kv={"policy": "keydiff"}), "kv.policy"),
                               (body(prompt=["a"] * 65), "prompt"), (body(prompt=["a"] * 9, n=8), "n"),
                               (body(echo=True, stream=True), "echo"), (body(logprobs=21), "logprobs")):
            if param is not None:
                self.refused_body(400, "/v1/completions", request, param=param)
        image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
        self.refused_body(400, "/v1/chat/completions", {"messages": image}, param="messages[0].content")
        self.refused_body(400, "/v1/chat/completions", {"messages": []}, param="messages")
        for raw in ("", "{", "[]", '{"prompt":NaN}', '{"prompt":"a","prompt":"b"}', "[" * 100000,
                    '{"prompt":"\xff"}'.encode("latin-1"), '{"prompt":[' + "0," * 1000000 + "0]}"):
            self.refused_body(400, "/v1/completions", raw)
        error, _ = self.refused_body(400, "/v1/completions", body(prompt=[5] * 513), code="context_length_exceeded")
        self.assertIn("513", error["message"])
        self.assertIn("512", error["message"])
        self.assertEqual(self.server.get("/health")[0], 200)

    def test_a_client_that_leaves_frees_its_bytes(self):
        for stream in (True, False):
            connection = self.server.connect()
            request = body(prompt=[PROMPT] * 8, max_tokens=400, ignore_eos=True, n=8, stream=stream, cache_salt="leaves")
            connection.request("POST", "/v1/completions", json.dumps(request))
            if stream:
                connection.getresponse().read(50)
            connection.close()
            kv = self.server.idle()
            self.assertEqual(kv["sequences"], [])
            self.assertEqual(kv["bytes"], kv["snapshot_bytes"])

    def test_the_ledger_shows_who_runs(self):
        connection, response = self.server.send(
            "POST", "/v1/completions", body(prompt=[PROMPT] * 8, n=8, max_tokens=400, ignore_eos=True, stream=True))
        response.read(10)
        _, _, kv = self.server.get("/v1/kv")
        connection.close()
        self.assertEqual(kv["budget_bytes"], 16 << 20)
        self.assertLessEqual(kv["bytes_peak"], kv["budget_bytes"])
        self.assertEqual(sum(kv["bytes_by_codec"].values()) + kv["bytes_side"], kv["bytes"])
        for line in kv["sequences"]:
            self.assertGreater(line["prompt_tokens"], 0)
        self.server.idle()

    def test_metrics_count_what_happened(self):
        def value(text, name):
            return sum(float(line.split()[-1]) for line in text.splitlines() if re.match(re.escape(name) + r"[ {]", line))
        before = self.server.get("/metrics")[2]
        self.answer("/v1/completions", body())
        self.server.post("/v1/completions", body(n=0))
        self.server.idle()
        status, headers, after = self.server.get("/metrics")
        self.assertTrue(headers["Content-Type"].startswith("text/plain"))
        more = {name: value(after, name) - value(before, name) for name in (
            "vllm:generation_tokens_total", "vllm:request_success_total", "vllm:time_to_first_token_seconds_count",
            "vllm:e2e_request_latency_seconds_count", "kvasir_rejected_total")}
        self.assertEqual(list(more.values()), [24, 1, 1, 1, 1], more)
        self.assertIn('model_name="stories260K"', after)
        self.assertGreater(value(after, "kvasir_requests_total"), value(before, "kvasir_requests_total"))
        with open(os.path.join(os.path.dirname(__file__), "..", "docs", "serving.md")) as f:
            documented = set(re.findall(r"^\| `((?:vllm:|kvasir_)[a-z0-9_]+)` ", f.read(), re.M))
        self.assertEqual(set(re.findall(r"^# TYPE (\S+) ", after, re.M)), documented)

    def test_the_operators_route_does_not_exist_without_a_key(self):
        self.assertEqual(self.server.post("/reset_prefix_cache", {})[0], 404)


@needs_stories
class Limits(ProcessTest):
    def test_the_queue_is_bounded_and_says_when_to_come_back(self):
        with Server("-m", STORIES, "--kv-memory", "16MiB", "-np", 1, "--max-waiting", 2) as server:
            statuses, retry = [], []

            def ask():
                status, headers, document = server.post(
                    "/v1/completions", {"prompt": PROMPT, "max_tokens": 480, "temperature": 0, "ignore_eos": True})
                statuses.append(status)
                if status == 429:
                    retry.append((headers["Retry-After"], document["error"]["type"]))
            threads = [threading.Thread(target=ask) for _ in range(24)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(set(statuses), {200, 429})
            self.assertEqual(set(retry), {("1", "rate_limit_error")})
            self.assertEqual(server.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 1})[0], 200)

    def test_what_can_never_fit_is_refused_with_both_numbers(self):
        with Server("-m", STORIES, "--kv-memory", "64KiB") as server:
            status, _, document = server.post("/v1/completions", {"prompt": PROMPT * 20, "max_tokens": 100})
            self.assertEqual((status, document["error"]["code"]), (400, "kv_budget_exceeded"))
            self.assertIn("65536", document["error"]["message"])

    def test_a_policy_acts_as_in_batch(self):
        flags = ["--kv-policy", "keydiff:budget=40,block=32", "--kv-memory", "4MiB"]
        expected = self.json("run", "-m", STORIES, "-p", PROMPT * 3, "--raw", "-n", 40, "--temp", 0, "--kv-policy", flags[1])
        with Server("-m", STORIES, *flags, "--prefix-cache", 64) as server:
            for _ in range(2):
                _, _, answer = server.post("/v1/completions", {"prompt": PROMPT * 3, "max_tokens": 40, "temperature": 0,
                                                               "kv": {"report": True}})
                self.assertEqual(answer["choices"][0]["text"], expected["text"])
            self.assertGreater(answer["kv"]["entries_dropped"], 0)
        self.refused(2, "serve", "-m", STORIES, "--kv-memory", "1MiB", "--kv-policy", "keydiff", says=("budget",))

    def test_flags_that_would_be_unsafe_are_refused(self):
        self.refused(2, "serve", "-m", STORIES, "--host", "0.0.0.0", says=("--api-key-file", "--insecure"))
        self.refused(2, "serve", "-m", STORIES, "--api-key", "secret", says=("--api-key-file",))
        self.refused(2, "serve", "-m", STORIES, "--drain-timeout", "soon", says=("--drain-timeout",))
        self.refused(2, "serve", "-m", STORIES, "--prefix-cache", "0", says=("--prefix-cache",))
        with tempfile.NamedTemporaryFile("w") as keys:
            self.refused(1, "serve", "-m", STORIES, "--api-key-file", keys.name, says=("no key",))


@needs_stories
class Keys(ProcessTest):
    def test_routes_need_the_keys_they_ask_for(self):
        with tempfile.TemporaryDirectory() as folder:
            user, admin = os.path.join(folder, "user"), os.path.join(folder, "admin")
            for path, text in ((user, "key-one\nkey-two\n"), (admin, "operator\n")):
                with open(path, "w") as f:
                    f.write(text)
            with Server("-m", STORIES, "--kv-memory", "4MiB", "--api-key-file", user, "--admin-key-file", admin) as server:
                def status(method, path, key, request=None):
                    headers = {"Authorization": f"Bearer {key}"} if key else {}
                    return server.call(method, path, request, headers)[0]
                ask = {"prompt": "Once", "max_tokens": 1}
                self.assertEqual([status("POST", "/v1/completions", key, ask) for key in (None, "wrong", "key-one", "key-two")],
                                 [401, 401, 200, 200])
                for path in ("/v1/models", "/metrics", "/v1/kv"):
                    self.assertEqual(status("GET", path, None), 401, path)
                for path in ("/health", "/version"):
                    self.assertEqual(status("GET", path, None), 200, path)
                self.assertNotEqual(status("POST", "/reset_prefix_cache", "key-one", {}), 200)
                self.assertEqual(status("POST", "/reset_prefix_cache", "operator", {}), 200)
                headers = {"Authorization": "Bearer key-one"}
                self.assertEqual(server.call("GET", "/v1/kv", headers=headers)[2]["bytes"], 0)


@needs_stories
class Stop(ProcessTest):
    ASK = {"prompt": PROMPT, "max_tokens": 480, "temperature": 0, "ignore_eos": True}

    def test_sigterm_lets_running_requests_end(self):
        for stop in (signal.SIGTERM, signal.SIGINT):
            with Server("-m", STORIES, "--kv-memory", "4MiB") as server:
                connection, response = server.send("POST", "/v1/completions", {**self.ASK, "stream": True})
                first = response.read(20)
                server.process.send_signal(stop)
                raw = (first + response.read()).decode()
                connection.close()
                self.assertIn('"finish_reason":"length"', raw)
                self.assertTrue(raw.endswith("data: [DONE]\n\n"))
                self.assertEqual(server.process.wait(30), 0)


@needs_smollm2
class StopInTheMiddle(ProcessTest):
    """With a model that takes its time."""

    def long_server(self, *flags):
        return Server("-m", SMOLLM2, "--kv-memory", "512MiB", *flags)

    def many(self, server):
        """A stream that takes half a minute."""
        return server.send("POST", "/v1/completions", {"prompt": [PROMPT] * 4, "n": 4, "max_tokens": 400, "temperature": 1,
                                                       "ignore_eos": True, "stream": True})

    def test_the_drain_refuses_what_is_new_and_ends_the_rest_with_an_error(self):
        with self.long_server("--drain-timeout", "4s") as server:
            connection, response = self.many(server)
            response.read(20)
            server.process.terminate()
            end = time.monotonic() + 3
            while server.get("/health")[0] == 200 and time.monotonic() < end:
                time.sleep(0.01)
            status, _, document = server.get("/health")
            self.assertEqual((status, document["status"]), (503, "draining"))
            status, headers, refused = server.post("/v1/completions", {"prompt": "x", "max_tokens": 1})
            self.assertEqual((status, refused["error"]["type"]), (503, "unavailable_error"))
            self.assertIsNotNone(headers["Retry-After"])
            raw = response.read().decode()
            connection.close()
            self.assertNotIn("[DONE]", raw)
            last = raw.strip().split("\n\n")[-1]
            self.assertTrue(last.startswith('data: {"error":'), last)
            self.assertEqual(server.process.wait(30), 0)

    def test_a_second_signal_does_not_wait(self):
        for reads in (True, False):
            with self.long_server("--drain-timeout", "60s") as server:
                connection, response = self.many(server)
                response.read(20)
                begin = time.monotonic()
                server.process.terminate()
                time.sleep(0.3)
                self.assertIsNone(server.process.poll())
                server.process.terminate()
                if reads:
                    self.assertIn('data: {"error":', response.read().decode())
                self.assertEqual(server.process.wait(30), 0)
                self.assertLess(time.monotonic() - begin, 10)
                connection.close()

    def test_a_client_that_leaves_frees_its_bytes(self):
        with self.long_server() as server:
            for stream in (True, False):
                connection = server.connect()
                connection.request("POST", "/v1/completions", json.dumps(
                    {"prompt": [PROMPT] * 4, "n": 4, "max_tokens": 400, "ignore_eos": True, "stream": stream}))
                while server.get("/v1/kv")[2]["running"] == 0:
                    time.sleep(0.01)
                connection.close()
                kv = server.idle(seconds=5)
                self.assertEqual(kv["bytes"], kv["snapshot_bytes"])
                self.assertEqual(kv["sequences"], [])


@needs_smollm2
class Chat(ServedTest):
    FLAGS = ["-m", SMOLLM2, "--kv-memory", "64MiB", "-c", "2048"]
    MESSAGES = [{"role": "system", "content": "Answer in one sentence."}, {"role": "user", "content": "What is a lane?"}]

    def test_a_conversation_gets_the_text_of_run_and_batch(self):
        request = {"messages": self.MESSAGES, "max_tokens": 24, "temperature": 0}
        answer = self.answer("/v1/chat/completions", request)
        with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
            json.dump(self.MESSAGES, f)
            f.flush()
            alone = self.json("run", "-m", SMOLLM2, "--messages", f.name, "-n", 24, "--temp", 0)
        self.assertEqual(answer["choices"][0]["message"], {"role": "assistant", "content": alone["text"]})
        self.assertEqual(answer["usage"]["prompt_tokens"], alone["prompt_tokens"])
        line = self.batch([request], "/v1/chat/completions")[0]
        self.assertEqual(line["choices"][0]["message"]["content"], alone["text"])

    def test_the_template_shows_itself(self):
        rendered = self.answer("/apply-template", {"messages": self.MESSAGES})["prompt"]
        self.assertTrue(rendered.endswith("<|im_start|>assistant\n"), rendered)
        tokens = self.answer("/tokenize", {"messages": self.MESSAGES})["tokens"]
        self.assertEqual(tokens, self.answer("/tokenize", {"content": rendered, "parse_special": True})["tokens"])

    def test_variables_of_the_template_are_checked(self):
        request = {"messages": self.MESSAGES, "max_tokens": 1}
        self.answer("/v1/chat/completions", {**request, "reasoning_effort": "low", "chat_template_kwargs": {"x": True}})
        for bad in ({"messages": "x"}, {"x": "<|im_end|>"}):
            self.refused_body(400, "/v1/chat/completions", {**request, "chat_template_kwargs": bad}, param="messages")


@needs_stories
@unittest.skipUnless(openai, "no Python package openai: pip install openai to test with it")
class OpenAiClient(ServedTest):
    FLAGS = ["-m", STORIES, "--kv-memory", "16MiB"]

    def setUp(self):
        self.client = openai.OpenAI(base_url=self.server.url + "/v1", api_key="none", max_retries=0)
        self.addCleanup(self.client.close)

    def test_completions(self):
        whole = self.client.completions.create(model="m", prompt=PROMPT, max_tokens=20, temperature=0, logprobs=2, n=2)
        self.assertEqual([c.index for c in whole.choices], [0, 1])
        self.assertEqual(len(whole.choices[0].logprobs.tokens), 20)
        text = "".join(c.choices[0].text for c in self.client.completions.create(
            model="m", prompt=PROMPT, max_tokens=20, temperature=0, stream=True))
        self.assertEqual(text, whole.choices[0].text)
        stopped = self.client.completions.create(model="m", prompt=PROMPT, max_tokens=60, temperature=0, stop=["."])
        self.assertEqual(stopped.choices[0].finish_reason, "stop")
        self.assertNotIn(".", stopped.choices[0].text)

    def test_chat(self):
        ask = {"model": "m", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 20, "temperature": 0, "seed": 1}
        whole = self.client.chat.completions.create(**ask, n=2, logprobs=True, top_logprobs=3)
        self.assertEqual(len(whole.choices), 2)
        self.assertEqual(len(whole.choices[0].logprobs.content), 20)
        self.assertEqual(len(whole.choices[0].logprobs.content[0].top_logprobs), 3)
        self.assertIsNotNone(whole.usage.prompt_tokens_details.cached_tokens)
        text, usage = "", None
        for chunk in self.client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
            usage = chunk.usage or usage
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(usage.completion_tokens, 20)
        with self.assertRaises(openai.BadRequestError) as refused:
            self.client.chat.completions.create(**ask, tools=[{"type": "function", "function": {"name": "f"}}])
        self.assertEqual(refused.exception.param, "tools")
        self.assertEqual(self.client.models.list().data[0].id, "stories260K")


if __name__ == "__main__":
    unittest.main()
