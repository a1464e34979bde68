#!/usr/bin/env python3
"""Write src/text/unicode_tables.c: where the tokenizers package and the libraries of qins know different Unicode versions.

    python3.11 tools/make_unicode_tables.py > src/text/unicode_tables.c && clang-format -i src/text/unicode_tables.c

tokenizers 0.23 matches patterns with Unicode 16, lowercases with 17, normalizes with 9 and takes 8 for punctuation, while PCRE2
and utf8proc bring what the distribution has (14 in Debian 12). Needs a Python whose unicodedata is 14.0, that is 3.11.
"""

import sys
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Cf".split()
CLASSES = [r"\p{Han}", r"\p{Hiragana}", r"\p{Katakana}", r"\w"]
CODES = [code for code in range(1, 0x110000) if not 0xD800 <= code <= 0xDFFF]


def members(pre_tokenizer):
    """Return the characters that a pre-tokenizer removes."""
    kept = {char for part, _ in pre_tokenizer.pre_tokenize_str("".join(map(chr, CODES))) for char in part}
    return {code for code in CODES if chr(code) not in kept}


def matches(pattern):
    """Return the characters that a pattern matches."""
    return members(pre_tokenizers.Split(Regex(pattern), "removed"))


def to_ranges(codes, key=lambda code: None):
    """Return runs [first, last] of consecutive codes with the same key."""
    runs = []
    for code in sorted(codes):
        if runs and runs[-1][1] == code - 1 and key(code) == key(code - 1):
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return runs


def newer_characters():
    """Return ranges of characters that Unicode 14 does not have, each with a character of the same nature that it has."""
    category = {code: name for name in CATEGORIES for code in matches(rf"\p{{{name}}}")}
    classes = [matches(pattern) for pattern in CLASSES]

    def nature(code):
        return category.get(code), *(code in members for members in classes), len(chr(code).encode())

    old = {}
    for code in CODES:
        if unicodedata.category(chr(code)) == category.get(code):
            old.setdefault(nature(code), []).append(code)
    new = [code for code in category if unicodedata.category(chr(code)) == "Cn"]
    return [(first, last, min(old[nature(first)], key=lambda code: abs(code - first)))
            for first, last in to_ranges(new, nature)]  # fmt: skip


def unknown_to_normalization():
    """Return ranges of characters whose decomposition or combining class tokenizers does not know."""
    nfkd = normalizers.NFKD()
    unknown = set()
    for code in CODES:
        char = chr(code)
        if unicodedata.normalize("NFKD", char) != char and nfkd.normalize_str(char) == char:
            unknown.add(code)
        combining = unicodedata.combining(char)
        other = "\u0323" if combining > 220 else "\u0301"  # classes 220 and 230
        text = char + other if combining > 220 else other + char
        if combining and unicodedata.normalize("NFKD", "a" + text) != "a" + text and nfkd.normalize_str("a" + text) == "a" + text:
            unknown.add(code)
    return to_ranges(unknown)


def newer_lowercase():
    """Return ranges of letters that Unicode 14 does not have, each with the lower case of the first."""
    lowercase = normalizers.Lowercase()
    lower = {code: lowercase.normalize_str(chr(code)) for code in CODES if unicodedata.category(chr(code)) == "Cn"}
    changed = {code: ord(text) for code, text in lower.items() if text != chr(code)}
    return [(first, last, changed[first]) for first, last in to_ranges(changed, lambda code: changed[code] - code)]


def show(name, fields, ranges, comment):
    """Print one table."""
    print(f"\n/* {comment} */\nconst {fields} {name}[] = {{")
    for values in ranges:
        print("    {" + ", ".join(f"0x{value:X}" for value in values) + "},")
    print(f"}};\nconst size_t {name}_size = sizeof {name} / sizeof *{name};")


def main():
    """Print the C file."""
    if unicodedata.unidata_version != "14.0.0":
        sys.exit(f"unicodedata is {unicodedata.unidata_version}: run with Python 3.11")
    print("/* Where the tokenizers package and our libraries know different Unicode versions; written by\n"
          " * tools/make_unicode_tables.py. SPDX-License-Identifier: MIT */\n#include \"text/unicode_tables.h\"")  # fmt: skip
    show("qins_newer_characters", "qins_newer_range", newer_characters(),
         "Characters newer than Unicode 14, and one of the same nature that it has.")  # fmt: skip
    show("qins_unnormalized", "qins_code_range", unknown_to_normalization(),
         "Characters newer than Unicode 9 that decompose or combine.")  # fmt: skip
    show("qins_newer_lowercase", "qins_newer_range", newer_lowercase(),
         "Letters newer than Unicode 14, and the lower case of the first.")  # fmt: skip
    punctuation = members(pre_tokenizers.Punctuation("removed"))
    show("qins_punctuation", "qins_code_range", to_ranges(code for code in punctuation if code >= 0x80),
         "Punctuation of Unicode 8 outside ASCII.")  # fmt: skip


if __name__ == "__main__":
    main()
