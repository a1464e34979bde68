#!/usr/bin/env python3
"""Train a small tokenizer of each kind and record what the tokenizers package makes of difficult strings.

    python3 tools/make_tokenizer_goldens.py                      # tests/golden/tokenizers, committed
    python3 tools/make_tokenizer_goldens.py --out DIR --seed 7 --strings 3000 --characters 2000000
    QINS_TOKENIZER_GOLDENS=DIR build/release/tests/test_tokenizer_goldens

Training breaks some ties by chance, so the tokenizers of two runs differ: all files of a folder belong together. The
folder gets inputs.json (strings), KIND.tokenizer.json and KIND.expected.json, where for each input
    ids      are its ids, special tokens in the text recognised,
    special  the same with the post-processor's tokens added, or null where that is the same,
    plain    its ids with special tokens in the text read as text, or null where that is the same,
    text     is what ids decode to, or null where that is the input itself,
    skipped  what special decodes to without special tokens, or null where that is the same as text;
special and skipped are given for the first inputs only.
"""

import argparse
import json
import random
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import make_corpus

ROOT = Path(__file__).resolve().parent.parent
VOCABULARY = 700
SPECIAL_INPUTS = 60

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
])  # fmt: skip
DEEPSEEK_V3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_LLM = [
    "[\r\n]",
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅ]+",
    r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    r"\s+$",
    "[一-龥ࠀ-一가-퟿]+",
]
NEOX_SPACES = [AddedToken(" " * n, normalized=True, special=False) for n in range(2, 9)]


def split(regex, behavior="isolated", invert=False):
    """Return a Split pre-tokenizer of a regular expression."""
    return pre_tokenizers.Split(Regex(regex), behavior, invert)


def byte_level(pre_tokenizer, normalizer=None, added=(), **options):
    """Return an untrained byte-level BPE tokenizer and its trainer."""
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, show_progress=False, special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    return tokenizer, trainer, [AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True), *added]


def template(tokenizer, left, right=()):
    """Put special tokens around the text, after training."""
    names = [*left, *right]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*left, "$A", *right], pair=[*left, "$A", "$B", *right],
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in names],
    )  # fmt: skip


def sentencepiece_bpe(normalizer, pre_tokenizer, decoder, added=(), byte_fallback=True, fuse_unk=True):
    """Return a BPE tokenizer in the style of SentencePiece and its trainer."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=byte_fallback, fuse_unk=fuse_unk))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, pre_tokenizer, decoder
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256 if byte_fallback else 0)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, show_progress=False, special_tokens=special, limit_alphabet=150, max_token_length=12
    )
    return tokenizer, trainer, list(added)


def unigram(normalizer, pre_tokenizer, decoder, byte_fallback, added=()):
    """Return a Unigram tokenizer and its trainer."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, pre_tokenizer, decoder
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256 if byte_fallback else 0)]
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY, show_progress=False, special_tokens=special, unk_token="<unk>", max_piece_length=8
    )
    return tokenizer, trainer, list(added)


def llama_decoder(strip=True):
    """Return the decoder of Llama 2."""
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if strip else []))


