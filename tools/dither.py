#!/usr/bin/env python3
"""Turn a Q4_1 GGUF into an FP32 model that no 4-bit grid fits by luck.

    tools/dither.py "$(tools/get_smollm2.sh)" OUT

A quantiser measured on weights that are 4-bit already could meet their grid exactly and look better than it is. Each weight
therefore gets uniform noise of one step of its own cell, in [-d/2, d/2) with d the scale of its block of 32 (Q4_1; the same for tensors in
Q4_0, Q8_0), from a generator seeded by --seed and the name of the tensor. Norms and other FP32 tensors stay as they are. OUT is a Hugging
Face directory: configuration, tokenizer and names are those of `qins export`, whose weights are checked against gguf's own decoder.
"""
import argparse
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

import gguf
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from qins_program import qins

BLOCK = 32
BLOCK_BYTES = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34}  # each starts with the scale d as FP16
PLAIN = ("F32", "F16", "BF16")


def steps(tensor):
    """Returns the distance of neighbouring levels at each weight, or None for tensors that are not quantised."""
    kind = tensor.tensor_type.name
    if kind in PLAIN:
        return None
    if kind not in BLOCK_BYTES:
        sys.exit(f"{tensor.name} is {kind}: expected one of {', '.join([*BLOCK_BYTES, *PLAIN])}")
    blocks = tensor.data.reshape(tensor.data.shape[0], -1, BLOCK_BYTES[kind])
    scale = np.ascontiguousarray(blocks[:, :, :2]).view(np.float16).astype(np.float32)
    return np.abs(np.repeat(scale[:, :, 0], BLOCK, axis=1))


def unpermute(rows, n_heads):
    """Takes rows of a llama's q or k from the order of GGUF (rotary pairs adjacent) to that of Hugging Face (halves)."""
    shape = rows.shape
    return rows.reshape(n_heads, shape[0] // n_heads // 2, 2, shape[1]).swapaxes(1, 2).reshape(shape)


def value(reader, name):
    """Returns a number or string of the GGUF's metadata."""
    field = reader.get_field(name)
    return field.contents() if field is not None else None


def dither(gguf_path, plain, seed):
    """Returns {name: weights with noise} of the exported model in the folder `plain`."""
    reader = gguf.GGUFReader(gguf_path)
    arch = value(reader, "general.architecture")
    known = next((k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch), None) or sys.exit(f"{gguf_path}: unknown architecture {arch}")
    names = gguf.get_tensor_name_map(known, value(reader, f"{arch}.block_count"))
    heads = {"attn_q": value(reader, f"{arch}.attention.head_count"), "attn_k": value(reader, f"{arch}.attention.head_count_kv")}
    tensors = {t.name: t for t in reader.tensors}
    weights = {}
    with safe_open(plain / "model.safetensors", "numpy") as exported:
        for name in exported.keys():
            weight = exported.get_tensor(name)
            tensor = tensors[names.get_name(name, try_suffixes=(".weight", ".bias"))]
            decoded, step = gguf.quants.dequantize(tensor.data, tensor.tensor_type), steps(tensor)
            n_heads = heads.get(tensor.name.split(".")[-2]) if arch == "llama" else None
            if n_heads is not None and weight.ndim == 2:
                decoded = unpermute(decoded, n_heads)
                step = step if step is None else unpermute(step, n_heads)
            if not np.array_equal(decoded.reshape(weight.shape), weight):
                sys.exit(f"{name}: the export differs from gguf's decoder")
            if step is not None:
                random = np.random.default_rng([seed, zlib.crc32(name.encode())])
                weight = weight + step * (random.random(weight.shape, np.float32) - np.float32(0.5))
            weights[name] = weight
    return weights


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="GGUF file whose matrices are Q4_1, Q4_0 or Q8_0")
    parser.add_argument("out", type=Path, help="folder to write; must not exist")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--qins", default="build/release/cli/qins")
    args = parser.parse_args()
    if args.out.exists():
        sys.exit(f"{args.out} exists already")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent) as folder:
        plain = Path(folder) / "model"
        qins(args.qins, "export", args.model, str(plain), "--dtype", "f32")
        weights = dither(args.model, plain, args.seed)
        save_file(weights, plain / "dithered.safetensors", metadata={"format": "pt"})
        (plain / "dithered.safetensors").replace(plain / "model.safetensors")
        (plain / "model.safetensors").chmod(0o644)
        shutil.move(plain, args.out)
    print(args.out)


main()
