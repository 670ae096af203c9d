#!/usr/bin/env python3
"""Kvasir's speed beside llama.cpp's and OpenVINO GenAI's: same GGUF files, same threads, one run.

  bench/peers.py --install                        # the peers, into a virtual environment of their own (some ten minutes)
  bench/peers.py --quick --json rows.json --plot rows.svg
  bench/peers.py --full --state rows.jsonl        # the whole matrix; what the file has is not measured again

All engines of a model are loaded together and take turns, one test each in every round, the order turning from round to
round; who does not measure sleeps. A test that reads a prompt is timed whole, one that generates per step. Ratios are
medians over rounds of time of the peer / time of Kvasir, with a bootstrap interval of 95 %. The cache is compared like
with like: 16 bits (f16) and 8 bits (q8, q8_0, u8). An engine that cannot do something is a row that says so.
"""
import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import venv

import peers_report as report

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.expanduser("~/.cache/kvasir")
PACKAGES = ["llama-cpp-python==0.3.36", "openvino-genai==2026.4.*", "numpy"]
# A test that has taken a peer this long is not repeated for more than two samples.
PATIENCE_MS = 20000
PP = 512

# Engines for each kind of cache: name, family, and what the family's worker is told.
ENGINES = {
    "f16": [("kvasir", "kvasir", "f16"),
            ("llama.cpp fused", "llama", {"name": "f16 fused", "type": "f16", "fused": True}),
            ("llama.cpp unfused", "llama", {"name": "f16 unfused", "type": "f16", "fused": False}),
            ("openvino", "openvino", "f16")],
    "q8": [("kvasir", "kvasir", "q8"),
           ("llama.cpp fused", "llama", {"name": "q8_0 fused", "type": "q8_0", "fused": True}),
           ("openvino", "openvino", "u8")],
}


class Model:
    """A file, and the phases it is measured in: (depth, sequences, steps of a decode test)."""

    def __init__(self, name, kind, file, phases):
        self.name, self.kind, self.file, self.phases = name, kind, file, phases


SMOLLM2 = "smollm2-135m-instruct-q4_1.gguf"
QWEN_05B = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
QWEN_15B = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"


def matrix(args):
    """Models in order. Files that are made (requantized, random weights) are made when their turn comes."""
    in_models = lambda name: lambda: os.path.join(args.models, name)
    quantized = lambda name, kind: lambda: quantize(args, os.path.join(args.models, name), kind)
    shape = lambda name, kind: lambda: random_model(args, name, kind)
    quick = [
        Model("smollm2", "Q4_1", in_models(SMOLLM2), [(0, 1, 64), (7600, 1, 24), (2048, 8, 16)]),
        Model("qwen-0.5b", "Q4_K_M", in_models(QWEN_05B), [(0, 1, 32), (16384, 1, 12)]),
        Model("qwen-0.5b", "Q8_0", quantized(QWEN_05B, "q8_0"), [(0, 1, 32), (16384, 1, 12)]),
        Model("llama-3.2-1b", "Q4_0", shape("llama-3.2-1b", "Q4_0"), [(0, 1, 16), (4096, 1, 12)]),
    ]
    if not args.full:
        return quick
    quick[0].phases.insert(1, (2048, 1, 32))
    for model in quick[1:3]:
        model.phases.insert(1, (4096, 1, 24))
    deep = [(0, 1, 16), (4096, 1, 12), (16384, 1, 8)]
    return quick + [
        Model("qwen-0.5b", "Q4_0", quantized(QWEN_05B, "q4_0"), [(0, 1, 32), (4096, 1, 24), (16384, 1, 12)]),
        Model("qwen-1.5b", "Q4_K_M", in_models(QWEN_15B), deep),
        *[Model("llama-3.2-1b", kind, shape("llama-3.2-1b", kind), deep) for kind in ("Q8_0", "Q4_K", "BF16")],
        *[Model("qwen3-0.6b", kind, shape("qwen3-0.6b", kind), deep) for kind in ("Q4_0", "Q8_0", "BF16")],
    ]


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="install the peers and stop")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="few models, the least and the greatest depth (the default)")
    size.add_argument("--full", action="store_true", help="the whole matrix")
    parser.add_argument("--only", default="", metavar="TEXT", help="models whose name and type contain this, as in 'qwen-0.5b Q8_0'")
    parser.add_argument("--state", metavar="FILE", help="rows that are done, one a line; those in it are not measured again")
    parser.add_argument("--json", metavar="FILE", help="rows as one list; - is standard output")
    parser.add_argument("--plot", metavar="FILE", help="ratios to the best peer as SVG")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--kvasir", default=os.path.join(HERE, "..", "build", "kvasir"), help="the binary (build/kvasir)")
    parser.add_argument("--models", default=os.environ.get("KVASIR_MODELS", os.path.join(CACHE, "models")))
    parser.add_argument("--work", default=os.path.join(CACHE, "bench"), help="folder of files that are made for this")
    parser.add_argument("--venv", default=os.path.join(CACHE, "peers"), help="the peers' virtual environment")
    parser.add_argument("--peer-python", help="another interpreter that has the peers")
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error("--rounds: at least 2 are needed for an interval")
    args.kvasir = os.path.abspath(args.kvasir)
    args.peer_python = args.peer_python or os.path.join(args.venv, "bin", "python")
    return args


