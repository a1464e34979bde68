#!/usr/bin/env python3
"""Write CRC-32 checksums of the FP32 weights of a GGUF file of the llama architecture, as gguf dequantizes them.

    python3 tools/make_gguf_checksums.py FILE.gguf > tests/golden/gguf/smollm2_crc32.txt

One line a tensor: Hugging Face name, number of values, CRC-32 of the little-endian float32 bytes in Hugging Face row
order (transformers' modeling_gguf_pytorch_utils puts the rows of q and k back in the same way).
"""

import re
import sys
import zlib

import gguf
import numpy as np

PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OTHERS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def hf_name(name):
    """Return the Hugging Face name of a tensor and which part of a layer it is."""
    stem, suffix = name.rsplit(".", 1)
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if block is None:
        return f"{OTHERS[stem]}.{suffix}", stem
    return f"model.layers.{block[1]}.{PARTS[block[2]]}.{suffix}", block[2]


def main():
    """Print the checksums."""
    reader = gguf.GGUFReader(sys.argv[1])
    heads = {
        "attn_q": int(reader.fields["llama.attention.head_count"].contents()),
        "attn_k": int(reader.fields["llama.attention.head_count_kv"].contents()),
    }
    for tensor in reader.tensors:
        name, part = hf_name(tensor.name)
        weights = gguf.dequantize(tensor.data, tensor.tensor_type)
        if part in heads:
            n = heads[part]
            weights = weights.reshape(n, weights.shape[0] // n // 2, 2, -1).swapaxes(1, 2)
        data = np.ascontiguousarray(weights, dtype="<f4").tobytes()
        print(name, len(data) // 4, f"{zlib.crc32(data):08x}")


if __name__ == "__main__":
    main()
