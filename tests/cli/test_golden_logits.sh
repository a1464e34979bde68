#!/bin/sh
# Logits of 2,048 positions against transformers in FP32: the toy, and SmolLM2 from its GGUF when it is there.
# The KV cache is FP32 as theirs; with F16, the default, logits differ by up to 0.04.
. "$(dirname "$0")/lib.sh"
need_toy
python3 -c 'import numpy' 2>/dev/null || skip "no NumPy"

agrees() { # agrees STEM MODEL
    python3 -c 'import sys, numpy; print(*numpy.load(sys.argv[1]), sep=",")' \
        "$QINS_SOURCE/tests/golden/logits/$1_ids.npy" >"$work/ids"
    exits 0 "$1: logits" qins logits "$2" --ids-file "$work/ids" --kv-bits 32 --out "$work/logits.npy"
    exits 0 "$1: 2,048 positions as transformers has them" \
        python3 "$QINS_SOURCE/tests/compare_golden_logits.py" "$1" "$work/logits.npy"
    sed 's/^/     | /' "$work/out"
}

agrees toy "$toy"
if [ -z "${QINS_SANITIZED:-}" ] && [ -f "$smollm2" ]; then agrees smollm2 "$smollm2"; fi
finish
