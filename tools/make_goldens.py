#!/usr/bin/env python3
"""Write the goldens of tests/golden that come from other people's software: transformers, tokenizers, gguf.

    python3 tools/make_goldens.py toy smollm2 tokens gguf --smollm2 "$(tools/get_smollm2.sh)"

  toy      logits/toy_*      logits of models/toy in FP32 on models/toy/valid.txt
  smollm2  logits/smollm2_*  logits of SmolLM2-135M-Instruct from its GGUF in FP32 on WikiText-2
  tokens   text/*            token ids of the corpus (tools/make_corpus.py) under both tokenizers
  gguf     gguf/*            a GGUF file with a small tensor of each type, and what it dequantizes to
"""

import argparse
from pathlib import Path

import gguf
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
N_POSITIONS = 2048
N_COLUMNS = 64
GGUF_SHAPE = (3, 512)

# Types that gguf cannot quantize to: where their blocks hold fp16 scales. The other bytes are random.
GGUF_RANDOM_BLOCKS = {
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
}
GGUF_QUANTIZED = ("BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "TQ1_0", "TQ2_0", "MXFP4")


def save(path, array):
    """Write a little-endian .npy file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))))


def save_logits(stem, ids, logits):
    """Write ids and a digest of float32 [n, vocab] logits: 64 columns, the top two, log-sum-exp."""
    n_vocab = logits.shape[1]
    columns = np.sort(np.random.default_rng(1).choice(n_vocab, N_COLUMNS, replace=False)).astype(np.int32)
    # A stable sort of the negated logits keeps the lowest id first among equals.
    top = np.argsort(-logits, axis=1, kind="stable")[:, :2]
    peak = logits.max(axis=1, keepdims=True)
    lse = np.log(np.exp((logits - peak).astype(np.float64)).sum(axis=1)) + peak[:, 0]
    out = GOLDEN / "logits"
    save(out / f"{stem}_ids.npy", ids)
    save(out / f"{stem}_columns.npy", columns)
    save(out / f"{stem}_logits.npy", logits[:, columns])
    save(out / f"{stem}_top2_ids.npy", top.astype(np.int32))
    save(out / f"{stem}_top2_logits.npy", np.take_along_axis(logits, top, axis=1))
    save(out / f"{stem}_logsumexp.npy", lse.astype(np.float32))
    margins = np.diff(-np.take_along_axis(logits, top, axis=1), axis=1)
    print(f"{stem}: {n_vocab} tokens, |logit| up to {np.abs(logits).max():.2f}, smallest margin {margins.min():.2e}")


def check_gguf_weights(model, path):
    """Fail unless transformers' weights are gguf's own dequantisation, q and k rows put back in Hugging Face order."""
    state = model.state_dict()
    tensors = {t.name: t for t in gguf.GGUFReader(path).tensors}
    parts = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
             "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
             "ffn_down": "mlp.down_proj"}  # fmt: skip
    names = {"token_embd": "model.embed_tokens"}
    for layer in range(model.config.num_hidden_layers):
        names |= {f"blk.{layer}.{g}": f"model.layers.{layer}.{h}" for g, h in parts.items()}
    for gguf_name, hf_name in names.items():
        tensor = tensors[gguf_name + ".weight"]
        weight = gguf.dequantize(tensor.data, tensor.tensor_type)
        if gguf_name.endswith(("attn_q", "attn_k")):
            rows, cols = weight.shape
            heads = rows // model.config.head_dim
            weight = weight.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)
        if not np.array_equal(weight, state[hf_name + ".weight"].numpy()):
            raise SystemExit(f"{gguf_name}: transformers and gguf dequantize it differently")


def make_model_logits(stem, path, text):
    """Write the logits of a model on the first N_POSITIONS tokens of a text."""
    import oracle.hf as hf

    ids = hf.text_ids(hf.load_tokenizer(path), text.read_bytes()[: 16 * N_POSITIONS])[:N_POSITIONS]
    model = hf.load_model(path)
    if path.is_file():
        check_gguf_weights(model, path)
    save_logits(stem, ids, hf.logits(model, ids))


def make_token_ids(stem, path):
    """Write the ids of each block of the corpus, one after another, and where each block's ids begin."""
    import oracle.hf as hf

    text = GOLDEN / "text"
    corpus = (text / "corpus.txt").read_bytes()
    starts = np.load(text / "blocks.npy")
    tokenizer = hf.load_tokenizer(path)
    ids = [hf.text_ids(tokenizer, corpus[a:b]) for a, b in zip(starts, starts[1:])]
    save(text / f"{stem}_ids.npy", np.concatenate(ids))
    save(text / f"{stem}_offsets.npy", np.cumsum([0] + [len(i) for i in ids]))


def random_blocks(rng, qtype, scale_offsets):
    """Return GGUF_SHAPE weights as random blocks of a type; their fp16 scales are finite, one of them subnormal."""
    rows, cols = GGUF_SHAPE
    block_weights, block_bytes = gguf.GGML_QUANT_SIZES[qtype]
    blocks = rng.integers(0, 256, (rows, cols // block_weights, block_bytes), dtype=np.uint8)
    for offset in scale_offsets:
        scales = rng.standard_normal(blocks.shape[:2]).astype(np.float16) * np.float16(0.01)
        scales[0, 0] = np.float16(3e-6)
        blocks[:, :, offset : offset + 2] = scales[..., None].view(np.uint8)
    return blocks.reshape(rows, -1)


def gguf_tensors(rng):
    """Return {type name: stored array} of small tensors; a row of each is tiny to reach subnormal scales."""
    weights = (rng.standard_normal(GGUF_SHAPE) * 0.05).astype(np.float32)
    weights[1] *= np.float32(1e-5)
    weights[2, :32] = 0.0
    stored = {"F32": weights, "F16": weights.astype(np.float16)}
    for name in GGUF_QUANTIZED:
        stored[name] = gguf.quantize(weights, gguf.GGMLQuantizationType[name])
    for name, scale_offsets in GGUF_RANDOM_BLOCKS.items():
        stored[name] = random_blocks(rng, gguf.GGMLQuantizationType[name], scale_offsets)
    return stored


def make_gguf():
    """Write gguf/types.gguf and the float32 tensors that gguf dequantizes from it."""
    out = GOLDEN / "gguf"
    out.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(out / "types.gguf", "llama")
    writer.add_name("one tensor of each type")
    for name, array in gguf_tensors(np.random.default_rng(1)).items():
        writer.add_tensor(name.lower(), array, raw_dtype=gguf.GGMLQuantizationType[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for tensor in gguf.GGUFReader(out / "types.gguf").tensors:
        weights = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if weights.shape != GGUF_SHAPE or not np.isfinite(weights).all():
            raise SystemExit(f"{tensor.name}: bad golden")
        save(out / f"{tensor.name}.npy", weights)


def main():
    """Write the goldens asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["toy", "smollm2", "tokens", "gguf"])
    parser.add_argument("--toy", type=Path, default=ROOT / "models" / "toy")
    parser.add_argument("--smollm2", type=Path, help="the GGUF file, as tools/get_smollm2.sh prints it")
    parser.add_argument("--wikitext", type=Path, default=ROOT.parent / "shared" / "data" / "wikitext-2-valid.txt")
    args = parser.parse_args()
    if args.smollm2 is None and {"smollm2", "tokens"} & set(args.what):
        parser.error("--smollm2 FILE is needed")
    if "toy" in args.what:
        make_model_logits("toy", args.toy, args.toy / "valid.txt")
    if "smollm2" in args.what:
        make_model_logits("smollm2", args.smollm2, args.wikitext)
    if "tokens" in args.what:
        make_token_ids("toy", args.toy)
        make_token_ids("smollm2", args.smollm2)
    if "gguf" in args.what:
        make_gguf()


if __name__ == "__main__":
    main()
