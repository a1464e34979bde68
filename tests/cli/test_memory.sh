#!/bin/sh
# Peak memory of compress and run, on the toy and, when it is there, on SmolLM2.
. "$(dirname "$0")/lib.sh"
need_toy
[ -z "${QINS_SANITIZED:-}" ] || skip "sanitizers take memory of their own"
mib=1024 # in KiB

# compress_within NAME MODEL LARGEST_TENSOR_FP32_KIB
compress_within() {
    exits 0 "$1: compress" "$QINS_PEAK_MEMORY" "$work/peak" "$QINS" compress "$2" "$work/$1"
    read -r _ anonymous <"$work/peak"
    limit=$((2 * $3 + 128 * mib))
    check "$1: compress takes $((anonymous / mib)) MiB, at most $((limit / mib))" test "$anonymous" -le $limit
}

# run_within NAME N_CTX KV_BYTES_PER_TOKEN
run_within() {
    exits 0 "$1: run" "$QINS_PEAK_MEMORY" "$work/peak" "$QINS" run "$work/$1" -p "Once upon a time" -n 32 --ctx "$2" --json
    read -r resident _ <"$work/peak"
    stored=$(qins audit "$work/$1" --json --summary | jq '.totals.stored_bytes / 1024 | floor')
    limit=$((stored + $2 * $3 / 1024 + 48 * mib))
    check "$1: run takes $((resident / mib)) MiB, at most $((limit / mib)) (stored $((stored / mib)))" test "$resident" -le $limit
}

compress_within toy "$toy" 5000
# FP32 keys and values: 2 x 3 layers x 256.
run_within toy 64 6144
if [ -f "$smollm2" ]; then
    # Embedding 49152 x 576; keys and values: 2 x 30 layers x 3 heads x 64.
    compress_within smollm2 "$smollm2" 110592
    run_within smollm2 64 46080
fi
finish
