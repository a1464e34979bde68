#!/usr/bin/env python3
"""Write tests/golden/text/corpus.txt and blocks.npy: text that is hard on a tokenizer, cut into blocks.

A block is a run of bytes that is tokenized on its own; blocks.npy holds the byte offset of each block and,
last, the size of the corpus (int64). Blocks contain line breaks of every kind, control characters and bytes
that are not UTF-8, so the corpus is not a list of lines.

    python3 tools/make_corpus.py
"""

import argparse
import random
import unicodedata
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent

SCRIPTS = """\
All human beings are born free and equal in dignity and rights.
Alle Menschen sind frei und gleich an Würde und Rechten geboren. Straße, größer, ÄÖÜ.
Tous les êtres humains naissent libres et égaux en dignité et en droits. L'œuvre, ça, Noël.
Todos los seres humanos nacen libres e iguales. ¿Qué? ¡Sí, señor!
Wszyscy ludzie rodzą się wolni i równi; zażółć gęślą jaźń.
Všichni lidé rodí se svobodní. Příliš žluťoučký kůň úpěl ďábelské ódy.
Minden emberi lény szabadon születik. Árvíztűrő tükörfúrógép.
Bütün insanlar hür doğar. İstanbul, ılık, IĞDIR.
Tất cả mọi người sinh ra đều được tự do và bình đẳng.
Kullum maður er borinn frjáls. Þórður, æðislegt, Ísland.
Все люди рождаются свободными и равными в своём достоинстве. Ёлка, щука.
Усі люди народжуються вільними. Їжак, ґанок, об'єкт.
Όλοι οι άνθρωποι γεννιούνται ελεύθεροι. Ὁ ἄνθρωπος ᾧ.
Բոլոր մարդիկ ծնվում են ազատ ու հավասար։
ყველა ადამიანი იბადება თავისუფალი და თანასწორი.
כל בני האדם נולדו בני חורין. שָׁלוֹם עֲלֵיכֶם
يولد جميع الناس أحرارًا متساوين. السَّلَامُ عَلَيْكُم ١٢٣٤٥
تمام انسان‌ها آزاد زاده شده‌اند. ۱۲۳۴۵
सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है। १२३
সমস্ত মানুষ স্বাধীনভাবে জন্মগ্রহণ করে। ৪৫৬
ਸਾਰਾ ਮਨੁੱਖੀ ਪਰਿਵਾਰ ਆਪਣੀ ਮਹਿਮਾ ਨਾਲ ਪੈਦਾ ਹੁੰਦਾ ਹੈ।
மனிதப் பிறிவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர். ௧௨௩
ప్రతిపత్తిస్వత్వముల విషయమున మానవులెల్లరును జన్మతః స్వతంత్రులు
മനുഷ്യരെല്ലാവരും തുല്യാവകാശങ്ങളോടെ ജനിച്ചവരാണ്.
සියලු මනුෂ්‍යයෝ නිදහස්ව උපත ලබා ඇත.
มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน ๑๒๓
ມະນຸດທຸກຄົນເກີດມາມີອິດສະຫລະ
လူတိုင်းသည် တူညီလွတ်လပ်သော ဂုဏ်သိက္ခာဖြင့် မွေးဖွားလာသူများ ဖြစ်သည်။
មនុស្សទាំងអស់ កើតមកមានសេរីភាព
འགྲོ་བ་མིའི་རིགས་རྒྱུད་ཡོངས་ལ་སྐྱེས་ཙམ་ཉིད་ནས་
人人生而自由,在尊嚴和權利上一律平等。繁體與简体。
すべての人間は、生まれながらにして自由であり。カタカナ、ヒラガナ、ー、々。
모든 인간은 태어날 때부터 자유로우며 존엄하다. 한국어
Бүх хүн төрж мэндлэхэд эрх чөлөөтэй ᠮᠣᠩᠭᠣᠯ
ሰው ሁሉ ነፃ ሆኖ የተወለደ ነው። ፩፪፫
ᏂᎦᏓ ᎠᏂᏴᏫ ᏂᎨᎫᏓᎸᎾ
ᓱᓇᐅᕝᕙᑦ ᐃᓅᔪᓕᒫᑦ
ꦱꦧꦼꦤ꧀ ᮞᮊᮥᮙ᮪ ᬲᬫᬶ
𐌰𐌻𐌻𐌰𐌹 𝔉𝔯𝔢𝔦 𝟙𝟚𝟛 𝑥² 𐐔𐐯𐑅 𒀀𒀁 𓀀𓂀 𠮷𠀋
"""

