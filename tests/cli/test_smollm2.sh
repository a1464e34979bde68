#!/bin/sh
# A real model: SmolLM2-135M-Instruct from its GGUF. Fidelity at 8 and 6 bits on 8 x 512 tokens of WikiText-2 where it lies
# beside the source tree, on the built-in text elsewhere; and text that is text.
. "$(dirname "$0")/lib.sh"
need_smollm2
[ -z "${QINS_SANITIZED:-}" ] || skip "too slow under sanitizers"

wikitext=$QINS_SOURCE/../shared/data/wikitext-2-valid.txt
if [ -f "$wikitext" ]; then set -- --text "$wikitext" --max-tokens 4096; else set -- --max-tokens 512; fi

# loses_at_most BITS KL TEXT_OPTIONS...
loses_at_most() {
    exits 0 "compress to $1 bits" qins compress "$smollm2" "$work/q$1" --bits "$1" --embed-bits 8
    bits=$1 limit=$2
    shift 2
    exits 0 "verify" qins verify "$smollm2" "$work/q$bits" "$@" --gen 0 --no-sampling --json
    json "$bits bits: KL $(jq .kl_mean "$work/out") is at most $limit" ".kl_mean <= $limit and .kl_mean > 0"
    rm -rf "$work/q$bits"
}

loses_at_most 8 0.005 "$@"
loses_at_most 6 0.03 "$@"
exits 0 "compress to 4 bits" qins compress "$smollm2" "$work/q4"
exits 0 "run" qins run "$work/q4" -p "The capital of France is" -n 8 --temp 0 --json
json "it knows" '.text | test("Paris")'
finish
