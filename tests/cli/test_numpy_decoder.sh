#!/bin/sh
# A NumPy decoder written from docs/format.md decodes what the program wrote, in every storage.
. "$(dirname "$0")/lib.sh"
python3 -c 'import numpy' 2>/dev/null || skip "no NumPy"
command -v zstd >/dev/null || skip "no zstd"
need_toy

decodes() { # decodes OPTIONS...: compress, export, compare
    rm -rf "$work/model" "$work/plain"
    exits 0 "compress $*" qins compress "$toy" "$work/model" "$@"
    exits 0 "export" qins export "$work/model" "$work/plain" --dtype f32
    check "NumPy decodes $*" python3 "$QINS_SOURCE/tests/decode_qins.py" "$work/model" "$work/plain"
}

for bits in 3 4 5 6 7 8; do
    decodes --bits "$bits" --embed-bits "$bits"
done
for bits in 2 3 4 5 6; do
    decodes --codec trellis --bits "$bits" --embed-bits "$((bits > 3 ? bits : 3))"
done
decodes --codec trellis --bits 7 # is gauss
decodes --codec trellis --bits 4 --scale tensor --rotate off
decodes --codec trellis --bits 2 --embed-bits 5 --pack entropy
decodes --codec log --bits 9 --scale tensor --rotate off
decodes --codec log --storage seed --embed-bits keep
decodes --codec rational --storage f32 --embed-bits keep
decodes --codec rational --bits 6 --scale group:48
decodes --codec uniform --bits 5 --scale group:32 --seed 77
decodes --codec uniform --bits 4 --sparsity 2:4 --pack entropy
for bpw in 2.2 2.5 4.2 5.2 6.8; do # uniform codes of 4 bits, the uniform trellis of 4, 6 and 7, uniform codes of 8
    decodes --file-bpw "$bpw"
done
# Entropy-coded.
for bits in 3 4 5 6 7 8; do
    decodes --bits "$bits" --embed-bits "$bits" --pack entropy
done
decodes --file-bpw 3.4 --calibrate "$toy/prompts.txt" --calibrate-tokens 64 # rows of different rates
decodes --codec log --bits 9 --pack entropy
decodes --codec log --storage seed --embed-bits keep --pack entropy
decodes --codec lossless
finish
