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
# Receipts made to do harm: every one is found wrong, none is believed or brings the program down.
exits 0 "verify" qins verify "$toy" "$work/q4" --max-tokens 16 --gen 2 --no-sampling
cp "$receipt" "$work/good"
while read -r filter; do
    jq "$filter" "$work/good" >"$receipt"
    exits 1 "$filter" qins verify --receipt "$work/q4" "$toy"
done <<'FILTERS'
.fidelity = "x"
.fidelity = [1, null, []]
.fidelity[0].text = null
.fidelity[0].text.xxh3_64 = 7
.fidelity[0].text.ctx = -1
.fidelity[0].text.stride = 9e18
.fidelity[0].text.max_tokens = -5
.fidelity[0].greedy.gen = 1e15
.fidelity[0].greedy = []
.fidelity[0].kv_bits = [99, -1]
.fidelity[0].kl_mean = "0"
.fidelity[0].reference = {"files": 3}
.compress = []
.compress.tensors = 5
.compress.tensors[] = null
.compress.sizes = null
.compress.source.files = [1]
.compress.calibration = {"text": 1, "xxh3_64": 2}
.manifest_xxh3_64 = 7
.xxh3_64 = null
[]
"x"
FILTERS
head -c 300 "$work/good" >"$receipt"
exits 1 "half a receipt" qins verify --receipt "$work/q4"
says "qins_receipt.json: line"
: >"$receipt"
exits 1 "an empty one" qins verify --receipt "$work/q4"
cp "$work/good" "$receipt"
exits 0 "the good one" qins verify --receipt "$work/q4" "$toy"
check "the manifest does not list it" jq -e '.files | has("qins_receipt.json") | not' "$work/q4/qins_manifest.json"
rm "$receipt"
exits 0 "a model without one opens" qins audit "$work/q4" --summary
finish
