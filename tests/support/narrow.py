"""A server behind a link whose capacity the test sets: in a network namespace of its own, reached over a veth pair, the
far end of which tc shapes. Linux, root and iproute2 only; `missing` says why it cannot run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

from livekit import api
from support.interop import LIMIT

KEY, SECRET = "devkey", "a-secret-for-tests-of-32-bytes-or-more"
PORT = 17880


def missing() -> str | None:
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "no iproute2 here"
    made = subprocess.run(["ip", "netns", "add", _name()], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", _name()], capture_output=True)
    return f"no namespace can be made: {made.stderr.strip()}" if made.returncode else None


def _name() -> str:
    return f"lk{os.getpid()}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class NarrowServer:
    """`lkactor serve` in the namespace. What it sends passes the bottleneck, what it receives does not."""

    api_key, api_secret = KEY, SECRET

    def __init__(self, namespace: str, address: str) -> None:
        self._namespace = namespace
        self.url, self.http_url = f"ws://{address}:{PORT}", f"http://{address}:{PORT}"

    def token(self, identity: str, room: str) -> str:
        grants = api.VideoGrants(room_join=True, room=room)
        return api.AccessToken(KEY, SECRET).with_identity(identity).with_grants(grants).to_jwt()

    def capacity(self, rate: str) -> None:
        """As tc spells it: "400kbit". The queue holds 150 ms; "" lifts it."""
        shape = ["root", "tbf", "rate", rate, "burst", "8kb", "latency", "150ms"] if rate else ["root"]
        _ip("netns", "exec", self._namespace, "tc", "qdisc", "replace" if rate else "del", "dev", "far", *shape)


@contextlib.contextmanager
def narrow_server() -> Iterator[NarrowServer]:
    namespace, near = _name(), f"lkn{os.getpid()}"[:15]
    subnet = f"10.213.{os.getpid() % 256}"
    _ip("netns", "add", namespace)
    process = None
    try:
        _ip("link", "add", near, "type", "veth", "peer", "name", "far", "netns", namespace)
        _ip("addr", "add", f"{subnet}.1/24", "dev", near)
        _ip("link", "set", near, "up")
        _ip("-n", namespace, "addr", "add", f"{subnet}.2/24", "dev", "far")
        for device in ("lo", "far"):
            _ip("-n", namespace, "link", "set", device, "up")
        config = {
            "keys": {KEY: SECRET},
            "port": PORT,
            "bind_addresses": [f"{subnet}.2"],
            "rtc": {"udp_port": PORT + 2, "tcp_port": PORT + 1},
        }
        serve = [sys.executable, "-m", "lkactor", "serve", "--config-body", json.dumps(config)]
        process = subprocess.Popen(["ip", "netns", "exec", namespace, *serve])
        server = NarrowServer(namespace, f"{subnet}.2")
        _until_it_answers(server.http_url)
        yield server
    finally:
        if process is not None:
            process.terminate()
            process.wait(20)
        _ip("netns", "del", namespace)


def _until_it_answers(url: str) -> None:
    end = time.monotonic() + LIMIT
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).read()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return
