#!/usr/bin/env bash
# Installs all that the tests need: a virtual environment, Chromium, Node and the npm clients. Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

packages=()
command -v chromium >/dev/null || packages+=(chromium)
command -v npm >/dev/null || packages+=(npm)
python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
if [ ${#packages[@]} -gt 0 ]; then
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/pip install -q --disable-pip-version-check -e '.[test,dev]'
[ -d tests/interop/web/node_modules/livekit-client ] || (cd tests/interop/web && npm ci --silent --no-audit --no-fund)
[ -d tests/interop/node/node_modules/livekit-server-sdk ] || (cd tests/interop/node && npm ci --silent --no-audit --no-fund)
