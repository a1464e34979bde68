#!/usr/bin/env python3
"""Fidelity of qins beside llama.cpp's quantisation types, from the same FP32 weights, as Markdown.

    bench/quality_peers.py REF --gguf LIKE --wikitext wikitext-2-valid.txt --tales tales/valid.txt --work WORK --into docs/quality.md

REF is an FP32 Hugging Face directory (tools/dither.py writes a fair one). Every linear of the layers goes through
ggml_quantize_chunk, with and without an importance matrix, and back to FP32; embedding and head stay FP32. The importance matrix and qins'
own calibration read the same 64 x 512 tokens of WikiText-2, which lie behind those that are scored. "Whole model" rows include embedding and head:
files made by llama.cpp's own quantiser, and the same recipe tiled (see ggml.py).

What was measured stays in WORK/results.json under the content of everything it depends on; a rerun measures only what is new. qins rows depend on
the program, so that a new build measures them anew; --keep-qins takes them as they are.
"""
import argparse
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from figure import rate_figure
from measure import CALIBRATION_WINDOWS, CTX, RECIPES, Bench

TYPES = "Q2_K,IQ3_XXS,Q3_K,IQ3_S,IQ4_XS,IQ4_NL,Q4_0,Q4_K,Q5_K,Q6_K,Q8_0"
PARTS = "types,whole,nearest,feedback,bars,max-kl,self,size"
LINEARS = ["--embed-bits", "keep"]
CALIBRATED = ["--calibrate", "{calibration}"]
TRELLIS = ["--codec", "trellis"]
# (name of the class, bits a weight, peers of the class, at most this share of the best peer's KL)
BARS = [
    ("3.0 beside 3.44", 3.0, ("Q3_K", "IQ3_S"), 0.65),
    ("Q3_K, IQ3_S", 3.4375, ("Q3_K", "IQ3_S"), 0.40),
    ("IQ4_XS", 4.25, ("IQ4_XS",), 0.45),
    ("Q4_K, IQ4_NL, Q4_0", 4.5, ("Q4_K", "IQ4_NL", "Q4_0"), 0.50),
    ("Q5_K", 5.5, ("Q5_K",), 0.40),
    ("Q6_K", 6.5625, ("Q6_K",), 0.30),
    ("Q8_0", 8.5, ("Q8_0",), 0.20),
]
BEGIN_MARK, END_MARK = "<!-- measured: begin -->", "<!-- measured: end -->"
MOST_LOST = (0.1, 0.03, 0.01, 0.003)
SCORES = "KL | KL 99 % | top-1 | top-10 shared | perplexity | KL, tales | top-1, tales | perplexity, tales |"


def scores(row):
    """Cells of a row of the tables."""
    wiki, tales = row["wikitext"], row["tales"]
    return (f"{wiki['kl_mean']:.5f} | {wiki['kl_p99']:.4f} | {100 * wiki['top1']:.1f} % | {100 * wiki['top10_overlap']:.1f} % | {wiki['ppl']:.3f} "
            f"| {tales['kl_mean']:.5f} | {100 * tales['top1']:.1f} % | {tales['ppl']:.3f}")


def header(*names):
    """The head of a table whose first columns are `names`."""
    columns = "| " + " | ".join(names) + " | " + SCORES
    return [columns, "|" + "---|" * (columns.count("|") - 1)]


def types_table(bench):
    """llama.cpp's types for the linears."""
    lines = ["### llama.cpp's types, linears only", "", *header("type", "importance matrix", "bits a weight", "rel. MSE")]
    for with_importance in (True, False) if not bench.args.importance_only else (True,):
        for kind in bench.args.types.split(","):
            row = bench.type_row(kind, with_importance)
            if row is not None:
                lines.append(f"| {kind} | {'yes' if with_importance else 'no'} | {row['bpw']:.3f} | {row['rel_mse']:.2e} | {scores(row)} |")
    return lines


def qins_table(title, rows):
    """Rows of (name, row or None) of qins."""
    lines = [f"### {title}", "", *header("options of `qins compress`", "bits a weight", "rel. MSE")]
    return lines + [f"| `{name}` | {row['bpw']:.3f} | {row['rel_mse']:.2e} | {scores(row)} |" for name, row in rows if row is not None]


