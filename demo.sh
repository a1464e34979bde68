#!/bin/sh
# demo.sh [MODEL]: installs what is missing, builds, compresses a model with several codecs and prints what each costs.
# MODEL is a Hugging Face directory or a .gguf file; without one, the toy model of this repository. Results go to out/.
set -eu

top=$(cd "$(dirname "$0")" && pwd)
model=${1:-$top/models/toy}
[ -e "$model" ] || { echo "demo.sh: no model at $model" >&2; exit 1; }
model=$(cd "$(dirname "$model")" && pwd)/$(basename "$model")
cd "$top"

tools/setup.sh
out=$top/out
mkdir -p "$out"
echo "Building"
if ! { cmake --preset release && cmake --build --preset release; } >"$out/build.log" 2>&1; then
    tail -n 40 "$out/build.log" >&2
    exit 1
fi
qins=$top/build/release/cli/qins
PATH=$(dirname "$qins"):$PATH

# name | options of `qins compress`
codecs='gauss 4 bit (default)|
gauss 8 bit|--bits 8
QINS log, 2 bytes|--codec log --storage seed --targets all --embed-bits keep --rotate off --scale tensor
QINS rational, 8 bit|--codec rational --bits 8 --alpha fit --embed-bits keep --rotate off --scale tensor
QINS rational, FP32|--codec rational --storage f32 --alpha fit --embed-bits keep --rotate off --scale tensor'
prompt='Once upon a time there was a'

# Bytes of the weight files on disk, to hold the audit against.
weight_bytes() {
    if [ -d "$1" ]; then cat "$1"/*.safetensors | wc -c; else wc -c <"$1"; fi
}

# audit_row MODEL: "size in MiB, ratio to FP32, does the sum of tensors and headers equal the files"
audit_row() {
    qins audit --json --summary "$1" | jq -r --argjson on_disk "$(weight_bytes "$1")" '.totals |
        [.stored_bytes / 1048576, .ratio_fp32, if .stored_bytes + .header_bytes == $on_disk then "yes" else "NO" end] | @tsv'
}

tokens_per_second() {
    qins run --json "$1" -p "$prompt" -n "$n_run" --temp 0 --ignore-eos | jq .decode_tps
}

# A big model gets a shorter examination.
n_params=$(qins audit --json --summary "$model" | jq .totals.params)
if [ "$n_params" -gt 30000000 ]; then
    max_tokens=1024 n_gen=16 n_run=64
else
    max_tokens=4096 n_gen=100 n_run=300
fi

echo "Model: ${model#"$top"/}, $(printf "%'d" "$n_params" 2>/dev/null || echo "$n_params") weights"
table=$out/table.txt
rule='--------------------------------------------------------------------------------------------------------------------'
{
    printf '%-22s %11s %9s %7s %10s %9s %11s %14s %8s %8s\n' '' 'bits a' '' 'times' '' 'same best' 'perplexity' 'greedy tokens' 'tokens' 'audit ='
    printf '%-22s %11s %9s %7s %10s %9s %11s %14s %8s %8s\n' codec 'weight' 'MiB' smaller 'KL, nats' 'token, %' 'change, %' 'as original' 'a second' files
    echo "$rule"
} >"$table"

echo "$codecs" | {
    row=$(audit_row "$model")
    speed=$(tokens_per_second "$model")
    # shellcheck disable=SC2086 # the columns of the row
    set -- $row
    printf '%-22s %11s %9.2f %7.2f %10s %9s %11s %14s %8.0f %8s\n' 'original' '-' "$1" "$2" '-' '-' '-' '-' "$speed" "$3" >>"$table"

    while IFS='|' read -r name options; do
        target=$out/$(echo "$name" | tr -cs 'A-Za-z0-9\n' '-' | sed 's/-*$//')
        echo "  $name: compress, audit, verify, run" >&2
        # shellcheck disable=SC2086 # options are words
        bpw=$(qins compress "$model" "$target" $options --force --json </dev/null | jq .bpw)
        row=$(audit_row "$target")
        qins verify "$model" "$target" --max-tokens "$max_tokens" --gen "$n_gen" --no-sampling --json >"$target.verify.json" </dev/null
        fidelity=$(jq -r '[.kl_mean, 100 * .top1, .ppl_delta_pct, "\(.greedy.matched)/\(.greedy.of)"] | @tsv' "$target.verify.json")
        speed=$(tokens_per_second "$target")
        # shellcheck disable=SC2086
        set -- $row $fidelity
        printf '%-22s %11.2f %9.2f %7.2f %10.2g %9.2f %+11.3f %14s %8.0f %8s\n' \
            "$name" "$bpw" "$1" "$2" "$4" "$5" "$6" "$7" "$speed" "$3" >>"$table"
    done
}

echo
cat "$table"
cat <<END
$rule
bits a weight   of the compressed matrices, scales and tables included; the embedding takes 8 unless it is kept as it is
MiB             all weights on disk
KL              how far the predictions moved from the original's: 0 is not at all, 0.1 is noticeable
greedy tokens   of 32 prompts x $n_gen tokens: how many came out the same, up to the first that differed
audit = files   the sum of all tensors and headers is the size of the files, to the byte

END

first=$out/$(echo "$codecs" | head -n 1 | cut -d'|' -f1 | tr -cs 'A-Za-z0-9\n' '-' | sed 's/-*$//')
echo "Written by the model in ${first#"$top"/}:"
echo
qins run "$first" -p "$prompt" -n 120 --temp 0.7 --top-k 20 --seed 3 2>&1
echo
echo "Try it yourself:  build/release/cli/qins run \"${first#"$top"/}\" -p \"The old king\""
echo "Your own model:   ./demo.sh PATH, or build/release/cli/qins compress PATH OUT"
