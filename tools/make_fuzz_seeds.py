#!/usr/bin/env python3
"""Write the seeds of tests/fuzz: small files that use as much of their format as fits in a few KiB.

    python3 tools/make_fuzz_seeds.py
"""

import json
import struct
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SEEDS = Path(__file__).resolve().parent.parent / "tests" / "fuzz" / "seeds"
WIDTH = 256  # one K-quant block


def write_safetensors(path):
    """Write a safetensors file with a tensor of each dtype that qins reads."""
    sizes = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8, "BOOL": 1,
             "F8_E4M3": 1, "F8_E5M2": 1}  # fmt: skip
    header = {"__metadata__": {"format": "pt", "note": "seed \u00e9"}}
    offset = 0
    for i, (dtype, size) in enumerate(sizes.items()):
        shape = [[3, 4], [5], [], [2, 3, 2]][i % 4]
        n_bytes = int(np.prod(shape)) * size
        header[f"model.layers.{i}.weight"] = {
            "dtype": dtype, "shape": shape, "data_offsets": [offset, offset + n_bytes]}  # fmt: skip
        offset += n_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = bytes(i % 251 for i in range(offset))
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_gguf(path):
    """Write a GGUF file of a one-layer llama with a tokenizer, rope factors and many tensor types."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(2)
    writer.add_head_count_kv([1])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(["a", "b", "ab", "\u0120", "<s>", "</s>", "<u>"])
    writer.add_token_types([1, 1, 1, 1, 3, 3, 4])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(4)
    writer.add_eos_token_id(5)
    writer.add_eot_token_id(6)
    writer.add_add_bos_token(True)
    writer.add_chat_template("{{ messages }}")
    rng = np.random.default_rng(1)
    kinds = {"token_embd.weight": "Q8_0", "blk.0.attn_q.weight": "Q4_K", "blk.0.attn_k.weight": "Q6_K",
             "blk.0.attn_v.weight": "IQ4_XS", "blk.0.attn_output.weight": "TQ1_0", "blk.0.ffn_up.weight": "Q5_0",
             "blk.0.ffn_gate.weight": "BF16"}  # fmt: skip
    for name, kind in kinds.items():
        qtype = gguf.GGMLQuantizationType[kind]
        block, n_bytes = gguf.GGML_QUANT_SIZES[qtype]
        data = rng.integers(0, 256, (4, WIDTH // block * n_bytes), dtype=np.uint8)
        writer.add_tensor(name, data, raw_dtype=qtype)
    writer.add_tensor("blk.0.attn_q.bias", rng.standard_normal(8).astype(np.float32))
    writer.add_tensor("output_norm.weight", rng.standard_normal(4).astype(np.float16))
    writer.add_tensor("rope_freqs.weight", np.ones(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_model(path):
    """Write a tiny llama as a Hugging Face directory; no width is a multiple of a panel or a tile."""
    hidden, inner, vocab = 24, 40, 21
    path.mkdir(exist_ok=True)
    config = {"model_type": "llama", "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": 1,
              "num_attention_heads": 3, "num_key_value_heads": 1, "vocab_size": vocab, "max_position_embeddings": 64,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True}  # fmt: skip
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    layer = {"input_layernorm": (hidden,), "post_attention_layernorm": (hidden,), "self_attn.q_proj": (hidden, hidden),
             "self_attn.k_proj": (8, hidden), "self_attn.v_proj": (8, hidden), "self_attn.o_proj": (hidden, hidden),
             "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
             "mlp.down_proj": (hidden, inner)}  # fmt: skip
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    shapes |= {f"model.layers.0.{name}.weight": shape for name, shape in layer.items()}
    rng = np.random.default_rng(2)
    tensors = {name: (rng.standard_normal(shape) * 0.05).astype(np.float16) for name, shape in shapes.items()}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def write_tokenizer(path, byte_level):
    """Write a small tokenizer.json: byte-level BPE as in Llama 3, or BPE with byte fallback as in Llama 2."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=not byte_level, unk_token=None if byte_level else "<unk>"))
    specials = ["<s>", "</s>", "<|user|>"]
    if byte_level:
        pattern = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        specials = ["<unk>"] + specials + [f"<0x{b:02X}>" for b in range(256)]
        alphabet = []
    text = ["Hello hello world, it's the world of 12345 hellos.\n"] * 4
    tokenizer.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=300, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if not t["content"].startswith("<0x")]
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def main():
    """Write all seeds."""
    SEEDS.mkdir(parents=True, exist_ok=True)
    write_safetensors(SEEDS / "small.safetensors")
    write_gguf(SEEDS / "small.gguf")
    write_model(SEEDS / "tiny_model")
    write_tokenizer(SEEDS / "byte_level.json", True)
    write_tokenizer(SEEDS / "byte_fallback.json", False)


if __name__ == "__main__":
    main()
