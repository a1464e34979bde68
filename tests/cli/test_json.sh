#!/bin/sh
# Every command's JSON: exactly one object, with the keys of the contract, of the right type.
. "$(dirname "$0")/lib.sh"
need_toy

exits 0 "compress" qins compress "$toy" "$work/q4" --json
json "compress keys" '(.bpw | type) == "number" and ([.source_bytes, .stored_bytes, .tensors] | all(type == "number" and . == floor))'
json "compress saves" '.bpw > 4 and .bpw < 9 and .stored_bytes < .source_bytes / 3'
check "the two messages went elsewhere" test ! -s "$work/err"

exits 0 "audit" qins audit "$work/q4" --json
json "audit keys of tensors" '.tensors | length > 20 and all((.name | type) == "string" and (.shape | type) == "array"
    and ([.dtype, .role, .codec] | all(type == "string")) and ([.bits, .bytes] | all(type == "number")))'
json "audit keys of totals" '.totals | [.params, .fp32_bytes, .source_bytes, .stored_bytes, .ratio_fp32, .ratio_source] | all(type == "number")'
json "audit keys" '[.file_bytes, .resident_bytes] | all(type == "number" and . > 0)'
json "audit counts the toy" '.totals.params == 3645440 or .totals.params > 3600000'
exits 0 "audit, summary" qins audit "$work/q4" --json --summary
json "a summary has no list" '(has("tensors") | not) and has("totals")'

exits 0 "verify" qins verify "$toy" "$work/q4" --json --max-tokens 300 --ctx 128 --gen 8
json "verify keys" '[.kl_mean, .kl_p99, .top1, .top10_overlap, .ppl_ref, .ppl, .ppl_delta_pct, .greedy.matched, .greedy.of] | all(type == "number")'
json "verify sees a loss" '.kl_mean > 0 and .kl_p99 >= .kl_mean and .top1 > 0.5 and .top1 < 1 and .tokens == 300'
json "verify has a line a prompt" '.greedy.of == 256 and (.greedy.prompts | length == 32) and ([.greedy.prompts[].matched] | add) == .greedy.matched'
json "a divergence has its margin and both texts" '.greedy.prompts | all(if .first_divergence == null then .matched == .of and .text == null else .matched == .first_divergence and .ref_margin >= 0 and (.text | length) > 0 and (.ref_text | length) > 0 end)'
exits 0 "verify a model against itself" qins verify "$toy" "$toy" --json --max-tokens 300 --gen 8
json "nothing is lost" '.kl_mean == 0 and .top1 == 1 and .top10_overlap == 1 and .ppl == .ppl_ref and .greedy.matched == .greedy.of and .max_abs_logit_diff == 0'
printf 'Once upon a time\n\nThe king said\n' >"$work/prompts"
exits 0 "verify with own prompts" qins verify "$toy" "$toy" --json --max-tokens 16 --gen 4 --prompts "$work/prompts"
json "one a line, empty ones left out" '.greedy.of == 8'
exits 0 "verify without prompts" qins verify "$toy" "$toy" --json --max-tokens 16 --gen 0
json "greedy keys stay" '.greedy.matched == 0 and .greedy.of == 0'

exits 0 "run" qins run "$work/q4" -p "Once upon a time" -n 12 --json
json "run keys" '(.text | type) == "string" and ([.prompt_tokens, .generated_tokens, .prefill_tps, .decode_tps] | all(type == "number"))'
json "run counts" '.prompt_tokens >= 3 and .generated_tokens <= 12 and (.ids | length) == .generated_tokens'

exits 0 "tokenize" qins tokenize "$toy" "Once upon a time" --json
json "tokenize keys" '.ids | length >= 3 and all(type == "number")'

exits 0 "logits" qins logits "$toy" --ids 1,2,3 --out "$work/f.npy" --json
json "logits keys" '.shape == [3, 5000]'

exits 0 "export" qins export "$work/q4" "$work/plain" --json --dtype bf16
json "export keys" '.stored_bytes | type == "number" and . == floor'
finish
