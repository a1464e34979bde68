#!/usr/bin/env python3
"""Fidelity of llama.cpp's quantisation types beside that of qins, from the same FP32 weights, as Markdown.

    bench/quality_peers.py REF --wikitext wikitext-2-valid.txt --tales tales/valid.txt --work WORK --out docs/quality-peers.md

REF is an FP32 Hugging Face directory (tools/dither.py writes a fair one). Every linear of the layers goes through
ggml_quantize_chunk, with and without an importance matrix, and back to FP32; `qins verify` compares the logits. The importance matrix and qins'
own calibration read the same 64 x 512 tokens, which lie behind those that are scored. "Whole model" rows include embedding and head: files made by
llama.cpp's own quantiser, and the same recipe tiled (see ggml.py).

What was measured stays in WORK/results.json under the content of everything it depends on; a rerun measures only what is new. qins rows
depend on the program, so that a new build measures them anew; --keep-qins takes them as they are.
"""
import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import gguf
import llama_cpp
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file
from tokenizers import Tokenizer

import ggml
from gguf_f32 import gguf_name_of, write_gguf
from importance import column_importances
from qins_program import qins

TYPES = "Q2_K,IQ3_XXS,Q3_K,IQ3_S,IQ4_XS,IQ4_NL,Q4_0,Q4_K,Q5_0,Q5_K,Q6_K,Q8_0"
RECIPES = {"Q4_K_M": "Q4_K", "Q6_K": "Q6_K"}
CALIBRATION_BYTE = 200_000  # the calibration part of the WikiText file begins here; what is scored ends long before
CALIBRATION_WINDOWS, CTX = 64, 512


