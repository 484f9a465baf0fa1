"""Runs of DiSK with gamma < 0, for `dp_disk.json`: python3 make_disk.py > dp_disk.json (needs numpy).

Problems, draws and the record's form are those of `dp_golden.json`, whose runs of DiSK this program repeats first, to 1e-12.
"""

import json
import pathlib

import numpy as np

GOLDEN = json.loads((pathlib.Path(__file__).parent / "dp_golden.json").read_text())
A, B = np.array(GOLDEN["data"]["A"]), np.array(GOLDEN["data"]["b"])
SIGNS, NOISE = np.array(GOLDEN["data"]["y_logistic"]), np.array(GOLDEN["data"]["noise_table_standard_normal"])
REPEATED = ["disk_nonoise", "disk_noise", "disk_onepoint_noise", "disk_c_gt1_noise", "disk_kappa1"]
RUNS = [  # name, what it is, kappa, gamma, noise, whether clipped
    ("disk_back_nonoise", "gamma=-1 as in the paper's Corollary 1, unclipped: STORM", 0.7, -1.0, False, False),
    ("disk_back_noise", "gamma=-1: gradients here and at the point before", 0.7, -1.0, True, True),
    ("disk_back_slow_noise", "gamma=-1, weights of -9 and 10", 0.1, -1.0, True, True),
    ("disk_back_half_noise", "gamma=-0.5: the second point halfway back", 0.6, -0.5, True, True),
]


def gradients(problem, x):
    if problem == "quadratic":
        return A * (A @ x - B)[:, None]
    return -(SIGNS / (1 + np.exp(SIGNS * (A @ x))))[:, None] * A


def run(problem, kappa, gamma, noise, clipped):
    name, bound, sigma, rate = (problem[key] for key in ("problem", "C", "sigma", "lr_sgd"))
    c = (1 - kappa) / (kappa * gamma)
    x, d, g = np.array(GOLDEN["data"]["x0"]), np.zeros(3), None
    for t in range(8):
        combined = c * gradients(name, x + gamma * d) + (1 - c) * gradients(name, x)
        norms = np.linalg.norm(combined, axis=1)
        factors = np.minimum(1, bound / norms) if clipped else np.ones(4)
        private = (factors @ combined + (sigma * bound * NOISE[t] if noise else 0)) / 4
        g = private if g is None else (1 - kappa) * g + kappa * private
        after = x - rate * g
        row = {"x": x, "d_prev": d, "filtered": g, "norms": norms, "factors": factors, "private_grad": private, "x_next": after}
        yield {"t": t, **{key: value.tolist() for key, value in row.items()}}
        x, d = after, after - x


def storm(problem, kappa):
    """The same parameters by another formula (Cutkosky and Orabona 2019), for gamma = -1 without clipping and noise."""
    x, g, last = np.array(GOLDEN["data"]["x0"]), None, None
    for _ in range(8):
        here = gradients(problem["problem"], x).mean(axis=0)
        g = here if g is None else here + (1 - kappa) * (g - gradients(problem["problem"], last).mean(axis=0))
        x, last = x - problem["lr_sgd"] * g, x
    return x


def check(problem):
    for known in (trace for trace in problem["traces"] if trace["name"] in REPEATED):
        for mine, theirs in zip(run(problem, known["kappa"], known["gamma"], known["noise"], True), known["steps"]):
            for key in ("norms", "private_grad", "filtered", "x_next"):
                assert np.allclose(mine[key], theirs[key], rtol=0, atol=1e-12), (known["name"], key)
    back = list(run(problem, 0.7, -1.0, False, False))
    assert np.allclose(back[-1]["x_next"], storm(problem, 0.7), rtol=0, atol=1e-12)


def traces(problem):
    for name, description, kappa, gamma, noise, clipped in RUNS:
        yield {
            "name": name, "description": description, "method": "disk", "clip": {"kind": "abadi" if clipped else "none"},
            "noise": noise, "opt": "sgd", "kappa": kappa, "gamma": gamma, "gain": kappa, "sigma_divisor": 1.0,
            "init": "first_grad", "steps": list(run(problem, kappa, gamma, noise, clipped)),
        }


def main():
    problems = []
    for problem in GOLDEN["problems"]:
        check(problem)
        head = {key: problem[key] for key in ("problem", "C", "sigma", "lr_sgd")}
        problems.append({**head, "traces": list(traces(problem))})
    print(json.dumps({"data": GOLDEN["data"], "problems": problems}, indent=1))


main()