def kinds():
    """Yield the name, the tokenizer, its trainer, its added tokens and its template of each kind."""
    plain_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    gpt2_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    llama = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    phi_added = [AddedToken("<|end|>", rstrip=True, special=True, normalized=False),
                 AddedToken("<|user|>", rstrip=True, special=True, normalized=False),
                 AddedToken("[l]", lstrip=True, special=False, normalized=False),
                 AddedToken("word", single_word=True, special=False, normalized=False),
                 AddedToken("Name", special=False, normalized=True)]  # fmt: skip
    yield "gpt2", byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)), None
    yield "llama3", byte_level(pre_tokenizers.Sequence([split(LLAMA3), plain_bytes]), ignore_merges=True), "bos"
    yield "qwen2", byte_level(pre_tokenizers.Sequence([split(QWEN2), plain_bytes]), normalizers.NFC()), None
    yield "cl100k", byte_level(pre_tokenizers.Sequence([split(CL100K, "removed", True), plain_bytes])), None
    yield "o200k", byte_level(pre_tokenizers.Sequence([split(O200K), plain_bytes])), "eos"
    yield "deepseek_v3", byte_level(
        pre_tokenizers.Sequence([split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK_V3), plain_bytes])), None
    yield "deepseek_llm", byte_level(pre_tokenizers.Sequence(
        [*map(split, DEEPSEEK_LLM), pre_tokenizers.Digits(individual_digits=True), plain_bytes])), None
    yield "smollm", byte_level(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2_bytes])), None
    yield "falcon", byte_level(pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation("contiguous"), gpt2_bytes, pre_tokenizers.Digits(individual_digits=False),
         split("[0-9][0-9][0-9]")])), None
    yield "neox", byte_level(gpt2_bytes, normalizers.NFC(), NEOX_SPACES), None
    yield "llama2", sentencepiece_bpe(llama, None, llama_decoder(), phi_added), "bos"
    yield "mistral", sentencepiece_bpe(
        None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False), llama_decoder(), phi_added), "bos"
    yield "gemma", sentencepiece_bpe(
        normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"), llama_decoder(False)), "bos"
    for fuse in (False, True):
        yield f"unknown_{'fused' if fuse else 'single'}", sentencepiece_bpe(
            normalizers.NFKC(), pre_tokenizers.Metaspace(), decoders.Metaspace(), byte_fallback=False, fuse_unk=fuse), None
    yield "unigram", unigram(
        normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]),
        pre_tokenizers.Metaspace(), decoders.Metaspace(), False, phi_added), "eos"
    yield "unigram_bytes", unigram(llama, None, llama_decoder(), True), "bos"
    yield "normalized", sentencepiece_bpe(
        normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase(),
                              normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(r"(?i:n't)|\d+"), "#")]),
        pre_tokenizers.Whitespace(), decoders.Fuse(), phi_added), None  # fmt: skip
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        yield f"split_{behavior}", sentencepiece_bpe(
            normalizers.NFD(), pre_tokenizers.Sequence(
                [split(r"[\p{P}\s]|\bs|$|x*", behavior, behavior == "contiguous"), pre_tokenizers.Punctuation(behavior),
                 pre_tokenizers.CharDelimiterSplit("q"), pre_tokenizers.Split("th", behavior, False)]),
            decoders.ByteFallback()), None  # fmt: skip


def train(kind, tokenizer, trainer, added, around, lines):
    """Train one tokenizer and finish it."""
    tokenizer.train_from_iterator(lines, trainer)
    if kind == "unigram_bytes":  # the trainer leaves this out
        file = json.loads(tokenizer.to_str())
        file["model"]["byte_fallback"] = True
        tokenizer = Tokenizer.from_str(json.dumps(file))
    tokenizer.add_tokens(added)
    begin, end = ("<|endoftext|>", "<|im_end|>") if tokenizer.token_to_id("<s>") is None else ("<s>", "</s>")
    if around is not None:
        template(tokenizer, [begin] if around == "bos" else [], [end] if around == "eos" else [])
    return tokenizer


def random_string(rng, atoms):
    """Return a short string of atoms that tend to interact."""
    return "".join(rng.choice(rng.choice(atoms)) for _ in range(rng.randrange(1, 14)))


