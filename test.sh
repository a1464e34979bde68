#!/bin/sh
# test.sh [ctest arguments]: installs what is missing, builds, runs all tests.
set -eu
cd "$(dirname "$0")"
tools/setup.sh
log=$(mktemp "${TMPDIR:-/tmp}/qins-build.XXXXXX")
trap 'rm -f "$log"' EXIT
echo "Building"
if ! { cmake --preset release && cmake --build --preset release; } >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    exit 1
fi
status=0
ctest --preset release --output-log build/release/tests.log "$@" || status=$?
# The last line says how many passed, whatever ctest has listed after it.
grep -E '^[0-9]+% tests passed' build/release/tests.log || true
exit "$status"
