"""What process tests share: the binary, the data folder, the models, and running commands."""
import json
import os
import subprocess
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
