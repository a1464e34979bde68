#!/bin/sh
# verify: figures that must agree with each other, bounds as a gate, and receipts that hold until something is changed.
. "$(dirname "$0")/lib.sh"
need_toy
exits 0 "compress" qins compress "$toy" "$work/q4"
receipt=$work/q4/qins_receipt.json

# --- the figures
exits 0 "verify" qins verify "$toy" "$work/q4" --json --max-tokens 800 --ctx 100 --gen 6 --no-receipt
json "the interval holds the mean" '.bootstrap_blocks == 8 and .kl_interval[0] < .kl_mean and .kl_interval[1] > .kl_mean'
json "quantiles rise" '.kl_p50 < .kl_p90 and .kl_p90 < .kl_p99 and .kl_p99 <= .kl_p999'
json "positions add up" '([.by_position[].tokens] | add) == .tokens and ((([.by_position[] | .tokens * .kl_mean] | add) / .tokens - .kl_mean) | fabs) < 1e-9'
json "positions are 1, 2 to 3 ... 64 to 100" '[.by_position[].from] == [1, 2, 4, 8, 16, 32, 64] and .by_position[6].to == 100'
json "no coupling beats the overlap by more than chance" '.strategies | length == 5 and all(.coupled <= .overlap + 0.05 and .coupled > .agreement and .kl > 0)'
json "greedy sums" '.greedy | .agreed == ([.prompts[].agreed] | add) and .identical == ([.prompts[] | select(.matched == .of)] | length) and .agreed >= .matched'
json "eight kinds" '[.greedy.prompts[].kind] | unique | length == 8'
exits 0 "overlapping windows" qins verify "$toy" "$work/q4" --json --max-tokens 800 --ctx 100 --stride 50 --gen 0 --no-sampling --no-receipt
json "every token still counts once, most with 51 and more of context" '.tokens == 800 and .strategies == [] and ([.by_position[] | select(.from < 32) | .tokens] | add) == 31'

# --- layers: in a model of which one layer is compressed, that layer is the whole difference
exits 0 "compress the second layer only" qins compress "$toy" "$work/one" --targets '\.layers\.1\.' --embed-bits keep
exits 0 "verify its layers" qins verify "$toy" "$work/one" --json --max-tokens 128 --layers 128 --gen 0 --no-receipt
json "only it differs" '.layers | length == 4 and .[0].own_kl == 0 and .[0].output_rel_mse == 0 and .[2].own_kl == 0 and .[3].own_kl == 0 and .[3].layer == "embedding and head"'
json "its own KL is the model's" '(.layers[1].own_kl / .kl_mean - 1 | fabs) < 1e-6 and .layers[1].weight_rel_mse > 0.005 and .layers[0].weight_rel_mse == 0'
json "its output is where the two part" '.layers[1] | (.own_rel_mse / .output_rel_mse - 1 | fabs) < 1e-6 and .cosine < 1 and .cosine > 0.9'

exits 0 "a report" qins verify "$toy" "$work/one" --max-tokens 128 --gen 2 --no-receipt --html "$work/report.html"
check "has the layers" grep -q 'KL when only this is compressed' "$work/report.html"
check "names the one that hurts" grep -q 'layer 1 hurts most' "$work/report.html"
check "needs nothing from outside" sh -c "! grep -qE '(src|href)=.?(http|//)|@import|url\(' '$work/report.html'"
check "is whole" grep -q '</html>' "$work/report.html"
exits 1 "a report that cannot be written" qins verify "$toy" "$work/one" --max-tokens 16 --gen 0 --no-receipt --html "$work/none/report.html"

# --- bounds
set -- --max-tokens 200 --gen 0 --no-sampling --no-receipt
exits 0 "bounds that are kept" qins verify "$toy" "$work/q4" "$@" --require kl=0.1,top1=0.8,ppl=20
exits 1 "a bound that is not" qins verify "$toy" "$work/q4" "$@" --require kl=0.1,top1=0.999 --json
says "required top1 >= 0.999, measured 0."
json "JSON says which" '.require | length == 2 and .[0].met and (.[1].met | not) and .[1].name == "top1"'
exits 1 "what is not measured is not met" qins verify "$toy" "$work/q4" "$@" --require greedy=0.1
says "which was not measured"
for bad in kl "kl=" "kl=x" "kk=1" "kl=1,,top1=1" "kl=1," ""; do
    exits 2 "'$bad' is no bound" qins verify "$toy" "$work/q4" --require "$bad"
