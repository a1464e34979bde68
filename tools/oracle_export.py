#!/usr/bin/env python3
"""Load what `qins export` wrote with transformers and generate from it.

    build/release/cli/qins export OUT EXPORTED && python3 tools/oracle_export.py EXPORTED -p "Once upon a time"
"""

import argparse
import json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    """Load, generate, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="exported Hugging Face directory")
    parser.add_argument("-p", "--prompt", default="Once upon a time")
    parser.add_argument("-n", "--tokens", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    model, loading = AutoModelForCausalLM.from_pretrained(args.model, dtype="auto", output_loading_info=True)
    wrong = {key: sorted(map(str, names)) for key, names in loading.items() if names}
    if wrong:
        raise SystemExit(f"{args.model} does not load cleanly: {wrong}")
    dtype = next(model.parameters()).dtype
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    prompt = tokenizer(args.prompt, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        ids = model.float().generate(**prompt, max_new_tokens=args.tokens, do_sample=False, pad_token_id=0)[0]
    result = {"dtype": str(dtype), "ids": ids.tolist(), "text": tokenizer.decode(ids)}
    print(json.dumps(result) if args.json else result["text"])


if __name__ == "__main__":
    main()
