#!/usr/bin/env python3
"""Train the embedded toy model of qins and write it as a Hugging Face directory.

The toy has the shape of the original QINS experiment: gpt_neox, 3 layers, hidden 256, 4 heads, intermediate
1024, vocabulary 5,000 (byte-level BPE), tied head, biases, rotary embedding on a quarter of each head. It is
trained on public-domain tales with bfloat16 autocast; the weights are kept and written in FP32.

    python3 tools/train_toy.py --data ../shared/data/tales --out models/toy --work build/toy-train

Training state is saved in the work folder; the same command started again goes on where it stopped. With glibc,
MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 in the environment make it a quarter faster:
the large buffers of each step are then reused instead of being returned to the system and faulted in again.
"""

import argparse
import json
import math
import time
from pathlib import Path
from types import SimpleNamespace

import tokenizers
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

VOCAB_SIZE = 5000
EOT = "<|endoftext|>"
SAMPLE_PROMPT = "Once upon a time there was a king who had"


def parse_args(description=__doc__, **defaults):
    """Read the command line; defaults replace those written here."""
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train.txt and valid.txt")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write at the end")
    parser.add_argument("--work", type=Path, required=True, help="folder for tokenizer and training state")
    parser.add_argument("--early", type=Path, help="also write the model here after the first epoch")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--lr", type=float, default=2e-3, help="peak of the one-cycle schedule")
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stop-at", type=int, help="write the model after this step, before the schedule is over")
    parser.set_defaults(**defaults)
    return parser.parse_args()


def train_tokenizer(text_file):
    """Return a byte-level BPE tokenizer with EOT as id 0, trained on text_file."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[EOT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(text_file)], trainer)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE and tokenizer.token_to_id(EOT) == 0
    return tokenizer


def load_tokenizer(work, text_file, train_new):
    """Return the work folder's tokenizer, training it first when there is none."""
    path = work / "tokenizer.json"
    if not path.exists():
        train_new(text_file).save(str(path))
    return Tokenizer.from_file(str(path))


def load_ids(tokenizer, text_file, cache_file):
    """Return the token ids of a text file as one int64 tensor, cached in cache_file."""
    if not cache_file.exists():
        lines = text_file.read_text(encoding="utf-8").splitlines(keepends=True)
        ids = [i for line in tokenizer.encode_batch(lines) for i in line.ids]
        torch.save(torch.tensor(ids, dtype=torch.int64), cache_file)
    return torch.load(cache_file)


def toy_config():
    """Return the configuration of the toy: the shape of the original QINS experiment."""
    return GPTNeoXConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=1024,
        hidden_act="gelu",
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
        max_position_embeddings=2048,
        layer_norm_eps=1e-5,
        use_parallel_residual=True,
        attention_bias=True,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )


def epoch_batches(ids, args, epoch):
    """Yield one epoch of (batch, ctx + 1) id tensors: a random phase, then windows in random order.

    The order depends only on seed and epoch, so that a resumed run sees what an unbroken one would.
    """
    generator = torch.Generator().manual_seed(args.seed * 1000 + epoch)
    phase = int(torch.randint(args.ctx, (1,), generator=generator))
    n_windows = (len(ids) - args.ctx - 1) // args.ctx
    starts = phase + args.ctx * torch.randperm(n_windows, generator=generator)
    offsets = torch.arange(args.ctx + 1)
    for i in range(0, n_windows - args.batch + 1, args.batch):
        yield ids[starts[i : i + args.batch, None] + offsets]


def steps_per_epoch(ids, args):
    """Return the number of optimizer steps of one epoch."""
    return (len(ids) - args.ctx - 1) // args.ctx // args.batch


def make_optimizer(model, args, total_steps):
    """Return AdamW (decay on matrices only) and its one-cycle schedule."""
    params = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in params if p.dim() > 1], "weight_decay": args.weight_decay},
            {"params": [p for p in params if p.dim() == 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=args.lr, total_steps=total_steps, pct_start=0.1, cycle_momentum=False
    )
    return optimizer, schedule


def batch_loss(model, batch):
    """Return the mean next-token cross-entropy of a (batch, ctx + 1) id tensor."""
    logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


@torch.no_grad()
def validation_loss(model, ids, ctx):
    """Return the FP32 cross-entropy in nats a token over consecutive windows of ctx tokens."""
    model.eval()
    windows = ids[: (len(ids) - 1) // ctx * ctx + 1].unfold(0, ctx + 1, ctx)
    total = sum(float(batch_loss(model, part)) * len(part) for part in windows.split(8))
    model.train()
    return total / len(windows)


def save_state(path, model, optimizer, schedule, step, history, cpu_seconds):
    """Write the training state so that a crash leaves the previous one intact."""
    part = path.with_suffix(".part")
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "step": step,
            "history": history,
            "cpu_seconds": cpu_seconds,
        },
        part,
    )
    part.replace(path)


@torch.no_grad()
def sample_text(model, tokenizer, n_tokens, temperature):
    """Return the sample prompt and its continuation; temperature 0 means greedy."""
    torch.manual_seed(1)
    model.eval()
    prompt = torch.tensor([tokenizer.encode(SAMPLE_PROMPT).ids])
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 40} if temperature else {"do_sample": False}
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=n_tokens, pad_token_id=0, **sampling)
    model.train()
    return tokenizer.decode(out[0].tolist())


