#!/bin/sh
# qins export --format gguf on the toy: what it prints, what it writes, what it refuses.
. "$(dirname "$0")/lib.sh"
need_toy
ids=5,7,9,100,2000,4999,17,1

logits() { qins logits "$1" --ids $ids --out "$2" >/dev/null; }

exits 0 "a model becomes a GGUF file" qins export "$toy" "$work/toy.gguf" --format gguf --json
json "with the keys of the contract" '.format == "gguf" and .dtype == "f32" and .stored_bytes > 0 and (.out | endswith("toy.gguf"))'
check "its logits are those of the model, bit for bit" sh -c '
    logits() { "$QINS" logits "$1" --ids '$ids' --out "$2" >/dev/null; }
    logits "$1" "$2/a.npy" && logits "$2/toy.gguf" "$2/b.npy" && cmp "$2/a.npy" "$2/b.npy"' - "$toy" "$work"

qins tokenize "$toy" --file "$toy/valid.txt" --json >"$work/a.json"
qins tokenize "$work/toy.gguf" --file "$toy/valid.txt" --json >"$work/b.json"
check "and so are its token ids" cmp "$work/a.json" "$work/b.json"

exits 0 "a GGUF file becomes a GGUF file" qins export "$work/toy.gguf" "$work/again.gguf" --format gguf
logits "$work/again.gguf" "$work/c.npy"
check "with the same logits" cmp "$work/a.npy" "$work/c.npy"

exits 0 "a compressed model becomes a GGUF file" qins compress "$toy" "$work/small" --bits 6
exits 0 "of any type" qins export "$work/small" "$work/small.gguf" --format gguf --dtype q8_0 --json
json "and says which" '.dtype == "q8_0"'
exits 0 "that runs" qins verify "$work/small" "$work/small.gguf" --max-tokens 256 --gen 0 --json
json "with nearly the same predictions" '.kl_mean > 0 and .kl_mean < 0.001'
for dtype in f16 bf16; do
    exits 0 "to $dtype" qins export "$toy" "$work/$dtype.gguf" --format gguf --dtype $dtype
    exits 0 "that runs" qins verify "$toy" "$work/$dtype.gguf" --max-tokens 256 --gen 0 --json
    json "with nearly the same predictions" '.kl_mean > 0 and .kl_mean < 0.001'
done

exits 1 "an existing file is kept" qins export "$toy" "$work/toy.gguf" --format gguf
says "already exists"
exits 0 "unless it is to be replaced" qins export "$toy" "$work/toy.gguf" --format gguf --force
mkdir "$work/folder"
exits 1 "a folder is never replaced" qins export "$toy" "$work/folder" --format gguf --force
says "expected a plain file"
exits 2 "q8_0 is a type of GGUF files" qins export "$toy" "$work/x" --dtype q8_0
says "--format gguf"
exits 2 "formats are checked" qins export "$toy" "$work/x" --format ggml
says "gguf"

# Killed early, it leaves no file of that name, and the next run clears the rest away.
mkdir "$work/d"
timeout --foreground -s KILL 0.01 "$QINS" export "$toy" "$work/d/toy.gguf" --format gguf >/dev/null 2>&1 || true
touch "$work/d/.toy.gguf.qins-tmp-abandoned"
exits 0 "after a killed run" qins export "$toy" "$work/d/toy.gguf" --format gguf --force
check "nothing is left behind" test "$(ls -A "$work/d")" = toy.gguf
finish
