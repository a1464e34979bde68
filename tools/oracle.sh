#!/bin/sh
# Compare every model family with transformers and, as a GGUF file, with llama.cpp, live: draws fresh random checkpoints,
# runs test_families on them and tools/oracle_gguf.py.
#
#   tools/oracle.sh [SEED [NAME...]]     SEED: another one draws other weights (default: from the clock)
#
# Needs the Python packages of tools/requirements.txt (PYTHON: the interpreter that has them) and a release build
# (BUILD: its folder).
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
BUILD=${BUILD:-build/release}
seed=${1:-$(date +%s)}
[ $# -gt 0 ] && shift
test=$BUILD/tests/test_families
if [ ! -x "$test" ]; then
    echo "$0: $test is missing: cmake --preset release && cmake --build --preset release" >&2
    exit 1
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT INT TERM
echo "seed $seed"
"$PYTHON" tools/make_family_goldens.py --seed "$seed" --out "$folder" "$@"
"$test" "$folder"/*/
"$PYTHON" tools/oracle_gguf.py --qins "$BUILD/cli/qins" "$folder"/*/
