#!/usr/bin/env python3
"""Compare the ids of `qins tokenize` with those of the tokenizers package on whole files, live.

    python3 tools/oracle_tokens.py models/toy tests/golden/text/corpus.txt README.md
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

import oracle.hf as hf

ROOT = Path(__file__).resolve().parent.parent


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="Hugging Face or qins directory, or GGUF file")
    parser.add_argument("files", type=Path, nargs="+", help="texts; bytes that are not UTF-8 are welcome")
    parser.add_argument("--qins", type=Path, default=ROOT / "build" / "release" / "cli" / "qins")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def qins_ids(qins, model, file):
    """Return the ids that qins gives, special tokens in the text recognised as the tokenizers package does."""
    command = [str(qins), "tokenize", str(model), "--special", "--file", str(file), "--json"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return np.array(json.loads(output)["ids"], dtype=np.int32)


def first_difference(got, want):
    """Return the index of the first differing id, or -1 when the arrays are equal."""
    n = min(len(got), len(want))
    differing = np.flatnonzero(got[:n] != want[:n])
    if len(differing):
        return int(differing[0])
    return -1 if len(got) == len(want) else n


def main():
    """Compare and report."""
    args = parse_args()
    tokenizer = hf.load_tokenizer(args.model)
    results = []
    for file in args.files:
        got, want = qins_ids(args.qins, args.model, file), hf.text_ids(tokenizer, file.read_bytes())
        at = first_difference(got, want)
        results.append({"file": str(file), "tokens": len(want), "first_difference": at})
        if at >= 0:
            around = slice(max(at - 3, 0), at + 5)
            results[-1] |= {"got": got[around].tolist(), "want": want[around].tolist(),
                            "text": tokenizer.decode(want[around].tolist(), skip_special_tokens=False)}  # fmt: skip
    if args.json:
        print(json.dumps({"files": results}))
    else:
        for result in results:
            print(" ".join(f"{key}={value!r}" for key, value in result.items()))
    sys.exit(0 if all(result["first_difference"] < 0 for result in results) else 1)


if __name__ == "__main__":
    main()
