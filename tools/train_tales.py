#!/usr/bin/env python3
"""Train the second small model of qins, a llama, on the tales and write it as a Hugging Face directory in BF16.

Everything that the toy is not: RMSNorm, SwiGLU, grouped-query attention, rotary embedding on the whole head, no biases, an untied
head, six narrow layers whose width (192) is not a power of two, BF16 weights, a tokenizer with byte fallback. It keeps the
measurements from being tuned to one model.

    python3 tools/train_tales.py --data ../shared/data/tales --out models/tales --work build/tales-train --threads 1

Training state is saved in the work folder; the same command started again goes on where it stopped.
"""

import json
import math
from types import SimpleNamespace

import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from train_toy import SAMPLE_PROMPT, parse_args, sample_text, train, update_json

VOCAB_SIZE = 4096
UNK, BOS, EOS = "<unk>", "<s>", "</s>"
BYTES = [f"<0x{i:02X}>" for i in range(256)]
BOS_ID = 1


def train_tokenizer(text_file):
    """Return a BPE tokenizer with byte fallback (as llama's: spaces become U+2581), trained on text_file."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNK, byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Metaspace(prepend_scheme="never")]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, special_tokens=[UNK, BOS, EOS, *BYTES], show_progress=False)
    tokenizer.train([str(text_file)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)]
    )
    # The byte tokens had to be special to get their places in the vocabulary; no text may be read as one.
    parts = json.loads(tokenizer.to_str())
    parts["added_tokens"] = [t for t in parts["added_tokens"] if t["content"] not in BYTES]
    tokenizer = Tokenizer.from_str(json.dumps(parts))
    assert tokenizer.get_vocab_size() == VOCAB_SIZE and tokenizer.token_to_id(BOS) == BOS_ID
    return tokenizer


def tales_config():
    """Return the configuration: 3.93 million parameters, 7.9 MB in BF16."""
    return LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        hidden_act="silu",
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        bos_token_id=BOS_ID,
        eos_token_id=2,
    )


def start_some_with_bos(batch):
    """Put BOS at the start of every second window, so that the model knows texts with and without."""
    batch[::2, 0] = BOS_ID
    return batch


def write_model(model, tokenizer, out):
    """Write config, weights rounded to BF16 and tokenizer files into out."""
    model.config.save_pretrained(out)
    # The names of these in transformers 4 and in every other reader of llama.
    update_json(out / "config.json", rope_theta=10000.0, architectures=["LlamaForCausalLM"], dtype="bfloat16")
    model.generation_config.save_pretrained(out)
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=UNK, bos_token=BOS, eos_token=EOS, model_max_length=1024
    ).save_pretrained(out)
    # The name that transformers 4 and 5 both know.
    update_json(out / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")


def write_card(out, args, model, tokenizer, history, n_train, cpu_seconds):
    """Write the model card: what it is, how it was made, what it scores, how it writes."""
    c = model.config
    steps = f", stopped at step {args.stop_at}" if args.stop_at else ""
    n_params = sum(p.numel() for p in model.parameters())
    quote = "\n".join("> " + line for line in sample_text(model, tokenizer, 160, 0.8).splitlines())
    shown = lambda loss: "" if math.isnan(loss) else f"{loss:.4f}"
    rows = "\n".join(f"| {e['epoch']} | {shown(e['train_loss'])} | {e['valid_loss']:.4f} |" for e in history)
    loss = history[-1]["valid_loss"]
    card = f"""# The second small model of qins

A llama that was trained from scratch on public-domain tales: {c.num_hidden_layers} layers, hidden {c.hidden_size},
{c.num_attention_heads} heads of {c.head_dim} over {c.num_key_value_heads} key/value heads, SwiGLU with {c.intermediate_size}, RMSNorm,
vocabulary {VOCAB_SIZE:,} (BPE with byte fallback), head not tied. {n_params:,} parameters, stored as BF16. It writes story English and
nothing else. It is as unlike `models/toy` as so small a model can be, so that no figure is tuned to one of them, and the
tests have a llama with grouped-query attention and BF16 weights in a fresh clone.

- **Data**: public-domain tales (fairy tales, fables, novels), {n_train:,} tokens, as the toy's.
- **Recipe**: `tools/train_tales.py`, {args.epochs} epochs of {args.batch} x {args.ctx} tokens a step{steps}, AdamW (betas 0.9 and 0.95, weight
  decay {args.weight_decay} on matrices), one-cycle learning rate with peak {args.lr}, gradients clipped at norm 1, bfloat16
  autocast, BOS in place of the first token of every second window, seed {args.seed}; {cpu_seconds / 60:.0f} minutes of CPU on one thread.
- **Validation loss**: **{loss:.4f}** nats a token on the held-out tales, context {args.ctx}, before rounding to BF16
  (perplexity {math.exp(loss):.2f}; the vocabulary differs from the toy's, so the two do not compare).
- **Versions**: torch {torch.__version__}, transformers {transformers.__version__}, tokenizers {tokenizers.__version__}.
- **Licence**: that of qins (MIT).

| epoch | training loss | validation loss |
|---|---|---|
{rows}

Sampled at temperature 0.8, top-k 40, from "{SAMPLE_PROMPT}":

{quote}
"""
    (out / "README.md").write_text(card)


TALES = SimpleNamespace(
    train_tokenizer=train_tokenizer,
    new_model=lambda: LlamaForCausalLM(tales_config()),
    prepare_batch=start_some_with_bos,
    write_model=write_model,
    write_card=write_card,
)

if __name__ == "__main__":
    train(parse_args(__doc__, epochs=4, batch=16, ctx=256, lr=4e-3), TALES)
