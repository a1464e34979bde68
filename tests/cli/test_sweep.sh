#!/bin/sh
# qins sweep: its points are those of compress and verify, its report needs nothing from outside and nothing is left behind.
. "$(dirname "$0")/lib.sh"
need_toy

mkdir "$work/reports"
"$QINS" sweep "$toy" --out "$work/reports/r.html" --codecs gauss,original --bits 3,6 --max-tokens 96 --json >"$work/sweep.json"
check "two widths of gauss and the two originals" jq -e '([.points[] | .codec + (.bits | tostring)] | join(" ")) == "gauss3 gauss6 rational8 log8"' "$work/sweep.json"
check "each point has what the contract names" jq -e '[.points[] | has("codec","bits","bpw","rel_mse","gap_bits","kl_mean","top1")] | all' "$work/sweep.json"
check "more bits, less divergence" jq -e '.points[0].kl_mean > 20 * .points[1].kl_mean and .points[1].kl_mean > 0' "$work/sweep.json"
check "the gap is that of a Gaussian quantiser" jq -e '.points[0].gap_bits | . > 0.5 and . < 0.75' "$work/sweep.json"

# The same figures from the commands one by one.
"$QINS" compress "$toy" "$work/one" --bits 6 --embed-bits keep --json >"$work/one.json"
"$QINS" verify "$toy" "$work/one" --max-tokens 96 --gen 0 --json >"$work/verify.json"
check "rel_mse is that of compress" jq -e -s '(.[0].points[1].rel_mse / .[1].rel_mse - 1) | fabs < 1e-6' "$work/sweep.json" "$work/one.json"
check "bpw is that of compress" jq -e -s '.[0].points[1].bpw == .[1].bpw' "$work/sweep.json" "$work/one.json"
check "KL and top-1 are those of verify" jq -e -s '(.[0].points[1].kl_mean / .[1].kl_mean - 1 | fabs < 1e-6) and .[0].points[1].top1 == .[1].top1' "$work/sweep.json" "$work/verify.json"

check "only the report is left" test "$(ls -A "$work/reports")" = r.html
check "four rate charts" test "$(grep -c '<svg viewBox="0 0 440 330"' "$work/reports/r.html")" = 4
check "nothing from outside" test "$(grep -c -i -E 'https?:|src=|@import|url\(|<link' "$work/reports/r.html")" = 0
check "the table has every point" test "$(grep -c '^| gauss\|^| rational\|^| log' "$work/reports/r.html")" = 4

# Names are text, whatever is in them.
cp -R "$toy" "$work/<img src=x>&"
"$QINS" sweep "$work/<img src=x>&" --out "$work/reports/r.html" --codecs gauss --bits 4 --max-tokens 32 >/dev/null
check "a hostile name stays text" grep -q '<h1>Rate against fidelity: &lt;img src=x&gt;&amp;</h1>' "$work/reports/r.html"
check "and is nowhere markup" test "$(grep -c '<img' "$work/reports/r.html")" = 0

# Error feedback, on text that is not scored.
head -c 12000 "$toy/valid.txt" >"$work/calibration.txt"
exits 0 "a sweep with calibration" qins sweep "$toy" --out "$work/reports/r.html" --codecs gauss --bits 3 --calibrate "$work/calibration.txt" --max-tokens 512 --json
json "both ways of rounding at one rate" '.points | length == 2 and .[1].series == "gauss, calibrated" and .[0].bpw == .[1].bpw'
json "feedback diverges less" '.points[1].kl_mean < 0.8 * .points[0].kl_mean'
check "nothing of it is left" test "$(ls -A "$work/reports")" = r.html

# Entropy-coded and pruned copies, as large in the file as a fixed width.
exits 0 "a sweep at the same file size" qins sweep "$toy" --out "$work/reports/r.html" --codecs gauss,entropy,sparse --bits 3 \
    --calibrate "$work/calibration.txt" --max-tokens 512 --json
json "seven ways" '[.points[].series] == ["gauss", "gauss, calibrated", "entropy-coded, calibrated", "half zeros, by loss",
    "half zeros, by magnitude", "a fifth zeros, by loss", "2:4 zeros, by loss"]'
json "all as large in the file" '[.points[].file_bpw] | max - min < 0.1'
json "fixed widths take the same in memory" '.points[:2] | all(.file_bpw == .bpw)'
json "the others take more there" '.points[2:] | all(.file_bpw < .bpw - 0.5)'
json "entropy coding wins" '.points[2].kl_mean < 0.9 * .points[1].kl_mean and .points[2].gap_bits < .points[1].gap_bits - 0.1'
json "pruning loses, by magnitude the most" '.points[3].kl_mean > 1.5 * .points[2].kl_mean and .points[4].kl_mean > .points[3].kl_mean'
check "two more charts" test "$(grep -c '<svg viewBox="0 0 440 330"' "$work/reports/r.html")" = 6
check "the other four have fixed widths only" \
    test "$(grep -o '<span>half zeros, by loss</span>' "$work/reports/r.html" | wc -l)" = 2

# A model of another kind: its linears are the columns of the error maps.
"$QINS" sweep "$QINS_SOURCE/models/tales" --out "$work/reports/r.html" --codecs gauss --bits 4 --max-tokens 32 >/dev/null
for kind in q k v o gate up down; do
    check "the error map has $kind" grep -q "text-anchor=\"middle\">$kind</text>" "$work/reports/r.html"
done

exits 2 "without --out it is a usage error" qins sweep "$toy"
exits 2 "an unknown codec is a usage error" qins sweep "$toy" --out "$work/r.html" --codecs gaus
says "gauss"
exits 1 "a folder that is not there is found before the work" qins sweep "$toy" --out "$work/none/r.html"
says "$work/none"
exits 1 "so is a calibration text that is not there" qins sweep "$toy" --out "$work/r.html" --calibrate "$work/none.txt"
says "$work/none.txt"

finish
