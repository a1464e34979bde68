#!/bin/sh
# The receipt: what compress says about its work, and that it is true.
. "$(dirname "$0")/lib.sh"
need_toy

exits 0 "compress" qins compress "$toy" "$work/q4" --json
cp "$work/out" "$work/made"
receipt=$work/q4/qins_receipt.json
holds() { check "$1" jq -e --slurpfile made "$work/made" "$2" "$receipt"; }
holds "sizes are those that compress printed" '.compress.sizes | .source_bytes == $made[0].source_bytes and .stored_bytes == $made[0].stored_bytes
    and (.bpw - $made[0].bpw | fabs) < 1e-9'
holds "the codec and the seed" '.compress.options | .codec == "gauss" and .bits == 4 and .rotation_seed == 1 and .embed_bits == 8'
size=$(wc -c <"$toy/model.safetensors")
holds "the source by name, size and hash" ".compress.source | .name == \"toy\" and .files[0].bytes == $size and (.files[0].xxh3_128 | length) == 32"
holds "an error for every encoded tensor" '(.compress.tensors | length) == 13 and (.compress.tensors | all(.rel_mse > 0 and .rel_mse < 0.02))'
if command -v xxh128sum >/dev/null; then
    check "the hash is XXH3-128" test "$(jq -r '.compress.source.files[0].xxh3_128' "$receipt")" = "$(xxh128sum "$toy/model.safetensors" | cut -d' ' -f1)"
fi
exits 0 "compress with calibration" qins compress "$toy" "$work/fed" --calibrate "$toy/valid.txt" --calibrate-tokens 1024
check "the text is named" jq -e '.compress.calibration | .text == "valid.txt" and .bytes == 60091 and .tokens == 1024 and .fed_back == 12 and (.xxh3_64 | length) == 16' "$work/fed/qins_receipt.json"
check "none without one" jq -e '.compress | has("calibration") and .calibration == null' "$receipt"
exits 0 "its errors hold" qins verify --receipt "$work/fed" "$toy"
exits 0 "pack" qins pack "$work/fed" "$work/packed"
exits 0 "the receipt of what was packed holds" qins verify --receipt "$work/packed" "$toy"
exits 0 "compress without loss" qins compress "$toy" "$work/lossless" --codec lossless
exits 0 "its receipt holds" qins verify --receipt "$work/lossless" "$toy"
check "the manifest does not list it" jq -e '.files | has("qins_receipt.json") | not' "$work/q4/qins_manifest.json"
rm "$receipt"
exits 0 "a model without one opens" qins audit "$work/q4" --summary
finish
