#!/bin/sh
# setup.sh [--lint]: makes sure that what the build needs is installed; says nothing when it is.
# As root, or with sudo that asks for no password, it installs missing Debian packages. Otherwise it prints the one line
# to run and stops with status 1. --lint adds what only the checks of CI need.
set -eu

missing=""
need() { # need PACKAGE COMMAND...: the package is missing unless the command succeeds
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

# A program may be there without the compiler's headers, so ask for what is used, not for the package.
need build-essential sh -c 'command -v cc && command -v c++ && echo "#include <stdio.h>" | cc -E -'
need cmake command -v cmake
need ninja-build command -v ninja
need pkg-config command -v pkg-config
need libjansson-dev pkg-config --exists jansson
need libpcre2-dev pkg-config --exists libpcre2-8
need libutf8proc-dev pkg-config --exists libutf8proc
need libxxhash-dev pkg-config --exists libxxhash
need libopenblas-dev pkg-config --exists openblas
need liblapacke-dev pkg-config --exists lapacke
need libzstd-dev pkg-config --exists libzstd
need libcmocka-dev pkg-config --exists cmocka
need jq command -v jq
need zstd command -v zstd
need python3 command -v python3
need python3-numpy python3 -c 'import numpy'
if [ "${1:-}" = --lint ]; then
    need clang command -v clang
    need clang-format command -v clang-format
    need libomp-dev sh -c 'echo "int main(void){return 0;}" | clang -fopenmp -x c - -o /dev/null'
    need shellcheck command -v shellcheck
    need python3-venv python3 -c "import ensurepip"
fi

[ -n "$missing" ] || exit 0

# shellcheck disable=SC2086 # a list of words
set -- $missing
if ! command -v apt-get >/dev/null 2>&1; then
    echo "Missing: $*" >&2
    echo "These are the names of Debian packages: install what your system calls them, then start again." >&2
    exit 1
fi

root=""
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        root="sudo -n"
    else
        if command -v sudo >/dev/null 2>&1; then
            echo "sudo apt-get update && sudo apt-get install -y --no-install-recommends $*"
        else
            echo "su -c 'apt-get update && apt-get install -y --no-install-recommends $*'"
        fi
        exit 1
    fi
fi

log=$(mktemp "${TMPDIR:-/tmp}/qins-setup.XXXXXX")
echo "Installing $* (log: $log)"
if ! { $root apt-get update && $root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    echo "Installing failed; the whole log is $log" >&2
    exit 1
fi
rm -f "$log"
