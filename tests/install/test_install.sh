#!/bin/sh
# test_install.sh BUILD_DIR: installs into a temporary prefix and builds C and C++ programs against it, through pkg-config
# and through the CMake package. Nothing of the source tree is on their include path.
set -eu
build=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix

cmake --install "$build" --prefix "$prefix" >"$work/install.log"

# Where the libraries went: lib, lib64 or lib/<triplet>.
pc=$(find "$prefix" -name qins.pc)
libdir=$(dirname "$(dirname "$pc")")
PKG_CONFIG_PATH=$libdir/pkgconfig
LD_LIBRARY_PATH=$libdir
export PKG_CONFIG_PATH LD_LIBRARY_PATH

echo "== pkg-config"
cp "$here/consumer.c" "$work/consumer.cpp"
# shellcheck disable=SC2046 # the flags are several words
cc -std=c11 -Wall -Wextra -Wstrict-prototypes -Werror "$here/consumer.c" -o "$work/c" $(pkg-config --cflags --libs qins)
"$work/c"
# shellcheck disable=SC2046
c++ -std=c++11 -Wall -Wextra -Werror "$work/consumer.cpp" -o "$work/cpp" $(pkg-config --cflags --libs qins)
"$work/cpp"

echo "== the example"
# shellcheck disable=SC2046
cc -std=c11 -Wall -Wextra -Werror "$here/../../examples/linear.c" -o "$work/linear" $(pkg-config --cflags --libs qins) -lm
(cd "$work" && ./linear)

echo "== CMake package"
cmake -S "$here" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$prefix" >"$work/cmake.log"
cmake --build "$work/cmake" >>"$work/cmake.log"
for program in consumer_shared consumer_static consumer_cpp; do
    "$work/cmake/$program"
done

echo "== only public symbols"
if nm -D --defined-only "$libdir"/libqins.so | awk '{print $3}' | grep -v '^qins_' | grep -v '^[._]'; then
    echo "the shared library exports symbols that are not its own" >&2
    exit 1
fi
"$prefix/bin/qins" --version
