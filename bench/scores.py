"""How far the logits of a model are from those of the reference: both by `qins logits`, compared in NumPy.

The measures are those of `qins verify` (docs/measuring.md): Kullback-Leibler divergence KL(reference || model) in nats a token, its 99 %
quantile, agreement of the best token, share of the reference's ten likeliest among the model's ten, perplexity. `qins verify` runs both models each time;
here the reference runs once and its logits are kept, which halves the time of a long list.
"""
import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np

from qins_program import qins

TOP = 10


def logits(program, model, ids, threads, folder):
    """Returns FP32 logits [n][vocabulary] of token ids from an empty context, with an FP32 cache."""
    out = str(Path(folder) / "logits.npy")
    qins(program, "logits", str(model), "--ids", ",".join(map(str, ids)), "--kv-bits", "32", "--no-check", "--threads", str(threads), "--out", out)
    return np.load(out)


def log_sum_exp(rows):
    """Returns the logarithm of the sum of exponentials of each row, and the row's largest value."""
    most = rows.max(axis=1, keepdims=True)
    return np.log(np.exp(rows - most).sum(axis=1, dtype=np.float64)) + most[:, 0], most


def compare(reference, model, targets):
    """Returns per position: KL, same best token, share of the top ten, log-probabilities of the targets by both."""
    ref_sum, most = log_sum_exp(reference)
    own_sum, _ = log_sum_exp(model)
    probability = np.exp(reference - ref_sum[:, None].astype(np.float32))
    kl = (probability * (reference - model)).sum(axis=1, dtype=np.float64) - (ref_sum - own_sum)
    same = reference.argmax(axis=1) == model.argmax(axis=1)
    top = [np.sort(np.argpartition(-rows, TOP, axis=1)[:, :TOP], axis=1) for rows in (reference, model)]
    shared = np.array([len(np.intersect1d(a, b)) for a, b in zip(*top)]) / TOP
    rows = np.arange(len(targets))
    return kl, same, shared, reference[rows, targets] - ref_sum[: len(targets)], model[rows, targets] - own_sum[: len(targets)]


class Scorer:
    """The reference and texts that are scored: {name: token ids}, in windows of ctx."""

    def __init__(self, program, reference, reference_hash, texts, ctx, threads, work):
        self.program, self.reference, self.texts, self.ctx, self.threads, self.work = program, reference, texts, ctx, threads, Path(work)
        self.cache = self.work / f"reference-{reference_hash}"
        self.cache.mkdir(parents=True, exist_ok=True)

    def windows(self, name):
        ids = self.texts[name]
        return [ids[i : i + self.ctx] for i in range(0, len(ids), self.ctx)]

    def reference_logits(self, window):
        path = self.cache / (hashlib.sha256(json.dumps(window).encode()).hexdigest()[:16] + ".npy")
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=self.work) as folder:
                part = path.with_suffix(".part.npy")
                np.save(part, logits(self.program, self.reference, window, self.threads, folder))
                part.replace(path)
        return np.load(path)

    def score(self, model, names=None):
        """Returns {text: {kl_mean, kl_p99, top1, top10_overlap, ppl_ref, ppl}} of a model."""
        return {name: self.score_text(model, name) for name in names or self.texts}

    def score_text(self, model, name):
        parts = []
        for window in self.windows(name):
            with tempfile.TemporaryDirectory(dir=self.work) as folder:
                own = logits(self.program, model, window, self.threads, folder)
            parts.append(compare(self.reference_logits(window), own, np.array(window[1:])))
        kl, same, shared, ref_target, target = (np.concatenate(values) for values in zip(*parts))
        return {"tokens": len(kl), "kl_mean": float(kl.mean()), "kl_p99": float(np.quantile(kl, 0.99, method="inverted_cdf")), "top1": float(same.mean()), "top10_overlap": float(shared.mean()),
                "ppl_ref": float(np.exp(-ref_target.mean())), "ppl": float(np.exp(-target.mean()))}
