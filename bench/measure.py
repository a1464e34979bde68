"""Makes and scores compressed copies of one reference; what was measured is kept under the content of all it depends on."""
import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file
from tokenizers import Tokenizer

import ggml
from gguf_f32 import gguf_name_of, write_gguf
from importance import column_importances
from qins_program import qins
from scores import Scorer

CALIBRATION_BYTE = 200_000  # the calibration part of the WikiText file begins here; what is scored ends long before
CALIBRATION_WINDOWS, CTX = 64, 512
RECIPES = {"Q4_K_M": "Q4_K", "Q6_K": "Q6_K"}


def digest(*parts):
    """Returns a short hash of files (Path) and values."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.read_bytes() if isinstance(part, Path) else repr(part).encode())
        total.update(b"\0")
    return total.hexdigest()[:16]


def is_linear(name):
    """Whether a Hugging Face name is that of a linear of a layer."""
    return ".layers." in name and name.endswith("_proj.weight")


def recipe_type(recipe, name, n_layers):
    """The type that llama.cpp's recipe gives a tensor of a tied dense model (llama_tensor_get_type), None for norms."""
    base = RECIPES[recipe]
    if name.endswith("embed_tokens.weight") or name == "lm_head.weight":
        return "Q6_K"  # a tied embedding is treated as the head
    if not is_linear(name):
        return None
    if recipe == "Q4_K_M" and name.split(".")[-2] in ("v_proj", "down_proj"):
        layer = int(name.split(".")[2])
        more = layer < n_layers // 8 or layer >= 7 * n_layers // 8 or (layer - n_layers // 8) % 3 == 2
        return "Q6_K" if more else base
    return base


class Results:
    """What was measured, by what it depends on; saved after every model."""

    def __init__(self, path):
        self.path = path

    def load(self):
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def store(self, key, row):
        known = self.load() | {key: row}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(known, indent=1))
        part.replace(self.path)


