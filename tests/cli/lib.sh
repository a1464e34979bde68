# Sourced by the tests of the program. Expects QINS (the program) and QINS_SOURCE (the source tree) in the environment;
# QINS_TOY may name another copy of the toy model. A test that cannot run here exits with 77.
# shellcheck shell=sh
set -eu

: "${QINS:?the program to test}" "${QINS_SOURCE:?the source tree}"
toy=${QINS_TOY:-$QINS_SOURCE/models/toy}
smollm2=${QINS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qins}/SmolLM2-135M-Instruct.Q4_1.gguf
work=$(mktemp -d)
trap 'chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT
failed=0

# The two original codecs as the toy's tests use them.
# shellcheck disable=SC2034 # used by those who source this
log_seed="--codec log --storage seed --targets all --embed-bits keep --rotate off --scale tensor"

qins() { "$QINS" "$@"; }

skip() {
    echo "SKIP: $*"
    exit 77
}

need_toy() { [ -f "$toy/model.safetensors" ] || skip "no toy model at $toy"; }
need_smollm2() { [ -f "$smollm2" ] || skip "no SmolLM2 (tools/get_smollm2.sh fetches it)"; }

fail() {
    failed=1
    echo "FAIL $*"
}

# check STATEMENT COMMAND...: the command succeeds.
check() {
    statement=$1
    shift
    if "$@" >"$work/check.log" 2>&1; then
        echo "ok   $statement"
    else
        fail "$statement"
        sed 's/^/     | /' "$work/check.log"
    fi
}

# exits STATUS STATEMENT COMMAND...: leaves what the command printed in $work/out and $work/err.
exits() {
    expected=$1 statement=$2 status=0
    shift 2
    "$@" >"$work/out" 2>"$work/err" </dev/null || status=$?
    if [ "$status" -eq "$expected" ]; then
        echo "ok   $statement"
    else
        fail "$statement: exit status $status, not $expected"
        head -n 20 "$work/err" | sed 's/^/     | /'
    fi
}

# says TEXT: the last command's standard error has it.
says() {
    if ! grep -qF -- "$1" "$work/err"; then
        fail "the message lacks: $1"
        head -n 5 "$work/err" | sed 's/^/     | /'
    fi
}

# json STATEMENT FILTER: the last command printed exactly one JSON object, and the jq filter is true of it.
json() {
    if [ "$(jq -s 'length' "$work/out" 2>&1)" = 1 ] && jq -e "$2" "$work/out" >"$work/jq.log" 2>&1; then
        echo "ok   $1"
    else
        fail "$1: $2"
        { cat "$work/jq.log" 2>/dev/null; head -c 600 "$work/out"; } | sed 's/^/     | /'
    fi
}

finish() { exit "$failed"; }
