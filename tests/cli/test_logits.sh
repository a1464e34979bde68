#!/bin/sh
# Logits as .npy: what NumPy reads, whole or not at all; export and what it decodes to.
. "$(dirname "$0")/lib.sh"
need_toy
python3 -c 'import numpy' 2>/dev/null || skip "no NumPy"

exits 0 "tokenize" qins tokenize "$toy" "Once upon a time there was a king who" --json
jq -c .ids "$work/out" >"$work/ids"
exits 0 "logits from a file of ids" qins logits "$toy" --ids-file "$work/ids" --out "$work/a.npy" --json
exits 0 "greedy" qins run "$toy" -p "Once upon a time there was a king who" --raw -n 1 --temp 0 --json
next=$(jq '.ids[0]' "$work/out")
check "NumPy reads float32 [ids, vocabulary], and its argmax is the greedy token" python3 - "$work/a.npy" "$work/ids" "$next" <<'PY'
import json, sys
import numpy as np
logits = np.load(sys.argv[1])
assert logits.dtype == np.float32 and logits.flags.c_contiguous, logits.dtype
assert logits.shape == (len(json.load(open(sys.argv[2]))), 5000), logits.shape
assert np.isfinite(logits).all()
assert logits[-1].argmax() == int(sys.argv[3])
PY
# More positions than are evaluated at once.
python3 -c 'print(",".join(str(i * 37 % 5000) for i in range(100)))' >"$work/many"
exits 0 "100 positions" qins logits "$toy" --ids-file "$work/many" --out "$work/b.npy"
exits 0 "the first 10 of them" qins logits "$toy" --ids "$(cut -d, -f1-10 "$work/many")" --out "$work/c.npy"
check "a position does not depend on what follows" python3 - "$work/b.npy" "$work/c.npy" <<'PY'
import sys
import numpy as np
a, b = np.load(sys.argv[1]), np.load(sys.argv[2])
assert a.shape == (100, 5000) and b.shape == (10, 5000)
assert np.abs(a[:10] - b).max() < 1e-3, np.abs(a[:10] - b).max()
PY

mkdir "$work/empty"
exits 1 "an id out of range" qins logits "$toy" --ids 1,5000 --out "$work/empty/d.npy"
exits 1 "a folder that is not there" qins logits "$toy" --ids 1 --out "$work/nothing/d.npy"
exits 1 "a file that may not grow" sh -c 'ulimit -f 8; exec "$QINS" logits "$0" --ids-file "$1" --out "$2"' "$toy" "$work/many" "$work/empty/d.npy"
check "no failure left anything behind" test -z "$(ls -A "$work/empty")"

# Export: FP32 in, the same FP32 out; a compressed model's export predicts what the model does.
exits 0 "export the original" qins export "$toy" "$work/plain"
exits 0 "verify" qins verify "$toy" "$work/plain" --json --max-tokens 200 --gen 0
json "FP32 survives export" '.kl_mean == 0 and .max_abs_logit_diff == 0'
exits 0 "compress" qins compress "$toy" "$work/q4"
exits 0 "export" qins export "$work/q4" "$work/q4-plain"
exits 0 "verify" qins verify "$work/q4-plain" "$work/q4" --json --max-tokens 200 --gen 0
json "decoded weights predict what the compressed ones do" '.kl_mean < 1e-4 and .top1 > 0.98'
exits 0 "export as f16" qins export "$toy" "$work/half" --dtype f16 --json
json "takes half" ".stored_bytes * 2 == $(qins audit "$toy" --json --summary | jq .totals.fp32_bytes)"
exits 1 "export onto something" qins export "$toy" "$work/half"
says "$work/half"
finish
