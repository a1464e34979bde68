#!/usr/bin/env python3
"""Write tests/golden/gguf/spm.gguf, a small SentencePiece vocabulary, and the merges transformers derives from it.

    python3 tools/make_spm_golden.py

The vocabulary is trained on tests/golden/text/corpus.txt as BPE with byte fallback; as in SentencePiece's BPE models the
score of a piece is minus its rank.
"""

import json
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers.tokenization_utils_base import generate_merges

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
VOCABULARY = 700
SPACE_MARK = "\u2581"


def train(text):
    """Return the pieces of a BPE vocabulary with byte fallback, in order of their training."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE_MARK, prepend_scheme="never")
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=specials, limit_alphabet=90, show_progress=False)
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    vocab = tokenizer.get_vocab()
    return sorted(vocab, key=vocab.get)


def main():
    """Write the file and the list of merges."""
    text = (GOLDEN / "text" / "corpus.txt").read_bytes().decode("utf-8", errors="replace")
    tokens = train(text) + ["<|user|>"]
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3, "<|user|>": 4} | {f"<0x{b:02X}>": 6 for b in range(256)}
    types = [kinds.get(t, 1) for t in tokens]
    # Every third piece shares its score with its neighbour, so that ties are tested.
    scores = [-float(i // 3) if kind == 1 else 0.0 for i, kind in enumerate(types)]
    writer = gguf.GGUFWriter(GOLDEN / "gguf" / "spm.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_tensor("token_embd.weight", np.zeros((1, 1), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    vocab = {t: i for i, t in enumerate(tokens)}
    not_merged = {token for token, kind in kinds.items() if kind != 4}
    merges = generate_merges(vocab, dict(zip(tokens, np.float32(scores).tolist())), skip_tokens=not_merged)
    text = json.dumps({"merges": merges}, ensure_ascii=False, indent=0, separators=(",", ":"))
    (GOLDEN / "gguf" / "spm_merges.json").write_text(text + "\n", encoding="utf-8")
    print(f"{len(tokens)} tokens, {len(merges)} merges")


if __name__ == "__main__":
    main()
