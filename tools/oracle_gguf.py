#!/usr/bin/env python3
"""Compare GGUF files that `qins export` writes with llama.cpp and with the gguf package, live.

    python3 tools/oracle_gguf.py models/toy tests/golden/families/*/ "$(tools/get_smollm2.sh)"

Of each model: the F32 file loads in llama.cpp, which computes the logits that qins computes from the model and cuts
texts into the same tokens; its metadata and tensors read with the gguf package; and the tensors of the F16, BF16 and
Q8_0 files are, bit for bit, what that package makes of the F32 file's. Models that qins refuses to express are listed
with its reason. Exit status 1 when anything differs.

llama.cpp differs from the model by itself in two ways. Its GELU is the tanh approximation from a table of FP16 values:
logits of models with GELU are compared with transformers given the same GELU, and how far qins is, which computes the
model's own, is only told. --max-diff-gelu leaves room for inputs so close to the middle between two FP16 values that
the last bit decides. And it knows sliding windows only where WINDOWS says; elsewhere positions beyond one are left
out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import torch

import oracle.hf as hf

ROOT = Path(__file__).resolve().parent.parent
WINDOWS = {"gemma2", "gemma3", "olmo2"}
GELU = {"gemma", "gemma2", "gemma3", "gpt2", "gptneox", "phi2"}
# What llama.cpp cannot load though it says nothing against the format.
NOT_LOADED = {"olmoe": "fewer key-value heads than heads"}
LONGEST = 512
TYPES = {
    "f16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
TEXTS = [
    "Once upon a time there was a king; he had 3 sons and 1,234,567 horses.",
    "  two  spaces,\ttabs\n\n\nnewlines \r\n and trailing   ",
    "I'll say: they've DONE it, haven't they? _under_score CamelCase x=y+1;",
    "Grüße aus Köln, élève, naïve, Привет мир, 你好世界, こんにちは, مرحبا",
    "emoji 🙂🚀👩‍👩‍👧 and <|endoftext|> in the middle",
    "",
    "    indented\n        more\n",
    "0123456789 ½ ² ٣ 𝟘",
]


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help="Hugging Face or qins directories, or GGUF files")
    parser.add_argument("--text", type=Path, default=ROOT / "models" / "toy" / "valid.txt", help="input of the logits")
    parser.add_argument("--max-diff", type=float, default=1e-3)
    parser.add_argument("--max-diff-gelu", type=float, default=2e-3)
    parser.add_argument("--qins", type=Path, default=ROOT / "build" / "release" / "cli" / "qins")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def run(args, *command):
    """Run qins with --json; return (its object, None) or (None, its message)."""
    done = subprocess.run([str(part) for part in (args.qins, *command, "--json")], capture_output=True, check=False)
    if done.returncode != 0:
        return None, done.stderr.decode().strip()
    return json.loads(done.stdout), None


def must_run(args, *command):
    """Run qins; end the tool when it fails."""
    result, message = run(args, *command)
    if result is None:
        sys.exit(f"qins {' '.join(map(str, command))}: {message}")
    return result


def input_ids(args, model):
    """Return the ids to compare on: the golden sequence beside the model, or the start of the text."""
    golden = model / "ids_1.npy"
    if golden.exists():
        return np.load(golden).tolist()
    return must_run(args, "tokenize", model, "--file", args.text)["ids"][:LONGEST]


def qins_logits(args, model, ids, folder):
    """Return the float32 [n, vocab] logits that qins computes."""
    out = folder / "logits.npy"
    (folder / "ids.txt").write_text(",".join(map(str, ids)) + "\n")
    must_run(args, "logits", model, "--ids-file", folder / "ids.txt", "--out", out, "--kv-bits", 32,
              "--threads", args.threads)  # fmt: skip
    return np.load(out)


class TableGelu(torch.nn.Module):
    """llama.cpp's GELU: tanh approximation, input and result rounded to FP16, exact outside of +-10."""

    def forward(self, x):
        """Return it for each element."""
        h = x.half().float()
        y = 0.5 * h * (1 + torch.tanh(0.79788456080286535588 * h * (1 + 0.044715 * h * h)))
        return torch.where(x <= -10, 0, torch.where(x >= 10, x, y.half().float()))


def table_gelu_logits(model, ids):
    """Return the logits of transformers with that GELU in place of the model's, None when no module was one."""
    network = hf.load_model(model)
    found = [(parent, name) for parent in network.modules() for name, child in parent.named_children()
             if "gelu" in type(child).__name__.lower()]  # fmt: skip
    for parent, name in found:
        setattr(parent, name, TableGelu())
    return hf.logits(network, ids) if found else None


def field(reader, key):
    """Return a metadata value, None when absent."""
    found = reader.get_field(key)
    return found.contents() if found is not None else None