def nearest_table(bench):
    rows = [(f"--bits {bits} --calibrate none", bench.qins_row(["--bits", bits, "--calibrate", "none", *LINEARS])) for bits in bench.args.widths.split(",")]
    return qins_table("qins, nearest rounding, linears only", rows)


def feedback_table(bench):
    rows = [(f"--bits {bits} --calibrate wikitext", bench.qins_row(["--bits", bits, *CALIBRATED, *LINEARS])) for bits in bench.args.widths.split(",")]
    return qins_table("qins, feedback rounding, one width for all linears", rows)


def bars_table(bench):
    """qins at the rate of each peer, with both codecs, and the ratio of the divergences."""
    return rates_table(bench, "`--codec trellis`", TRELLIS) + [""] + rates_table(bench, "the default codec, gauss", [])


def rates_table(bench, name, codec):
    lines = [f"### qins at the peers' rates, linears only, {name}", "",
             "| class | best peer | its KL | `--bpw` | bits a weight | KL | ratio | bar | KL, tales | ratio, tales |", "|---|---|---|---|---|---|---|---|---|---|"]
    for name, bpw, kinds, bar in BARS:
        peers = [(kind, bench.type_row(kind, True)) for kind in kinds]
        peers = [(kind, row) for kind, row in peers if row is not None]
        row = bench.qins_row([*codec, "--bpw", bpw, *CALIBRATED, *LINEARS])
        if not peers or row is None:
            continue
        kind, peer = min(peers, key=lambda pair: pair[1]["wikitext"]["kl_mean"])
        ratio = {text: row[text]["kl_mean"] / peer[text]["kl_mean"] for text in ("wikitext", "tales")}
        lines.append(f"| {name} | {kind} | {peer['wikitext']['kl_mean']:.5f} | {bpw} | {row['bpw']:.3f} | {row['wikitext']['kl_mean']:.5f} "
                     f"| {ratio['wikitext']:.3f} | {bar:.2f} | {row['tales']['kl_mean']:.5f} | {ratio['tales']:.3f} |")
    return lines


def max_kl_table(bench):
    """What was asked for and what came out."""
    lines = ["### `--max-kl`: asked and measured, `--codec trellis`, linears only", "", "| asked | bits a weight | KL | of what was asked | KL, tales | KL, code |", "|---|---|---|---|---|---|"]
    for asked in MOST_LOST:
        row = bench.qins_row([*TRELLIS, "--max-kl", asked, *CALIBRATED, *LINEARS], ("wikitext", "tales", "code"))
        if row is not None:
            kl = row["wikitext"]["kl_mean"]
            lines.append(f"| {asked} | {row['bpw']:.3f} | {kl:.5f} | {100 * kl / asked:.0f} % | {row['tales']['kl_mean']:.5f} | {row['code']['kl_mean']:.5f} |")
    return lines


def self_table(bench):
    """Calibration on different texts, each scored on all."""
    lines = ["### Calibration text, `--codec trellis --bpw 4.25`, linears only", "", "| `--calibrate` | KL, WikiText-2 | KL, tales | KL, code |", "|---|---|---|---|"]
    sources = [("WikiText-2", "{calibration}"), ("self", "self"), ("tales (training part)", str(Path(bench.args.tales).parent / "train.txt"))]
    for name, source in sources:
        row = bench.qins_row([*TRELLIS, "--bpw", 4.25, "--calibrate", source, *LINEARS], ("wikitext", "tales", "code"))
        if row is not None:
            lines.append(f"| {name} | " + " | ".join(f"{row[text]['kl_mean']:.5f}" for text in ("wikitext", "tales", "code")) + " |")
    return lines


def whole_table(bench):
    """The recipes for the whole model."""
    lines = ["### Whole model, embedding and head included", "", *header("model", "made by", "bits a weight", "bytes of matrices")]
    for recipe in bench.args.recipes.split(","):
        for with_importance, tiled in ((True, False), (True, True)):
            row = bench.recipe_row(recipe, with_importance) if tiled else bench.file_row(recipe, with_importance)
            if row is not None:
                lines.append(f"| {recipe}{' with importance matrix' if with_importance else ''} | {'the recipe, tiled' if tiled else 'llama.cpp, its file'} "
                             f"| {row['bpw']:.3f} | {row['bytes']:,} | {scores(row)} |")
            if row is not None and "size" in bench.args.parts and with_importance:
                own = bench.qins_row([*TRELLIS, "--size", row.get("file_bytes", row["bytes"]), *CALIBRATED])
                if own is not None:
                    ratio = own["wikitext"]["kl_mean"] / row["wikitext"]["kl_mean"]
                    lines.append(f"| `--size` of the row above: {ratio:.3f} x its KL | qins | {8 * own['bytes'] * row['bpw'] / (8 * row['bytes']):.3f} "
                                 f"| {own['bytes']:,} | {scores(own)} |")
    return lines


