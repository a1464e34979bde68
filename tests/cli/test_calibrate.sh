#!/bin/sh
# compress --calibrate: nearer to the original than nearest rounding on text it has not seen; killed at any moment it goes
# on from the last finished layer, to the same bytes.
. "$(dirname "$0")/lib.sh"
need_toy

# Text: the README and docs of this repository to calibrate with, the built-in tales to score on.
cat "$QINS_SOURCE"/README.md "$QINS_SOURCE"/docs/*.md >"$work/text"
calibrate="--calibrate $work/text --calibrate-tokens 8192 --embed-bits keep"

kl() { qins verify "$toy" "$1" --max-tokens 2048 --gen 0 --json | jq .kl_mean; }
fingerprint() { find "$1" -type f -exec sha256sum {} + | sed "s|$1/||" | sort; }

for bits in 3 4 6; do
    # shellcheck disable=SC2086 # options
    qins compress "$toy" "$work/fed" --bits $bits $calibrate --force --json >"$work/json"
    qins compress "$toy" "$work/near" --bits $bits --calibrate none --embed-bits keep --force >/dev/null
    [ "$(jq .fed_back "$work/json")" -eq 12 ] || fail "$bits bits: not every linear was rounded with feedback"
    fed=$(kl "$work/fed")
    near=$(kl "$work/near")
    echo "$bits bits: KL $fed with feedback, $near without"
    awk -v a="$fed" -v b="$near" 'BEGIN { exit !(a < 0.9 * b) }' || fail "$bits bits: feedback does not help"
done

# Killed after some of the layers.
# shellcheck disable=SC2086
qins compress "$toy" "$work/whole" $calibrate >/dev/null
fingerprint "$work/whole" | grep -v receipt >"$work/expected"
mkdir "$work/d"
resumed=0
for delay in 0.2 0.4 0.7 1 1.5 2 3 4; do
    # shellcheck disable=SC2086
    "$QINS" compress "$toy" "$work/d/model" $calibrate >/dev/null 2>&1 &
    process=$!
    sleep "$delay"
    kill -KILL "$process" 2>/dev/null || true
    wait "$process" 2>/dev/null || true # until it is gone, and its locks
    rm -rf "$work/d/model"
    if [ -f "$work/d/.model.qins-resume/hidden" ]; then resumed=$((resumed + 1)); fi
    # shellcheck disable=SC2086
    qins compress "$toy" "$work/d/model" $calibrate --force >/dev/null
    fingerprint "$work/d/model" | grep -v receipt >"$work/found"
    cmp -s "$work/expected" "$work/found" || fail "killed after $delay s: the resumed result differs"
    [ -z "$(find "$work/d" -name '.model.*')" ] || fail "killed after $delay s: the finished run left its folder behind"
    rm -rf "$work/d/model"
    [ "$resumed" -lt 2 ] || break
done
echo "went on from a folder $resumed times"

# Goals: the average, the size and the loss that were asked for, with widths that differ.
goal() { # goal NAME OPTIONS...
    name=$1
    shift
    # shellcheck disable=SC2086
    qins compress "$toy" "$work/goal" --calibrate "$work/text" --calibrate-tokens 8192 --force --json "$@" >"$work/json"
    check "$name: matrices differ in width" test "$(qins audit "$work/goal" --json | jq '[.tensors[] | select(.codec == "gauss" or .codec == "trellis") | .bits] | unique | length')" -gt 1
}
# shellcheck disable=SC2317 # called by check
number() { awk -v a="$(jq "$1" "$work/json")" "BEGIN { exit !($2) }"; }
goal "--bpw 4.4" --bpw 4.4
check "--bpw 4.4 is used up and not exceeded" number .bpw "a <= 4.4 && a > 4.3"
check "the sum over matrices is near what is measured" number ".predicted_kl / .measured_kl" "a > 0.8 && a < 1.15"
gauss_kl=$(jq .measured_kl "$work/json")
goal "trellis, --bpw 4.4" --bpw 4.4 --codec trellis
check "trellis: 4.4 is used up and not exceeded" number .bpw "a <= 4.4 && a > 4.3"
check "trellis: the sum over matrices is near what is measured" number ".predicted_kl / .measured_kl" "a > 0.8 && a < 1.15"
check "the trellis loses less than 0.85 of what gauss does" number ".measured_kl / $gauss_kl" "a < 0.85"
goal "trellis, --bpw 2.7" --bpw 2.7 --codec trellis
check "trellis: 2 bits are used" test "$(qins audit "$work/goal" --json | jq '[.tensors[] | select(.codec == "trellis") | .bits] | min')" = 2
check "both are in the receipt" jq -se '(.[0].compress.calibration | [.predicted_kl, .measured_kl]) as $a | .[1] | [.predicted_kl, .measured_kl] as $b
    | [range(2) | ($a[.] - $b[.]) / $b[.] | fabs < 1e-9] | all' "$work/goal/qins_receipt.json" "$work/json"
goal "--bpw 5.3 of the linears" --bpw 5.3 --embed-bits 8
check "the embedding has the width that was given" test "$(qins audit "$work/goal" --json | jq '[.tensors[] | select(.role == "embedding") | .bits] == [8]')" = true
goal "--size 2.1MB" --size 2.1MB
bytes=$(stat -c %s "$work/goal/model.safetensors")
check "the file of $bytes bytes is within 2.1 MB and uses it" test "$bytes" -le 2100000 -a "$bytes" -gt 2000000
goal "--max-kl 0.01" --max-kl 0.01 --calibrate self
check "what was measured is the goal, but for a step of the widths" number .measured_kl "a <= 0.01 && a > 0.0075"
found=$(kl "$work/goal")
echo "--max-kl 0.01, calibrated on the model's own text: predicted $(jq .predicted_kl "$work/json"), measured $(jq .measured_kl "$work/json"), KL $found on tales"
check "the loss on tales is of that order" awk -v a="$found" 'BEGIN { exit !(a < 0.02 && a > 0.005) }'
exits 1 "a size that nothing fits" qins compress "$toy" "$work/none" --calibrate "$work/text" --size 1MB
says "the smallest width takes"

# Text that the model writes itself: the same on every run.
qins compress "$toy" "$work/self" --bits 4 --calibrate self --calibrate-tokens 4096 --embed-bits keep >/dev/null
qins compress "$toy" "$work/again" --bits 4 --calibrate self --calibrate-tokens 4096 --embed-bits keep >/dev/null
check "two runs give the same file" cmp "$work/self/model.safetensors" "$work/again/model.safetensors"
qins compress "$toy" "$work/near" --bits 4 --calibrate none --embed-bits keep --force >/dev/null
check "calibration on its own text helps" awk -v a="$(kl "$work/self")" -v b="$(kl "$work/near")" 'BEGIN { print a, b; exit !(a < 0.8 * b) }'

# The key transform of the KV cache: stored with the model, seen by coded caches only, and left out on request.
keep="--codec none --embed-bits keep --calibrate $work/text --calibrate-tokens 4096"
# shellcheck disable=SC2086 # options
qins compress "$toy" "$work/keys" $keep >/dev/null
exits 0 "audit of a model with a key transform" qins audit "$work/keys" --json
json "it is a tensor of 3 layers, 4 heads and 64 x 64 halves, no parameter of the model" '.totals.params == 3649792 and
    ([.tensors[] | select(.name == "qins.kv_transform")] | length == 1 and .[0].bytes == 2 * 3 * 4 * 64 * 64)'
# shellcheck disable=SC2086 # options
exits 0 "a preview" qins compress "$toy" --dry-run $keep --json
json "a preview counts it" ".totals.weight_file_bytes == $(stat -c %s "$work/keys/model.safetensors")"
ids=$(seq -s, 1 300)
for bits in 32 8; do
    qins logits "$toy" --ids "$ids" --kv-bits $bits --out "$work/plain.$bits.npy" >/dev/null
    qins logits "$work/keys" --ids "$ids" --kv-bits $bits --out "$work/keys.$bits.npy" >/dev/null
done
check "a plain cache does not see it" cmp "$work/plain.32.npy" "$work/keys.32.npy"
# shellcheck disable=SC2016 # for the inner shell
check "a coded cache does" sh -c '! cmp -s "$1" "$2"' - "$work/plain.8.npy" "$work/keys.8.npy"
check "8 bits with it cost next to nothing" awk -v a="$(qins verify "$toy" "$work/keys" --kv-bits 8 --max-tokens 1024 --gen 0 \
    --no-sampling --no-receipt --json | jq .kl_mean)" 'BEGIN { print a; exit !(a > 0 && a < 0.0003) }'
exits 0 "pack carries it" qins pack "$work/keys" "$work/packed-keys"
qins logits "$work/packed-keys" --ids "$ids" --kv-bits 8 --out "$work/packed.npy" >/dev/null
check "a packed model has the same" cmp "$work/packed.npy" "$work/keys.8.npy"
# shellcheck disable=SC2086 # options
qins compress "$toy" "$work/plain-keys" $keep --no-kv-transform >/dev/null
check "--no-kv-transform" test "$(qins audit "$work/plain-keys" --json | jq '[.tensors[].name] | index("qins.kv_transform")')" = null

# A text of a few tokens, and one with none.
printf 'Once upon a time' >"$work/short"
qins compress "$toy" "$work/few" --calibrate "$work/short" --embed-bits keep >/dev/null
awk -v a="$(kl "$work/few")" -v b="$near" 'BEGIN { exit !(a < 1) }' || fail "a tiny calibration text breaks the model"
: >"$work/empty"
exits 1 "an empty text" qins compress "$toy" "$work/none" --calibrate "$work/empty"
says "at least 2 are needed"
exits 1 "a text that is not there" qins compress "$toy" "$work/none" --calibrate "$work/nosuch"
says "nosuch"
exits 2 "feedback without text" qins compress "$toy" "$work/none" --round feedback --calibrate none
exits 2 "feedback for a codec that has none" qins compress "$toy" "$work/none" --round feedback --codec log --calibrate "$work/text"
finish
