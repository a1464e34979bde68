#!/bin/sh
# compress that cannot succeed: the target stays as it was, nothing is left behind, the message says why.
. "$(dirname "$0")/lib.sh"
need_toy

fingerprint() { find "$1" -type f -exec sha256sum {} + | sort; }

mkdir -p "$work/a"
exits 0 "compress" qins compress "$toy" "$work/a/model" --codec uniform
fingerprint "$work/a/model" >"$work/before"

# unchanged STATEMENT: the old result is intact and alone.
unchanged() {
    fingerprint "$work/a/model" >"$work/after"
    check "$1: the old result is intact" cmp "$work/before" "$work/after"
    check "$1: nothing else is in the folder" test "$(ls -A "$work/a")" = model
}

exits 1 "the target exists" qins compress "$toy" "$work/a/model"
says "$work/a/model"
says "--force"
unchanged "the target exists"
exits 1 "the target is a file" qins compress "$toy" "$work/before"
says "$work/before"

exits 1 "no model" qins compress "$work/nothing" "$work/a/model" --force
unchanged "no model"
exits 1 "a pattern that no tensor matches" qins compress "$toy" "$work/a/model" --force --targets 'nothing-like-it'
says "names such as gpt_neox.layers."
unchanged "no tensor matches"
exits 1 "a pattern that is none" qins compress "$toy" "$work/a/model" --force --targets '('
unchanged "a bad pattern"

exits 1 "files that may not grow" sh -c 'ulimit -f 64; exec "$QINS" compress "$0" "$1" --force' "$toy" "$work/a/model"
says "$work/a"
unchanged "files that may not grow"

# Where the signal falls is chance: before the handler is there (130), while compressing (1), or after the end (0).
# --foreground: without it timeout signals the process and then its group, and a second signal ends qins at once.
for delay in 0.01 0.03 0.06 0.1 0.15 0.2; do
    status=0
    timeout --foreground --preserve-status -s INT "$delay" "$QINS" compress "$toy" "$work/a/model" --force >/dev/null 2>"$work/err" || status=$?
    case $status in
    0) fingerprint "$work/a/model" >"$work/before" ;;
    1)
        says interrupted
        unchanged "interrupted after $delay s"
        ;;
    130) unchanged "interrupted after $delay s" ;;
    *) fail "interrupted after $delay s: exit status $status" ;;
    esac
    check "a whole model after $delay s" "$QINS" audit "$work/a/model" --summary
done

if mkdir "$work/small" && mount -t tmpfs -o size=2m tmpfs "$work/small" 2>/dev/null; then
    exits 1 "a full disk" qins compress "$toy" "$work/small/model" --bits 8
    says "No space left on device"
    check "nothing is left on it" test -z "$(ls -A "$work/small")"
    umount "$work/small"
else
    echo "ok   # a full disk: not tried, no right to mount one here (ulimit -f above is its stand-in)"
fi

exits 0 "a GGUF file" qins export "$toy" "$work/toy.gguf" --format gguf --dtype q8_0
exits 0 "decoding its blocks" qins compress "$work/toy.gguf" "$work/decoded" --codec none
check "is said to make it larger" grep -q "larger than the source" "$work/out"

# Root may write anywhere: become nobody for this one.
as_nobody=""
[ "$(id -u)" -ne 0 ] || as_nobody="setpriv --reuid=65534 --regid=65534 --clear-groups"
mkdir "$work/locked" "$work/source"
cp "$toy"/* "$work/source/"
chmod 755 "$work" && chmod -R a+rX "$work/source" && chmod 555 "$work/locked"
if $as_nobody "$QINS" --version >/dev/null 2>&1; then
    # shellcheck disable=SC2086 # options are words
    exits 1 "a folder that may not be written" $as_nobody "$QINS" compress "$work/source" "$work/locked/model"
    says "ermission denied"
    check "nothing is in it" test -z "$(ls -A "$work/locked")"
fi

# Damage: every command refuses, naming the tensor.
cp -r "$work/a/model" "$work/damaged"
weights=$(find "$work/damaged" -name '*.safetensors' | head -n 1)
size=$(wc -c <"$weights")
printf '\377\376\375' | dd of="$weights" bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
for command in audit "run -p x -n 1"; do
    # shellcheck disable=SC2086 # options are words
    exits 1 "$command refuses changed bytes" qins ${command%% *} "$work/damaged" ${command#"${command%% *}"}
    says "checksum"
    says "weight"
done
exits 0 "--no-check accepts them" qins audit "$work/damaged" --no-check
cp "$weights" "$work/whole"
for keep in 0 7 100 5000 $((size / 2)) $((size - 1)); do
    head -c "$keep" "$work/whole" >"$weights"
    exits 1 "a file cut to $keep bytes is refused" qins audit "$work/damaged" --no-check
    says "$work/damaged"
done
finish