class Bench:
    """The reference, the texts and what every row needs."""

    def __init__(self, args):
        self.args, self.ref, self.work = args, Path(args.ref), Path(args.work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.results = Results(self.work / "results.json")
        self.ref_hash = digest(self.ref / "model.safetensors", self.ref / "config.json")
        tokenizer = Tokenizer.from_file(str(self.ref / "tokenizer.json"))
        encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
        wikitext = Path(args.wikitext).read_text(encoding="utf-8")
        # Something that is neither encyclopedia nor story: a module of the interpreter that runs this.
        texts = {"wikitext": wikitext[:CALIBRATION_BYTE], "tales": Path(args.tales).read_text(encoding="utf-8"),
                 "code": Path(argparse.__file__).read_text(encoding="utf-8")}
        n_scored = {"wikitext": args.max_tokens, "tales": args.max_tokens // 2, "code": args.max_tokens // 2}
        texts = {name: encode(text).ids[: n_scored[name]] for name, text in texts.items()}
        self.scorer = Scorer(args.qins, self.ref, self.ref_hash, texts, CTX, args.threads, self.work)
        self.calibration = self.work / "calibration.txt"
        self.write_calibration(Path(args.wikitext), encode)
        self._importance = None

    def write_calibration(self, wikitext, encode):
        """Writes the text of the calibration tokens, for the importance matrix here and for `qins compress --calibrate`."""
        text = wikitext.read_bytes()
        text = text[text.index(b"\n", CALIBRATION_BYTE) + 1 :].decode("utf-8")
        coded, n = encode(text), CALIBRATION_WINDOWS * CTX
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

    def tensors(self):
        """Yields (name, FP32 weights) of the reference."""
        with safe_open(self.ref / "model.safetensors", "numpy") as file:
            for name in file.keys():
                yield name, file.get_tensor(name)

    def row(self, key, make, texts=("wikitext", "tales")):
        """Returns the row kept under key, {..., "texts": {name: score}}; make(folder) returns (model path, row) where one is missing."""
        full_key = {name: digest(name, self.scorer.texts[name]) for name in texts}
        row = self.results.load().get(key, {"texts": {}})
        missing = [name for name in texts if full_key[name] not in row["texts"]]
        if missing and self.args.known:
            return None
        if missing:
            print(key, file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(dir=self.work) as folder:
                model, made = make(Path(folder))
                scores = self.scorer.score(model, missing)
            row = made | {"texts": row["texts"] | {full_key[name]: scores[name] for name in missing}}
            self.results.store(key, row)
        return row | {name: row["texts"][full_key[name]] for name in texts}

    # ---- llama.cpp ----

    def make_types(self, folder, type_of, with_importance):
        """Quantises each tensor to type_of(name) (None: stays) and writes the result as FP32."""
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
        for file in self.ref.iterdir():
            if file.suffix == ".json":
                shutil.copy(file, folder)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder, {"bpw": 8 * coded_bytes / coded_weights, "bytes": coded_bytes, "rel_mse": error / power}

    def importance_name(self, with_importance):
        return f"importance {digest(self.calibration)}" if with_importance else "plain"

    def type_row(self, kind, with_importance):
        """One llama.cpp type for all linears; embedding and head stay FP32."""
        key = f"linears {kind} {self.importance_name(with_importance)} {self.ref_hash}"
        return self.row(key, lambda folder: self.make_types(folder, lambda name: kind if is_linear(name) else None, with_importance))

    def recipe_row(self, recipe, with_importance):
        """A llama.cpp recipe for the whole model, every type as the recipe names it, tiled."""
        n_layers = json.loads((self.ref / "config.json").read_text())["num_hidden_layers"]
        key = f"tiled {recipe} {self.importance_name(with_importance)} {self.ref_hash}"
        return self.row(key, lambda folder: self.make_types(folder, lambda name: recipe_type(recipe, name, n_layers), with_importance))

    def file_row(self, recipe, with_importance):
        """The file that llama.cpp's own quantiser makes of the reference."""
        key = f"file {recipe} {self.importance_name(with_importance)} {self.ref_hash} {digest(Path(self.args.gguf))}"

        def make(folder):
            plain, coded = folder / "f32.gguf", folder / f"{recipe}.gguf"
            write_gguf(self.args.gguf, dict(self.tensors()), plain)
            names = {gguf_name_of(self.args.gguf, name): values for name, values in self.importance.items()} if with_importance else {}
            ggml.quantise_file(plain, coded, recipe, names, self.args.threads)
            plain.unlink()
            matrices = [t for t in gguf.GGUFReader(coded).tensors if len(t.shape) > 1]
            n_bytes = sum(int(t.n_bytes) for t in matrices)
            return coded, {"bpw": 8 * n_bytes / sum(int(t.n_elements) for t in matrices), "bytes": n_bytes, "file_bytes": coded.stat().st_size}

        return self.row(key, make)

    # ---- qins ----

    def qins_row(self, options, texts=("wikitext", "tales")):
        """`qins compress` with the options; {calibration} in them stands for the calibration file."""
        program = digest(Path(self.args.qins))
        key = f"qins {' '.join(map(str, options))} {digest(self.calibration)} {self.ref_hash}"
        if self.args.keep_qins:
            known = [k for k in self.results.load() if k.startswith(key + " ")]
            program = known[-1].split()[-1] if known else program

        def make(folder):
            out = folder / "model"
            filled = [str(option).replace("{calibration}", str(self.calibration)) for option in options]
            made = qins(self.args.qins, "compress", str(self.ref), str(out), *filled, "--threads", str(self.args.threads))
            tensors = qins(self.args.qins, "audit", str(out))
            linears = [t for t in tensors["tensors"] if t["role"] == "linear"]
            matrices = [t for t in tensors["tensors"] if len(t["shape"]) > 1]
            return out, {"bpw": 8 * sum(t["bytes"] for t in linears) / sum(int(np.prod(t["shape"])) for t in linears),
                         "bytes": sum(t["bytes"] for t in matrices), "file_bytes": tensors["totals"]["weight_file_bytes"],
                         "rel_mse": made.get("rel_mse"), "made": {k: v for k, v in made.items() if not isinstance(v, (list, dict))}}

        return self.row(f"{key} {program}", make, texts)
