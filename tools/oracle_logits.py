#!/usr/bin/env python3
"""Compare the logits of `qins logits` with transformers in FP32, live.

    python3 tools/oracle_logits.py models/toy --text models/toy/valid.txt
    python3 tools/oracle_logits.py OUT --reference EXPORTED --text FILE   # a qins directory against its export

Exit status 1 when a logit differs by more than --max-diff, or when the argmax differs at a position whose
reference top two are more than --margin apart.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import oracle.hf as hf

ROOT = Path(__file__).resolve().parent.parent


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="what qins loads: Hugging Face or qins directory, or GGUF file")
    parser.add_argument("--reference", type=Path, help="what transformers loads (default: the same)")
    parser.add_argument("--tokenizer", type=Path, help="what the tokenizer is read from (default: the model)")
    parser.add_argument("--text", type=Path, help="text whose first tokens are the input")
    parser.add_argument("--ids-file", type=Path, help="token ids instead: decimal, comma or space separated")
    parser.add_argument("--positions", type=int, default=2048)
    parser.add_argument("--max-diff", type=float, default=2e-3)
    parser.add_argument("--margin", type=float, default=4e-3)
    parser.add_argument("--qins", type=Path, default=ROOT / "build" / "release" / "cli" / "qins")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if (args.text is None) == (args.ids_file is None):
        parser.error("give --text or --ids-file")
    args.reference = args.reference or args.model
    args.tokenizer = args.tokenizer or args.model
    return args


def input_ids(args):
    """Return the token ids to compare on."""
    if args.ids_file:
        ids = [int(i) for i in args.ids_file.read_text().replace(",", " ").split()]
    else:
        ids = hf.text_ids(hf.load_tokenizer(args.tokenizer), args.text.read_bytes()[: 16 * args.positions])
    return np.array(ids[: args.positions], dtype=np.int32)


def qins_logits(args, ids):
    """Return the float32 [n, vocab] logits that qins computes."""
    with tempfile.TemporaryDirectory() as folder:
        ids_file, out = Path(folder) / "ids.txt", Path(folder) / "logits.npy"
        ids_file.write_text(",".join(map(str, ids)) + "\n")
        command = [args.qins, "logits", args.model, "--ids-file", ids_file, "--out", out, "--kv-bits", "32", "--threads", args.threads]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        return np.load(out)


def compare(got, want, margin):
    """Return the figures of the comparison of two [n, vocab] logit arrays."""
    diff = np.abs(got.astype(np.float64) - want)
    top2 = np.sort(want, axis=1)[:, -2:]
    clear = top2[:, 1] - top2[:, 0] > margin
    differs = got.argmax(axis=1) != want.argmax(axis=1)
    return {
        "positions": len(want),
        "max_abs_diff": float(diff.max()),
        "mean_abs_diff": float(diff.mean()),
        "argmax_mismatches": int(differs.sum()),
        "argmax_mismatches_beyond_margin": int((differs & clear).sum()),
        "positions_within_margin": int((~clear).sum()),
    }


def main():
    """Compare and report."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    ids = input_ids(args)
    got = qins_logits(args, ids)
    want = hf.logits(hf.load_model(args.reference), ids)
    if got.shape != want.shape or got.dtype != np.float32:
        sys.exit(f"qins wrote {got.dtype} {got.shape}, expected float32 {want.shape}")
    result = compare(got, want, args.margin)
    result["ok"] = result["max_abs_diff"] <= args.max_diff and result["argmax_mismatches_beyond_margin"] == 0
    if args.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{key:32} {value}" for key, value in result.items()))
    sys.exit(0 if result["ok"] else 1)


if __name__ == "__main__":
    main()
