#!/usr/bin/env python3
"""Fidelity of each codec at each width, as a Markdown table.

    tools/fidelity_table.py MODEL --text FILE [--bits 8,6,4] [--codecs gauss,rational,log] [--bars] [--state FILE]

For each codec and width MODEL is compressed (nearest rounding, rotated, one scale a row, embedding and head at --embed-bits) into a
temporary folder and scored against MODEL on the first --max-tokens tokens of the text, in windows of 512. With --bars also on --gen
greedy tokens for each of verify's built-in prompts, and held against the bars that the original project set for itself: KL below 0.1, at
least 97 % of the ten best tokens shared, perplexity changed by at most 0.5 %, and for 6 and 8 bits more than 95 % and 99 % of greedy
tokens the same. --state keeps results in a file, so that an interrupted run goes on where it was. Needs only Python's own library.
"""
import argparse
import json
import os
import tempfile

from qins_program import qins

MATCH_BARS = {6: 0.95, 8: 0.99}


def measure(args, codec, bits):
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        out = f"{folder}/model"
        made = qins(args.qins, "compress", args.model, out, "--codec", codec, "--bits", bits, "--embed-bits", args.embed_bits)
        score = qins(args.qins, "verify", args.model, out, "--text", args.text, "--max-tokens", str(args.max_tokens), "--no-sampling",
                     "--gen", args.gen if args.bars else "0")
    score["greedy"]["prompts"] = len(score["greedy"]["prompts"])
    return {"made": {key: made[key] for key in ("bpw", "rel_mse")}, "score": score}


def percent(share):
    return f"{100 * share:.1f} %"


def judged(text, met):
    return f"{text} {'yes' if met else '**no**'}"


def plain_row(codec, bits, made, score):
    return (f"| {codec} | {bits} | {made['bpw']:.3f} | {made['rel_mse']:.2e} | {score['kl_mean']:.5f} | {score['kl_p99']:.4f} "
            f"| {percent(score['top1'])} | {score['ppl_delta_pct']:+.2f} % |")


def bars_row(codec, bits, made, score):
    greedy = score["greedy"]
    free, forced, bar = greedy["match_rate"], greedy["teacher_forced"], MATCH_BARS.get(int(bits))
    low, high = score["ppl_delta_interval"] or (float("nan"), float("nan"))
    cells = [codec, bits, f"{made['bpw']:.3f}",
             judged(f"{score['kl_mean']:.2g}", score["kl_mean"] < 0.1),
             judged(percent(score["top10_overlap"]), score["top10_overlap"] >= 0.97),
             judged(f"{score['ppl_delta_pct']:+.2f} % ({low:+.2f} to {high:+.2f})", abs(score["ppl_delta_pct"]) <= 0.5),
             judged(percent(free), free > bar) if bar else percent(free),
             judged(percent(forced), forced > bar) if bar else percent(forced),
             f"{greedy['identical']} of {greedy['prompts']}"]
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", required=True)
    parser.add_argument("--max-tokens", type=int, default=4096)
    parser.add_argument("--bits", default="8,7,6,5,4,3")
    parser.add_argument("--codecs", default="gauss,uniform,rational,log")
    parser.add_argument("--embed-bits", default="8")
    parser.add_argument("--bars", action="store_true")
    parser.add_argument("--gen", default="64")
    parser.add_argument("--state")
    parser.add_argument("--scratch", help="folder for the compressed models")
    parser.add_argument("--qins", default="build/release/cli/qins")
    args = parser.parse_args()
    state = {}
    if args.state and os.path.exists(args.state):
        with open(args.state) as file:
            state = json.load(file)
    if args.bars:
        print("| codec | bits | bits a weight | KL < 0.1 | top ten >= 97 % | perplexity within 0.5 % (95 % interval) "
              "| greedy, free-running | greedy, teacher-forced | same to the end |")
        print("|---|---|---|---|---|---|---|---|---|")
    else:
        print("| codec | bits | bits a weight | rel. MSE | KL mean | KL 99 % | top-1 | perplexity |")
        print("|---|---|---|---|---|---|---|---|")
    for codec in args.codecs.split(","):
        for bits in args.bits.split(","):
            key = f"{codec} {bits}"
            if key not in state:
                state[key] = measure(args, codec, bits)
                if args.state:
                    with open(args.state, "w") as file:
                        json.dump(state, file, indent=1)
            row = bars_row if args.bars else plain_row
            print(row(codec, bits, state[key]["made"], state[key]["score"]), flush=True)


main()
