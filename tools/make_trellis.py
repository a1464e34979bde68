#!/usr/bin/env python3
"""Levels of the trellis codec (src/codec/trellis.c), printed as C.

    tools/make_trellis.py [--columns 60000] [--seed 1]

Lloyd's iteration with the codec's own choice of codes, the least squared error of 16 values around the ring, on
normal deviates: T. R. Fischer, M. W. Marcellin and M. Wang, "Trellis-coded vector quantization" (1991), doubled
alphabet of Marcellin and Fischer, "Trellis coded quantization of memoryless and Gauss-Markov sources" (1990). Then the
levels are rounded to int8, at the unit that costs least, and moved by one where that helps. Needs NumPy.
"""
import argparse

import numpy as np

STEPS, STATES = 16, 4


def subset_minima(x, levels):
    """Of each value and each subset p % 4: the nearest level's squared distance, and its position."""
    positions = np.empty(x.shape + (4,), np.int16)
    for s in range(4):
        own = levels[s::4]
        bounds = (own[1:] + own[:-1]) / 2
        positions[..., s] = 4 * np.searchsorted(bounds, x) + s
    return (x[..., None] - levels[positions]) ** 2, positions


def choose(x, levels):
    """Positions of least squared error of columns x[n][16] around the ring."""
    cost_of, positions = subset_minima(x, levels)
    n = len(x)
    best = np.full(n, np.inf)
    chosen = np.empty((n, STEPS), np.int16)
    for start in range(STATES):  # state: w of the row before, and of the one before that times 2
        cost = np.full((n, STATES), np.inf)
        cost[:, start] = 0
        came = np.empty((n, STEPS, STATES), np.int8)
        for t in range(STEPS):
            after = np.empty_like(cost)
            for state in range(STATES):
                w, before = state & 1, state >> 1
                a = cost[:, before] + cost_of[:, t, 2 * w + before]
                b = cost[:, before + 2] + cost_of[:, t, 2 * (w ^ 1) + before]
                came[:, t, state] = b < a
                after[:, state] = np.minimum(a, b)
            cost = after
        better = np.flatnonzero(cost[:, start] < best)
        best[better] = cost[better, start]
        state = np.full(len(better), start)
        for t in reversed(range(STEPS)):
            w2 = came[better, t, state]
            chosen[better, t] = positions[better, t, 2 * ((state & 1) ^ w2) + (state >> 1)]
            state = (state >> 1) | (w2 << 1)
    return best.sum() / x.size, chosen


def symmetric(levels):
    return (levels - levels[::-1]) / 2


def error_at_best_scale(x, levels):
    """Mean squared error when values come out as the best multiple of the levels."""
    _, chosen = choose(x, levels)
    y = levels[chosen]
    return 1 - (x * y).mean() ** 2 / (y * y).mean() / (x * x).mean()


def real_levels(x, bits, iterations):
    n = 2 << bits
    from statistics import NormalDist
    levels = np.array([3**0.5 * NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)]) * 0.9
    for _ in range(iterations):
        error, chosen = choose(x, levels)
        sums = np.bincount(chosen.ravel(), x.ravel(), n)
        counts = np.bincount(chosen.ravel(), minlength=n)
        levels = symmetric(np.where(counts > 0, sums / np.maximum(counts, 1), levels))
    return levels, error


def integer_levels(x, levels):
    best = (np.inf, None, None)
    top = levels[-1]
    for unit in np.linspace(60, 127, 68) / top:
        trial = np.maximum(np.rint(levels * unit), -127)
        error = error_at_best_scale(x * unit, trial)
        if error < best[0]:
            best = (error, unit, trial)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--columns", type=int, default=40000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bits", type=int, nargs="*", default=[2, 3, 4, 5, 6])
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    x = rng.standard_normal((args.columns, STEPS))
    fresh = rng.standard_normal((args.columns, STEPS))
    few = x[: args.columns // 4]
    print(f"/* NumPy {np.__version__}, {args.columns} columns of 16, seed {args.seed} */")
    for bits in args.bits:
        levels, _ = real_levels(x, bits, 60)
        _, unit, integers = integer_levels(few, levels)
        half = [int(v) for v in integers[len(integers) // 2 :]]
        gain = error_at_best_scale(fresh * unit, integers)
        real = error_at_best_scale(fresh, levels)
        print(f"/* {bits} bits: real-valued levels {real:.4e} */")
        print(f"{{{unit:.4f}, {gain:.5g}, {{{', '.join(map(str, half))}}}}},", flush=True)


if __name__ == "__main__":
    main()