WORDS = """\
I'm you're he's we've they'll I'd don't can't won't it's o'clock 'tis 'twas rock'n'roll y'all'd've
I'M YOU'RE HE'S WE'VE THEY'LL I'D DON'T IT'S 'S 'T 'RE 'VE 'M 'LL 'D
it’s don’t we’ll ’tis «guillemets» “quotes” ‘single’ – — … ‐ ‑ − ·
a'b a's's ''s '' ' 'sx 'lll 'rest 'very 'demand s' 's't 're've
0 1 12 123 1234 12345 1234567890 3.14159 1,000,000 -42 +7 1e-10 0x1F 0b101 1st 2nd x86_64 v1.2.3 2024-01-31 12:34:56
½ ¼ ² ³ ⁴ ₂ Ⅷ ⅷ ① ⑳ ㊿ 一二三 ٠١٢ १२३ ๑๒๓ 𝟎𝟏 ৴ ༳ ꠰ ㆒
word123 123word a1b2c3 abc١٢٣ 5€ $100 100% #1 @2 &3 *4 C3PO H2O CO₂ m² 10⁻³
http://example.org/a/b?c=d&e=%20#frag user.name+tag@example.co.uk ../../path C:\\Users\\x
snake_case camelCase PascalCase kebab-case SCREAMING_CASE __init__ a.b.c() foo->bar x::y !== === <=> ... ,,, ;;; ((())) [[{}]]
supercalifragilisticexpialidocious antidisestablishmentarianism aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa hahahahahaha zzzzz
"""

EMOJI = """\
😀 😃 😄 🎉🎉🎉 👍 👍🏽 👩‍💻 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷🇯🇵 1️⃣ #️⃣ ❤️ ❤ ☺︎ ☺️ 🧑🏿‍🤝‍🧑🏻 🫠 🏴󠁧󠁢󠁳󠁣󠁴󠁿
text😀text 😀😀 😀1 1😀 a👩‍🚀b ✈️✈ ©®™ ←↑→↓ ∀∃∈ℝ ∑∫√∞ ░▒▓█ ┌─┐ ♠♥♦♣ ♪♫ ☃ ☂
"""

CODE = [
    'int main(int argc, char **argv)\n{\n\tfor (size_t i = 0; i < n; i++) {\n\t\tsum += a[i] * b[i];\n\t}\n\treturn 0; /* done */\n}\n',
    'def f(x: int, *, y="a\\n\\t\\"b\\"") -> dict[str, int]:\n    """Doc."""\n    return {k: v for k, v in zip("abc", range(3)) if v != x}\n\n\n',
    '{"key": [1, 2.5e-3, true, null, "\\u00e9\\ud83d\\ude00"],\r\n  "nested": {"a": {"b": []}}}\r\n',
    '<html lang="en"><!-- c --><p class=\'x\'>&amp;&nbsp;&#8364;</p></html>\n',
    '#!/bin/sh\nset -eu\nfor f in "$@"; do\n    [ -f "$f" ] && sed -e \'s/a/b/g\' <"$f" | tee >(cat) 2>&1 || exit 1\ndone\n',
    'SELECT a.*, COUNT(*) FROM t AS a WHERE x >= 3 AND y LIKE \'%z%\' GROUP BY 1;\n-- end\n',
    '\\begin{equation} \\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2} \\end{equation}\n',
    '| a | b |\n|---|:-:|\n| 1 | **2** |\n\n- [ ] item\n* `code` ~~x~~\n\n```c\nx;\n```\n',
]

SPECIAL = """\
<|endoftext|> a<|endoftext|>b <|endoftext|><|endoftext|> <|im_start|>user
Hello<|im_end|>
<|im_start|>assistant
<|im_start|><|im_end|> < |im_start|> <|im_start <|endoftext| > |endoftext|> <|ENDOFTEXT|> <<|endoftext|>> <|im_ <|
<s> </s> <unk> <pad> [INST] [/INST] <repo_name> <reponame> <file_sep> <filename> <gh_stars> <issue_start> <issue_comment>
<issue_closed> <jupyter_start> <jupyter_text> <jupyter_code> <jupyter_output> <jupyter_script> <empty_output>
   <|im_start|>   user   <|im_end|>\t<|endoftext|>\n\n<|endoftext|>\r\n
"""

# Spaces and near-spaces: where regex engines disagree on \s.
SPACES = [
    " ", "\t", "\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\xa0", "\u1680", "\u180e",
    "\u2000", "\u2003", "\u2009", "\u200a", "\u200b", "\u200c", "\u200d", "\u2028", "\u2029", "\u202f", "\u205f",
    "\u2060", "\u3000", "\ufeff", "\x00", "\x7f",
]  # fmt: skip

COMBINING = [
    "e\u0301 é e\u0301\u0323 ẹ\u0301 a\u0308\u0304 ǟ",
    "Z\u0351\u036b\u0343a\u0328\u0360l\u0334\u0489g\u0310\u033fo\u0362",
    "\u0301start \u0308 \u200d\u0301 n\u0303o q\u0307\u0323",
    "ﬁ ﬂ ﬀ ǆ ĳ ŉ ſ K Å Ω ﷺ ﷽ ㍿ ½ ｆｕｌｌ　ｗｉｄｔｈ ｶﾞ 각 각",
]