TABLES = {"types": types_table, "nearest": nearest_table, "feedback": feedback_table, "bars": bars_table, "max-kl": max_kl_table,
          "self": self_table, "whole": whole_table}


def chart(bench):
    """Rate against divergence of everything that is known, as SVG."""
    bench.args.known = True
    series = {"llama.cpp, no importance matrix": [(kind, bench.type_row(kind, False)) for kind in TYPES.split(",")],
              "llama.cpp, importance matrix": [(kind, bench.type_row(kind, True)) for kind in TYPES.split(",")],
              "qins, nearest": [("", bench.qins_row(["--bits", bits, "--calibrate", "none", *LINEARS])) for bits in range(3, 9)],
              "qins, calibrated": [("", bench.qins_row(["--bits", bits, *CALIBRATED, *LINEARS])) for bits in range(3, 9)],
              "qins, calibrated and allocated": [("", bench.qins_row(["--bpw", bpw, *CALIBRATED, *LINEARS])) for _, bpw, _, _ in BARS],
              "the same, codec trellis": [("", bench.qins_row([*TRELLIS, "--bpw", bpw, *CALIBRATED, *LINEARS])) for _, bpw, _, _ in BARS]}
    return rate_figure({name: [(row["bpw"], row["wikitext"]["kl_mean"], label) for label, row in rows if row] for name, rows in series.items()})


def cpu_name():
    """Returns the CPU's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ref", help="FP32 Hugging Face directory")
    parser.add_argument("--gguf", required=True, help="a GGUF of the same model, for its metadata and tensor names")
    parser.add_argument("--wikitext", required=True, help="scored from the start; calibration from byte 200,000 on")
    parser.add_argument("--tales", required=True)
    parser.add_argument("--work", required=True, help="folder for results and temporary models")
    parser.add_argument("--into", type=Path, help="Markdown file whose lines between the marks of measured tables are replaced (default: print)")
    parser.add_argument("--figure", type=Path, help="SVG file to write the chart of all that is known to")
    parser.add_argument("--types", default=TYPES)
    parser.add_argument("--recipes", default=",".join(RECIPES), help="of the whole model")
    parser.add_argument("--widths", default="3,4,5,6,7,8", help="of the rows with one width")
    parser.add_argument("--importance-only", action="store_true", help="leave out the types without importance matrix")
    parser.add_argument("--parts", default=PARTS, help=f"tables to make (default {PARTS})")
    parser.add_argument("--max-tokens", type=int, default=4096, help="tokens scored of WikiText; half as many of the tales and of code")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--qins", default="build/release/cli/qins")
    parser.add_argument("--keep-qins", action="store_true", help="show qins rows of an older build instead of measuring them")
    parser.add_argument("--known", action="store_true", help="show what was measured, measure nothing")
    args = parser.parse_args()
    args.parts = args.parts.split(",")
    bench = Bench(args)
    lines = [f"Measured with qins beside llama-cpp-python {version('llama_cpp_python')} and gguf {version('gguf')} on {cpu_name()}, {args.threads} threads: "
             f"{args.max_tokens:,} tokens of WikiText-2, {args.max_tokens // 2:,} of the tales (and of code, where it is shown: argparse.py "
             f"of CPython {platform.python_version()}), windows of {CTX}; calibration and importance matrix from {CALIBRATION_WINDOWS} x {CTX} other tokens of WikiText-2."]
    for part, table in TABLES.items():
        if part in args.parts:
            lines += ["", *table(bench)]
    text = "\n".join(lines) + "\n"
    if args.figure:
        args.figure.write_text(chart(bench))
    if args.into:
        before, rest = args.into.read_text().split(BEGIN_MARK, 1)
        args.into.write_text(before + BEGIN_MARK + "\n" + text + END_MARK + rest.split(END_MARK, 1)[1])
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
