#!/bin/sh
# The NEON kernels, built with a cross compiler and compared with exact arithmetic under qemu-user. Exit status 77 (skipped)
# where one of the two is missing.
set -eu
: "${QINS_SOURCE:=$(dirname "$0")/../..}"
compiler=${CROSS_CC:-aarch64-linux-gnu-gcc}
if ! command -v "$compiler" >/dev/null || ! command -v qemu-aarch64 >/dev/null; then
    echo "skipped: needs $compiler and qemu-aarch64"
    exit 77
fi
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
cd "$QINS_SOURCE"
compile() { # compile FILE [FLAGS]
    source=$1
    shift
    "$compiler" -std=c11 -O2 -D_GNU_SOURCE -Isrc -Iinclude -ffp-contract=fast -Wall -Wextra -Wconversion -Werror "$@" \
        -c "$source" -o "$build/$(basename "$source").o"
}
for source in src/kernel/scalar.c src/kernel/generic.c src/kernel/attention_scalar.c src/kernel/attention_generic.c \
    src/kernel/elementwise_scalar.c src/kernel/elementwise_generic.c \
    src/kernel/cpu.c src/kernel/quantise.c src/kernel/integer_scalar.c src/codec/pack.c tests/unit/test_integer.c; do
    compile "$source"
done
compile src/kernel/integer_neon.c -march=armv8.2-a+dotprod
"$compiler" -static "$build"/*.o -lm -o "$build/test_integer" || {
    echo "skipped: the cross compiler has no static C library"
    exit 77
}
qemu-aarch64 "$build/test_integer" | tee "$build/output"
grep -q ' neon;' "$build/output"