INVALID = [
    b"\xff", b"abc\xfe\xffdef", b"\x80\x81 lone", b"\xc0\x80", b"\xc3", b"\xc3(", b"\xe2\x82", b"\xe2\x82 x", b"\xe2(\xa1",
    b"\xed\xa0\x80 surrogate", b"\xed\xb0\x80", b"\xf0\x9f\x98", b"\xf0\x9f\x98 cut emoji", b"\xf0\x9f(", b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80", b"a\xf0\x80\x80\x80b", b"ok \xe4\xb8\xad\xe4\xb8 then", b"caf\xe9 latin-1 na\xefve",
    b"\xe0\x80\xaf \xc1\xbf", b"\xf1\x80\x80\xe1\x80\xc2b\x80c\x80\xbfd", b"tail \xf0\x9f", b"<|endoftext|>\xff<|endof\xfftext|>",
]  # fmt: skip

# Unicode blocks that random characters are drawn from; all old enough for every library's tables.
RANGES = [
    (0x20, 0x7F), (0xA0, 0x250), (0x250, 0x370), (0x370, 0x530), (0x530, 0x700), (0x900, 0xE00), (0xE00, 0x1000),
    (0x1000, 0x1100), (0x1100, 0x1200), (0x1E00, 0x2000), (0x2000, 0x2C00), (0x3040, 0x3100), (0x4E00, 0x9FA0),
    (0xAC00, 0xD7A0), (0xF900, 0xFA00), (0xFE70, 0xFF00), (0xFF00, 0xFFF0), (0x1D400, 0x1D800), (0x1F300, 0x1F600),
    (0x20000, 0x20100), (0xE000, 0xE010), (0xF0000, 0xF0010),
]  # fmt: skip


def random_char(rng):
    """Return an assigned or private-use character of a random block."""
    low, high = rng.choice(RANGES)
    while True:
        char = chr(rng.randrange(low, high))
        if unicodedata.category(char) != "Cn":
            return char


def whitespace_blocks(rng):
    """Return blocks of words parted by random runs of spaces and near-spaces."""
    blocks = [" " * n + "x" + " " * n for n in (1, 2, 3, 4, 7, 8, 15, 16, 31, 64)]
    blocks += ["a\t\tb\t c \t d\n\n\ne\r\n\r\nf\r\rg \n h\n \ni   \n\n   j", "   ", "\n", "\n\n\n", "\t\t\t", " \n ", "", "  12  3"]
    for space in SPACES:
        blocks.append(f"a{space}b{space}{space}c {space}d{space} e{space}1{space}.{space * 3}f{space}")
    for _ in range(120):
        words = (rng.choice(["word", "42", "!?", "é", "中", "'s", "<|endoftext|>"]) for _ in range(6))
        blocks.append("".join(word + "".join(rng.choices(SPACES[:13], k=rng.randrange(4))) for word in words))
    return blocks


def random_blocks(rng):
    """Return blocks of random characters: one script at a time, then all mixed with ASCII."""
    blocks = []
    for low, high in RANGES:
        chars = [c for c in map(chr, range(low, high)) if unicodedata.category(c) != "Cn"]
        blocks.append("".join(rng.choices(chars, k=40)))
    for _ in range(200):
        blocks.append("".join(rng.choice([random_char(rng), rng.choice(" a1.'\n")]) for _ in range(30)))
    return blocks


def random_byte_blocks(rng):
    """Return blocks of valid text with random bytes written over it, and of random bytes alone."""
    blocks = []
    for _ in range(80):
        data = bytearray("".join(random_char(rng) for _ in range(16)).encode())
        for _ in range(3):
            data[rng.randrange(len(data))] = rng.randrange(256)
        blocks.append(bytes(data))
    return blocks + [rng.randbytes(48) for _ in range(20)]


def make_blocks(rng):
    """Return all blocks as bytes."""
    lines = SCRIPTS + WORDS + EMOJI
    text = lines.splitlines() + COMBINING + CODE + [SCRIPTS, WORDS, EMOJI, SPECIAL] + SPECIAL.splitlines(keepends=True)
    text += ["".join(map(chr, range(0x20))), "".join(map(chr, range(0x20, 0x100)))]
    text += whitespace_blocks(rng) + random_blocks(rng)
    return [block.encode() for block in text] + INVALID + random_byte_blocks(rng)


def main():
    """Write the corpus."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "golden" / "text")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    blocks = make_blocks(random.Random(args.seed))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "corpus.txt").write_bytes(b"".join(blocks))
    np.save(args.out / "blocks.npy", np.cumsum([0] + [len(b) for b in blocks]).astype("<i8"))


if __name__ == "__main__":
    main()
