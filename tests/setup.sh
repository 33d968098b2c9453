#!/usr/bin/env bash
# Installs all that the tests need: a virtual environment, Chromium, Node and the npm clients, GStreamer with its Python.
# Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

packages=()
command -v chromium >/dev/null || packages+=(chromium)
command -v npm >/dev/null || packages+=(npm)
python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
# A GStreamer peer of the tests is a process of the system's Python (tests/support/gst_peer.py).
/usr/bin/python3 -c 'import gi, websockets; gi.require_version("GstWebRTC", "1.0")' 2>/dev/null &&
    gst-inspect-1.0 nicesrc >/dev/null && gst-inspect-1.0 vp8enc >/dev/null && gst-inspect-1.0 webrtcbin >/dev/null ||
    packages+=(python3-gi python3-websockets gstreamer1.0-tools gstreamer1.0-nice gstreamer1.0-plugins-base
        gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gir1.2-gst-plugins-base-1.0 gir1.2-gst-plugins-bad-1.0)
if [ ${#packages[@]} -gt 0 ]; then
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/pip install -q --disable-pip-version-check -c tests/constraints.txt -e '.[test,dev]'
for clients in tests/interop/web tests/interop/node; do  # anew when the lock file is newer than what was installed
    [ $clients/node_modules/.package-lock.json -nt $clients/package-lock.json ] ||
        (cd $clients && npm ci --silent --no-audit --no-fund)
done
# The worker of the agent tests is a process of its own environment: it wants an older livekit than the tests do.
agents=tests/interop/agents
[ -x $agents/.venv/bin/python ] || python3 -m venv $agents/.venv
$agents/.venv/bin/python -c 'import livekit.agents' 2>/dev/null ||
    $agents/.venv/bin/pip install -q --disable-pip-version-check -r $agents/requirements.txt
