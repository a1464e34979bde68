#!/usr/bin/env python3
"""Write a tiny random checkpoint of each model family with the logits that transformers computes from it.

    python3 tools/make_family_goldens.py                                # all of tests/golden/families
    python3 tools/make_family_goldens.py qwen2 phi3 --out DIR --seed 7  # some, elsewhere, with other weights

Each folder holds config.json, model.safetensors (F32), tokenizer.json and, from the checkpoint as transformers reads it
back (FP32, eager attention):

  ids_K.npy, positions_K.npy, logits_K.npy   a sequence, some of its positions and the logits there
  greedy_ids.npy                             N_PROMPT ids and the N_GREEDY that greedy decoding continues with

Sequences are longer than sliding windows and original contexts. Where rope depends on the length of the sequence,
sequence 0 stays within the original context and sequence 1 does not, and greedy decoding uses the rope of its full
length, as an engine with a KV cache does.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "golden" / "families"
N_VOCAB = 272
N_SHORT, N_LONG = 14, 45
N_PROMPT, N_GREEDY = 8, 64
MAX_ATTEMPTS = 40
MIN_MARGIN = 2e-3  # between the two best logits of each greedy step: far above rounding
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
GQA = SIZES | {"num_key_value_heads": 2}
DEEP = GQA | {"num_hidden_layers": 3, "intermediate_size": 40}

# NAME_published: with the options of the published models only, which is what a GGUF file can hold.
# name -> (model_type, config, changes that make config.json look as older versions wrote it)
FAMILIES = {
    "llama": ("llama", GQA | {"attention_bias": True, "mlp_bias": True, "head_dim": 12}, {}),
    "llama_linear": (
        "llama",
        GQA | {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "linear", "factor": 4.0}},
        {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 10000.0},
    ),
    "llama_dynamic": (
        "llama",
        GQA | {"max_position_embeddings": 16, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
        {},
    ),
    "llama_llama3": (
        "llama",
        GQA
        | {
            "max_position_embeddings": 128,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
        {},
    ),
    "llama_yarn": (
        "llama",
        GQA
        | {
            "head_dim": 16,
            "max_position_embeddings": 128,
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 8.0,
                "original_max_position_embeddings": 16,
                "beta_fast": 4.0,
                "beta_slow": 0.5,
                "mscale": 1.5,
                "mscale_all_dim": 0.5,
                "truncate": False,
            },
        },
        {},
    ),
    "llama_yarn_published": (
        "llama",
        GQA
        | {
            "max_position_embeddings": 128,
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 8.0,
                "original_max_position_embeddings": 16,
                "attention_factor": 1.4,
            },
        },
        {},
    ),
    "mistral": ("mistral", GQA | {"sliding_window": 8}, {}),
    "ministral": (
        "ministral",
        DEEP
        | {
            "head_dim": 8,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        {},
    ),
    "qwen2": (
        "qwen2",
        DEEP
        | {
            "use_sliding_window": True,
            "sliding_window": 8,
            "max_window_layers": 2,
            "max_position_embeddings": 128,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1000000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
        {
            "rope_parameters": None,
            "layer_types": None,
            "rope_theta": 1000000.0,
            "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        },
    ),
    "qwen3": (
        "qwen3",
        GQA
        | {
            "head_dim": 16,
            "tie_word_embeddings": True,
            "use_sliding_window": True,
            "sliding_window": 10,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        {},
    ),
    "phi3": (
        "phi3",
        GQA
        | {
            "sliding_window": 20,
            "max_position_embeddings": 128,
            "original_max_position_embeddings": 16,
            "pad_token_id": None,
            "rope_parameters": {
                "rope_type": "longrope",
                "partial_rotary_factor": 0.75,
                "short_factor": [1.0, 1.25, 1.5],
                "long_factor": [1.5, 4.0, 9.0],
            },
        },
        {
            "rope_parameters": None,
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.25, 1.5], "long_factor": [1.5, 4.0, 9.0]},
        },
    ),
    "phi": ("phi", GQA | {"rope_parameters": {"partial_rotary_factor": 0.5}}, {}),
    "gpt_neox": (
        "gpt_neox",
        SIZES | {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        {"rope_parameters": None, "rotary_pct": 0.5, "rotary_emb_base": 10000},
    ),
    "gpt_neox_sequential": (
        "gpt_neox",
        SIZES
        | {
            "use_parallel_residual": False,
            "attention_bias": False,
            "tie_word_embeddings": True,
            "hidden_act": "gelu_new",
            "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.0},
        },
        {},
    ),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 80}, {}),
    "gemma": ("gemma", GQA | {"head_dim": 16, "hidden_act": "gelu", "pad_token_id": None}, {}),
    "gemma2": (
        "gemma2",
        DEEP
        | {
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "sliding_window": 8,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 1.5,
            "pad_token_id": None,
        },
        {"layer_types": None},
    ),
    "gemma3_text": (
        "gemma3_text",
        DEEP
        | {
            "head_dim": 16,
            "tie_word_embeddings": False,
            "query_pre_attn_scalar": 24,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "pad_token_id": None,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            },
        },
        {},
    ),
    "gemma3_text_old": (
        "gemma3_text",
        DEEP
        | {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 8,
            "final_logit_softcapping": 1.5,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "pad_token_id": None,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
                "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0},
            },
        },
        {
            "rope_parameters": None,
            "layer_types": None,
            "sliding_window_pattern": 2,
            "rope_theta": 5000.0,
            "rope_local_base_freq": 50.0,
            "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        },
    ),
    "olmo2": ("olmo2", GQA, {}),
    "smollm3": (
        "smollm3",
        DEEP
        | {
            "no_rope_layer_interval": 2,
            "use_sliding_window": True,
            "sliding_window": 12,
            "pad_token_id": None,
            "mlp_bias": True,
        },
        {"layer_types": None, "no_rope_layers": None},
    ),
    "smollm3_published": (
        "smollm3",
        GQA | {"num_hidden_layers": 4, "intermediate_size": 40, "no_rope_layer_interval": 4, "pad_token_id": None},
        {"layer_types": None, "no_rope_layers": None},
    ),
    "mixtral": ("mixtral", GQA | {"intermediate_size": 16, "num_local_experts": 5, "sliding_window": 12}, {}),
    "qwen2_moe": (
        "qwen2_moe",
        GQA
        | {
            "moe_intermediate_size": 12,
            "shared_expert_intermediate_size": 20,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "num_hidden_layers": 3,
            "mlp_only_layers": [1],
        },
        {"layer_types": None},
    ),
    "qwen2_moe_published": (
        "qwen2_moe",
        GQA
        | {
            "moe_intermediate_size": 12,
            "shared_expert_intermediate_size": 20,
            "num_experts": 4,
            "num_experts_per_tok": 2,
        },
        {"layer_types": None},
    ),
    "qwen3_moe": (
        "qwen3_moe",
        GQA
        | {
            "head_dim": 16,
            "moe_intermediate_size": 12,
            "num_experts": 7,
            "num_experts_per_tok": 3,
            "norm_topk_prob": True,
            "decoder_sparse_step": 2,
            "attention_bias": True,
        },
        {},
    ),
    "qwen3_moe_published": (
        "qwen3_moe",
        GQA
        | {
            "head_dim": 16,
            "moe_intermediate_size": 12,
            "num_experts": 7,
            "num_experts_per_tok": 3,
            "norm_topk_prob": True,
        },
        {},
    ),
    "olmoe_published": ("olmoe", SIZES | {"intermediate_size": 12, "num_experts": 8, "num_experts_per_tok": 3}, {}),
    "olmoe": ("olmoe", GQA | {"intermediate_size": 12, "num_experts": 8, "num_experts_per_tok": 3}, {}),
}


def make_tokenizer():
    """Return a byte-level BPE of N_VOCAB ids: 256 bytes, some merges, one special token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = ["Ġt", "he", "in", "re", "Ġa", "on", "er", "nd", "Ġthe", "ing", "Ġs", "at", "ou", "or", "en"]
    merges = [("Ġ", "t"), ("h", "e"), ("i", "n"), ("r", "e"), ("Ġ", "a"), ("o", "n"), ("e", "r"), ("n", "d"),
              ("Ġt", "he"), ("in", "g"), ("Ġ", "s"), ("a", "t"), ("o", "u"), ("o", "r"), ("e", "n")]  # fmt: skip
    vocab = {token: i for i, token in enumerate(letters + pairs)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    if tokenizer.get_vocab_size() != N_VOCAB:
        raise SystemExit(f"the tokenizer has {tokenizer.get_vocab_size()} ids, not {N_VOCAB}")
    return tokenizer


@torch.no_grad()
def randomize(model, generator):
    """Give every parameter random values that leave no step of the forward pass without effect."""
    plus_one = model.config.model_type.startswith("gemma")
    for name, p in model.named_parameters():
        values = torch.randn(p.shape, generator=generator)
        if name.endswith("bias"):
            values *= 0.3
        elif p.dim() == 1:
            values = 0.3 * values + (0.0 if plus_one else 1.0)
        elif "embed" in name or "wte" in name or "wpe" in name:
            values *= 0.1 if plus_one else 0.7
        else:
            fan_in = p.shape[-2] if model.config.model_type == "gpt2" else p.shape[-1]
            values *= (4.0 if "mlp.gate.weight" in name or "shared_expert_gate" in name else 1.5) / fan_in**0.5
        # Seven bits of mantissa, so that the files compress well.
        p.copy_(values.bfloat16().float())


def write_checkpoint(name, folder, seed):
    """Write a random checkpoint of a family."""
    model_type, settings, old_style = FAMILIES[name]
    end = N_VOCAB - 1
    config = AutoConfig.for_model(
        model_type, **({"vocab_size": N_VOCAB, "bos_token_id": end, "eos_token_id": end} | settings)
    )
    model = AutoModelForCausalLM.from_config(config)
    randomize(model, torch.Generator().manual_seed(seed))
    model.save_pretrained(folder)
    weights = {key: value.contiguous() for key, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    written = json.loads((folder / "config.json").read_text())
    for key, value in old_style.items():
        written.pop(key, None)
        if value is not None:
            written[key] = value
    for key in [key for key in written if key.startswith("_") or key == "transformers_version"]:
        del written[key]
    (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n")
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "model.safetensors").chmod(0o644)
    make_tokenizer().save(str(folder / "tokenizer.json"))


@torch.no_grad()
def all_logits(model, ids):
    """Return the float32 [n, vocab] logits of a sequence, computed in one pass without a cache."""
    return model(input_ids=torch.tensor(np.asarray(ids, dtype=np.int64)[None]), use_cache=False).logits[0].numpy()


def greedy(model, prompt):
    """Return the prompt and N_GREEDY more ids, and the smallest margin between the two best logits of a step (0: of no use).

    Every pass has the full length; what is not yet known is 0, which causal attention keeps from mattering.
    """
    ids = np.zeros(len(prompt) + N_GREEDY, dtype=np.int32)
    ids[: len(prompt)] = prompt
    margin = np.inf
    for i in range(len(prompt), len(ids)):
        row = all_logits(model, ids)[i - 1]
        best, second = np.argsort(-row, kind="stable")[:2]
        margin = min(margin, float(row[best] - row[second]))
        ids[i] = best
        if margin < MIN_MARGIN or (i == len(prompt) + N_PROMPT and len(set(ids[len(prompt) : i])) < 3):
            return ids, 0.0  # too close to call, or the same token over and over
    return ids, margin


def save(path, array):
    """Write a little-endian .npy file."""
    np.save(path, np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))))


