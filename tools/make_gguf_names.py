#!/usr/bin/env python3
"""Write tests/golden/gguf/names.txt: how gguf-py names the tensors of Hugging Face models.

    python3 tools/make_gguf_names.py > tests/golden/gguf/names.txt

One line a tensor of a one-layer model: GGUF architecture, GGUF name, Hugging Face name.
"""

import gguf
import torch
from transformers import AutoConfig, AutoModelForCausalLM

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 300000,
    "tie_word_embeddings": False,
}
# GGUF architecture: model_type, and what else the config needs.
ARCHITECTURES = {
    "llama": ("llama", {"attention_bias": True}),
    "gptneox": ("gpt_neox", {"num_key_value_heads": None}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "phi3": ("phi3", {}),
    "phi2": ("phi", {}),
    "gpt2": ("gpt2", {"n_embd": 64, "n_head": 4, "n_layer": 1, "hidden_size": 64}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {}),
    "gemma3": ("gemma3_text", {}),
    "olmo2": ("olmo2", {}),
    "smollm3": ("smollm3", {}),
}
# Names that differ between a model in memory and its file.
ON_DISK = {("gptneox", "lm_head.weight"): "embed_out.weight"}


def tensor_names(model_type, extra):
    """Return the names in the state dict of a small model, without allocating it."""
    settings = {**SMALL, **extra}
    config = AutoConfig.for_model(model_type, **{k: v for k, v in settings.items() if v is not None})
    with torch.device("meta"):
        return list(AutoModelForCausalLM.from_config(config).state_dict())


def main():
    """Print the table."""
    for arch_name, (model_type, extra) in ARCHITECTURES.items():
        arch = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == arch_name)
        mapping = gguf.get_tensor_name_map(arch, 1)
        for name in tensor_names(model_type, extra):
            gguf_name = mapping.get_name(name, try_suffixes=(".weight", ".bias"))
            if gguf_name is not None:
                print(arch_name, gguf_name, ON_DISK.get((arch_name, name), name))


if __name__ == "__main__":
    main()
