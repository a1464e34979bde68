#!/bin/sh
# The audit adds up to the bytes on disk, for every codec; the original toy's numbers; the published mistake.
. "$(dirname "$0")/lib.sh"
need_toy

# adds_up NAME DIR
adds_up() {
    on_disk=$(cat "$2"/*.safetensors | wc -c)
    all_files=$(find "$2" -type f -exec cat {} + | wc -c)
    exits 0 "$1: audit" qins audit "$2" --json
    json "$1: tensors + shared tables + headers = weight files on disk ($on_disk B)" \
        "([.tensors[].bytes] | add) + .totals.shared_bytes + .totals.header_bytes == $on_disk"
    json "$1: the totals are the sums" "([.tensors[].bytes] | add) + .totals.shared_bytes == .totals.stored_bytes
        and ([.tensors[].params] | add) == .totals.params and .totals.fp32_bytes == 4 * .totals.params"
    json "$1: a tensor is its codes and what belongs to them" '.tensors | all(.bytes == .code_bytes + .side_bytes)'
    json "$1: all files" ".file_bytes == $all_files"
}

adds_up "original" "$toy"
json "the original saves nothing" '.totals.ratio_fp32 == 1 and .totals.ratio_source == 1'
exits 0 "audit: the KV cache" qins audit "$toy" --json --context 2048
json "the KV cache: codes + what belongs to them, 4:4 at most 0.28 of F16 (heads of 64)" '.kv_cache.context == 2048 and
    (.kv_cache.types | all(.bytes == .code_bytes + .side_bytes)) and
    (.kv_cache.types[] | select(.key_bits == 4 and .value_bits == 4) | .ratio_f16 > 0.25 and .ratio_f16 <= 0.28)'
exits 0 "audit: one width of the KV cache" qins audit "$toy" --json --kv-bits 5:3
json "F16 and what was asked for" '[.kv_cache.types[] | [.key_bits, .value_bits]] == [[16, 16], [5, 3]]'
n=0
while read -r options; do
    n=$((n + 1))
    # shellcheck disable=SC2086 # options are words
    exits 0 "compress $options" qins compress "$toy" "$work/m$n" $options
    adds_up "$options" "$work/m$n"
done <<END
--bits 4
--bits 3 --embed-bits 3
--bits 5 --scale group:32
--bits 6 --codec uniform --rotate off
--bits 8 --targets safe
--codec log --bits 9
--codec rational --bits 8 --scale tensor --rotate off
--codec none --embed-bits keep
END

# Section 2 of the design: the QINS log codec on the toy.
# shellcheck disable=SC2086
exits 0 "compress $log_seed" qins compress "$toy" "$work/seed" $log_seed
adds_up "log, 2 bytes" "$work/seed"
json "12 linears: 9,437,184 B -> 4,718,592 B" '[.tensors[] | select(.role == "linear")] |
    length == 12 and (map(.source_bytes) | add) == 9437184 and (map(.code_bytes) | add) == 4718592'
json "log_min and log_max are counted: 8 B a linear or more" '[.tensors[] | select(.role == "linear")] | all(.side_bytes >= 8)'
json "the embedding once: 5,120,000 B" '[.tensors[] | select(.role == "embedding" or .role == "head")] |
    length == 1 and .[0].bytes == 5120000'
json "biases: 27,648 B" '([.tensors[] | select(.role == "bias") | .bytes] | add) == 27648'
json "norms have a role of their own" '[.tensors[] | select(.role == "norm")] | length == 14'

# Linears and the tied head, in bytes: 14,557,184 -> 9,838,592 and a few bytes of log ranges.
check "what is saved, from the audit: 1.48x" jq -e '[.tensors[] | select(.role == "linear" or .role == "embedding")] |
    (map(.source_bytes) | add) / (map(.bytes) | add) | (. * 100 | round) == 148' "$work/out"
# The published figure took the encoded bytes from a count of values that was 4 times too small, and went negative:
# 2 Q + 4 (1,280,000 + 6,912 - Q), Q = 2,359,296.
check "the published mistake: 33.99x" jq -ne '2359296 as $q | (4 * (1280000 + 6912 + $q)) / (2 * $q + 4 * (1280000 + 6912 - $q)) |
    (. * 100 | round) == 3399'

exits 0 "rational coordinates" qins compress "$toy" "$work/f32" --codec rational --storage f32 --embed-bits keep --rotate off --scale tensor
adds_up "rational, f32" "$work/f32"
json "they save nothing, and the audit says so" '.totals.ratio_fp32 <= 1 and .totals.ratio_fp32 > 0.99'

exits 0 "audit for people" qins audit "$work/seed"
check "it prints the check" grep -q '^check .* on disk, to the byte$' "$work/out"
check "and the linears" grep -Eq '^linear +12 +2,359,296 +9,437,184 +9,437,184 +4,7' "$work/out"
finish
