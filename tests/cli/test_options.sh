#!/bin/sh
# Bad usage: exit status 2, one line that says what was meant; help and version; output that cannot be written.
. "$(dirname "$0")/lib.sh"

exits 2 "a misspelt option is answered with the nearest" qins compress a b --bit 4
says "qins: unknown option '--bit' - did you mean '--bits'?"
exits 2 "a swapped letter counts as one mistake" qins run a -p x --tpo-k 3
says "did you mean '--top-k'?"
exits 2 "the start of an option is answered with all of it" qins compress a b --embed 8
says "did you mean '--embed-bits'?"
exits 2 "an option with a value in it" qins compress a b --codecs=gauss
says "unknown option '--codecs' - did you mean '--codec'?"
exits 2 "a misspelt command" qins comprss a b
says "qins: unknown command 'comprss' - did you mean 'compress'?"
exits 2 "a misspelt codec" qins compress a b --codec gaus
says "did you mean 'gauss'?"
exits 2 "a misspelt storage" qins compress a b --storage sede
says "did you mean 'seed'?"
exits 2 "a misspelt dtype" qins export a b --dtype bf61
says "did you mean 'bf16'?"
exits 2 "a word that is near nothing gets the list" qins compress a b --codec zstd9
says "takes gauss, log, rational, uniform, trellis, none or lossless, not 'zstd9'"
exits 2 "an option that is near nothing" qins audit a --xyzzy
says "unknown option '--xyzzy' (see 'qins audit --help')"

exits 2 "a number out of range" qins compress a b --bits 12
says "option '--bits' takes a number from 2 to 9, not '12'"
exits 2 "a number with text behind it" qins run a -p x -n 12tokens
says "not '12tokens'"
exits 2 "not a number at all" qins run a -p x --temp nan
exits 2 "a negative count" qins run a -p x -n -1
exits 2 "a value that is missing at the end" qins run a -p
says "option '--prompt' needs a value: --prompt TEXT"
exits 2 "a value that is missing before the next option" qins verify a b --text --json
says "option '--text' needs a value"
exits 2 "a flag with a value" qins audit a --json=yes
says "option '--json' takes no value"
exits 2 "a missing argument" qins compress a
says "'qins compress' needs OUT"
exits 2 "an argument too many" qins audit a b
says "unexpected argument 'b'"
exits 2 "a group that is no multiple of 4" qins compress a b --scale group:30
exits 2 "no prompt" qins run a
exits 2 "two prompts" qins run a -p x --file y
exits 2 "no text to tokenize" qins tokenize a
exits 2 "an id that is no number" qins logits a --ids 1,x --out f.npy
says "not a token id"
exits 2 "no ids" qins logits a --ids , --out f.npy

exits 2 "--bits with --bpw" qins compress a b --bits 4 --bpw 5
exits 2 "seed storage without the log codec" qins compress a b --storage seed
exits 2 "f32 storage without the rational codec" qins compress a b --storage f32
exits 2 "alpha without the rational codec" qins compress a b --alpha 2
exits 2 "9 bits without the log codec" qins compress a b --bits 9
exits 2 "2 bits without the trellis codec" qins compress a b --bits 2
exits 1 "groups with the trellis codec" qins compress "$QINS_SOURCE/models/toy" "$work/groups" --codec trellis --scale group:32

for goal in "--size 4G" "--max-kl 0.1"; do
    # shellcheck disable=SC2086 # option and value
    exits 2 "a goal without calibration is refused: $goal" qins compress a b --calibrate none $goal
    says "need --calibrate"
    # shellcheck disable=SC2086
    exits 2 "a goal and a width: $goal" qins compress a b --calibrate self --bits 4 $goal
done
for size in 0 12X 1.2.3GB GB -5MB; do
    exits 2 "--size $size" qins compress a b --calibrate self --size "$size"
done

exits 2 "no command" qins
exits 0 "help" qins --help
check "the help fits a screen" test "$(wc -l <"$work/out")" -le 25
for command in compress audit verify sweep run chat bench tokenize logits export; do
    exits 0 "help of $command" qins $command --help
    check "no line of it is wider than 80 columns" awk 'length > 80 { print; bad = 1 } END { exit bad }' "$work/out"
    for option in --json --threads --help; do
        check "$command documents $option" grep -q -- "$option" "$work/out"
    done
done
exits 0 "version" qins --version
check "version has three parts" grep -Eq '^qins [0-9]+\.[0-9]+\.[0-9]+ ' "$work/out"

exits 1 "a missing model" qins audit "$work/nothing"
says "$work/nothing"
exits 1 "a missing model, with --json" qins audit "$work/nothing" --json
says "$work/nothing"
json "the failure is an object too" '.error.code and .error.message'
exits 1 "a missing text" qins verify "$work/a" "$work/b" --text "$work/nothing"
says "$work/nothing: cannot read: No such file or directory"

if [ -w /dev/full ]; then
    exits 1 "a full disk behind standard output" sh -c '"$QINS" --help >/dev/full'
    says "cannot write to standard output"
fi
exits 1 "a reader that went away" sh -c '{ sleep 0.2; "$QINS" compress --help; echo $? >"$0"; } | true; exit "$(cat "$0")"' "$work/status"
finish
