"""Compares the training steps of the benchmark workloads with PyTorch's, on this machine.

    python3 tests/bench/compare.py --python VENV/bin/python [--rounds 3] [--only w2 w4] [--json FILE]

Rounds alternate between the systems, so that a drift of the machine meets all of them; a ratio is made within a round.
PyTorch is no dependency of trainc: without it, only trainc's own times are printed. To install it:

    python3 -m venv target/torch && target/torch/bin/pip install torch numpy
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEPS = {"w1": 4, "w2": 3, "w3": 12, "w4": 200}
# Settings that change which code a library runs; a comparison uses what the libraries choose themselves.
FOREIGN = ("OPENBLAS_", "MKL_", "DNNL_", "ONEDNN_", "ATEN_", "NVPL_", "GOTO_", "BLIS_")
PEERS = {
    "f32": {
        "torch": [],
        "torch compiled": ["--compile", "--written"],
        "torch tuned": ["--medium", "--compile", "--written"],
    },
    "bf16": {"torch": [], "torch tuned": ["--compile", "--written"]},
}


def environment(threads):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return kept | {"OMP_NUM_THREADS": str(threads)}


def last_json(command, threads):
    done = subprocess.run(command, env=environment(threads), capture_output=True, text=True)
    if done.returncode != 0:
        print(f"failed: {' '.join(command)}\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def commands(arguments, workload, precision):
    """The command of each system."""
    steps, threads = str(STEPS[workload]), str(arguments.threads)
    ours = [str(arguments.trainc), "bench", str(ROOT / f"dsl-examples/bench/{workload}.train")]
    ours += ["--steps", steps, "--threads", threads, "--set", f"precision={precision}", "--json"]
    found = {"trainc": ours}
    if arguments.python:
        script = [arguments.python, str(ROOT / "tests/bench/torch_step.py"), workload]
        script += ["--precision", precision, "--steps", steps, "--threads", threads]
        found |= {name: script + extra for name, extra in PEERS[precision].items()}
    chosen = {name: command for name, command in found.items() if not arguments.systems or name in arguments.systems}
    return {name: arguments.under.split() + command for name, command in chosen.items()}


def measure(arguments, workload, precision):
    rounds = []
    for _ in range(arguments.rounds):
        results = {name: last_json(command, arguments.threads)
                   for name, command in commands(arguments, workload, precision).items()}
        rounds.append({name: result for name, result in results.items() if result})
    return rounds


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def report(workload, precision, rounds):
    if not any(rounds):
        return
    print(f"\n{workload} {precision}")
    print(f"  {'system':<16} {'ms per step':>26} {'times trainc':>20} {'peak MB':>9} {'first step s':>13}")
    for name in dict.fromkeys(name for r in rounds for name in r):
        runs = [(r[name], r.get("trainc")) for r in rounds if name in r]
        times = [run["step_ms"]["median"] for run, _ in runs]
        ratios = [run["step_ms"]["median"] / ours["step_ms"]["median"] for run, ours in runs if ours]
        peak = [run["peak_bytes"]["measured"] if name == "trainc" else run["peak_bytes"] for run, _ in runs]
        first = [run["first_step_s"] for run, _ in runs]
        print(f"  {name:<16} {spread(times, 2):>26} {spread(ratios, 2) if ratios else '':>20} "
              f"{max(peak) / 1e6:>9.0f} {statistics.median(first):>13.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--trainc", type=Path, default=ROOT / "target/release/trainc")
    parser.add_argument("--python", help="an interpreter that has torch; without it, trainc alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(STEPS))
    parser.add_argument("--precision", nargs="*", default=["f32", "bf16"])
    parser.add_argument("--systems", nargs="*", help="only these rows")
    parser.add_argument("--under", default="", help="run each measurement under this command, e.g. 'taskset -c 0,1'")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    everything = {}
    for workload in arguments.only:
        for precision in arguments.precision:
            rounds = measure(arguments, workload, precision)
            everything[f"{workload} {precision}"] = rounds
            report(workload, precision, rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
