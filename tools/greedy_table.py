#!/usr/bin/env python3
"""Greedy generation of the original codecs against FP32, prompt by prompt, as Markdown.

    tools/greedy_table.py models/toy --prompts models/toy/prompts.txt --gen 500

For each codec: how many prompts came out the same to the last token, how many tokens up to the first that differed, how many of the codes
occur in a linear on average and their entropy; then every first divergence with the reference's margin there (logit of its token
minus that of the other). Needs only Python's own library.
"""
import argparse
import tempfile

from qins_program import qins

ORIGINAL = ["--targets", "all", "--embed-bits", "keep", "--rotate", "off", "--scale", "tensor"]
CODECS = [
    ("log, seed storage (2 bytes)", ["--codec", "log", "--storage", "seed", *ORIGINAL]),
    ("rational, f32 coordinates", ["--codec", "rational", "--storage", "f32", *ORIGINAL]),
    ("rational, u8, alpha = 1", ["--codec", "rational", "--bits", "8", "--alpha", "1", *ORIGINAL]),
    ("rational, u8, alpha fitted", ["--codec", "rational", "--bits", "8", "--alpha", "fit", *ORIGINAL]),
    ("gauss, 8 bits (for comparison)", ["--bits", "8", "--embed-bits", "keep"]),
    ("gauss, 4 bits (for comparison)", ["--bits", "4", "--embed-bits", "keep"]),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--gen", default="500")
    parser.add_argument("--qins", default="build/release/cli/qins")
    args = parser.parse_args()
    print("| codec | linears, bytes | saved | codes used | entropy, bits | same prompts | tokens up to the first difference | KL |")
    print("|---|---|---|---|---|---|---|---|")
    divergences = []
    for name, options in CODECS:
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/model"
            made = qins(args.qins, "compress", args.model, out, *options)
            audit = qins(args.qins, "audit", out)
            score = qins(args.qins, "verify", args.model, out, "--prompts", args.prompts, "--gen", args.gen, "--no-sampling")
        linears = [t for t in audit["tensors"] if t["role"] == "linear"]
        stored, fp32 = sum(t["bytes"] for t in linears), 4 * sum(t["n_params"] if "n_params" in t else t["shape"][0] * t["shape"][1] for t in linears)
        greedy = score["greedy"]
        codes = f"{made['codes_used']:.1f} | {made['code_entropy']:.2f}" if made["codes_used"] > 0 else "|"
        same = sum(p["matched"] == p["of"] for p in greedy["prompts"])
        print(f"| {name} | {fp32:,} -> {stored:,} | {round(100 * (1 - stored / fp32), 1) + 0:.1f} % | {codes} "
              f"| {same} of {len(greedy['prompts'])} | {greedy['matched']:,} of {greedy['of']:,} | {score['kl_mean']:.2g} |", flush=True)
        for i, p in enumerate(greedy["prompts"]):
            if p["first_divergence"] is not None:
                divergences.append(f"| {name} | {i + 1} | {p['first_divergence']} | {p['ref_margin']:.4f} |")
    print("\n| codec | prompt | first divergence at token | reference's margin there |\n|---|---|---|---|")
    print("\n".join(divergences) if divergences else "| none | | | |")


main()
