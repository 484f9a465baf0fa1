"""Compares the training steps of the benchmark workloads with PyTorch's, on this machine.

    python3 tests/bench/compare.py w4 [--python target/torch/bin/python] [--rounds 3] [--precision f32 bf16]
    python3 tests/bench/compare.py --table

A call measures one workload and adds it to `target/bench.json`; `--table` prints all that is there in Markdown. Rounds
alternate between the systems, every other one backwards, so that a drift of the machine meets all of them; a ratio is made
within a round. Each measurement is a process of its own (`--under` runs it under another command, such as one that waits for
a quiet machine).

PyTorch is no dependency of trainc: without it, only trainc's own times are printed. To install it:

    python3 -m venv target/torch && target/torch/bin/pip install torch numpy
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Timed steps: a few seconds of each system.
STEPS = {"w1": 4, "w2": 3, "w3": 12, "w4": 200}
# The loss before the first and before the fourth update, as published for these initial values.
LOSSES = {"w1": (11.05648, 8.43941), "w2": (5.61925, 5.16266), "w3": (4.88039, 4.70358), "w4": (2.59728, 2.25107)}
# How far the two may be off, with factors in f32 and rounded to bf16.
EXACT, ROUNDED = (1e-4, 1e-3), (2e-2, 1e-1)
# Settings that change which code a library runs; a comparison uses what the libraries choose themselves.
FOREIGN = ("OPENBLAS_", "MKL_", "DNNL_", "ONEDNN_", "ATEN_", "NVPL_", "GOTO_", "BLIS_")
DEFAULT = "torch"
PEERS = {
    "f32": {
        DEFAULT: [],
        "torch compiled": ["--compile", "--written"],
        "torch tuned": ["--medium", "--compile", "--written"],
    },
    "bf16": {DEFAULT: [], "torch tuned": ["--compile", "--written"]},
}


def environment(threads, cache):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return kept | {"OMP_NUM_THREADS": str(threads), "TORCHINDUCTOR_CACHE_DIR": cache}


def last_json(command, arguments, cache):
    """What a command prints in its last line; `None`, with a word about it, if it fails."""
    try:
        done = subprocess.run(arguments.under.split() + command, env=environment(arguments.threads, cache),
                              capture_output=True, text=True, timeout=arguments.limit)
        if done.returncode == 0:
            return json.loads(done.stdout.strip().splitlines()[-1])
        reason = done.stderr[-2000:]
    except (subprocess.TimeoutExpired, OSError, ValueError, IndexError) as error:
        reason = error
    print(f"failed: {' '.join(command)}\n{reason}", file=sys.stderr)
    return None


def commands(arguments, precision):
    """The command of each system."""
    workload, steps, threads = arguments.workload, str(STEPS[arguments.workload]), str(arguments.threads)
    ours = [str(arguments.trainc), "bench", str(ROOT / f"dsl-examples/bench/{workload}.train")]
    ours += ["--steps", steps, "--threads", threads, "--set", f"precision={precision}", "--json"]
    found = {"trainc": ours}
    if arguments.python:
        script = [arguments.python, str(ROOT / "tests/bench/torch_step.py"), workload]
        script += ["--precision", precision, "--steps", steps, "--threads", threads]
        found |= {name: script + extra for name, extra in PEERS[precision].items()}
    return {name: command for name, command in found.items() if not arguments.systems or name in arguments.systems}


def facts(name, result):
    """The same facts of each system: milliseconds, seconds to the first step, bytes, two losses."""
    peak = result["peak_bytes"]
    losses = result["losses"]
    return {
        "step_ms": result["step_ms"]["median"],
        "first_step_s": result["first_step_s"],
        "peak_bytes": peak["measured"] if name == "trainc" else peak,
        "losses": [losses[0], losses[3]],
    }


def measure(arguments, precision):
    """Rounds of facts by system. Compiled code is kept between rounds, so that the first one alone compiles it."""
    rounds = []
    with tempfile.TemporaryDirectory() as cache:
        for number in range(arguments.rounds):
            order = list(commands(arguments, precision).items())
            results = {}
            for name, command in order if number % 2 == 0 else reversed(order):
                if result := last_json(command, arguments, cache):
                    results[name] = facts(name, result)
                    print(f"{arguments.workload} {precision} round {number + 1}: {name} {results[name]['step_ms']:.2f} ms",
                          file=sys.stderr, flush=True)
            rounds.append({name: results[name] for name, _ in order if name in results})
    return rounds


def spread(values, digits=2):
    if not values:
        return "-"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def of(rounds, name, fact):
    return [r[name][fact] for r in rounds if name in r]


def ratios(rounds, peer):
    """A peer's time over trainc's, by round."""
    return [r[peer]["step_ms"] / r["trainc"]["step_ms"] for r in rounds if peer in r and "trainc" in r]


def best_peer(rounds):
    peers = {name: of(rounds, name, "step_ms") for r in rounds for name in r if name != "trainc"}
    return min(peers, key=lambda name: statistics.median(peers[name]), default=None)


def tolerances(name, precision):
    rounded = precision == "bf16" or "--medium" in PEERS[precision].get(name, [])
    return ROUNDED if rounded else EXACT


def wrong_losses(workload, precision, rounds):
    """Systems whose losses are not the published ones: they do not train the same model."""
    off = {name for r in rounds for name, result in r.items() for found, published, tolerance in
           zip(result["losses"], LOSSES[workload], tolerances(name, precision))
           if found is None or not abs(found - published) <= tolerance}
    return sorted(off)


def report(workload, precision, rounds):
    print(f"\n{workload} {precision}")
    print(f"  {'system':<16} {'ms per step':>26} {'times trainc':>20} {'peak MB':>9} {'first step s':>13}   losses")
    for name in dict.fromkeys(name for r in rounds for name in r):
        losses = [f"{statistics.median(loss):.5f}" for loss in zip(*of(rounds, name, "losses"))]
        print(f"  {name:<16} {spread(of(rounds, name, 'step_ms')):>26} {spread(ratios(rounds, name)):>20} "
              f"{max(of(rounds, name, 'peak_bytes')) / 1e6:>9.0f} {max(of(rounds, name, 'first_step_s')):>13.2f}   "
              f"{' '.join(losses)}", flush=True)
    for name in wrong_losses(workload, precision, rounds):
        print(f"  {name} does not train the same model: losses of {LOSSES[workload]} were expected")


def table(measured):
    print("| workload | precision | trainc, ms | best of PyTorch, ms | best PyTorch / trainc | PyTorch's defaults / trainc "
          "| peak memory, MB | first step, s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for key, entry in sorted(measured.items()):
        workload, precision = key.split()
        rounds = entry["rounds"]
        peer = best_peer(rounds)
        if not of(rounds, "trainc", "step_ms") or peer is None:
            continue
        memory = [max(of(rounds, name, "peak_bytes")) for name in ("trainc", peer)]
        first = [max(of(rounds, name, "first_step_s")) for name in ("trainc", peer)]
        print(f"| {workload.upper()} | {precision} | {spread(of(rounds, 'trainc', 'step_ms'))} "
              f"| {spread(of(rounds, peer, 'step_ms'))}, {peer} | {spread(ratios(rounds, peer))} "
              f"| {spread(ratios(rounds, DEFAULT))} | {memory[0] / 1e6:.0f} / {memory[1] / 1e6:.0f} = "
              f"{memory[0] / memory[1]:.2f} | {first[0]:.1f} / {first[1]:.1f} |")
    for machine in sorted({f"{entry['machine']}, {entry['date']}" for entry in measured.values()}):
        print(f"\n{machine}")


def machine(threads):
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {threads} threads"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("workload", nargs="?", choices=list(STEPS))
    parser.add_argument("--trainc", type=Path, default=ROOT / "target/release/trainc")
    parser.add_argument("--python", help="an interpreter that has torch; without it, trainc alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", nargs="*", default=["f32", "bf16"], choices=list(PEERS))
    parser.add_argument("--systems", nargs="*", help="only these rows")
    parser.add_argument("--under", default="", help="run each measurement under this command, e.g. 'taskset -c 0,1'")
    parser.add_argument("--limit", type=float, default=600, help="seconds that a measurement may take")
    parser.add_argument("--json", type=Path, default=ROOT / "target/bench.json")
    parser.add_argument("--table", action="store_true", help="print what has been measured")
    arguments = parser.parse_args()
    measured = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    for precision in arguments.precision if arguments.workload else []:
        rounds = measure(arguments, precision)
        report(arguments.workload, precision, rounds)
        measured[f"{arguments.workload} {precision}"] = {
            "rounds": rounds, "machine": machine(arguments.threads), "date": datetime.date.today().isoformat()}
        arguments.json.write_text(json.dumps(measured, indent=1))
    if arguments.table:
        table(measured)


if __name__ == "__main__":
    main()