def digest(*parts):
    """Returns a short hash of files (Path) and values."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.read_bytes() if isinstance(part, Path) else repr(part).encode())
        total.update(b"\0")
    return total.hexdigest()[:16]


class Results:
    """What was measured, by what it depends on; saved after every figure."""

    def __init__(self, path):
        self.path = path
        self.known = json.loads(path.read_text()) if path.exists() else {}

    def get(self, key, measure):
        if key not in self.known:
            self.known[key] = measure()
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(self.known, indent=1))
            part.replace(self.path)
        return self.known[key]


class Bench:
    """The reference, the texts and what every row needs."""

    def __init__(self, args):
        self.args, self.ref, self.work = args, Path(args.ref), Path(args.work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.results = Results(self.work / "results.json")
        self.ref_hash = digest(self.ref / "model.safetensors", self.ref / "config.json")
        self.texts = {"wikitext": Path(args.wikitext), "tales": Path(args.tales)}
        self.n_scored = {"wikitext": args.max_tokens, "tales": args.max_tokens // 2}
        self.calibration = self.work / "calibration.txt"
        self.write_calibration()
        self._importance = None

    def write_calibration(self):
        """Writes the text of the calibration tokens, for the importance matrix here and for `qins compress --calibrate`."""
        text = self.texts["wikitext"].read_bytes()
        start = text.index(b"\n", CALIBRATION_BYTE) + 1
        text = text[start:].decode("utf-8")
        coded = Tokenizer.from_file(str(self.ref / "tokenizer.json")).encode(text, add_special_tokens=False)
        n = CALIBRATION_WINDOWS * CTX
        self.calibration_ids = np.array(coded.ids[:n]).reshape(-1, CTX)
        self.calibration.write_text(text[: coded.offsets[n - 1][1]], encoding="utf-8")

    @property
    def importance(self):
        """Column importances; computed once and kept in the work folder."""
        if self._importance is None:
            path = self.work / f"importance-{self.ref_hash}-{digest(self.calibration)}.npz"
            if not path.exists():
                np.savez(path, **column_importances(self.ref, self.calibration_ids.tolist(), self.args.threads))
            self._importance = dict(np.load(path))
        return self._importance

    def verify(self, model):
        """Returns {text: what `qins verify` says} of a model."""
        said = {}
        for name, text in self.texts.items():
            said[name] = qins(self.args.qins, "verify", str(self.ref), str(model), "--text", str(text), "--max-tokens",
                              str(self.n_scored[name]), "--ctx", str(CTX), "--gen", "0", "--no-check", "--threads", str(self.args.threads))
        return said

    def scored_as(self):
        """What a score depends on besides the weights."""
        return digest(*self.texts.values(), self.n_scored, CTX)

    def tensors(self):
        """Yields (name, FP32 weights) of the reference."""
        with safe_open(self.ref / "model.safetensors", "numpy") as file:
            for name in file.keys():
                yield name, file.get_tensor(name)

    def measure_types(self, type_of, with_importance):
        """Quantises each tensor to type_of(name) (None: stays) and scores the result."""
        weights, coded_bytes, coded_weights, error, power = {}, 0, 0, 0.0, 0.0
        for name, weight in self.tensors():
            kind = type_of(name)
            weights[name] = weight
            if kind is None:
                continue
            importance = self.importance.get(name) if with_importance else None
            weights[name], n_bytes = ggml.quantise(weight, kind, importance, self.args.threads)
            coded_bytes, coded_weights = coded_bytes + n_bytes, coded_weights + weight.size
            error += float(np.square(weights[name] - weight, dtype=np.float64).sum())
            power += float(np.square(weight, dtype=np.float64).sum())
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            for file in self.ref.iterdir():
                if file.suffix == ".json":
                    shutil.copy(file, folder)
            save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})
            del weights
            return {"bpw": 8 * coded_bytes / coded_weights, "bytes": coded_bytes, "rel_mse": error / power, "texts": self.verify(folder)}

    def note(self, text):
        print(text, file=sys.stderr, flush=True)

    # ---- rows ----

    def type_row(self, kind, with_importance):
        """One llama.cpp type for all linears; embedding and head stay FP32."""
        self.note(f"{kind}, importance matrix: {with_importance}")
        key = f"linears {kind} {self.importance_hash(with_importance)} {self.ref_hash} {self.scored_as()}"
        return self.results.get(key, lambda: self.measure_types(lambda name: kind if is_linear(name) else None, with_importance))

    def importance_hash(self, with_importance):
        return digest(self.calibration) if with_importance else "plain"

    def recipe_row(self, recipe, with_importance):
        """A llama.cpp recipe for the whole model, every type as the recipe names it."""
        self.note(f"{recipe} tiled, importance matrix: {with_importance}")
        n_layers = json.loads((self.ref / "config.json").read_text())["num_hidden_layers"]
        key = f"tiled {recipe} {self.importance_hash(with_importance)} {self.ref_hash} {self.scored_as()}"
        return self.results.get(key, lambda: self.measure_types(lambda name: recipe_type(recipe, name, n_layers), with_importance))

    def file_row(self, recipe, with_importance):
        """The file that llama.cpp's own quantiser makes of the reference."""
        self.note(f"{recipe} file, importance matrix: {with_importance}")
        key = f"file {recipe} {self.importance_hash(with_importance)} {self.ref_hash} {self.scored_as()} {digest(Path(self.args.gguf))}"

        def measure():
            with tempfile.TemporaryDirectory(dir=self.work) as folder:
                plain, coded = Path(folder) / "f32.gguf", Path(folder) / f"{recipe}.gguf"
                write_gguf(self.args.gguf, dict(self.tensors()), plain)
                names = {gguf_name_of(self.args.gguf, name): values for name, values in self.importance.items()} if with_importance else {}
                ggml.quantise_file(plain, coded, recipe, names, self.args.threads)
                reader = gguf.GGUFReader(coded)
                n_bytes = sum(int(t.n_bytes) for t in reader.tensors if len(t.shape) > 1)
                n_weights = sum(int(t.n_elements) for t in reader.tensors if len(t.shape) > 1)
                return {"bpw": 8 * n_bytes / n_weights, "bytes": n_bytes, "file_bytes": coded.stat().st_size, "texts": self.verify(coded)}

        return self.results.get(key, measure)

    def qins_row(self, options, inputs=()):
        """qins compress with the options given; inputs: files the options name."""
        program = "kept" if self.args.keep_qins else digest(Path(self.args.qins))
        key = f"qins {' '.join(options)} {digest(*inputs)} {self.ref_hash} {self.scored_as()}"
        if self.args.keep_qins:
            known = [k for k in self.results.known if k.startswith(key + " ")]
            return self.results.known[known[-1]] if known else None
        self.note("qins compress " + " ".join(options))

        def measure():
            with tempfile.TemporaryDirectory(dir=self.work) as folder:
                out = Path(folder) / "model"
                made = qins(self.args.qins, "compress", str(self.ref), str(out), *options, "--threads", str(self.args.threads))
                audit = qins(self.args.qins, "audit", str(out))
                roles = {"linear": [0, 0], "other": [0, 0]}
                for tensor in audit["tensors"]:
                    role = roles["linear" if tensor["role"] == "linear" else "other"]
                    role[0], role[1] = role[0] + tensor["bytes"], role[1] + int(np.prod(tensor["shape"]))
                return {"bpw": 8 * roles["linear"][0] / roles["linear"][1], "bytes": made["stored_bytes"], "rel_mse": made.get("rel_mse"),
                        "file_bytes": audit["totals"]["weight_file_bytes"], "made": {k: v for k, v in made.items() if not isinstance(v, (list, dict))},
                        "texts": self.verify(out)}

        return self.results.get(f"{key} {program}", measure)


