#!/usr/bin/env python3
"""Fidelity of each codec at each width, as a Markdown table.

    tools/fidelity_table.py MODEL --text FILE [--bits 8,6,4] [--codecs gauss,rational,log]

For each codec and width MODEL is compressed (nearest rounding, rotated, one scale a row, embedding and head at --embed-bits) into a
temporary folder and scored against MODEL on the first --max-tokens tokens of the text, in windows of 512. Needs only Python's own library.
"""
import argparse
import tempfile

from qins_program import qins


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", required=True)
    parser.add_argument("--max-tokens", type=int, default=4096)
    parser.add_argument("--bits", default="8,7,6,5,4,3")
    parser.add_argument("--codecs", default="gauss,uniform,rational,log")
    parser.add_argument("--embed-bits", default="8")
    parser.add_argument("--qins", default="build/release/cli/qins")
    args = parser.parse_args()
    print("| codec | bits | bits a weight | rel. MSE | KL mean | KL 99 % | top-1 | perplexity |")
    print("|---|---|---|---|---|---|---|---|")
    for codec in args.codecs.split(","):
        for bits in args.bits.split(","):
            with tempfile.TemporaryDirectory() as folder:
                out = f"{folder}/model"
                made = qins(args.qins, "compress", args.model, out, "--codec", codec, "--bits", bits, "--embed-bits", args.embed_bits)
                score = qins(args.qins, "verify", args.model, out, "--text", args.text, "--max-tokens", str(args.max_tokens), "--gen", "0")
            print(f"| {codec} | {bits} | {made['bpw']:.3f} | {made['rel_mse']:.2e} | {score['kl_mean']:.5f} | {score['kl_p99']:.4f} "
                  f"| {100 * score['top1']:.1f} % | {score['ppl_delta_pct']:+.2f} % |", flush=True)


main()
