#!/usr/bin/env python3
"""Write tests/golden/feedback: GPTQ's codes of a small matrix, as its paper states the algorithm.

    python3 tools/make_feedback_golden.py

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (2022), algorithm 1:
columns in order, each error divided by the diagonal of the upper Cholesky factor of the inverse of H and subtracted from
the columns to come. src/codec/feedback.c gets to the same codes by another way (no inverse), so neither restates the
other. Everything here is float64.
"""

from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
ROWS, COLS, TOKENS, DAMPING = 24, 100, 400, 0.01
SAFE = 2e-5  # a weight as close to a cell's edge might round otherwise in float32


def gptq(weights, moments, levels, scales):
    """Codes of weights, and the least distance from a cell's edge in units of the scale."""
    w = weights.copy()
    codes = np.zeros(w.shape, np.uint16)
    factor = np.linalg.cholesky(np.linalg.inv(moments)).T  # upper: inverse = factor^T factor
    closest = np.inf
    for j in range(w.shape[1]):
        distance = np.abs(w[:, j, None] / scales[:, None] - levels[None, :])
        codes[:, j] = distance.argmin(axis=1)
        best = np.sort(distance, axis=1)
        closest = min(closest, (best[:, 1] - best[:, 0]).min())
        error = (w[:, j] - scales * levels[codes[:, j]]) / factor[j, j]
        w[:, j + 1 :] -= np.outer(error, factor[j, j + 1 :])
    return codes, closest


def make(seed, levels):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((COLS, COLS)) * np.geomspace(1, 0.02, COLS)
    inputs = (rng.standard_normal((TOKENS, COLS)) @ mixing.T).astype(np.float32)
    weights = (rng.standard_normal((ROWS, COLS)) * 0.05).astype(np.float32)
    moments = (inputs.T.astype(np.float64) @ inputs.astype(np.float64)).astype(np.float32)
    damped = moments.astype(np.float64) + DAMPING * np.mean(np.diag(moments).astype(np.float64)) * np.eye(COLS)
    scales = (np.sqrt((weights.astype(np.float64) ** 2).mean(axis=1)) / np.sqrt(np.mean(levels**2)) * 1.1).astype(np.float32)
    codes, closest = gptq(weights.astype(np.float64), damped, levels, scales.astype(np.float64))
    return weights, moments, scales, codes, closest


def main():
    levels = np.arange(-15, 16, 2, dtype=np.float64)  # codec uniform, 4 bits
    for seed in range(1000):
        weights, moments, scales, codes, closest = make(seed, levels)
        if closest > SAFE:
            break
    else:
        raise SystemExit("no seed keeps every weight away from the edges")
    folder = ROOT / "tests" / "golden" / "feedback"
    folder.mkdir(exist_ok=True)
    for name, array in (("weights", weights), ("moments", moments), ("scales", scales), ("codes", codes)):
        np.save(folder / f"{name}.npy", array)
    print(f"seed {seed}, closest to an edge {closest:.2e}")


if __name__ == "__main__":
    main()
