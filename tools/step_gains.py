#!/usr/bin/env python3
"""What steps by column or by row could gain in a model whose codes are entropy-coded (docs/entropy.md).

For every linear: the geometric over the arithmetic mean of D_j (H = U D U^T of its rotated inputs, damped by 1 %), and
of E[g_n^2] |w_n|^2 over rows n, g the gradient of the log-likelihood of a sampled token with respect to its output. At
equal rate the error of the best steps is this share of that of equal ones.

    tools/step_gains.py MODEL_DIR TEXT [--sequences 20]
"""
import argparse

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

WINDOW, GRADIENT_SEQUENCES, DAMPING = 512, 6, 0.01


def hadamard(n):
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return h / np.sqrt(n)


def conditional_variances(h):
    """D of the moments h in the basis that qins rotates to, but for the seed of its signs."""
    n = len(h)
    block = min(n & -n, 4096)
    rotation = np.kron(np.eye(n // block), hadamard(block)) * np.sign(np.random.default_rng(1).standard_normal(n))
    h = rotation @ h @ rotation.T
    h += DAMPING * np.mean(np.diag(h)) * np.eye(n)
    return np.diag(np.linalg.cholesky(h[::-1, ::-1])) ** 2


def share(x):
    return np.exp(np.mean(np.log(x))) / np.mean(x)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--sequences", type=int, default=20)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    with open(args.text, encoding="utf-8") as f:
        ids = AutoTokenizer.from_pretrained(args.model)(f.read(), return_tensors="pt").input_ids[0]
    moments, squares = {}, {}
    linears = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "head" not in n}

    def see_input(name):
        def hook(_, inputs, __):
            x = inputs[0].detach().reshape(-1, inputs[0].shape[-1])
            moments[name] = moments.get(name, 0) + x.T @ x

        return hook

    def see_gradient(name):
        def hook(_, __, outputs):
            squares[name] = squares.get(name, 0) + outputs[0].detach().reshape(-1, outputs[0].shape[-1]).square().sum(0)

        return hook

    for name, module in linears.items():
        module.register_forward_hook(see_input(name))
        module.register_full_backward_hook(see_gradient(name))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.get_input_embeddings().weight.requires_grad_(True)
    starts = np.linspace(0, len(ids) // WINDOW - 1, args.sequences).astype(int) * WINDOW
    for i, start in enumerate(starts):
        window = ids[start : start + WINDOW][None]
        if i >= GRADIENT_SEQUENCES:
            with torch.no_grad():
                model(window)
            continue
        logits = model(window).logits[0]
        sampled = torch.multinomial(torch.softmax(logits.detach(), -1), 1)[:, 0]
        torch.nn.functional.cross_entropy(logits, sampled, reduction="sum").backward()
    print(f"{'linear':40s} columns   rows")
    for name, module in linears.items():
        d = conditional_variances(moments[name].double().numpy())
        cost = squares[name].double().numpy() * module.weight.double().square().sum(1).numpy()
        print(f"{name:40s} {share(d):7.3f} {share(np.maximum(cost, 1e-30)):6.3f}")


if __name__ == "__main__":
    main()
