#!/bin/sh
# Conversations: what is evaluated, what is forgotten, commands, interrupts, session files.
. "$(dirname "$0")/lib.sh"
need_toy

# talks STATUS STATEMENT LINES ARGUMENT...: a conversation of these lines (printf %b).
talks() {
    expected=$1 statement=$2 lines=$3 status=0
    shift 3
    printf '%b' "$lines" | qins chat "$@" >"$work/out" 2>"$work/err" || status=$?
    if [ "$status" -eq "$expected" ]; then
        echo "ok   $statement"
    else
        fail "$statement: exit status $status, not $expected"
        head -n 20 "$work/err" | sed 's/^/     | /'
    fi
}

talks 0 "two messages" 'The king said\nAnd then\n' "$toy" --temp 0 -n 30 --json
says "the model has no chat template"
json "are two turns" '.format == "plain" and (.turns | length) == 2 and .generated_tokens > 0'
json "and only the new one is evaluated each time" \
    ".turns[0].prompt_tokens == $(qins tokenize "$toy" "User: The king said
Assistant:" --json | jq .n_ids)"
cp "$work/out" "$work/two.json"
talks 0 "the same on a terminal's terms" 'The king said\nAnd then\n' "$toy" --temp 0 -n 30
jq -j '.turns[] | .text, "\n"' "$work/two.json" >"$work/expected"
check "standard output is the answers" cmp "$work/out" "$work/expected"
check "speeds are on standard error" grep -q 'answers .* at .*/s (seed' "$work/err"

# The second answer is what the model says to the whole conversation, written by hand.
qins run "$toy" -n 30 --temp 0 --json --ignore-eos -p "User: The king said
Assistant:$(qins run "$toy" -n 30 --temp 0 --no-display-prompt -p "User: The king said
Assistant:" 2>"$work/err")
User: And then
Assistant:" >"$work/out"
json "the second answer follows the first" \
    "(.text | gsub(\"^\\\\s+\"; \"\") | .[0:20]) == ($(jq '.turns[1].text' "$work/two.json") | .[0:20])"

talks 0 "reset" 'The king said\n/reset\nThe king said\n/exit\nAnd then\n' "$toy" --temp 0 -n 30 --json
json "starts again, and exit leaves" '(.turns | length) == 2 and .turns[0].text == .turns[1].text'
talks 0 "a message of two lines, and blank ones" 'The king \\\nsaid\n\n  \n' "$toy" --temp 0 -n 5 --json
json "is one message" '[.turns[].user] == ["The king \nsaid"]'
talks 0 "an unknown command" '/rest\n/xyzzy\n/save\n' "$toy" --json
says "unknown command '/rest' - did you mean '/reset'?"
says "/save needs a file"
json "is no message" '.turns == []'
talks 0 "a special token in a message" '<|endoftext|>\n' "$toy" -n 1 --json
json "is text" ".turns[0].prompt_tokens > 3 + $(qins tokenize "$toy" "User: x
Assistant:" --json | jq .n_ids)"
talks 0 "a system message" 'Hello\n' "$toy" -n 1 --json --template chatml --system "Be brief."
json "is evaluated with the first message" \
    ".turns[0].prompt_tokens == $(qins tokenize "$toy" "<|im_start|>system
Be brief.<|im_end|>
<|im_start|>user
Hello<|im_end|>
<|im_start|>assistant
" --json | jq .n_ids)"
talks 1 "an unknown format" 'x\n' "$toy" --template jinja
says "expected one of chatml, phi-4, llama-3"

# A full context: the oldest turns go, coded caches too, and the system message stays.
lines=$(for i in 1 2 3 4 5 6 7 8; do printf 'message number %s of the king\\n' "$i"; done)
for bits in 16 4 16:4; do
    talks 0 "a small context, $bits bits" "$lines" "$toy" --ctx 120 -n 24 --kv-bits "$bits" --temp 0 --json --system "Be a king."
    json "forgets" '(.turns | length) == 8 and ([.turns[].forgotten_turns] | add) >= 3 and ([.turns[].generated_tokens] | min) > 0'
    json "one turn at a time" '[.turns[].forgotten_turns] | max <= 2'
done
says "were forgotten"
talks 0 "an answer longer than the context" 'The king said\n' "$toy" --ctx 40 -n 0 --temp 0 --json
json "ends with it" '.turns[0].stopped_by == "context" or .turns[0].stopped_by == "end"'
talks 1 "a message longer than the context" "$lines$(printf '%0200d' 0)\\n" "$toy" --ctx 60 -n 8
says "raise --ctx"

talks 0 "a session file" 'The king said\n' "$toy" --temp 0 -n 30 --session "$work/talk" --json
talks 0 "goes on" 'And then\n' "$toy" --temp 0 -n 30 --session "$work/talk" --json
says "going on with the"
json "as if it had not been left" ".turns[0].text == $(jq '.turns[1].text' "$work/two.json")"
talks 0 "/save" "The king said\\n/save $work/talk2\\n" "$toy" --temp 0 -n 30 --json
talks 0 "its file" 'And then\n' "$toy" --temp 0 -n 30 --session "$work/talk2" --json
json "holds the same" ".turns[0].text == $(jq '.turns[1].text' "$work/two.json")"
talks 1 "a session of another cache" 'x\n' "$toy" --session "$work/talk" --kv-bits 8

# Ctrl-C stops the answer, not the program.
mkfifo "$work/lines"
"$QINS" chat "$toy" --temp 1 -n 30000 --ctx 60000 --seed 1 --template chatml <"$work/lines" >"$work/out" 2>"$work/err" &
pid=$!
exec 9>"$work/lines"
echo "Tell me a long story" >&9
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do # until the answer has begun
    [ -s "$work/out" ] && break
    sleep 0.5
done
kill -INT $pid
echo "/reset" >&9
echo "/exit" >&9
exec 9>&-
status=0
wait $pid || status=$?
check "an interrupted answer leaves the program running" test $status -eq 0
says "the conversation starts again"
check "and is cut" test "$(sed -n 's/.*answers \([0-9]*\) at.*/\1/p' "$work/err")" -lt 30000

if [ -f "$smollm2" ]; then
    talks 0 "SmolLM2" 'What is the capital of France?\nAnd of Germany?\n' "$smollm2" --temp 0 -n 24 --json
    json "takes its own format, and ends its answers" \
        '.format == "chatml" and .turns[0].stopped_by == "end" and (.turns[1].text | test("Berlin"))'
    exits 0 "the whole conversation as a prompt" qins run "$smollm2" --temp 0 -n 24 --json -p "<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
<|im_start|>user
What is the capital of France?<|im_end|>
<|im_start|>assistant
$(jq -r '.turns[0].text' "$work/out")<|im_end|>
<|im_start|>user
And of Germany?<|im_end|>
<|im_start|>assistant
"
    check "gives the second answer" grep -q "Berlin" "$work/out"
else
    echo "SKIP: no SmolLM2 (tools/get_smollm2.sh fetches it)"
fi
finish