def is_linear(name):
    """Whether a Hugging Face name is that of a linear of a layer."""
    return ".layers." in name and name.endswith("_proj.weight")


def recipe_type(recipe, name, n_layers):
    """The type that llama.cpp's recipe gives a tensor of a tied dense model (llama_tensor_get_type), None for norms."""
    base = RECIPES[recipe]
    if name.endswith("embed_tokens.weight") or name == "lm_head.weight":
        return "Q6_K" if base != "Q8_0" else "Q8_0"  # a tied embedding is treated as the head
    if not is_linear(name):
        return None
    if recipe == "Q4_K_M" and name.split(".")[-2] in ("v_proj", "down_proj"):
        layer = int(name.split(".")[2])
        more = layer < n_layers // 8 or layer >= 7 * n_layers // 8 or (layer - n_layers // 8) % 3 == 2
        return "Q6_K" if more else base
    return base


def cpu_name():
    """Returns the CPU's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def score_cells(row):
    """Cells of the Markdown table for one row."""
    wiki, tales = row["texts"]["wikitext"], row["texts"]["tales"]
    return (f"{wiki['kl_mean']:.5f} | {wiki['kl_p99']:.4f} | {100 * wiki['top1']:.1f} % | {100 * wiki['top10_overlap']:.1f} % | {wiki['ppl']:.3f} "
            f"| {tales['kl_mean']:.5f} | {100 * tales['top1']:.1f} % | {tales['ppl']:.3f}")


HEADER = ("KL | KL 99 % | top-1 | top-10 shared | perplexity | KL, tales | top-1, tales | perplexity, tales |", "---|" * 8)


def peers_table(bench, types):
    """All types with and without importance matrix."""
    lines = ["| type | importance matrix | bits a weight | rel. MSE | " + HEADER[0], "|---|---|---|---|" + HEADER[1]]
    rows = {}
    for with_importance in (True, False):
        for kind in types:
            row = bench.type_row(kind, with_importance)
            rows[kind, with_importance] = row
            lines.append(f"| {kind} | {'yes' if with_importance else 'no'} | {row['bpw']:.3f} | {row['rel_mse']:.2e} | {score_cells(row)} |")
    return lines, rows


def whole_table(bench):
    """The recipes for the whole model."""
    lines = ["| whole model | made by | bits a weight | bytes of matrices | " + HEADER[0], "|---|---|---|---|" + HEADER[1]]
    for recipe in RECIPES:
        for with_importance in (True, False):
            suffix = " with importance matrix" if with_importance else ""
            for made_by, row in (("llama.cpp, its file", bench.file_row(recipe, with_importance)), ("the recipe, tiled", bench.recipe_row(recipe, with_importance))):
                lines.append(f"| {recipe}{suffix} | {made_by} | {row['bpw']:.3f} | {row['bytes']:,} | {score_cells(row)} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ref", help="FP32 Hugging Face directory")
    parser.add_argument("--gguf", required=True, help="a GGUF of the same model, for its metadata and tensor names")
    parser.add_argument("--wikitext", required=True, help="scored from the start; calibration from byte 200,000 on")
    parser.add_argument("--tales", required=True)
    parser.add_argument("--work", required=True, help="folder for results and temporary models")
    parser.add_argument("--out", type=Path, help="Markdown file to write (default: standard output)")
    parser.add_argument("--types", default=TYPES)
    parser.add_argument("--parts", default="types,whole", help="tables to make: types, whole")
    parser.add_argument("--max-tokens", type=int, default=4096, help="tokens scored of WikiText; half as many of the tales")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--qins", default="build/release/cli/qins")
    parser.add_argument("--keep-qins", action="store_true", help="show qins rows of an older build instead of measuring them")
    args = parser.parse_args()
    bench = Bench(args)
    parts, lines = args.parts.split(","), []
    if "types" in parts:
        lines += peers_table(bench, args.types.split(","))[0]
    if "whole" in parts:
        lines += ["", *whole_table(bench)]
    versions = f"llama-cpp-python {llama_cpp.__version__}, gguf {gguf_version()}, {cpu_name()}, {args.threads} threads"
    text = "\n".join([f"Measured with {versions}; {args.max_tokens:,} tokens of WikiText-2 and "
                      f"{args.max_tokens // 2:,} of the tales in windows of {CTX}.", "", *lines]) + "\n"
    if args.out:
        args.out.write_text(text)
    else:
        print(text, end="")


def gguf_version():
    """Returns the version of the gguf package."""
    from importlib.metadata import version

    return version("gguf")


main()