def compare_logits(args, model, path, reader, folder):
    """Return (report, good) of llama.cpp's logits from the file beside qins' from the model."""
    arch = field(reader, "general.architecture")
    ids = input_ids(args, model)
    try:
        engine = llama_cpp.Llama(str(path), n_ctx=len(ids), n_batch=len(ids), n_ubatch=len(ids), n_threads=args.threads,
                                 logits_all=True, type_k=0, type_v=0, flash_attn=False, verbose=False)  # fmt: skip
    except ValueError as error:
        if arch in NOT_LOADED:
            return f"not loaded by llama.cpp ({NOT_LOADED[arch]})", True, None
        return f"llama.cpp: {error}", False, None
    engine.eval(ids)
    theirs, ours = np.array(engine.scores[: len(ids)]), qins_logits(args, model, ids, folder)
    window = field(reader, f"{arch}.attention.sliding_window")
    n = len(ids) if arch in WINDOWS or not window else min(len(ids), window)
    diff = float(np.abs(theirs[:n].astype(np.float64) - ours[:n]).max())
    same = float((theirs[:n].argmax(axis=1) == ours[:n].argmax(axis=1)).mean())
    report, good = f"logits of {n:3} positions within {diff:.1e}, best token equal at {same:.1%}", diff <= args.max_diff
    if arch in GELU and model.is_dir():
        table = table_gelu_logits(model, ids)
        to_table = float(np.abs(theirs[:n].astype(np.float64) - table[:n]).max()) if table is not None else np.inf
        report += f", within {to_table:.1e} of transformers with llama.cpp's GELU"
        good = to_table <= args.max_diff_gelu
    return report, good, engine


def compare_tokens(args, path, engine, folder):
    """Return the texts that llama.cpp cuts otherwise than qins, the file's tokenizer on both sides."""
    wrong = []
    for text in TEXTS:
        (folder / "text.txt").write_bytes(text.encode())
        ours = must_run(args, "tokenize", path, "--special", "--file", folder / "text.txt")["ids"]
        theirs = engine.tokenize(text.encode(), add_bos=True, special=True) if text else []
        if text and ours != theirs:
            wrong.append(text)
    return wrong


def compare_types(args, model, plain, folder):
    """Return the tensors of the F16, BF16 and Q8_0 files that are not what the gguf package makes of the F32 ones."""
    wrong, compared = [], 0
    for name, qtype in TYPES.items():
        path = folder / f"{name}.gguf"
        must_run(args, "export", model, path, "--format", "gguf", "--dtype", name)
        reader = gguf.GGUFReader(path)
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        for tensor in plain.tensors:
            other = tensors.pop(tensor.name)
            values = np.array(tensor.data).reshape(tuple(int(n) for n in reversed(tensor.shape)))
            if other.tensor_type == gguf.GGMLQuantizationType.F32:
                expected = values
            else:
                falls_back = qtype == TYPES["q8_0"] and values.shape[-1] % 32 != 0
                expected = gguf.quantize(values, TYPES["f16"] if falls_back else qtype)
            compared += 1
            if np.asarray(other.data).tobytes() != expected.tobytes():
                wrong.append(f"{tensor.name} as {name}")
        wrong += [f"{left} only in the {name} file" for left in tensors]
        path.unlink()
    return wrong, compared


def check(args, model, folder):
    """Report on one model; return whether all is well."""
    path = folder / "model.gguf"
    name = model.name
    if model.is_dir():  # its name goes into the file, and llama.cpp expects certain tokens of a "phi3"
        (folder / "checkpoint").symlink_to(model.resolve())
        model = folder / "checkpoint"
    _, message = run(args, "export", model, path, "--format", "gguf")
    if message:
        known = "cannot be expressed in a GGUF file" in message
        print(f"{name:28} refused: {message.split(': ', 2)[-1]}", flush=True)
        return known
    reader = gguf.GGUFReader(path)
    report, good, engine = compare_logits(args, model, path, reader, folder)
    if engine is not None:
        wrong = compare_tokens(args, path, engine, folder)
        good = good and not wrong
        report += f"; {len(TEXTS) - len(wrong)} of {len(TEXTS)} texts cut alike"
        report += "".join(f"\n    otherwise: {text!r}" for text in wrong)
        engine.close()
    wrong, compared = compare_types(args, model, reader, folder)
    report += f"; {compared - len(wrong)} of {compared} tensors as gguf quantizes them"
    report += "".join(f"\n    differs: {name}" for name in wrong)
    print(f"{name:28} {'ok  ' if good and not wrong else 'BAD '} {report}", flush=True)
    return good and not wrong


def main():
    """Check every model."""
    args = parse_args()
    good = True
    for model in args.models:
        with tempfile.TemporaryDirectory() as folder:
            good = check(args, model, Path(folder)) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
