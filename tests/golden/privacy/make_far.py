"""Epsilons far from practical values, for `far.csv`: python3 make_far.py > far.csv (needs numpy and scipy).

PLD: connect the dots on a grid that is fine enough for the row, composed by one plain transform of the whole support.
RDP: moments by brute-force sums over outputs, the least over a dense list of orders from 1.00001 to 1000.
"""

import numpy as np
from scipy.special import ndtr

ROWS = [  # q, sigma, steps, delta, grid
    (0.1, 0.05, 10, 1e-5, 2e-3),
    (0.5, 0.3, 20, 1e-5, 1e-3),
    (0.5, 0.15, 30, 1e-6, 1e-2),
    (0.45, 0.8, 200, 1e-5, 1e-4),
    (1.3e-4, 2.58, 8, 8.6e-7, 1e-7),
    (1e-3, 20, 100, 1e-5, 5e-7),
    (1e-5, 1.0, 50, 1e-7, 1e-7),
    (0.01, 1.0, 1000, 1e-5, 1e-4),
    (0.2, 8.0, 400, 3.364e-4, 1e-5),
]
TAIL = 1e-18


def loss(q, s, x):
    t = (2 * x - 1) / (2 * s * s)
    return np.where(t > 40, t + np.log(q) + np.log1p((1 - q) / q * np.exp(-np.maximum(t, 0))),
                    np.log1p(q * np.expm1(np.minimum(t, 700))))


def output(q, s, at):
    with np.errstate(all="ignore"):
        far = s * s * (at - np.log(q) + np.log1p((q - 1) * np.exp(-at))) + 0.5
        ratio = np.expm1(np.minimum(at, 700)) / q
        near = np.where(ratio <= -1, -np.inf, s * s * np.log1p(np.maximum(ratio, -1)) + 0.5)
    return np.where(at > 40, far, near)


def between(a, b):
    return np.where(a > 0, ndtr(-a) - ndtr(-b), ndtr(b) - ndtr(a))


def discrete(q, s, h, removed):
    reach = s * np.sqrt(-2 * np.log(TAIL))
    ends = [loss(q, s, -reach), loss(q, s, 1 + reach)] if removed else [-loss(q, s, reach), -loss(q, s, -reach)]
    first, last = int(np.floor(float(ends[0]) / h)), int(np.ceil(float(ends[1]) / h))
    at = np.arange(first, last + 1) * h
    x = output(q, s, at if removed else -at)
    if removed:
        other = between(x[:-1] / s, x[1:] / s)
        here = (1 - q) * other + q * between((x[:-1] - 1) / s, (x[1:] - 1) / s)
        below = (1 - q) * ndtr(x[0] / s) + q * ndtr((x[0] - 1) / s)
        infinite = (1 - q) * ndtr(-x[-1] / s) + q * ndtr(-(x[-1] - 1) / s)
    else:
        here = between(x[1:] / s, x[:-1] / s)
        other = (1 - q) * here + q * between((x[1:] - 1) / s, (x[:-1] - 1) / s)
        below, infinite = ndtr(-x[0] / s), ndtr(x[-1] / s)
    with np.errstate(all="ignore"):
        up = np.nan_to_num((here - np.exp(np.log(other) + at[:-1])) / -np.expm1(-h))
    up = np.clip(up, 0, here)
    mass = np.zeros(len(at))
    mass[0] += below
    mass[:-1] += here - up
    mass[1:] += up
    return first, mass, infinite


def pld(q, s, steps, delta, h):
    epsilons = []
    for removed in (True, False):
        first, mass, infinite = discrete(q, s, h, removed)
        full = steps * (len(mass) - 1) + 1
        size = 1 << int(np.ceil(np.log2(full)))
        sums = np.maximum(np.fft.irfft(np.fft.rfft(mass, size) ** steps, size)[:full], 0)
        losses = (np.arange(full) + steps * first) * h
        infinite = -np.expm1(steps * np.log1p(-infinite))
        low, high = 0.0, float(losses[-1])
        for _ in range(70):
            middle = 0.5 * (low + high)
            above = losses > middle
            if infinite + np.sum(sums[above] * -np.expm1(middle - losses[above])) > delta:
                low = middle
            else:
                high = middle
        epsilons.append(high)
    return max(epsilons)


def rdp(q, s, steps, delta):
    best = np.inf
    for order in 1 + np.logspace(-5, 3, 1600):
        z = np.linspace(-12 * s, order + 12 * s, 60_001)
        terms = -0.5 * (z / s) ** 2 + order * loss(q, s, z)
        top = terms.max()
        log_a = top + np.log(np.sum(np.exp(terms - top)) * (z[1] - z[0])) - np.log(s * np.sqrt(2 * np.pi))
        divergence = max(log_a, 0.0) / (order - 1)
        best = min(best, steps * divergence + np.log1p(-1 / order) - (np.log(delta) + np.log(order)) / (order - 1))
    return best


print("# made by make_far.py: the PLD is an upper bound on its own grid")
print("q,sigma,steps,delta,grid,eps_pld,eps_rdp")
for row in ROWS:
    print(",".join(map(repr, row)), f"{pld(*row):.10g}", f"{rdp(*row[:4]):.10g}", sep=",")