def make_inputs(rng, n_strings):
    """Return fixed difficult strings and random ones."""
    ascii_text = [chr(c) for c in range(0x20, 0x7F)]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<unk>", "<|end|>", "<|user|>", "[l]", "word",
               "Name", "<0x41>", "<0xE2>", "▁", "▁▁", "<|", "|>", "th", "q", "#", "x", "xx"]  # fmt: skip
    words = make_corpus.WORDS.split() + make_corpus.SCRIPTS.split()
    spaces = [s for s in make_corpus.SPACES if s != "\0"]
    controls = [chr(c) for c in range(1, 0x20)]
    pairs = [c + d for c in "'’" for d in ("s", "S", "ſ", "t", "re", "LL", "ll", "Ve", "d", "M")]
    letters = [make_corpus.random_char(rng) for _ in range(400)]
    combining = "".join(make_corpus.COMBINING)
    atoms = [ascii_text, special, words, words, spaces, [" ", "  ", "\n", "\r\n", "\t"], controls, pairs, letters,
             make_corpus.EMOJI.split(), list(combining), list("0123456789½²Ⅷ①٣三"), list(make_corpus.EMOJI)]  # fmt: skip
    fixed = ["", " ", "  ", "\n", "a", " a", "a ", "▁", "▁a", "a\n", "\n\n a", *make_corpus.CODE[:4]]
    fixed += ["abcabdabe" * 30, "supercalifragilistic" * 12, "é" * 90, "\u0323\u0301" * 20]  # longer than short words
    fixed += ["İstanbul ΣΑΣ ẞ ǅ", "a\u07fd\u0301 a\u0323\u0301\u1df6", "\u32ff ㍻"]  # cases, marks, newer squares
    # letters, digits, emoji and marks of Unicode 15 to 17, which older tables lack
    fixed += ["\U00031350\U00031351 x\U0002EBF0\U000323AF", "\u1c89\u1c8a\ua7cb\ua7dc", "12\U0001E5F1\U00011DE0\U0001CCF0",
              "\U0001FAE9\U0001F6DC \U0001FAE9", "a\u0897b \U00011F02\U00011F41"]  # fmt: skip
    fixed += [line for text in (make_corpus.WORDS, make_corpus.EMOJI, make_corpus.SPECIAL) for line in text.splitlines()]
    fixed += make_corpus.SCRIPTS.splitlines()[::2]
    return fixed + [random_string(rng, atoms) for _ in range(n_strings)]


def long_input(rng, lines, n_characters):
    """Return one string of mixed text."""
    parts, size = [], 0
    blocks = [*lines, *make_corpus.CODE, *make_corpus.SPECIAL.splitlines(), *make_corpus.COMBINING]
    while size < n_characters:
        roll = rng.random()
        part = rng.choice(blocks) if roll < 0.9 else "".join(make_corpus.random_char(rng) for _ in range(30))
        part += rng.choice([" ", "\n", "\n\n", "\r\n", "\t", " " * rng.randrange(1, 40), "\n" * rng.randrange(1, 9)])
        parts.append(part)
        size += len(part)
    return "".join(parts)


def expected(tokenizer, inputs):
    """Return what the tokenizers package makes of each input."""
    result = {"ids": [], "special": [], "plain": [], "text": [], "skipped": []}
    for number, text in enumerate(inputs):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        result["ids"].append(ids)
        result["plain"].append(None if plain == ids else plain)
        result["text"].append(None if decoded == text else decoded)
        if number < SPECIAL_INPUTS:
            special = tokenizer.encode(text, add_special_tokens=True).ids
            skipped = tokenizer.decode(special, skip_special_tokens=True)
            result["special"].append(None if special == ids else special)
            result["skipped"].append(None if skipped == decoded else skipped)
    return result


def write(path, value):
    """Write JSON, as small as it gets."""
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def main():
    """Train, tokenize and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "golden" / "tokenizers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--strings", type=int, default=120, help="random strings")
    parser.add_argument("--characters", type=int, default=0, help="length of one more input, of mixed text")
    parser.add_argument("--text", type=Path, action="append", default=[], help="more text for that input")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    corpus = (ROOT / "tests" / "golden" / "text" / "corpus.txt").read_bytes().decode("utf-8", "ignore").replace("\0", "")
    tales = (ROOT / "models" / "toy" / "valid.txt").read_text(encoding="utf-8")
    lines = tales.splitlines() + corpus.splitlines()
    inputs = make_inputs(rng, args.strings)
    if args.characters:
        more = [line for path in args.text for line in path.read_text(encoding="utf-8").splitlines()]
        inputs.append(long_input(rng, lines + more, args.characters))
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / "inputs.json", inputs)
    for name, (tokenizer, trainer, added), around in kinds():
        few = [line for line in lines if all(char < "ɐ" for char in line)]  # Unigram keeps every character it sees
        tokenizer = train(name, tokenizer, trainer, added, around, few if "unigram" in name else lines[::2])
        text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
        (args.out / f"{name}.tokenizer.json").write_text(text + "\n", encoding="utf-8")
        write(args.out / f"{name}.expected.json", expected(tokenizer, inputs))
        print(f"{name}: {tokenizer.get_vocab_size()} tokens")
    print(f"tokenizers {tokenizers.__version__}, {len(inputs)} inputs, seed {args.seed}: {args.out}")


if __name__ == "__main__":
    main()
