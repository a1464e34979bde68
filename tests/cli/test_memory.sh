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

# A checkpoint of 85 MB: the source is mapped, but never resident as a whole.
if python3 -c 'import numpy' 2>/dev/null; then
    python3 "$QINS_SOURCE/tools/make_shapes.py" phi-3.5-mini "$work/source" --set num_hidden_layers=6 \
        --set hidden_size=768 --set num_attention_heads=8 --set num_key_value_heads=8 --set intermediate_size=2048 \
        --set vocab_size=512 >/dev/null 2>&1
    exits 0 "phi: compress" "$QINS_PEAK_MEMORY" "$work/peak" "$QINS" compress "$work/source" "$work/phi"
    read -r resident _ <"$work/peak"
    source=$(($(stat -c %s "$work/source/model.safetensors") / 1024))
    limit=$((6 * mib + 48 * mib)) # the largest matrix, gate_up, and what the program itself takes
    check "phi: compress of $((source / mib)) MiB has $((resident / mib)) MiB resident, at most $((limit / mib))" \
        test "$resident" -le $limit
    exits 0 "phi: export" "$QINS_PEAK_MEMORY" "$work/peak" "$QINS" export "$work/phi" "$work/phi.gguf" --format gguf --dtype q8_0
    read -r _ anonymous <"$work/peak"
    limit=$((2 * 6 * mib + 48 * mib)) # the largest matrix decoded, and its blocks
    check "phi: export as GGUF takes $((anonymous / mib)) MiB, at most $((limit / mib))" test "$anonymous" -le $limit
fi
compress_within toy "$toy" 5000
# FP32 keys and values: 2 x 3 layers x 256.
run_within toy 64 6144
if [ -f "$smollm2" ]; then
    # Embedding 49152 x 576; keys and values: 2 x 30 layers x 3 heads x 64.
    compress_within smollm2 "$smollm2" 110592
    run_within smollm2 64 46080
fi
finish
