#!/bin/sh
# --targets on fused matrices: rows of projections, in three layouts of fusing; --dry-run against what is written.
. "$(dirname "$0")/lib.sh"
python3 -c 'import numpy' 2>/dev/null || skip "no NumPy"
need_toy
phi=$work/phi
python3 "$QINS_SOURCE/tools/make_shapes.py" phi-3.5-mini "$phi" --set num_hidden_layers=2 --set hidden_size=192 \
    --set num_attention_heads=2 --set num_key_value_heads=2 --set intermediate_size=512 --set vocab_size=512 >/dev/null 2>&1

# shellcheck disable=SC2317 # called through `check`
# same_logits A B BOUND: logits of the two models at five positions, in FP32 arithmetic (integer kernels round inputs).
same_logits() {
    QINS_CPU=generic "$QINS" logits "$1" --ids 3,1,4,1,5 --kv-bits 32 --out "$work/a.npy" >/dev/null
    QINS_CPU=generic "$QINS" logits "$2" --ids 3,1,4,1,5 --kv-bits 32 --out "$work/b.npy" >/dev/null
    python3 - "$work/a.npy" "$work/b.npy" "$3" <<'PY'
import sys, numpy as np
a, b = (np.load(f) for f in sys.argv[1:3])
print(f"largest difference {abs(a - b).max():.3g}, largest logit {abs(b).max():.3g}")
sys.exit(not abs(a - b).max() <= float(sys.argv[3]))
PY
}

# encodes MODEL NAME TARGETS FILTER: compresses with TARGETS; the jq filter is true of the audit's tensors; --dry-run said
# the same to the byte; a decoder in NumPy, the export and the run from compressed weights agree.
encodes() {
    rm -rf "$work/out" "$work/plain"
    exits 0 "$2, $3: --dry-run" qins compress "$1" --dry-run --json --targets "$3" --bits 5
    jq -S '{totals, tensors}' "$work/out" >"$work/preview" 2>/dev/null || mv "$work/out" "$work/preview"
    exits 0 "$2, $3: compress" qins compress "$1" "$work/model" --force --targets "$3" --bits 5
    exits 0 "$2, $3: audit" qins audit "$work/model" --json
    json "$2, $3: rows as expected" "$4"
    jq -S '{totals, tensors}' "$work/out" >"$work/real"
    check "$2, $3: --dry-run and file agree on every tensor and total" cmp "$work/preview" "$work/real"
    exits 0 "$2, $3: export" qins export "$work/model" "$work/plain" --dtype f32
    check "$2, $3: NumPy decodes it" python3 "$QINS_SOURCE/tests/decode_qins.py" "$work/model" "$work/plain"
    check "$2, $3: runs as its FP32 export does" same_logits "$work/model" "$work/plain" 3e-5
}

# rows NAME: rows of a tensor in an audit, null when it is not there.
# shellcheck disable=SC2016 # $name is jq's
rows='def rows($name): [.tensors[] | select(.name == $name) | .shape[0]][0];
      def codec($name): [.tensors[] | select(.name == $name) | .codec][0];'
