#!/usr/bin/env python3
"""KL of llama.cpp's quantised KV caches to its F16 cache, and of qins' to its own, on the same tokens of the same GGUF.

    python3 bench/kv_peers.py MODEL.gguf --text FILE [--windows 4] [--ctx 2048] [--qins build/release/cli/qins]

Windows of --ctx tokens, each from an empty cache; mean over all positions of KL(F16 cache || other cache) in nats. llama.cpp comes
from llama-cpp-python, whose versions rotate quantised caches where they can. Needs NumPy and llama-cpp-python.
"""

import argparse
import json
import subprocess

import llama_cpp
import numpy as np

PEERS = [("q8_0", llama_cpp.GGML_TYPE_Q8_0), ("q4_0", llama_cpp.GGML_TYPE_Q4_0)]
OURS = ["8", "6", "5:4", "16:4", "4"]


def log_softmax(logits):
    """Return log probabilities of rows of logits, in float64 sums."""
    top = logits.max(axis=1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)


def peer_logits(path, cache_type, ids, ctx, threads):
    """Yield float32 [ctx, vocab] log probabilities of each window."""
    llama = llama_cpp.Llama(
        model_path=path, n_ctx=ctx, n_batch=512, n_threads=threads, n_threads_batch=threads, logits_all=True,
        flash_attn=True, type_k=cache_type, type_v=cache_type, verbose=False,
    )  # fmt: skip
    for first in range(0, len(ids), ctx):
        llama.reset()
        llama.eval(ids[first : first + ctx])
        yield log_softmax(np.asarray(llama.scores[:ctx], dtype=np.float32))
    llama.close()


def peer_kl(args, ids):
    """Return the mean KL of each peer cache to F16."""
    sums = {name: 0.0 for name, _ in PEERS}
    exact = peer_logits(args.model, llama_cpp.GGML_TYPE_F16, ids, args.ctx, args.threads)
    others = {name: peer_logits(args.model, kind, ids, args.ctx, args.threads) for name, kind in PEERS}
    for reference in exact:
        for name, windows in others.items():
            for row, other in zip(reference, next(windows)):
                sums[name] += float((np.exp(row.astype(np.float64)) * (row - other)).sum())
    return {name: total / len(ids) for name, total in sums.items()}


def our_kl(args, bits):
    """Return kl_mean of `qins verify MODEL MODEL --kv-bits`."""
    command = [args.qins, "verify", args.model, args.model, "--text", args.text, "--ctx", str(args.ctx), "--max-tokens",
               str(args.windows * args.ctx), "--gen", "0", "--no-sampling", "--no-receipt", "--kv-bits", bits, "--json"]  # fmt: skip
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["kl_mean"]


def main():
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", required=True)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--ctx", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--qins", default="build/release/cli/qins")
    parser.add_argument("--peers-only", action="store_true", help="leave qins out")
    args = parser.parse_args()
    tokenized = subprocess.run([args.qins, "tokenize", args.model, "--file", args.text, "--json"],
                               check=True, capture_output=True)  # fmt: skip
    ids = json.loads(tokenized.stdout)["ids"][: args.windows * args.ctx]
    print(f"llama-cpp-python {llama_cpp.__version__}, {len(ids)} tokens, windows of {args.ctx}\n")
    print("| cache | KL to F16 |\n|---|---|", flush=True)
    for name, kl in peer_kl(args, ids).items():
        print(f"| llama.cpp {name} | {kl:.6f} |", flush=True)
    for bits in [] if args.peers_only else OURS:
        print(f"| qins {bits} | {our_kl(args, bits):.6f} |", flush=True)


if __name__ == "__main__":
    main()
