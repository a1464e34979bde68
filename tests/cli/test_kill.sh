#!/bin/sh
# compress killed at 50 random moments, half of them over an old result: afterwards the target is the old result, the new
# one or absent, each of them whole; no directory that the kill left behind loads as a model that is wrong; and the next run
# clears the rest away.
. "$(dirname "$0")/lib.sh"
need_toy
runs=${QINS_KILLS:-50}

fingerprint() { find "$1" -type f -exec sha256sum {} + | sed "s|$1/||" | sort; }

# Lots of work, so that there is something to interrupt: the rotated codec, single-threaded.
compress() { "$@" "$QINS" compress "$toy" "$work/d/model" --threads 1 $force >/dev/null 2>&1; }
mkdir "$work/d"
force=""
start=$(date +%s%N)
compress env
took=$((($(date +%s%N) - start) / 1000))
fingerprint "$work/d/model" >"$work/new"
rm -rf "$work/d/model"
qins compress "$toy" "$work/d/model" --codec uniform --bits 3 >/dev/null
fingerprint "$work/d/model" >"$work/old"
cp -r "$work/d/model" "$work/old-model"
rm -rf "$work/d/model"
echo "one run takes $took microseconds; killing $runs"

state_of_target() {
    if [ ! -e "$work/d/model" ]; then
        echo absent
        return
    fi
    fingerprint "$work/d/model" >"$work/now"
    if cmp -s "$work/now" "$work/new"; then echo new; elif cmp -s "$work/now" "$work/old"; then echo old; else echo WRONG; fi
}

killed=0 n_old=0 n_new=0 n_absent=0 leftovers=0 i=0
while [ $i -lt "$runs" ]; do
    i=$((i + 1))
    if [ $((i % 2)) -eq 0 ]; then
        force=--force
        cp -r "$work/old-model" "$work/d/model"
    else
        force=""
    fi
    # From right at the start to a little after the end.
    delay=$(awk -v seed="$i" -v took="$took" 'BEGIN { srand(seed); rand(); printf "%.6f", rand() * took * 1.15 / 1e6 + 0.001 }')
    status=0
    # --foreground: without it timeout kills itself along, and does not wait for the process to be gone.
    compress timeout --foreground -s KILL "$delay" || status=$?
    [ "$status" -eq 0 ] || killed=$((killed + 1))
    state=$(state_of_target)
    case "$state$force" in
    new | new--force) n_new=$((n_new + 1)) ;;
    old--force) n_old=$((n_old + 1)) ;;
    absent) n_absent=$((n_absent + 1)) ;;
    absent--force) fail "run $i, killed after $delay s: the old result is gone and the new one is not there" ;;
    *) fail "run $i, killed after $delay s: the target is neither the old nor the new result" ;;
    esac
    if [ "$state" != absent ]; then
        qins audit "$work/d/model" --summary >"$work/check.log" 2>&1 || fail "run $i: the target does not load: $(cat "$work/check.log")"
    fi
    for left in "$work"/d/* "$work"/d/.[!.]*; do
        if [ ! -d "$left" ] || [ "$left" = "$work/d/model" ]; then continue; fi
        leftovers=$((leftovers + 1))
        if qins audit "$left" --summary >/dev/null 2>&1; then
            fingerprint "$left" >"$work/now"
            cmp -s "$work/now" "$work/new" || cmp -s "$work/now" "$work/old" || fail "run $i: $left loads but is wrong"
        fi
    done
    rm -rf "$work/d/model"
done
echo "killed $killed of $runs; target new $n_new, old $n_old, absent $n_absent; left something behind $leftovers times"
check "most runs were killed" test "$killed" -ge $((runs / 4))

force=""
check "the next run succeeds" compress env
check "and clears away what the killed ones left" test "$(ls -A "$work/d")" = model
check "its result is right" test "$(state_of_target)" = new
finish