l0=model.layers.0
encodes "$phi" phi3 safe "$rows
    rows(\"$l0.self_attn.qkv_proj.weight\") == 192 and rows(\"$l0.self_attn.qkv_proj.weight.rest\") == 384 and
    rows(\"$l0.mlp.gate_up_proj.weight\") == 1024 and rows(\"$l0.mlp.gate_up_proj.weight.rest\") == null and
    ([.tensors[] | select(.role == \"linear\" and .codec == \"none\") | .n_params // .params] | add) == 2 * 384 * 192"
encodes "$phi" phi3 all '[.tensors[] | select(.role == "linear" and .codec == "none")] == []'
encodes "$phi" phi3 v_proj "$rows
    rows(\"$l0.self_attn.qkv_proj.weight\") == 192 and codec(\"$l0.self_attn.o_proj.weight\") == \"none\""
encodes "$phi" phi3 'qkv_proj' "$rows rows(\"$l0.self_attn.qkv_proj.weight\") == 576"
encodes "$phi" phi3 'layers\.1\..*(q_proj|up_proj)' "$rows
    codec(\"$l0.self_attn.qkv_proj.weight\") == \"none\" and rows(\"model.layers.1.self_attn.qkv_proj.weight\") == 192 and
    rows(\"model.layers.1.mlp.gate_up_proj.weight.rest\") == 512"
# q, k and v of one head after another: 4 heads of 64
encodes "$toy" gpt_neox safe "$rows
    rows(\"gpt_neox.layers.0.attention.query_key_value.weight\") == 256 and
    rows(\"gpt_neox.layers.0.attention.query_key_value.weight.rest\") == 512"
# stored as [inputs][outputs]
encodes "$QINS_SOURCE/tests/golden/families/gpt2" gpt2 safe \
    '[.tensors[] | select(.name | endswith("c_attn.weight.rest"))] | length > 0 and all(.[]; .shape[0] == 2 * .shape[1])'

# What is not targeted stays as it is: the plain rows to the bit, and matrices that are encoded already.
exits 0 "v rows" qins compress "$phi" "$work/v" --targets v_proj --bits 4 --embed-bits keep
exits 0 "o as well" qins compress "$work/v" "$work/vo" --targets o_proj --bits 8 --embed-bits keep
exits 0 "audit" qins audit "$work/vo" --json
json "v stays at 4 bits, o has 8" "[.tensors[] | select(.codec == \"gauss\") | .bits] | sort == [4, 4, 8, 8]"
exits 0 "export" qins export "$work/v" "$work/plain_v" --dtype bf16
check "rows of q and k are the source's, to the bit" python3 - "$phi" "$work/plain_v" <<'PY'
import json, sys
import numpy as np
def read(path, name):
    data = open(path + "/model.safetensors", "rb").read()
    n = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8:8 + n])[name]
    begin, end = entry["data_offsets"]
    return np.frombuffer(data[8 + n + begin:8 + n + end], "<u2").reshape(entry["shape"])
a, b = (read(path, "model.layers.1.self_attn.qkv_proj.weight") for path in sys.argv[1:3])
sys.exit(not ((a[:384] == b[:384]).all() and (a[384:] != b[384:]).any()))
PY

exits 0 "entropy-coded" qins compress "$phi" "$work/coded" --targets v_proj --bits 4 --embed-bits keep --pack entropy
exits 0 "audit" qins audit "$work/coded" --json
json "it has the plain rows" '[.tensors[] | select(.name | endswith(".rest"))] | length == 2'
exits 0 "export" qins export "$work/coded" "$work/plain_coded" --dtype bf16
check "it holds the same" cmp "$work/plain_v/model.safetensors" "$work/plain_coded/model.safetensors"

# A file that says something else about its rows is refused.
for rows in '[[384,577]]' '[[0,191]]' '[[384,576],[0,1]]' '[[-1,191]]' '[]' '"x"'; do
    rm -rf "$work/bad"
    cp -r "$work/v" "$work/bad"
    python3 - "$work/bad/model.safetensors" "$rows" <<'PY'
import json, sys
path, rows = sys.argv[1], json.loads(sys.argv[2])
data = open(path, "rb").read()
n = int.from_bytes(data[:8], "little")
header = json.loads(data[8:8 + n])
meta = json.loads(header["__metadata__"]["qins"])
for entry in meta["tensors"].values():
    entry["rows"] = rows
header["__metadata__"]["qins"] = json.dumps(meta)
text = json.dumps(header).encode()
text += b" " * (-(len(text) + 8) % 64)
open(path, "wb").write(len(text).to_bytes(8, "little") + text + data[8 + n:])
PY
    exits 1 "rows $rows are refused" qins audit "$work/bad" --no-check
done

exits 2 "OUT can be left out with --dry-run only" qins compress "$phi"
exits 1 "targets that match nothing" qins compress "$phi" --dry-run --targets w_proj
says "match no linear"
finish
