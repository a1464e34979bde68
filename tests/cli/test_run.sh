#!/bin/sh
# Generation: the same twice, what is streamed is what --json says, limits, special cases of the prompt.
. "$(dirname "$0")/lib.sh"
need_toy
exits 0 "compress" qins compress "$toy" "$work/q4"
prompt="Once upon a time"

exits 0 "greedy" qins run "$work/q4" -p "$prompt" -n 40 --temp 0 --json
cp "$work/out" "$work/greedy.json"
exits 0 "greedy again, on one thread, with another seed" qins run "$work/q4" -p "$prompt" -n 40 --temp 0 --json --threads 1 --seed 9
json "the same ids" "(.ids | tostring) == \"$(jq -c .ids "$work/greedy.json")\""
exits 0 "streamed" qins run "$work/q4" -p "$prompt" -n 40 --temp 0
{ printf '%s' "$prompt"; jq -j .text "$work/greedy.json"; echo; } >"$work/expected"
check "standard output is the prompt and the text" cmp "$work/out" "$work/expected"
check "the speeds are on standard error" grep -q 'tokens at .*/s' "$work/err"
exits 0 "without the prompt" qins run "$work/q4" -p "$prompt" -n 40 --temp 0 --no-display-prompt
{ jq -j .text "$work/greedy.json"; echo; } >"$work/expected"
check "standard output is the text" cmp "$work/out" "$work/expected"

exits 0 "sampled" qins run "$work/q4" -p "$prompt" -n 40 --temp 1.2 --seed 5 --json
cp "$work/out" "$work/sampled.json"
exits 0 "sampled again" qins run "$work/q4" -p "$prompt" -n 40 --temp 1.2 --seed 5 --json
json "the same seed gives the same ids" "(.ids | tostring) == \"$(jq -c .ids "$work/sampled.json")\""
exits 0 "another seed" qins run "$work/q4" -p "$prompt" -n 40 --temp 1.2 --seed 6 --json
json "gives other ids" "(.ids | tostring) != \"$(jq -c .ids "$work/sampled.json")\""
exits 0 "top-k 1 is greedy" qins run "$work/q4" -p "$prompt" -n 40 --temp 1.2 --top-k 1 --seed 3 --json
json "the same ids as greedy" "(.ids | tostring) == \"$(jq -c .ids "$work/greedy.json")\""

# At a high temperature a byte-level model writes bytes that are no characters: what is printed must be UTF-8 all the same.
exits 0 "noise" qins run "$work/q4" -p "$prompt" -n 300 --temp 30 --top-p 1 --seed 1 --ignore-eos
check "the stream is UTF-8" iconv -f UTF-8 -t UTF-8 "$work/out"
exits 0 "noise, JSON" qins run "$work/q4" -p "$prompt" -n 300 --temp 30 --top-p 1 --seed 1 --ignore-eos --json
json "ignore-eos gives as many tokens as asked" '.generated_tokens == 300'

printf '%s' "$prompt" >"$work/prompt"
exits 0 "the prompt from a file" qins run "$work/q4" --file "$work/prompt" -n 40 --temp 0 --json
json "the same ids as from the command line" "(.ids | tostring) == \"$(jq -c .ids "$work/greedy.json")\""
exits 0 "no tokens" qins run "$work/q4" -p "$prompt" -n 0 --json
json "is allowed" '.generated_tokens == 0 and .text == ""'
n_prompt=$(jq .prompt_tokens "$work/greedy.json")
exits 0 "a small context" qins run "$work/q4" -p "$prompt" -n 40 --ctx $((n_prompt + 6)) --temp 0 --json --ignore-eos
json "ends the text" '.generated_tokens == 6'
exits 1 "a prompt longer than the context" qins run "$work/q4" -p "$prompt" --ctx 2
says "raise --ctx"
exits 1 "an empty prompt" qins run "$work/q4" -p "" --raw
says "prompt"
exits 1 "standard output is full" sh -c '"$QINS" run "$0" -p "Once" -n 200 --ignore-eos >/dev/full' "$work/q4"

# Every set of kernels writes the same text.
for level in scalar generic avx2 avxvnni avx512 avx512vnni avx512vbmi neon; do
    exits 0 "kernels '$level', or the best there are" env QINS_CPU=$level "$QINS" run "$work/q4" -p "$prompt" -n 40 --temp 0 --json
    json "the same ids" "(.ids | tostring) == \"$(jq -c .ids "$work/greedy.json")\""
done
exits 0 "a level that does not exist" env QINS_CPU=avx9 "$QINS" --version
says "no kernels 'avx9'"

# The last tensor is a norm's: 0xff bytes are NaN, and so is everything after it.
cp -r "$toy" "$work/nan"
chmod -R u+w "$work/nan"
head -c 64 /dev/zero | tr '\0' '\377' | dd of="$work/nan/model.safetensors" bs=1 conv=notrunc \
    seek=$(($(wc -c <"$work/nan/model.safetensors") - 64)) 2>/dev/null
exits 1 "a model that computes NaN" qins run "$work/nan" -p "$prompt" -n 5 --temp 0
says "weights are damaged"

# Texts that are hard on a tokenizer come back as they were.
for text in "Once upon a time" " two  blanks " "Grüße, 你好 and 🙂" "tab	and 'quotes'"; do
    exits 0 "tokenize '$text'" qins tokenize "$toy" "$text" --json
    json "ids" '.n_ids == (.ids | length) and .n_ids > 0'
done
exits 0 "pieces" qins tokenize "$toy" "the king"
check "are shown with their ids" grep -Eq "^ +[0-9]+ -> '.*king'$" "$work/out"
finish