def make(name, folder, seed):
    """Write checkpoint and goldens of one family; weights are drawn again until greedy decoding is clear-cut."""
    for attempt in range(MAX_ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_checkpoint(name, folder, 1000 * seed + attempt)
        # Read back, so that an old-style config.json counts as transformers understands it.
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        rng = np.random.default_rng(seed)
        ids, margin = greedy(model, rng.integers(0, N_VOCAB, N_PROMPT, dtype=np.int32))
        if margin > 0 and len(set(ids[N_PROMPT:])) > 4:
            break
    else:
        raise SystemExit(f"{name}: no clear-cut greedy decoding in {MAX_ATTEMPTS} attempts")
    save(folder / "greedy_ids.npy", ids)
    spread = 0.0
    for k, n in enumerate((N_SHORT, N_LONG)):
        sequence = rng.integers(0, N_VOCAB, n, dtype=np.int32)
        logits = all_logits(model, sequence)
        spread = max(spread, float(logits.std()))
        positions = np.array(sorted({*range(0, n, 5), n - 2, n - 1}), dtype=np.int32)
        save(folder / f"ids_{k}.npy", sequence)
        save(folder / f"positions_{k}.npy", positions)
        save(folder / f"logits_{k}.npy", logits[positions])
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name:20} {size // 1024:4} KiB, logits +-{spread:.1f}, smallest greedy margin {margin:.4f}", flush=True)


def main():
    """Write the goldens asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FAMILIES)} (default: all)")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    unknown = set(args.names) - set(FAMILIES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in args.names or FAMILIES:
        make(name, args.out / name, args.seed)
    (args.out / "versions.txt").write_text(
        f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, seed {args.seed}\n"
    )


if __name__ == "__main__":
    main()