done
exits 2 "a model is missing" qins verify "$toy"
exits 2 "a stride longer than the window" qins verify "$toy" "$work/q4" --ctx 10 --stride 11

# --- receipts
check "--no-receipt leaves it alone" jq -e '.fidelity == []' "$receipt"
set -- --max-tokens 200 --ctx 50 --gen 4
exits 0 "verify" qins verify "$toy" "$work/q4" "$@" --json
json "the receipt was updated" '.receipt_updated'
cp "$work/out" "$work/said"
holds() { check "$1" jq -e --slurpfile said "$work/said" "$2" "$receipt"; }
holds "it has the figures" '.fidelity | length == 1 and (.[0].kl_mean - $said[0].kl_mean | fabs) < 1e-12 and .[0].greedy.matched == $said[0].greedy.matched and .[0].text.xxh3_64 == $said[0].text_xxh3_64'
holds "and where they come from" '.fidelity[0] | (.cpu | length) > 0 and (.date | test("^20[0-9-]{8}$")) and (.writer | test("^qins ")) and .kv_bits == [16, 16] and .reference.files[0].name == "model.safetensors"'
exits 0 "the model still opens" qins audit "$work/q4" --summary
exits 0 "again" qins verify "$toy" "$work/q4" "$@"
holds "the same measurement takes the old one's place" '.fidelity | length == 1'
printf 'The king had three daughters, and the youngest of them was so fair that the sun himself wondered.' >"$work/text"
exits 0 "another text" qins verify "$toy" "$work/q4" --text "$work/text" --gen 0
holds "another one is added" '.fidelity | length == 2'
exits 0 "a cache of fewer bits" qins verify "$toy" "$work/q4" "$@" --kv-bits 8
holds "is another one" '.fidelity | length == 3 and .[2].kv_bits == [8, 8] and .[2].kl_mean != .[0].kl_mean'
exits 0 "check without the source" qins verify --receipt "$work/q4" --json
json "what needs it is not checked" '.holds and .broken == 0 and .unchecked == 5 and (.lines | length == 11)'
exits 0 "check with it" qins verify --receipt "$work/q4" "$toy" --text "$work/text" --json
json "every line holds" '.holds and .unchecked == 0 and (.lines | length == 28) and (.lines | all(.verdict == "holds"))'
exits 1 "another source" qins verify --receipt "$work/q4" "$work/one"
check "says what it was made from" grep -q '^BROKEN .*what it was made from' "$work/out"

# broken NAME LINE JQ_FILTER: an edited receipt
broken() {
    cp "$receipt" "$work/good"
    jq "$3" "$work/good" >"$receipt"
    exits 1 "$1" qins verify --receipt "$work/q4" "$toy" --json
    json "its checksum and the line are broken" "[.lines[] | select(.verdict == \"broken\") | .what] | .[0] == \"the receipt's own checksum\" and any(. == \"$2\")"
    cp "$work/good" "$receipt"
}
broken "a better KL" "measurement 1, kl_mean" '.fidelity[0].kl_mean *= 0.9'
broken "a smaller size" "stored bytes" '.compress.sizes.stored_bytes -= 1'
broken "a smaller error" "error of every matrix" '.compress.tensors["gpt_neox.embed_in.weight"].rel_mse *= 0.5'
broken "another seed" "codec, widths and seeds" '.compress.options.rotation_seed = 2'
cp "$receipt" "$work/good"
sed 's/"bits": 4/"bits": 8/' "$work/good" >"$receipt"
exits 0 "verify goes on" qins verify "$toy" "$work/q4" "$@" --json
says "left as it is"
json "and says so" '.receipt_updated | not'
cp "$work/good" "$receipt"
mkdir "$work/other"
exits 0 "compress" qins compress "$toy" "$work/other/q5" --bits 5
cp "$receipt" "$work/other/q5/qins_receipt.json"
exits 1 "a receipt of another model" qins verify --receipt "$work/other/q5"
check "does not belong" grep -q '^BROKEN .*it belongs to this manifest' "$work/out"
rm "$receipt"
exits 1 "no receipt" qins verify --receipt "$work/q4"
says "has no qins_receipt.json"
exits 0 "verify writes one" qins verify "$toy" "$work/q4" "$@"
exits 0 "and it holds" qins verify --receipt "$work/q4" "$toy"
exits 0 "a plain model has none" qins verify "$toy" "$toy" --max-tokens 16 --gen 0 --json
json "nothing was written" '.receipt_updated | not'
check "into the toy" test ! -e "$toy/qins_receipt.json"
finish
