#!/bin/sh
# Make .venv: the CPU environment of the lock file, then Fairlane itself, editable (`make env`).
#
#   1. a virtual environment with CPython 3.11       PYTHON=... names the interpreter to take
#   2. PyTorch's CPU build                           from pip's own sources, else PyTorch's index
#   3. everything else in requirements/cpu.lock      every file is checked against its hash
#   4. Fairlane, editable                            nothing is downloaded
#
# A finished run leaves a fingerprint of what it was made from; while that fits, the next run
# does nothing. An interrupted run goes on where it stopped: what is installed is not fetched again.
set -eu
cd "$(dirname "$0")/.."

VENV=.venv
LOCK=requirements/cpu.lock
STAMP=$VENV/fairlane-env
TORCH_INDEX=https://download.pytorch.org/whl/cpu

say() { printf 'env: %s\n' "$*"; }
fail() { printf 'env: %s\n' "$@" >&2; exit 1; }

# timed WORDS COMMAND...: run the command and say how long it took.
timed() {
    what=$1; shift
    say "$what ..."
    began=$(date +%s)
    "$@"
    say "$what: $(($(date +%s) - began)) s"
}

fingerprint() { # of the inputs and the place: scripts in .venv/bin hold absolute paths
    { pwd; cat "$LOCK" pyproject.toml deployments/setup_env.sh; } | sha256sum
}

# fits PYTHON: is it the interpreter that the lock was made for?
fits() {
    "$1" -c '
import platform, sys
sys.exit(
    platform.python_implementation() != "CPython"
    or sys.version_info[:2] != (3, 11)
    or sys.platform != "linux"
    or platform.machine() != "x86_64"
    or platform.libc_ver()[0] != "glibc"
)' 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:-python3.11 python3}; do
        if fits "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "the lock is for CPython 3.11 on Linux x86_64 (glibc); not so: ${PYTHON:-python3.11, python3}." \
        "Install Python 3.11 (Debian 12: apt-get install python3 python3-venv; anywhere:" \
        "uv python install 3.11, or pyenv install 3.11) and name it: make env PYTHON=/path/to/python3.11"
}

make_venv() {
    "$python" -m venv "$VENV" || fail \
        "$python can't make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"
}

pip_install() {
    "$VENV/bin/python" -m pip --disable-pip-version-check install -qq --no-input "$@"
}

# Only the lines of the lock that name torch: from its own up to the next package's.
install_torch() {
    awk '/^[^ #]/ { torch = /^torch==/ } torch' "$LOCK" >"$work/torch.lock"
    if pip_install --no-deps --require-hashes -r "$work/torch.lock" 2>"$work/errors"; then
        return
    fi
    if ! grep -q 'No matching distribution found for torch' "$work/errors"; then
        cat "$work/errors" >&2
        return 1
    fi
    say "not where pip looks by itself; asking $TORCH_INDEX"
    pip_install --no-deps --require-hashes --extra-index-url "$TORCH_INDEX" -r "$work/torch.lock"
}

if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(fingerprint)" ]; then
    touch "$STAMP"
    exit 0
fi

if [ -x "$VENV/bin/python" ] && ! fits "$VENV/bin/python"; then
    fail "$VENV holds another Python than CPython 3.11; remove it (make clean) and try again."
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    timed "1/4 virtual environment with $("$python" --version)" make_venv
fi
say "filling $VENV from $LOCK: 3.8 GB, two to four minutes when all is new"
timed "2/4 PyTorch, CPU build" install_torch
timed "3/4 $(grep -c '^[^ #].*==' "$LOCK") locked packages" \
    pip_install --no-deps --require-hashes -r "$LOCK"
timed "4/4 Fairlane, editable" pip_install --no-deps --no-build-isolation --editable .
fingerprint >"$STAMP"
say "ready: $VENV/bin/fairlane --help"
