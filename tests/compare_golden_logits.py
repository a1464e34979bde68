"""Compares `qins logits` with the goldens of transformers in FP32 (tests/golden/README.md).

compare_golden_logits.py STEM LOGITS.npy: prints the largest difference over the golden columns and the top two of every position, and how many
positions have another argmax although the reference's top two are more than 4e-3 apart. Exits 1 above 2e-3, or with any of those.
"""
import os
import sys

import numpy as np

MAX_DIFFERENCE, MARGIN = 2e-3, 4e-3


def main():
    stem, path = sys.argv[1:]
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "logits")
    columns, expected, top_ids, top = (np.load(f"{folder}/{stem}_{name}.npy") for name in ("columns", "logits", "top2_ids", "top2_logits"))
    logits = np.load(path, mmap_mode="r")
    assert logits.shape[0] == expected.shape[0], logits.shape
    worst, flips = 0.0, 0
    for i, row in enumerate(logits):
        worst = max(worst, np.abs(row[columns] - expected[i]).max(), np.abs(row[top_ids[i]] - top[i]).max())
        flips += row.argmax() != top_ids[i, 0] and top[i, 0] - top[i, 1] > MARGIN
    print(f"{len(logits)} positions, largest difference {worst:.2e}, {flips} other argmax beyond the margin")
    sys.exit(1 if worst > MAX_DIFFERENCE or flips else 0)


main()
