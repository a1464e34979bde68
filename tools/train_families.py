#!/usr/bin/env python3
"""Train small models of published families on the tales, for measurements that random weights distort.

    python3 tools/train_families.py --family llama --data ../shared/data/tales --out OUT --work FOLDER --threads 1 \
        --ctx 512 --batch 4 --stop-at 700
    python3 tools/train_families.py --family llama ... --ctx 2048 --batch 1 --stop-at 950

The heads are as wide as those of the published models (64, 128 and 96 values), the rest is small: two layers, about a million
weights. Training state is saved in the work folder; the same command started again goes on where it stopped, also with another
--ctx and --batch of the same product: most steps on short windows, the last ones on long ones. FP32 weights and a byte-level
tokenizer that GGUF files can hold. Goldens and tests use none of these models; docs/kv-cache.md does.
"""

import argparse
import sys
from types import SimpleNamespace

from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from train_toy import parse_args, train, update_json

VOCAB_SIZE = 2048
EOT = "<|endoftext|>"
MAX_POSITION = 4096

SHARED = dict(
    vocab_size=VOCAB_SIZE,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=MAX_POSITION,
    rms_norm_eps=1e-5,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    tie_word_embeddings=True,
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=0,
)
PHI3 = SHARED | dict(
    hidden_size=288,
    num_attention_heads=3,
    num_key_value_heads=3,
    tie_word_embeddings=False,
    original_max_position_embeddings=MAX_POSITION,
)
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, SHARED | {"head_dim": 64}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, SHARED | {"head_dim": 128}),
    "phi3": (Phi3ForCausalLM, Phi3Config, PHI3),
}


def train_tokenizer(text_file):
    """Return a byte-level BPE tokenizer with EOT as id 0, trained on text_file."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=[EOT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train([str(text_file)], trainer)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE and tokenizer.token_to_id(EOT) == 0
    return tokenizer


def write_model(model, tokenizer, out):
    """Write config, FP32 weights (a tied matrix once) and tokenizer files into out."""
    model.config.save_pretrained(out)
    # The names of these in transformers 4 and in every other reader.
    update_json(out / "config.json", rope_theta=10000.0, architectures=[type(model).__name__])
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in tied}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=EOT, eos_token=EOT, model_max_length=MAX_POSITION
    ).save_pretrained(out)
    # The name that transformers 4 and 5 both know.
    update_json(out / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")


def main():
    """Read --family, then what every training program here reads."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--family", choices=FAMILIES, required=True)
    chosen, sys.argv[1:] = parser.parse_known_args()
    model, config, options = FAMILIES[chosen.family]
    recipe = SimpleNamespace(
        train_tokenizer=train_tokenizer,
        new_model=lambda: model(config(**options)),
        prepare_batch=lambda batch: batch,
        write_model=write_model,
        write_card=lambda *_: None,
    )
    train(parse_args(__doc__, epochs=1, batch=4, ctx=512, lr=3e-3), recipe)


if __name__ == "__main__":
    main()