def say(text):
    print(f"peers: {text}", file=sys.stderr, flush=True)


def install(args):
    say(f"installing {', '.join(PACKAGES)} into {args.venv}")
    venv.create(args.venv, with_pip=True)
    subprocess.run([os.path.join(args.venv, "bin", "python"), "-m", "pip", "install", *PACKAGES], check=True)


def made(args, name, command):
    """A file of the work folder, made by a command of Kvasir unless it is there."""
    path = os.path.join(args.work, name)
    if not os.path.exists(path):
        os.makedirs(args.work, exist_ok=True)
        say(f"making {path}")
        done = subprocess.run([args.kvasir, *command(path)], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip() or f"{name} could not be made")
    return path


def quantize(args, source, kind):
    name = os.path.basename(source).replace("q4_k_m", kind)
    return made(args, name, lambda path: ["quantize", source, path, kind])


def random_model(args, shape, kind):
    return made(args, f"{shape}-{kind.lower()}.gguf",
                lambda path: ["bench", "--shape", shape, "--type", kind, "--save", path, "-p", "0", "-n", "0"])


class Process:
    """A program that answers JSON lines with JSON lines. Errors: RuntimeError with what it said."""

    def __init__(self, command):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.ready = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.log.seek(0)
            said = self.log.read().strip().splitlines()
            raise RuntimeError(said[-1] if said else f"ended with code {code}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def ask(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # read says what became of it
        return self.read()

    def close(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


def in_turns(commands, rounds):
    """For each round the answers of all programs by name. `commands`: of `kvasir bench --on-demand`, by name; all run at once and take
    turns with their first test, every other round backwards."""
    with contextlib.ExitStack() as stack:
        running = {}
        for name, command in commands.items():
            running[name] = Process(command)
            stack.callback(running[name].close)
            running[name].ask("0")  # fills, and warms up
        for i in range(rounds):
            order = list(running) if i % 2 == 0 else list(running)[::-1]
            yield {name: running[name].ask("0") for name in order}


class Kvasir:
    """`kvasir bench --on-demand`, a process for each phase."""

    def __init__(self, args, path, codec):
        self.args, self.path, self.codec, self.process = args, path, codec, None

    def phase(self, depth, seqs, pp, tg, rounds):
        self.process = Process([self.args.kvasir, "bench", "-m", self.path, "-t", str(self.args.threads), "--kv-codec", self.codec,
                                "-p", str(pp), "-n", str(tg), "-d", str(depth), "-np", str(seqs), "--on-demand"])
        self.numbers = {"pp": 0, "tg": 1} if pp else {"tg": 0}
        self.steps = {"pp": 1, "tg": tg}
        for test in self.numbers:
            self.run(test)  # fills, and warms up

    def run(self, test):
        return self.process.ask(str(self.numbers[test]))["ns"] / 1e6 / self.steps[test]

    def end(self):
        self.close()

    def close(self):
        if self.process:
            self.process.close()
            self.process = None


class Peer:
    """A variant of a peer: a process of its own (OpenVINO), or a context in one that others share (llama.cpp)."""

    def __init__(self, process, variant, shared):
        self.process, self.variant, self.shared = process, variant, shared

    def command(self, **values):
        return self.process.ask(json.dumps({**values, **({"variant": self.variant} if self.shared else {})}))

    def phase(self, depth, seqs, pp, tg, rounds):
        self.command(op="phase", depth=depth, seqs=seqs, pp=pp, tg=tg, rounds=rounds)

    def run(self, test):
        return self.command(op="run", test=test)["ms"]

    def end(self):
        self.command(op="end")

    def close(self):
        if self.process.process.returncode is None:  # not yet by another variant
            self.process.close()


def start_engines(args, path):
    """Engines of a file by (kind of cache, name); for those that did not start the reason."""
    engines, errors, llama = {}, {}, None
    for kv, variants in ENGINES.items():
        for name, family, variant in variants:
            try:
                if family == "kvasir":
                    engines[kv, name] = Kvasir(args, path, variant)
                    continue
                if not os.path.exists(args.peer_python):
                    raise RuntimeError("not installed: bench/peers.py --install")
                script = os.path.join(HERE, f"peer_{family}.py")
                command = [args.peer_python, "-B", script, path, str(args.threads)]
                if family == "openvino":
                    engines[kv, name] = Peer(Process([*command, variant, "1"]), variant, shared=False)
                    continue
                if llama is None:
                    llama = Process(command)
                engines[kv, name] = Peer(llama, variant, shared=True)
            except RuntimeError as error:
                errors[kv, name] = str(error)
                say(f"{name}, {kv}: {error}")
    return engines, errors


def measure(args, engines, errors, depth, seqs, tg):
    """Samples of a phase: test -> (kind of cache, engine) -> ms. Who fails is out of it, with its reason in `errors`."""
    pp = PP if seqs == 1 else 0
    active = {}

    def attempt(key, action):
        try:
            return action()
        except RuntimeError as error:
            errors[key] = str(error)
            active.pop(key, None)
            with contextlib.suppress(RuntimeError):
                engines[key].end()  # nothing of it disturbs the next phase
            say(f"{key[1]}, {key[0]}, depth {depth}: {error}")
            return None

    for key, engine in engines.items():
        active[key] = engine
        attempt(key, lambda: engine.phase(depth, seqs, pp, tg, args.rounds))
    samples = {}
    for test in ("pp", "tg") if pp else ("tg",):
        times = samples[test] = {key: [] for key in engines}
        for turn in range(args.rounds):
            order = list(active)
            shift = turn % max(len(order), 1)
            for key in order[shift:] + order[:shift]:
                peer = key[1] != "kvasir"
                if peer and len(times[key]) >= 2 and sum(times[key]) > PATIENCE_MS:
                    continue
                ms = attempt(key, lambda: active[key].run(test))
                if ms is not None:
                    times[key].append(ms)
    for key in list(active):
        attempt(key, active[key].end)
    return samples


def rows_of_phase(model, depth, seqs, tg, samples, engines, errors):
    rows = []
    for test, times in samples.items():
        name = f"pp{PP}" if test == "pp" else f"tg{tg}" + (f" x{seqs}" if seqs > 1 else "")
        for kv, variants in ENGINES.items():
            case = {"model": model.name, "type": model.kind, "test": name, "depth": depth, "kv": kv}
            rows += report.rows_of(case, {v[0]: times.get((kv, v[0]), []) for v in variants},
                                   {v[0]: errors[kv, v[0]] for v in variants if (kv, v[0]) in errors})
    return rows


def measure_model(args, model, done, keep):
    """`keep` gets the rows of each phase as it ends."""
    phases = [p for p in model.phases if (model.name, model.kind, p[0], p[1]) not in done]
    if not phases:
        return
    try:
        path = model.file()
        if not os.path.exists(path):
            raise RuntimeError(f"{path} is not there: scripts/get-model.sh")
    except RuntimeError as error:
        say(f"{model.name} {model.kind}: left out: {error}")
        return
    engines, broken = start_engines(args, path)
    try:
        for depth, seqs, tg in phases:
            say(f"{model.name} {model.kind}: depth {depth}, {seqs} sequence{'s' if seqs > 1 else ''}")
            errors = dict(broken)
            samples = measure(args, engines, errors, depth, seqs, tg)
            keep((depth, seqs), rows_of_phase(model, depth, seqs, tg, samples, engines, errors))
    finally:
        for engine in engines.values():
            engine.close()


class State:
    """Rows so far, in a file if there is one: a line for each phase, so that a run that was stopped goes on from there."""

    def __init__(self, path):
        self.path, self.rows, self.done = path, [], set()
        if path and os.path.exists(path):
            with open(path) as file:
                for line in file:
                    if line.endswith("\n"):  # else it was cut off while it was written
                        self.take(json.loads(line))

    def take(self, phase):
        self.rows += phase["rows"]
        self.done.add(tuple(phase["phase"]))

    def add(self, phase, rows):
        entry = {"phase": phase, "rows": rows}
        self.take(entry)
        if self.path:
            with open(self.path, "a") as file:
                file.write(json.dumps(entry) + "\n")


def main():
    args = parse_args()
    if args.install:
        return install(args)
    if os.getloadavg()[0] > 0.5:
        say(f"the machine has other work (load {os.getloadavg()[0]:.1f}): peers that wait in loops suffer most, ratios mean little")
    state = State(args.state)
    for model in matrix(args):
        if args.only in f"{model.name} {model.kind}":
            measure_model(args, model, state.done, lambda phase, rows, m=model: state.add([m.name, m.kind, *phase], rows))
    if args.json != "-":
        print(report.table(state.rows))
    if args.json:
        text = json.dumps(state.rows, indent=1) + "\n"
        if args.json == "-":
            sys.stdout.write(text)
        else:
            with open(args.json, "w") as file:
                file.write(text)
    if args.plot:
        with open(args.plot, "w") as file:
            file.write(report.plot(state.rows))


if __name__ == "__main__":
    main()
