#!/usr/bin/env bash
# Installs what is missing and passes the tests. Arguments go to pytest; without any, everything but the soak runs.
set -euo pipefail
cd "$(dirname "$0")/.."
bash tests/setup.sh
if [ $# -gt 0 ]; then exec .venv/bin/python -m pytest "$@"; fi
# Two processes: a client library that aborts its process takes only its own half with it.
.venv/bin/python -m pytest -m "not interop and not soak" -o addopts="--import-mode=importlib"
.venv/bin/python -m pytest -m "interop and not soak" -o addopts="--import-mode=importlib"
