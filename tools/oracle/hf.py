"""Models and tokenizers of the oracle: transformers in FP32, from Hugging Face directories and from GGUF files."""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM

# GGUF names of pre-tokenizers -> what the model's own tokenizer.json has. GGUF files keep only the name, and
# transformers ignores it, which gives other ids on runs of spaces before digits.
GPT2_PIECES = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
GGUF_PRE_TOKENIZERS = {
    "gpt-2": GPT2_PIECES,
    "smollm": [pre_tokenizers.Digits(individual_digits=True)] + GPT2_PIECES,
}
GGUF_CONTROL_TOKEN = 3
GGUF_USER_TOKEN = 4


def load_model(path):
    """Return the model of a Hugging Face directory or a GGUF file, in FP32 and ready for inference."""
    path = Path(path)
    if path.is_file():
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    else:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return model.eval()


def gguf_tokenizer(path):
    """Return the byte-level BPE tokenizer of a GGUF file, with the pre-tokenizer that its metadata names."""
    fields = gguf.GGUFReader(path).fields
    tokens, types, merges = (
        fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges")
    )
    pre_tokenizer = fields["tokenizer.ggml.pre"].contents()
    if pre_tokenizer not in GGUF_PRE_TOKENIZERS:
        raise SystemExit(f"{path}: pre-tokenizer {pre_tokenizer!r} is not known here")
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(m.split(" ")) for m in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(GGUF_PRE_TOKENIZERS[pre_tokenizer])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([t for t, kind in zip(tokens, types) if kind == GGUF_CONTROL_TOKEN])
    tokenizer.add_tokens([t for t, kind in zip(tokens, types) if kind == GGUF_USER_TOKEN])
    return tokenizer


def load_tokenizer(path):
    """Return the tokenizer of a Hugging Face directory or a GGUF file."""
    path = Path(path)
    return gguf_tokenizer(path) if path.is_file() else Tokenizer.from_file(str(path / "tokenizer.json"))


def text_ids(tokenizer, data):
    """Return the ids (int32) of bytes; what is not UTF-8 counts as U+FFFD, one for each maximal part."""
    ids = tokenizer.encode(data.decode("utf-8", errors="replace"), add_special_tokens=False).ids
    return np.array(ids, dtype="<i4")


@torch.no_grad()
def logits(model, ids):
    """Return the float32 [n, vocab] logits of one sequence."""
    return model(input_ids=torch.tensor(np.asarray(ids)[None].astype(np.int64)), use_cache=False).logits[0].numpy()
