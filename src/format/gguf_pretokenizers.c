/* Pre-tokenizers that GGUF files know by name. SPDX-License-Identifier: MIT
 *
 * The JSON is what the tokenizer.json of the models that have the name says.
 */
#include "format/gguf_vocabulary.h"

#define BYTE_LEVEL(use_regex)                                                                                          \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":" use_regex "}"
#define SPLIT(regex)                                                                                                   \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define DIGITS             "{\"type\":\"Digits\",\"individual_digits\":true}"
#define SEQUENCE(parts)    "{\"type\":\"Sequence\",\"pretokenizers\":[" parts "]}"
#define SPLIT_BYTES(regex) SEQUENCE(SPLIT(regex) "," BYTE_LEVEL("false"))
#define CONTRACTIONS       "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES             "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define WORDS(digits)                                                                                                  \
    CONTRACTIONS "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" digits "| "                                               \
                 "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|" SPACES
/* Words that split before an upper-case letter; `ending` follows each. */
#define UPPER "[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define LOWER "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define CASED(ending, digits)                                                                                          \
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?" UPPER "*" LOWER "+" ending "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?" UPPER "+" LOWER      \
    "*" ending "|" digits "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|" SPACES

static const char gpt2_pieces[] = BYTE_LEVEL("true");
static const char digits_gpt2_pieces[] = SEQUENCE(DIGITS "," BYTE_LEVEL("true"));
static const char llama3_pieces[] = SPLIT_BYTES(WORDS("\\\\p{N}{1,3}"));
static const char qwen2_pieces[] = SPLIT_BYTES(WORDS("\\\\p{N}"));
static const char tekken_pieces[] = SPLIT_BYTES(CASED("", "\\\\p{N}"));
static const char gpt4o_pieces[] = SPLIT_BYTES(CASED(CONTRACTIONS "?", "\\\\p{N}{1,3}"));
static const char deepseek_coder_pieces[] =
    SEQUENCE(SPLIT("[\\r\\n]") "," SPLIT("\\\\s?\\\\p{L}+") "," SPLIT("\\\\s?\\\\p{P}+") "," SPLIT(
        "[\\u4e00-\\u9fa5\\u0800-\\u4e00\\uac00-\\ud7ff]+") "," DIGITS "," BYTE_LEVEL("false"));
static const char deepseek3_pieces[] =
    SEQUENCE(SPLIT("\\\\p{N}{1,3}") "," SPLIT("[\\u4e00-\\u9fa5\\u3040-\\u309f\\u30a0-\\u30ff]+") "," SPLIT(
        "[!\\\"#$%&'()*+,\\\\-./:;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\\\p{L}\\\\p{P}\\\\p{S}]?[\\\\p{L}"
        "\\\\p{M}]+| ?[\\\\p{P}\\\\p{S}]+[\\r\\n]*|\\\\s*[\\r\\n]+|\\\\s+(?!\\\\S)|\\\\s+") "," BYTE_LEVEL("false"));

static const qins_pre_tokenizer pre_tokenizers[] = {
    {.name = "default", .pieces = gpt2_pieces, .only_read = true},
    {.name = "gpt-2", .pieces = gpt2_pieces},
    {.name = "gpt2", .pieces = gpt2_pieces, .only_read = true},
    {.name = "phi-2", .pieces = gpt2_pieces},
    {.name = "mpt", .pieces = gpt2_pieces, .nfc = true},
    {.name = "olmo", .pieces = gpt2_pieces, .nfc = true},
    {.name = "smollm", .pieces = digits_gpt2_pieces},
    {.name = "starcoder", .pieces = digits_gpt2_pieces},
    {.name = "refact", .pieces = digits_gpt2_pieces},
    {.name = "codeshell", .pieces = digits_gpt2_pieces},
    {.name = "command-r", .pieces = digits_gpt2_pieces, .nfc = true, .add_bos = true},
    {.name = "llama3", .pieces = llama3_pieces, .ignore_merges = true, .add_bos = true},
    {.name = "llama-v3", .pieces = llama3_pieces, .ignore_merges = true, .add_bos = true},
    {.name = "llama-bpe", .pieces = llama3_pieces, .ignore_merges = true, .add_bos = true},
    {.name = "falcon3", .pieces = llama3_pieces, .ignore_merges = true},
    {.name = "dbrx", .pieces = llama3_pieces},
    {.name = "smaug-bpe", .pieces = llama3_pieces},
    {.name = "qwen2", .pieces = qwen2_pieces, .nfc = true},
    {.name = "deepseek-r1-qwen", .pieces = qwen2_pieces},
    {.name = "tekken", .pieces = tekken_pieces, .ignore_merges = true, .add_bos = true},
    {.name = "gpt-4o", .pieces = gpt4o_pieces},
    {.name = "deepseek-coder", .pieces = deepseek_coder_pieces},
    {.name = "deepseek-v3", .pieces = deepseek3_pieces},
};

const qins_pre_tokenizer *qins_pre_tokenizer_at(size_t i) {
    return i < sizeof pre_tokenizers / sizeof pre_tokenizers[0] ? &pre_tokenizers[i] : NULL;
}

const char qins_byte_level_decoder[] = BYTE_LEVEL("true");
