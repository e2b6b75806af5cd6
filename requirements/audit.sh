#!/bin/sh
# Look up known holes in the packages of cpu.lock (`make audit`). It asks PyPI for its advisories, so
# it is no part of `make test`; ARGS="-s osv" asks OSV instead.
set -eu
cd "$(dirname "$0")/.."

PIP_AUDIT_VERSION=2.10.1
PYTHON=${PYTHON:-python3.11}

if [ ! -x .local/audit/bin/pip-audit ]; then
    echo "audit: installing pip-audit $PIP_AUDIT_VERSION into .local/audit"
    "$PYTHON" -m venv .local/audit
    .local/audit/bin/python -m pip install --quiet "pip-audit==$PIP_AUDIT_VERSION"
fi

# PyPI does not know the builds of PyTorch's own index. --strict: what can't be looked up is a failure.
sed 's/+cpu//' requirements/cpu.lock >.local/audit/cpu.lock
exec .local/audit/bin/pip-audit --strict --disable-pip --no-deps -r .local/audit/cpu.lock "$@"
