#!/usr/bin/env python3
"""Write tests/golden/fidelity: two models' logits, and what torch, transformers and NumPy say about their difference.

    python3 tools/make_fidelity_golden.py

KL, cross entropy and top-k come from torch in double precision, the filters from transformers' logits processors, quantiles and the
bootstrap from NumPy. Of the filtered distributions P (reference) and Q (model):
    kl       sum over what P keeps of P log(P / Q'), Q' the model's softmax over the same tokens
    overlap  sum of min(P, Q)
    missed   sum of P over what Q drops
    one_draw, coupled: tokens of the reference and of the model, by the draws that src/measure/strategies.c documents.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

OUT = Path(__file__).resolve().parent.parent / "tests" / "golden" / "fidelity"
POSITIONS, VOCAB, TOP = 48, 301, 10
STRATEGIES = {
    "temperature 0.7": [TemperatureLogitsWarper(0.7)],
    "temperature 1": [],
    "top-k 40": [TopKLogitsWarper(40)],
    "top-p 0.9": [TopPLogitsWarper(float(np.float32(0.9)))],
    "min-p 0.05": [MinPLogitsWarper(float(np.float32(0.05)))],
}
MASK = (1 << 64) - 1


def mix(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & MASK
    return x ^ x >> 31


def draw(position, stream):
    return ((mix((mix(position) + stream) & MASK) >> 11) + 0.5) * 2.0**-53


def filtered(logits, warpers):
    """Log-probabilities after the filters; -inf for what they drop. float64."""
    scores = logits[None, :]
    if not any(isinstance(w, TemperatureLogitsWarper) for w in warpers):
        scores = TemperatureLogitsWarper(1.0)(None, scores)
    for warper in warpers:
        scores = warper(None, scores)
    return torch.log_softmax(scores[0], -1)


def one_draw(log_p, u):
    order = torch.sort(log_p, descending=True, stable=True).indices
    kept = order[torch.isfinite(log_p[order])]
    total = torch.cumsum(log_p[kept].exp(), 0)
    return int(kept[min(int((total <= u).sum()), len(kept) - 1)])


def coupled(log_p, position):
    noise = torch.tensor([-math.log(-math.log(draw(position, 1 + i))) for i in range(len(log_p))], dtype=torch.float64)
    return int(torch.argmax(log_p + noise))


def strategy(reference, model, warpers, position):
    p, q = filtered(reference, warpers), filtered(model, warpers)
    kept = torch.isfinite(p)
    temperature = 0.7 if any(isinstance(w, TemperatureLogitsWarper) for w in warpers) else 1.0
    q_on_kept = torch.log_softmax(model[kept] / temperature, -1)
    u = draw(position, 0)
    return {
        "kl": float((p[kept].exp() * (p[kept] - q_on_kept)).sum()),
        "overlap": float(torch.minimum(p.exp(), q.exp()).sum()),
        "missed": float(p.exp()[~torch.isfinite(q)].sum()),
        "one_draw": [one_draw(p, u), one_draw(q, u)],
        "coupled": [coupled(p, position), coupled(q, position)],
    }


def main():
    rng = np.random.default_rng(20240711)
    spread = rng.uniform(0.5, 4.0, (POSITIONS, 1))
    reference = (rng.standard_normal((POSITIONS, VOCAB)) * spread).astype(np.float32)
    noise = rng.standard_normal((POSITIONS, VOCAB)) * rng.uniform(0.01, 1.0, (POSITIONS, 1))
    model = (reference + noise).astype(np.float32)
    targets = rng.integers(0, VOCAB, POSITIONS)
    a, b = torch.from_numpy(reference).double(), torch.from_numpy(model).double()
    log_p, log_q = torch.log_softmax(a, -1), torch.log_softmax(b, -1)
    kl = torch.nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    top_a, top_b = torch.topk(a, TOP).indices, torch.topk(b, TOP).indices
    where = torch.arange(POSITIONS), torch.from_numpy(targets)
    # bootstrap of mean(kl) over blocks of unequal length, ratio of sums
    sizes = rng.integers(2, 9, 16)
    sums = rng.gamma(2.0, 0.01, 16) * sizes
    picks = rng.integers(0, 16, (200000, 16))
    means = sums[picks].sum(1) / sizes[picks].sum(1)
    expected = {
        "kl": kl.tolist(),
        "same_argmax": (a.argmax(-1) == b.argmax(-1)).tolist(),
        "top10_shared": [len(set(x.tolist()) & set(y.tolist())) for x, y in zip(top_a, top_b)],
        "ppl_ref": float(torch.exp(torch.nn.functional.cross_entropy(a, where[1]))),
        "ppl": float(torch.exp(torch.nn.functional.cross_entropy(b, where[1]))),
        "quantiles": {str(s): float(np.quantile(kl.numpy(), s, method="inverted_cdf")) for s in (0.5, 0.9, 0.99, 0.999)},
        "bootstrap": {
            "sums": sums.tolist(),
            "counts": sizes.tolist(),
            "interval": np.quantile(means, [0.025, 0.975]).tolist(),
        },
        "strategies": {name: [strategy(a[i], b[i], w, i) for i in range(POSITIONS)] for name, w in STRATEGIES.items()},
    }
    OUT.mkdir(parents=True, exist_ok=True)
    np.save(OUT / "reference.npy", reference)
    np.save(OUT / "model.npy", model)
    np.save(OUT / "targets.npy", targets.astype(np.int32))
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


main()
