#!/usr/bin/env python3
r"""Write a checkpoint with the exact shapes of a published model and random weights.

    python3 tools/make_shapes.py NAME OUT [--dtype f32|f16|bf16] [--seed N] [--set KEY=VALUE ...]

For measuring sizes, memory and speed where the real weights cannot be had. The configuration, the tensor names, their
shapes and dtype, and the shards are those of the model that NAME says; the weights are drawn, each tensor from a seed of its
own, with the spread over rows and the few outlier channels that trained ones have; the tokenizer is a byte-level BPE of
the right size that encodes any text. Needs NumPy; holds a few MiB at a time.

--set overrides integers of the configuration, for small relatives of a model:
    tools/make_shapes.py phi-3.5-mini tiny --set num_hidden_layers=2 --set hidden_size=192 --set num_attention_heads=2 \
        --set num_key_value_heads=2 --set intermediate_size=512 --set vocab_size=512
"""

import argparse
import json
import os
import sys
import zlib
from pathlib import Path

import numpy as np

SHARD_BYTES = 5_000_000_000  # of the files that Hugging Face writes
CHUNK_VALUES = 1 << 21

# Of the published configuration, which prints the FP32 value of each in full.
PHI_SHORT = [
    1.0, 1.02, 1.03, 1.03, 1.05, 1.05, 1.05, 1.05, 1.05, 1.07, 1.1, 1.11, 1.16, 1.16, 1.17, 1.29, 1.34, 1.68, 1.79, 1.82,
    1.85, 1.88, 1.91, 1.94, 1.99, 2.02, 2.02, 2.02, 2.02, 2.02, 2.02, 2.03, 2.03, 2.03, 2.03, 2.03, 2.03, 2.03, 2.03, 2.03,
    2.08, 2.09, 2.19, 2.22, 2.59, 2.73, 2.75, 2.84,
]  # fmt: skip
PHI_LONG = [
    1.08, 1.11, 1.14, 1.34, 1.59, 1.6, 1.62, 2.62, 3.23, 3.23, 4.79, 7.4, 7.7, 9.09, 12.2, 17.67, 24.46, 28.57, 30.42,
    30.84, 32.59, 32.93, 42.32, 44.96, 50.34, 50.45, 57.55, 57.93, 58.21, 60.14, 62.61, 62.62, 62.71, 63.14, 63.14, 63.77,
    63.93, 63.96, 63.97, 64.03, 64.07, 64.08, 64.12, 64.41, 64.48, 64.51, 64.53, 64.84,
]  # fmt: skip


def phi3(**changes):
    return {
        "architectures": ["Phi3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "embd_pdrop": 0.0,
        "eos_token_id": 32000,
        "hidden_act": "silu",
        "hidden_size": 3072,
        "initializer_range": 0.02,
        "intermediate_size": 8192,
        "max_position_embeddings": 131072,
        "model_type": "phi3",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "original_max_position_embeddings": 4096,
        "pad_token_id": 32000,
        "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "long_factor": [float(np.float32(f)) for f in PHI_LONG],
            "short_factor": [float(np.float32(f)) for f in PHI_SHORT],
            "type": "longrope",
        },
        "rope_theta": 10000.0,
        "sliding_window": 262144,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": 32064,
        **changes,
    }


def llama(**changes):
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "mlp_bias": False,
        "model_type": "llama",
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "use_cache": True,
        **changes,
    }


def llama3(factor, **changes):
    return llama(
        bos_token_id=128000,
        eos_token_id=128001,
        head_dim=changes["hidden_size"] // changes["num_attention_heads"],
        max_position_embeddings=131072,
        rope_scaling={
            "factor": factor,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        rope_theta=500000.0,
        vocab_size=128256,
        **changes,
    )


def qwen3(**changes):
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 40960,
        "model_type": "qwen3",
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 151936,
        **changes,
    }


