#!/usr/bin/env python3
"""KL of llama.cpp's quantised KV caches to its F16 cache, and of qins' to its own, on the same tokens of the same GGUF.

    python3 bench/kv_peers.py MODEL.gguf --text FILE --work FOLDER [--ours DIRECTORY] [--windows 4] [--ctx 2048]
                               [--widths 8,4] [--steps N]

Windows of --ctx tokens, each from an empty cache; mean over all positions of KL(F16 cache || other cache) in nats. MODEL.gguf should be
F32 (`qins export MODEL F --format gguf --dtype f32`): with quantised weights llama.cpp rounds activations to 8 bits, which adds
noise of its own. --ours is the same weights as a qins directory, with the key transform that llama.cpp has no use for (`qins compress
MODEL DIRECTORY --codec none --embed-bits keep --calibrate FILE`); its tokenizer is the one that is used. Every figure is kept in
FOLDER, so that the work can be cut in pieces: --steps N computes at most N missing ones (a window of llama.cpp, or a width of qins) and
leaves the rest to the next call. The table is printed when all are there.
llama.cpp comes from llama-cpp-python, whose versions rotate quantised caches where they can. Needs NumPy and llama-cpp-python.
"""

import argparse
import hashlib
import json
import os
import pathlib
import subprocess

import llama_cpp
import numpy as np

PEERS = {"q8_0": llama_cpp.GGML_TYPE_Q8_0, "q4_0": llama_cpp.GGML_TYPE_Q4_0}
OURS = ["8", "6", "5:4", "16:4", "4"]
BARS = [("8", "q8_0", 0.7), ("4", "q4_0", 0.45)]
SLICE = 128  # positions whose logits are in float64 at a time


def log_softmax(logits):
    """Return log probabilities of rows of logits in float64."""
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    return x


def peer_logits(args, cache_type, ids):
    """Return float32 [len(ids), vocab]: the logits of one window."""
    llama = llama_cpp.Llama(
        model_path=args.model, n_ctx=args.ctx, n_batch=512, n_threads=args.threads, n_threads_batch=args.threads,
        logits_all=True, flash_attn=True, type_k=cache_type, type_v=cache_type, verbose=False,
    )  # fmt: skip
    llama.eval(ids)
    logits = np.array(llama.scores[: len(ids)], dtype=np.float32)
    llama.close()
    return logits


def peer_window(args, ids):
    """Return the sum over positions of the KL of each peer's cache to F16."""
    reference = peer_logits(args, llama_cpp.GGML_TYPE_F16, ids)
    sums = {}
    for name, kind in PEERS.items():
        other = peer_logits(args, kind, ids)
        sums[name] = 0.0
        for first in range(0, len(ids), SLICE):
            exact = log_softmax(reference[first : first + SLICE])
            sums[name] += float((np.exp(exact) * (exact - log_softmax(other[first : first + SLICE]))).sum())
    return sums


def our_kl(args, bits):
    """Return kl_mean of `qins verify MODEL MODEL --kv-bits`."""
    model = args.ours or args.model
    command = [args.qins, "verify", model, model, "--text", args.text, "--ctx", str(args.ctx), "--max-tokens",
               str(args.windows * args.ctx), "--gen", "0", "--no-sampling", "--no-receipt", "--kv-bits", bits, "--json"]  # fmt: skip
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["kl_mean"]


def measure(args, ids):
    """Return sums of the windows and KL of our widths, None where missing, after at most args.steps more measurements."""
    windows = [ids[i : i + args.ctx] for i in range(0, len(ids), args.ctx)]
    with open(args.qins, "rb") as program:
        ours = hashlib.sha256(program.read()).hexdigest()[:12]  # another build is measured again
    peers = f"{llama_cpp.__version__} {os.path.getsize(args.model)} {args.ctx}"
    path = pathlib.Path(args.work) / "kv_peers.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    wanted = [(f"llama.cpp {peers} {i}", peer_window, window) for i, window in enumerate(windows)]
    if not args.peers_only:
        model = f"{os.path.realpath(args.ours)} " if args.ours else ""
        wanted += [(f"qins {ours} {model}{peers} {args.windows} {bits}", our_kl, bits) for bits in args.widths]
    missing = [job for job in wanted if job[0] not in known]
    for key, compute, what in missing[: args.steps]:
        known[key] = compute(args, what)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known, indent=1))
        print(f"{key}: {known[key]}", flush=True)
    found = [known.get(key) for key, _, _ in wanted]
    return found[: len(windows)], found[len(windows) :]


def main():
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", required=True)
    parser.add_argument("--work", required=True, help="folder for what was measured")
    parser.add_argument("--ours", help="the same model as a qins directory")
    parser.add_argument("--widths", type=lambda text: text.split(","), default=OURS, help="of qins' caches")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--ctx", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    parser.add_argument("--steps", type=int, default=1000, help="measurements in this call")
    parser.add_argument("--qins", default="build/release/cli/qins")
    parser.add_argument("--peers-only", action="store_true", help="leave qins out")
    args = parser.parse_args()
    tokenized = subprocess.run([args.qins, "tokenize", args.ours or args.model, "--file", args.text, "--json"],
                               check=True, capture_output=True)  # fmt: skip
    ids = json.loads(tokenized.stdout)["ids"][: args.windows * args.ctx]
    windows, ours = measure(args, ids)
    if None in windows or None in ours:
        print(f"{(windows + ours).count(None)} measurements are missing: call again")
        return
    kl = {name: sum(window[name] for window in windows) / len(ids) for name in PEERS}
    kl.update(dict(zip(args.widths, ours)))
    print(f"\nllama-cpp-python {llama_cpp.__version__}, {len(ids)} tokens, windows of {args.ctx}\n")
    print("| cache | KL to F16 |\n|---|---|")
    for name, value in kl.items():
        print(f"| {'llama.cpp' if name in PEERS else 'qins'} {name} | {value:.3g} |")
    for mine, peer, bar in [bar for bar in BARS if bar[0] in kl]:
        print(f"\nqins {mine} / llama.cpp {peer} = {kl[mine] / kl[peer]:.3f} (wanted: {bar} at most)", end="")
    print()


if __name__ == "__main__":
    main()
