#!/usr/bin/env python3
"""Kvasir's server beside others, under the same load on the same machine.

  bench/serve_peers.py -m model.gguf --peer-python ~/peer/bin/python
  bench/serve_peers.py -m model.gguf --peer llama-server='llama-server -m {model} --port {port} -t {threads} -c {ctx} -np 8'

--peer-python names an interpreter that has llama-cpp-python[server]; that server answers one request after another, so
with several clients its time to first token is mostly waiting. --peer NAME=COMMAND adds any other server of OpenAI's
routes; {model} {port} {threads} {ctx} are filled in.

In each round every server is started afresh, answers every case (clients x shared prefix) and is stopped; the order of
the servers turns from round to round. Servers never run at the same time. Every case has a seed of its own, the same
for all servers, so no case finds the prefixes of another. `kvasir bench serve` is the client for all. The table shows
medians over rounds; ratios are Kvasir's advantage: above 1 it is faster or smaller. Needs the standard library only.
"""
import argparse
import json
import os
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
# What is measured: key of a row, key in the result of bench serve, heading, whether less is better.
MEASURES = [
    ("ttft_ms", lambda r: r["median_ttft_ms"], "TTFT ms", True),
    ("tpot_ms", lambda r: r["median_tpot_ms"], "TPOT ms", True),
    ("tok_s", lambda r: r["output_throughput"], "tok/s", False),
    ("peak_mib", lambda r: (r["server_memory"]["resident_peak_bytes"] or 0) / 2**20, "peak MiB", True),
]


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True, help="GGUF file, the same for all servers")
    parser.add_argument("--kvasir", default=os.path.join(HERE, "..", "build", "kvasir"), help="the binary (build/kvasir)")
    parser.add_argument("--kvasir-flags", default="", help="further flags of kvasir serve, in one string")
    parser.add_argument("--peer-python", help="interpreter that has llama-cpp-python[server]")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND", help="another server")
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-c", "--ctx", type=int, default=4096, help="longest sequence")
    parser.add_argument("--clients", default="1,4,8", help="numbers of clients at once")
    parser.add_argument("--prefixes", default="0,1500", help="tokens that all requests share")
    parser.add_argument("--requests", type=int, default=4, help="requests of a case for each client")
    parser.add_argument("--input-len", type=int, default=256, help="a request's own prompt tokens")
    parser.add_argument("--output-len", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", help="write rows as JSON, - for standard output in place of the table")
    args = parser.parse_args()
    try:
        args.clients = [int(n) for n in args.clients.split(",")]
        args.prefixes = [int(n) for n in args.prefixes.split(",")]
    except ValueError:
        parser.error("--clients and --prefixes take whole numbers separated by commas")
    for path in (args.model, args.kvasir, args.peer_python):
        if path and not os.path.exists(path):
            parser.error(f"{path}: no such file")
    if not all("=" in peer for peer in args.peer):
        parser.error("--peer takes NAME=COMMAND")
    return args


def engines(args):
    """Name and command of each server, Kvasir first."""
    found = {"kvasir": [args.kvasir, "serve", "-m", "{model}", "--host", "127.0.0.1", "--port", "{port}", "-t", "{threads}",
                        "-c", "{ctx}", *shlex.split(args.kvasir_flags)]}
    if args.peer_python:
        # Without interrupt_requests=false a new request ends the stream of the one before.
        found["llama_cpp.server"] = [args.peer_python, "-m", "llama_cpp.server", "--model", "{model}", "--host", "127.0.0.1",
                                     "--port", "{port}", "--n_threads", "{threads}", "--n_threads_batch", "{threads}",
                                     "--n_ctx", "{ctx}", "--interrupt_requests", "false"]
    for peer in args.peer:
        name, command = peer.split("=", 1)
        found[name] = shlex.split(command)
    return found


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A server process from its start to its end."""

    def __init__(self, name, command, args):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        values = {"model": args.model, "port": port, "threads": args.threads, "ctx": args.ctx}
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen([word.format(**values) for word in command], stdout=self.log, stderr=self.log,
                                        start_new_session=True)
        self.name = name

    def __enter__(self):
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(self.url + "/v1/models", timeout=5).close()
                return self
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        self.__exit__()
        self.log.seek(0)
        sys.exit(f"serve_peers: {self.name} did not start:\n" + self.log.read()[-2000:].decode(errors="replace"))

    def __exit__(self, *_):
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                os.killpg(self.process.pid, sign)
            try:
                return self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                continue


def measure(args, server, clients, prefix, seed):
    command = [args.kvasir, "bench", "serve", "--base-url", server.url, "--json", "--num-prompts", clients * args.requests,
               "--max-concurrency", clients, "--input-len", args.input_len, "--output-len", args.output_len, "--ignore-eos",
               "--num-warmups", 1, "--seed", seed, "--server-pid", server.process.pid]
    if prefix:
        command += ["--prefix-len", prefix]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"serve_peers: {server.name}, {clients} clients, prefix {prefix}: {done.stderr.strip()}")
    result = json.loads(done.stdout)
    for failure in result["failures"]:
        print(f"serve_peers: {server.name}, {clients} clients, prefix {prefix}: {failure['count']} x {failure['kind']}: "
              f"{failure['first_message']}", file=sys.stderr)
    return result


def run(args):
    """Results of every (clients, prefix, engine), one for each round."""
    results = {}
    commands = list(engines(args).items())
    for round_number in range(args.rounds):
        turn = round_number % len(commands)
        for name, command in commands[turn:] + commands[:turn]:
            with Server(name, command, args) as server:
                for case, (clients, prefix) in enumerate((c, p) for p in args.prefixes for c in args.clients):
                    print(f"round {round_number + 1}: {name}, {clients} clients, prefix {prefix}", file=sys.stderr)
                    result = measure(args, server, clients, prefix, seed=1000 * round_number + case)
                    results.setdefault((clients, prefix, name), []).append(result)
    return results


def rows_of(args, results):
    rows = []
    for (clients, prefix, engine), runs in results.items():
        row = {"model": os.path.basename(args.model), "threads": args.threads, "clients": clients, "prefix": prefix,
               "engine": engine, "failed": sum(r["failed"] for r in runs),
               "input_tokens": statistics.median(r["total_input_tokens"] for r in runs),
               "output_tokens": statistics.median(r["total_output_tokens"] for r in runs),
               "cached_share": [r["cached_share"] for r in runs]}
        for key, take, _, less in MEASURES:
            row[key] = [take(r) for r in runs]
            row["median_" + key] = statistics.median(row[key])
            # Ratios are of the same round, which had the same load.
            own = [take(r) for r in results[(clients, prefix, "kvasir")]]
            pairs = [(peer, mine) if less else (mine, peer) for mine, peer in zip(own, row[key])]
            ratios = [a / b for a, b in pairs if b > 0]
            row["ratio_" + key] = statistics.median(ratios) if ratios and engine != "kvasir" else None
        rows.append(row)
    return sorted(rows, key=lambda r: (r["prefix"], r["clients"], r["engine"] != "kvasir", r["engine"]))


def marks(row, rows):
    """* where requests failed, ~ where the answers' tokens differ from Kvasir's by more than a twentieth."""
    own = next(r for r in rows if (r["clients"], r["prefix"], r["engine"]) == (row["clients"], row["prefix"], "kvasir"))
    differs = abs(row["output_tokens"] - own["output_tokens"]) > own["output_tokens"] / 20
    return ("*" if row["failed"] else "") + ("~" if differs else "")


def table(rows):
    head = ["clients", "prefix", "engine", *[m[2] for m in MEASURES], "cached", *["x " + m[2].split()[0] for m in MEASURES]]
    lines = [head]
    for row in rows:
        cached = [share for share in row["cached_share"] if share is not None]
        lines.append([str(row["clients"]), str(row["prefix"]), row["engine"] + marks(row, rows),
                      *[f"{row['median_' + m[0]]:.1f}" for m in MEASURES],
                      f"{100 * statistics.median(cached):.0f} %" if cached else "?",
                      *[f"{r:.2f}" if (r := row["ratio_" + m[0]]) is not None else "" for m in MEASURES]])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    every = "".join(marks(row, rows) for row in rows)
    if "*" in every:
        text.append("* some requests failed; they are in no number")
    if "~" in every:
        text.append("~ generated more or fewer tokens than Kvasir under the same load")
    return "\n".join(text)


def main():
    args = parse_args()
    rows = rows_of(args, run(args))
    if args.json != "-":
        print(table(rows))
    if args.json:
        text = json.dumps(rows, indent=1) + "\n"
        if args.json == "-":
            sys.stdout.write(text)
        else:
            with open(args.json, "w") as f:
                f.write(text)


if __name__ == "__main__":
    main()
