"""How a step's time grows with depth and with the batch: the small GPT of `dsl-examples/bench/w3.train`, one of the two varied.

    python3 tests/bench/growth.py [--rounds 2] [--json FILE]

Times are medians over rounds that alternate between the sizes. They are compared with the straight line of least squared
relative errors; `off` is the distance from it.
"""

import argparse
import json
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"depth": [2, 4, 8, 16], "batch": [8, 16, 32, 64]}


def step_ms(arguments, setting):
    command = [str(arguments.trainc), "bench", str(ROOT / "dsl-examples/bench/w3.train"), "--set", setting]
    command += ["--steps", str(arguments.steps), "--threads", str(arguments.threads), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["step_ms"]["median"]


def line(sizes, times):
    """Intercept and slope of the line with the least sum of squared relative errors."""
    weights = [1 / time**2 for time in times]

    def mean(values):
        return sum(w * v for w, v in zip(weights, values)) / sum(weights)

    size, time = mean(sizes), mean(times)
    slope = mean([(s - size) * (t - time) for s, t in zip(sizes, times)]) / mean([(s - size) ** 2 for s in sizes])
    return time - slope * size, slope


def report(name, sizes, times):
    start, slope = line(sizes, times)
    print(f"| {name} | ms per step | line | off |\n| --- | --- | --- | --- |")
    for size, time in zip(sizes, times):
        fit = start + slope * size
        print(f"| {size} | {time:.1f} | {fit:.1f} | {100 * (time / fit - 1):+.1f} % |")
    print()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--trainc", type=Path, default=ROOT / "target/release/trainc")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    times = {name: {size: [] for size in sizes} for name, sizes in SIZES.items()}
    for _ in range(arguments.rounds):
        for name, of_size in times.items():
            for size, found in of_size.items():
                found.append(step_ms(arguments, f"{name}={size}"))
    for name, of_size in times.items():
        report(name, list(of_size), [statistics.median(found) for found in of_size.values()])
    if arguments.json:
        arguments.json.write_text(json.dumps(times, indent=1))


if __name__ == "__main__":
    main()