def update_json(path, **items):
    """Set items of a JSON object file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | items, indent=2, sort_keys=True) + "\n")


def write_model(model, tokenizer, out):
    """Write config, FP32 weights (the tied matrix once) and tokenizer files into out."""
    model.config.save_pretrained(out)
    # The names of these two in transformers 4 and in every other reader of gpt_neox.
    update_json(out / "config.json", rotary_pct=0.25, rotary_emb_base=10000, architectures=["GPTNeoXForCausalLM"])
    model.generation_config.save_pretrained(out)
    weights = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=EOT, eos_token=EOT, model_max_length=2048
    ).save_pretrained(out)
    # The name that transformers 4 and 5 both know.
    update_json(out / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")


def write_card(out, args, model, tokenizer, history, n_train, cpu_seconds):
    """Write the model card: what it is, how it was made, what it scores, how it writes."""
    n_params = sum(p.numel() for p in model.parameters())
    quote = lambda text: "\n".join("> " + line for line in text.splitlines())
    rows = "\n".join(f"| {e['epoch']} | {e['train_loss']:.4f} | {e['valid_loss']:.4f} |" for e in history)
    loss = history[-1]["valid_loss"]
    card = f"""# The toy of qins

A small language model of the shape that the original QINS experiment used: `gpt_neox`, 3 layers, hidden 256,
4 heads, intermediate 1024, vocabulary {VOCAB_SIZE:,} (byte-level BPE), tied head, biases, rotary embedding on a
quarter of each head. {n_params:,} parameters in FP32, the tied matrix stored once. It writes story English and
nothing else; it is here so that every command of qins has a trained model to work on from a fresh clone.

- **Data**: public-domain tales (fairy tales, fables, novels), {n_train:,} tokens. `valid.txt` is an excerpt of
  the held-out part, `prompts.txt` has 20 story openings.
- **Recipe**: `tools/train_toy.py`, {args.epochs} epochs of {args.batch} x {args.ctx} tokens a step, AdamW
  (betas 0.9 and 0.95, weight decay {args.weight_decay} on matrices), one-cycle learning rate with peak
  {args.lr}, gradients clipped at norm 1, bfloat16 autocast, FP32 weights, seed {args.seed}; {cpu_seconds / 60:.0f} minutes of CPU.
- **Validation loss**: **{loss:.4f}** nats a token on the held-out tales, context {args.ctx}, in FP32
  (perplexity {math.exp(loss):.2f}).
- **Versions**: torch {torch.__version__}, transformers {transformers.__version__}, tokenizers {tokenizers.__version__}.
- **Licence**: that of qins (MIT).

| epoch | training loss | validation loss |
|---|---|---|
{rows}

Sampled at temperature 0.8, top-k 40, from "{SAMPLE_PROMPT}":

{quote(sample_text(model, tokenizer, 160, 0.8))}

Greedy, same prompt:

{quote(sample_text(model, tokenizer, 60, 0.0))}
"""
    (out / "README.md").write_text(card)


TOY = SimpleNamespace(
    train_tokenizer=train_tokenizer,
    new_model=lambda: GPTNeoXForCausalLM(toy_config()),
    prepare_batch=lambda batch: batch,
    write_model=write_model,
    write_card=write_card,
)


def train(args, recipe=TOY):
    """Train (or go on training) and write the model; recipe holds what differs between the models of this repository."""
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = load_tokenizer(args.work, args.data / "train.txt", recipe.train_tokenizer)
    train_ids = load_ids(tokenizer, args.data / "train.txt", args.work / "train.pt")
    valid_ids = load_ids(tokenizer, args.data / "valid.txt", args.work / "valid.pt")
    epoch_steps = steps_per_epoch(train_ids, args)
    total_steps = epoch_steps * args.epochs
    print(f"{len(train_ids)} training and {len(valid_ids)} validation tokens, {total_steps} steps", flush=True)

    model = recipe.new_model()
    model.train()
    optimizer, schedule = make_optimizer(model, args, total_steps)
    step, history, cpu_before = 0, [], 0.0
    state_file = args.work / "state.pt"
    if state_file.exists():
        state = torch.load(state_file)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        step, history, cpu_before = state["step"], state["history"], state["cpu_seconds"]
        print(f"resumed at step {step}", flush=True)

    first_step, started = step, time.time()
    cpu_seconds = lambda: cpu_before + time.process_time()
    for epoch in range(step // epoch_steps, args.epochs):
        losses = []
        for i, batch in enumerate(epoch_batches(train_ids, args, epoch)):
            if epoch * epoch_steps + i < step:
                continue
            if step == args.stop_at:
                break
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = batch_loss(model, recipe.prepare_batch(batch))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            losses.append(loss.item())
            step += 1
            if step % 20 == 0:
                per_step = (time.time() - started) / (step - first_step)
                recent = sum(losses[-20:]) / len(losses[-20:])
                print(
                    f"step {step}/{total_steps} loss {recent:.4f} {args.batch * args.ctx / per_step:.0f} tokens/s "
                    f"ETA {per_step * (total_steps - step) / 60:.1f} min, "
                    f"{cpu_seconds() / 60:.1f} min of CPU",
                    flush=True,
                )
            if step % 100 == 0:
                save_state(state_file, model, optimizer, schedule, step, history, cpu_seconds())
        valid = validation_loss(model, valid_ids, args.ctx)
        # A run that was resumed at the stop has no loss of its own to show.
        train_loss = sum(losses) / len(losses) if losses else math.nan
        epochs = epoch + 1 if step % epoch_steps == 0 else round(step / epoch_steps, 2)
        history.append({"epoch": epochs, "train_loss": train_loss, "valid_loss": valid})
        print(f"epoch {epoch + 1}: {history[-1]}", flush=True)
        save_state(state_file, model, optimizer, schedule, step, history, cpu_seconds())
        if epoch == 0 and args.early:
            recipe.write_model(model, tokenizer, args.early)
        if step == args.stop_at:
            break
    recipe.write_model(model, tokenizer, args.out)
    recipe.write_card(args.out, args, model, tokenizer, history, len(train_ids), cpu_seconds())


if __name__ == "__main__":
    train(parse_args())
