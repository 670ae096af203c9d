"""What process tests share: the binary, the data folder, the models, and running commands."""
import http.client
import json
import os
import re
import subprocess
import tempfile
import time
import unittest

BINARY = os.environ.get("KVASIR_BINARY", os.path.join(os.path.dirname(__file__), "..", "build", "kvasir"))
DATA = os.environ.get("KVASIR_TEST_DATA", "")
MODELS = os.environ.get("KVASIR_MODELS", os.path.expanduser("~/.cache/kvasir/models"))
STORIES = os.path.join(DATA, "models", "stories260K", "stories260K.gguf")
SMOLLM2 = os.path.join(MODELS, "smollm2-135m-instruct-q4_1.gguf")

needs_stories = unittest.skipUnless(os.path.exists(STORIES), "no stories260K: set KVASIR_TEST_DATA to the data folder")
needs_smollm2 = unittest.skipUnless(os.path.exists(SMOLLM2), "no smollm2: run scripts/get-model.sh")


def kvasir(*args, stdin=None, env=None, timeout=600):
    """Runs the binary; returns the finished process with text output."""
    return subprocess.run([BINARY, *map(str, args)], input=stdin, capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, **(env or {})})


class ProcessTest(unittest.TestCase):
    def ok(self, *args, **options):
        done = kvasir(*args, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def json(self, *args, **options):
        return json.loads(self.ok(*args, "--json", **options).stdout)

    def refused(self, code, *args, says=(), **options):
        """The command must fail with `code`, one line on stderr that contains all of `says`, and nothing on stdout."""
        done = kvasir(*args, **options)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(done.stdout, "")
        lines = done.stderr.strip().splitlines()
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertTrue(lines[0].startswith("kvasir: "), lines[0])
        for word in says:
            self.assertIn(str(word), lines[0])
        return lines[0]


class Server:
    """`kvasir serve` on a free port, for the length of a with block."""

    def __init__(self, *args, key=None):
        self.args, self.key = args, key

    def __enter__(self):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([BINARY, "serve", "--port", "0", *map(str, self.args)], stdout=subprocess.PIPE,
                                        stderr=self.errors, text=True)
        self.ready = self.process.stdout.readline()  # empty when it ended instead
        found = re.search(r"http://([^ /]+):(\d+)", self.ready)
        if not found:
            self.process.wait(30)
            self.errors.seek(0)
            raise AssertionError(f"not ready: {self.ready!r} {self.errors.read()}")
        self.host, self.port = found.group(1), int(found.group(2))
        self.url = found.group(0)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def connect(self, timeout=60):
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def send(self, method, path, body=None, headers=None, timeout=60):
        """The open connection and its response, whose body is not read yet."""
        connection = self.connect(timeout)
        headers = {"Content-Type": "application/json", **(headers or {})}
        if self.key:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        connection.request(method, path, body, headers)
        return connection, connection.getresponse()

    def call(self, method, path, body=None, headers=None, timeout=60):
        """(status, headers, body as JSON or text)."""
        connection, response = self.send(method, path, body, headers, timeout)
        text = response.read().decode()
        connection.close()
        is_json = response.headers.get("Content-Type", "").startswith("application/json")
        return response.status, response.headers, json.loads(text) if is_json else text

    def post(self, path, body, **options):
        return self.call("POST", path, body, **options)

    def get(self, path, **options):
        return self.call("GET", path, **options)

    def events(self, path, body):
        """The documents of a stream; checks its frame."""
        connection, response = self.send("POST", path, {**body, "stream": True})
        assert response.status == 200, response.read()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        raw = response.read().decode()
        connection.close()
        lines = [line for line in raw.split("\n\n") if line and not line.startswith(":")]
        assert lines[-1] == "data: [DONE]", lines[-1]
        assert all(line.startswith("data: ") for line in lines)
        return [json.loads(line[6:]) for line in lines[:-1]]

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmRSS:"))

    def idle(self, seconds=20):
        """The ledger once nothing runs or waits."""
        end = time.monotonic() + seconds
        while True:
            _, _, kv = self.get("/v1/kv")
            if kv["running"] == 0 and kv["waiting"] == 0:
                return kv
            assert time.monotonic() < end, kv
            time.sleep(0.02)
