#!/bin/sh
# --sparsity: as many zeros as asked for, chosen by loss better than by size, and cheap in an entropy-coded file.
. "$(dirname "$0")/lib.sh"
need_toy

# zeros DIR [GROUP]: least share of zeros in a row (or in GROUP neighbours) and the share in all, of the plain linears.
zeros() {
    rm -rf "$work/plain"
    qins export "$1" "$work/plain" --dtype f32 >/dev/null
    python3 - "$work/plain/model.safetensors" "${2:-0}" <<'END'
import array, json, sys
data, group = open(sys.argv[1], "rb").read(), int(sys.argv[2])
n = int.from_bytes(data[:8], "little")
least, zeros, total = 1, 0, 0
for name, t in json.loads(data[8:8 + n]).items():
    if not (".layers." in name and name.endswith("weight") and len(t["shape"]) == 2):
        continue
    begin, end = t["data_offsets"]
    w, size = array.array("f", data[8 + n + begin:8 + n + end]), group or t["shape"][1]
    for i in range(0, len(w), size):
        found = w[i:i + size].count(0)
        least, zeros, total = min(least, found / size), zeros + found, total + size
print(json.dumps({"least": least, "share": zeros / total}))
END
}

kl() { qins verify "$toy" "$1" --max-tokens 512 --gen 0 --no-sampling --json | jq .kl_mean; }

head -c 12000 "$toy/valid.txt" >"$work/text"
plain="--codec uniform --bits 6 --rotate off --embed-bits keep --calibrate $work/text --no-kv-transform --pack entropy"
for share in 0.5 2:4; do
    for how in loss magnitude; do
        # shellcheck disable=SC2086 # options are words
        exits 0 "--sparsity $share by $how" qins compress "$toy" "$work/$share-$how" $plain --sparsity $share \
            --prune $how --json
        zeros "$work/$share-$how" "$([ $share = 2:4 ] && echo 4)" >"$work/out"
        json "half of every row or group is zero, and little besides: $(cat "$work/out")" \
            '.least > 0.495 and .share < 0.56'
        kl "$work/$share-$how" >"$work/kl-$how"
    done
    jq -n "{loss: $(cat "$work/kl-loss"), magnitude: $(cat "$work/kl-magnitude")}" >"$work/out"
    json "by loss, less is lost: $(cat "$work/out")" '.loss < 0.95 * .magnitude'
done

# shellcheck disable=SC2086
exits 0 "nothing pruned" qins compress "$toy" "$work/all" $plain --json
qins audit "$work/all" --json >"$work/all.json"
qins audit "$work/0.5-loss" --json >"$work/out"
linears='[.tensors[] | select(.role == "linear") | .bytes] | add'
json "zeros are cheap in the file" "($linears) < 0.8 * $(jq "$linears" "$work/all.json")"

exits 0 "zeros within a rate" qins compress "$toy" "$work/rate" --file-bpw 4 --sparsity 0.3 --embed-bits keep \
    --calibrate "$work/text" --json
qins audit "$work/rate" --json >"$work/out"
json "the linears take 4 bits a weight" '[.tensors[] | select(.role == "linear")] |
    (map(.bytes) | add) * 8 / (map(.params) | add) | . > 3.9 and . < 4.06'
check "config.json says how" jq -e '.quantization_config | .sparsity == 0.3 and .pruned_by == "loss"' "$work/rate/config.json"
exits 0 "without text the smallest go" qins compress "$toy" "$work/nearest" --file-bpw 4 --sparsity 0.3 \
    --embed-bits keep --json
qins audit "$work/nearest" --json >"$work/out"
json "at the same rate" '[.tensors[] | select(.role == "linear")] |
    (map(.bytes) | add) * 8 / (map(.params) | add) | . > 3.9 and . < 4.06'

exits 2 "gauss codes have no zero" qins compress "$toy" "$work/no" --sparsity 0.5
says "goes with '--codec uniform' or '--file-bpw'"
exits 2 "loss needs text" qins compress "$toy" "$work/no" --codec uniform --sparsity 0.5 --prune loss
says "needs text"
exits 2 "--prune alone" qins compress "$toy" "$work/no" --prune loss
exits 2 "widths are not chosen for pruned matrices" qins compress "$toy" "$work/no" --codec uniform --sparsity 0.5 --bpw 4 \
    --calibrate "$work/text"
check "nothing was written" test ! -e "$work/no"
finish
