#!/bin/sh
# qins bench: the keys that were promised, and figures that fit together.
. "$(dirname "$0")/lib.sh"

"$QINS" bench "$QINS_SOURCE/models/toy" --prompt 16 --gen 8 --json --html "$work/page.html" >"$work/bench.json" 2>"$work/err" ||
    fail "bench failed: $(cat "$work/err")"
jq -e '.read_gbps > 0 and .prefill_tps > 0 and .decode_tps > 0 and .decode_limit_tps > 0
       and ([.gemv[].bits] == [3,4,5,6,7,8]) and all(.gemv[]; .gbps > 0 and .share > 0)
       and ((.decode_share * .decode_limit_tps / .decode_tps - 1) | fabs < 1e-6)
       and ((.decode_limit_tps * .bytes_per_token / .read_gbps / 1e9 - 1) | fabs < 1e-6)
       and .first_token_seconds > .open_seconds and .first_token_overhead < .first_token_seconds
       and ([.batch[].sequences] == [1,2,4,8,16]) and all(.batch[]; .tps > 0)' "$work/bench.json" >/dev/null ||
    fail "unexpected figures: $(cat "$work/bench.json")"
grep -q '<svg' "$work/page.html" || fail "no chart in the page"
if grep -Eq '(src|href)="https?:' "$work/page.html"; then fail "the page loads something"; fi
"$QINS" bench "$QINS_SOURCE/models/toy" --prompt 4 --gen 2 --quick --json >"$work/quick.json" || fail "bench --quick failed"
jq -e '.read_gbps == null and .decode_share == null and .decode_tps > 0' "$work/quick.json" >/dev/null ||
    fail "unexpected figures: $(cat "$work/quick.json")"

# What 16-bit inputs cost: the same compressed model, once in FP32.
"$QINS" compress "$toy" "$work/six" --bits 6 --json >/dev/null || fail "compress failed"
"$QINS" verify "$work/six" "$work/six" --against-float --max-tokens 256 --gen 0 --no-receipt --json >"$work/verify.json" ||
    fail "verify --against-float failed"
jq -e '.kl_mean >= 0 and .kl_mean <= 1e-5 and .max_abs_logit_diff > 0' "$work/verify.json" >/dev/null ||
    fail "the arithmetic costs too much, or nothing at all: $(cat "$work/verify.json")"
finish
