#!/bin/sh
# Entropy-coded directories: smaller, the same model; lossless ones give every byte back.
. "$(dirname "$0")/lib.sh"
need_toy

tensors() { # tensors DIR: name, dtype, shape and hash of every tensor, sorted
    python3 - "$1/model.safetensors" <<'END'
import hashlib, json, sys
data = open(sys.argv[1], "rb").read()
n = int.from_bytes(data[:8], "little")
header = json.loads(data[8:8 + n])
header.pop("__metadata__", None)
for name in sorted(header):
    t = header[name]
    begin, end = t["data_offsets"]
    print(name, t["dtype"], t["shape"], hashlib.sha256(data[8 + n + begin:8 + n + end]).hexdigest())
END
}

same_tensors() { # same_tensors STATEMENT DIR DIR
    tensors "$2" >"$work/tensors1"
    tensors "$3" >"$work/tensors2"
    check "$1" cmp "$work/tensors1" "$work/tensors2"
}

adds_up() { # adds_up NAME DIR
    on_disk=$(cat "$2"/*.safetensors | wc -c)
    exits 0 "$1: audit" qins audit "$2" --json
    json "$1: tensors + shared tables + headers = weight files on disk ($on_disk B)" \
        "([.tensors[].bytes] | add) + .totals.shared_bytes + .totals.header_bytes == $on_disk"
}

n=0
while read -r options; do
    n=$((n + 1))
    # shellcheck disable=SC2086 # options are words
    exits 0 "compress $options" qins compress "$toy" "$work/plain$n" $options
    exits 0 "pack" qins pack "$work/plain$n" "$work/packed$n" --json
    json "it shrinks" '.stored_bytes < .source_bytes'
    adds_up "packed" "$work/packed$n"
    qins audit "$work/plain$n" --json >"$work/plain.json"
    json "memory is what it was: $(jq .resident_bytes "$work/plain.json") B" \
        ".resident_bytes == $(jq .resident_bytes "$work/plain.json")"
    exits 0 "unpack" qins unpack "$work/packed$n" "$work/unpacked$n"
    same_tensors "the same tensors came back" "$work/plain$n" "$work/unpacked$n"
    # shellcheck disable=SC2086
    exits 0 "compress --pack entropy" qins compress "$toy" "$work/direct$n" $options --pack entropy
    same_tensors "compressing straight into it is the same" "$work/packed$n" "$work/direct$n"
    qins run "$work/plain$n" -p "Once upon" -n 30 --temp 0 --json | jq -r .text >"$work/text1"
    qins run "$work/packed$n" -p "Once upon" -n 30 --temp 0 --json | jq -r .text >"$work/text2"
    check "it writes the same text" cmp "$work/text1" "$work/text2"
    exits 0 "export of the packed one" qins export "$work/packed$n" "$work/e1"
    exits 0 "export of the plain one" qins export "$work/plain$n" "$work/e2"
    same_tensors "both export the same" "$work/e1" "$work/e2"
    rm -rf "$work/e1" "$work/e2"
done <<END
--bits 4
--bits 3 --embed-bits 5
--codec log --bits 9 --scale group:32 --rotate off
--codec log --storage seed --embed-bits keep
--codec rational --storage f32 --embed-bits keep
END

# Uniform codes for the coder: the linears take what was asked for, in the file.
for bpw in 2.5 4; do
    exits 0 "compress --file-bpw $bpw" qins compress "$toy" "$work/rate" --file-bpw $bpw --embed-bits keep --force --json
    adds_up "--file-bpw $bpw" "$work/rate"
    json "the linears take $bpw bits a weight" "[.tensors[] | select(.role == \"linear\")] |
        (map(.bytes) | add) * 8 / (map(.params) | add) | . > $bpw - 0.06 and . < $bpw + 0.06"
done

exits 0 "verify" qins verify "$work/plain1" "$work/packed1" --max-tokens 64 --gen 0 --json
json "nothing is lost" '.kl_mean == 0'

for dtype in f32 f16 bf16; do
    exits 0 "export as $dtype" qins export "$toy" "$work/$dtype" --dtype $dtype
    exits 0 "compress --codec lossless" qins compress "$work/$dtype" "$work/lossless-$dtype" --codec lossless --json
    [ $dtype != bf16 ] || json "at most 0.72 of the BF16 bytes" '.stored_bytes <= 0.72 * .source_bytes'
    adds_up "lossless $dtype" "$work/lossless-$dtype"
    json "all of it is entropy-coded or small" '.tensors | all(.pack == "entropy" or .bytes <= 2048)'
    exits 0 "export it" qins export "$work/lossless-$dtype" "$work/back-$dtype"
    same_tensors "every byte is back ($dtype)" "$work/$dtype" "$work/back-$dtype"
    check "the receipt has the hashes" jq -e '.compress.tensors | length > 0 and all(.xxh3_64 | length == 16)' \
        "$work/lossless-$dtype/qins_receipt.json"
done
exits 0 "verify a lossless model" qins verify "$work/bf16" "$work/lossless-bf16" --max-tokens 64 --gen 0 --json
json "nothing is lost" '.kl_mean == 0'

exits 1 "unpack of what is not packed" qins unpack "$work/plain1" "$work/no"
says "nothing in it is entropy-coded"
check "nothing was written" test ! -e "$work/no"

# A changed byte in the middle of the coded data: refused by name, with and without checksums.
python3 - "$work/packed1/model.safetensors" <<'END'
import json, sys
data = bytearray(open(sys.argv[1], "rb").read())
n = int.from_bytes(data[:8], "little")
begin, end = json.loads(data[8:8 + n])["model.embed_tokens.weight.codes.entropy" if b"model.embed_tokens.weight.codes.entropy" in data[:8 + n] else "gpt_neox.embed_in.weight.codes.entropy"]["data_offsets"]
data[8 + n + (begin + end) // 2] ^= 4
open(sys.argv[1], "wb").write(data)
END
exits 1 "a damaged file" qins run "$work/packed1" -p x -n 1
says "do not match their checksum"
exits 1 "a damaged file without the check" qins run "$work/packed1" -p x -n 1 --no-check
says "does not decode to what its checksum says"
finish