# Configuration and the special tokens of its vocabulary.
MODELS = {
    "phi-3.5-mini": (phi3(), {0: "<unk>", 1: "<s>", 2: "</s>", 32000: "<|endoftext|>", 32001: "<|assistant|>",
                              32006: "<|system|>", 32007: "<|end|>", 32010: "<|user|>"}),  # fmt: skip
    "llama-3.2-1b": (
        llama3(32.0, hidden_size=2048, intermediate_size=8192, num_attention_heads=32, num_hidden_layers=16,
               num_key_value_heads=8, tie_word_embeddings=True),
        {128000: "<|begin_of_text|>", 128001: "<|end_of_text|>", 128009: "<|eot_id|>"},
    ),  # fmt: skip
    "llama-3.1-8b": (
        llama3(8.0, hidden_size=4096, intermediate_size=14336, num_attention_heads=32, num_hidden_layers=32,
               num_key_value_heads=8, tie_word_embeddings=False),
        {128000: "<|begin_of_text|>", 128001: "<|end_of_text|>", 128009: "<|eot_id|>"},
    ),  # fmt: skip
    "tinyllama-1.1b": (
        llama(bos_token_id=1, eos_token_id=2, hidden_size=2048, intermediate_size=5632, max_position_embeddings=2048,
              num_attention_heads=32, num_hidden_layers=22, num_key_value_heads=4, rope_scaling=None,
              rope_theta=10000.0, tie_word_embeddings=False, vocab_size=32000),
        {0: "<unk>", 1: "<s>", 2: "</s>"},
    ),  # fmt: skip
    "qwen3-0.6b": (
        qwen3(hidden_size=1024, intermediate_size=3072, max_window_layers=28, num_attention_heads=16,
              num_hidden_layers=28),
        {151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>"},
    ),  # fmt: skip
    "qwen3-4b": (
        qwen3(hidden_size=2560, intermediate_size=9728, max_window_layers=36, num_attention_heads=32,
              num_hidden_layers=36),
        {151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>"},
    ),  # fmt: skip
}


def tensors(c):
    """(name, shape, kind) in the order of a published file. kind: embedding, norm, in (reads the residual), out (adds to it)."""
    hidden, inner, vocab = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
    head = c.get("head_dim") or hidden // heads
    yield "model.embed_tokens.weight", (vocab, hidden), "embedding"
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (hidden,), "norm"
        if c["model_type"] == "phi3":
            yield p + "mlp.down_proj.weight", (hidden, inner), "out"
            yield p + "mlp.gate_up_proj.weight", (2 * inner, hidden), "in"
        else:
            yield p + "mlp.down_proj.weight", (hidden, inner), "out"
            yield p + "mlp.gate_proj.weight", (inner, hidden), "in"
            yield p + "mlp.up_proj.weight", (inner, hidden), "in"
        yield p + "post_attention_layernorm.weight", (hidden,), "norm"
        if c["model_type"] == "phi3":
            yield p + "self_attn.o_proj.weight", (hidden, heads * head), "out"
            yield p + "self_attn.qkv_proj.weight", ((heads + 2 * kv) * head, hidden), "in"
        else:
            if c["model_type"] == "qwen3":
                yield p + "self_attn.k_norm.weight", (head,), "norm"
            yield p + "self_attn.k_proj.weight", (kv * head, hidden), "in"
            yield p + "self_attn.o_proj.weight", (hidden, heads * head), "out"
            if c["model_type"] == "qwen3":
                yield p + "self_attn.q_norm.weight", (head,), "norm"
            yield p + "self_attn.q_proj.weight", (heads * head, hidden), "in"
            yield p + "self_attn.v_proj.weight", (kv * head, hidden), "in"
    yield "model.norm.weight", (hidden,), "norm"
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", (vocab, hidden), "embedding"


DTYPES = {"f32": ("F32", 4, "float32"), "f16": ("F16", 2, "float16"), "bf16": ("BF16", 2, "bfloat16")}


def to_dtype(x, dtype):
    """float32 to the bytes of the file; BF16 rounds to nearest even."""
    if dtype == "f32":
        return x.astype("<f4", copy=False)
    if dtype == "f16":
        return x.astype("<f2")
    bits = x.view(np.uint32)
    bits += 0x7FFF + (bits >> 16 & 1)
    return (bits >> 16).astype("<u2")


def values(name, shape, kind, c, seed):
    """Float32 chunks of a tensor. A row's spread varies log-normally around that of the initialisation; one input channel
    in 400 is four to twenty times as large, the same ones in every matrix that reads the residual stream."""
    rng = np.random.Generator(np.random.SFC64([seed, zlib.crc32(name.encode())]))
    if kind == "norm":
        yield (1.0 + 0.1 * rng.standard_normal(shape, dtype=np.float32)).astype(np.float32)
        return
    rows, cols = shape
    spread = c["initializer_range"] / (np.sqrt(2.0 * c["num_hidden_layers"]) if kind == "out" else 1.0)
    channels = np.ones(cols, dtype=np.float32)
    if kind != "embedding":
        of_channels = np.random.Generator(np.random.SFC64([seed, cols if kind == "in" else zlib.crc32(name.encode()) ^ 1]))
        chosen = of_channels.choice(cols, max(1, cols // 400), replace=False)
        channels[chosen] = of_channels.uniform(4.0, 20.0, len(chosen))
    scale = (spread * np.exp(0.25 * rng.standard_normal(rows))).astype(np.float32)
    step = max(1, CHUNK_VALUES // cols)
    for row in range(0, rows, step):
        n = min(step, rows - row)
        x = rng.standard_normal((n, cols), dtype=np.float32)
        x *= scale[row : row + n, None]
        x *= channels
        yield x


def write_shard(path, members, c, args):
    dtype, size, _ = DTYPES[args.dtype]
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, _ in members:
        n = int(np.prod(shape)) * size
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + n]}
        offset += n
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for name, shape, kind in members:
            for x in values(name, shape, kind, c, args.seed):
                f.write(to_dtype(np.ascontiguousarray(x), args.dtype).data)
    return offset


def write_weights(out, c, args):
    size = DTYPES[args.dtype][1]
    shards, filled = [[]], 0
    for name, shape, kind in tensors(c):
        n = int(np.prod(shape)) * size
        if filled + n > SHARD_BYTES and shards[-1]:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape, kind))
        filled += n
    weight_map, total = {}, 0
    for i, members in enumerate(shards):
        name = "model.safetensors" if len(shards) == 1 else f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        total += write_shard(out / name, members, c, args)
        weight_map |= {tensor: name for tensor, _, _ in members}
        print(f"{name}: {os.path.getsize(out / name):,} bytes", file=sys.stderr)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return total // size, total


def byte_letters():
    """The letters that byte-level BPE writes bytes as, common ones first."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letter = {b: chr(b) for b in shown}
    letter |= {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in letter)}
    common = " etaoinshrdlcumwfgypbvk,.\n"
    order = [ord(ch) for ch in common] + [b for b in range(256) if chr(b) not in common]
    return [letter[b] for b in order]


def write_tokenizer(out, c, specials):
    """Every id of the vocabulary is a token: specials at their places, the 256 bytes, then strings of two bytes, three,
    and so on, each made of the one before it and a byte, so that merging in this order reaches all of them."""
    letters = byte_letters()
    specials = {i: text for i, text in specials.items() if i < c["vocab_size"]}
    free = (i for i in range(c["vocab_size"]) if i not in specials)
    strings, vocab, merges = list(letters), {letter: next(free) for letter in letters}, []
    for i, token_id in enumerate(free):
        left, right = strings[i // 256], letters[i % 256]
        strings.append(left + right)
        vocab[left + right] = token_id
        merges.append([left, right])
    added = [{"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, text in sorted(specials.items())]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocab, "merges": merges},
    }  # fmt: skip
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False) + "\n")
    named = {k: specials[c[k + "_id"]] for k in ("bos_token", "eos_token") if c.get(k + "_id") in specials}
    config = {**named, "model_max_length": c["max_position_embeddings"], "tokenizer_class": "PreTrainedTokenizerFast"}
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", choices=MODELS, help=", ".join(MODELS))
    parser.add_argument("out", metavar="OUT", type=Path)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16", help="default: bf16, as the models are published")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[])
    args = parser.parse_args()
    config, specials = MODELS[args.name]
    config = {**config, "torch_dtype": DTYPES[args.dtype][2]}
    for change in args.set:
        key, _, value = change.partition("=")
        if type(config.get(key)) is not int or not value.lstrip("-").isdigit():
            parser.error(f"--set {change}: expected an integer of the configuration, KEY=VALUE")
        config[key] = int(value)
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if config.get(key, 0) >= config["vocab_size"]:
            config[key] = 0
    if 256 + len(specials) > config["vocab_size"]:
        parser.error("vocab_size: expected room for 256 bytes and the special tokens")
    args.out.mkdir(parents=True)
    parameters, n_bytes = write_weights(args.out, config, args)
    write_tokenizer(args.out, config, specials)
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"{args.out}: {parameters:,} parameters, {n_bytes:,} bytes of {args.dtype}")


if __name__ == "__main__":
    main()
