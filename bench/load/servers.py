"""The servers that are measured, and what they cost: /proc is the witness."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lkactor.auth import issue_token

KEY, SECRET = "bench", "a-secret-of-the-bench-32-bytes-or-more"
CORES = sorted(os.sched_getaffinity(0))
"""The first is the server's, the last ours."""


class Server:
    """Any server that speaks LiveKit's protocol, with the pid of its process."""

    def __init__(self, name: str, url: str, key: str, secret: str, pid: int) -> None:
        self.name, self.url, self.key, self.secret, self.pid = name, url, key, secret, pid

    @property
    def http(self) -> str:
        return self.url.replace("ws", "http", 1)

    def _pids(self) -> list[int]:
        """It and its descendants."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    children.setdefault(parent, []).append(int(entry.name))
        found = [self.pid]
        for pid in found:
            found += children.get(pid, ())
        return found

    def cpu(self) -> float:
        """Seconds on a core so far, user and system, of all its living threads; nanoseconds, where stat has ticks."""
        total = 0
        for pid in self._pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def waited(self) -> float:
        """Seconds so far in which its threads could have run and had no core: what others on the machine took."""
        total = 0
        for pid in self._pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    total += int((task / "schedstat").read_text().split()[1])
        return total / 1e9

    def loop(self) -> dict[str, Any] | None:
        """What lkactor says of its event loop (`/debug/loop`); None for other servers."""
        grants = {"room_list": True}
        token = issue_token(self.key, self.secret, identity="bench", video=grants, now_unix=time.time())
        request = urllib.request.Request(f"{self.http}/debug/loop", headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                found: dict[str, Any] = json.load(answer)
        except (urllib.error.HTTPError, ValueError):
            return None
        return found

    def pss(self) -> int:
        """Proportional set size, bytes."""
        total = 0
        for pid in self._pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total

    def pin(self) -> None:
        """To the server's core, whatever it was started with. (A Go process starts best under `taskset -c 0`.)"""
        for pid in self._pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(int(task.name), {CORES[0]})


MOST_STOLEN = 0.25
"""Of the servers' core, as a share. With more no row says what a server can do."""


def stolen() -> float:
    """Seconds for which the machine under this one has had the servers' core for itself, since the start."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{CORES[0]}":
            return int(ticks[7]) / os.sysconf("SC_CLK_TCK")
    return 0.0


@contextlib.contextmanager
def server(port: int = 0, plane: str = "auto", name: str = "") -> Iterator[Server]:
    """lkactor on the first core; the caller keeps to the last. Raises RuntimeError when it does not start."""
    port = port or free_ports(3)
    pinned = ["taskset", "-c", str(CORES[0])] if shutil.which("taskset") else []
    command = [*pinned, sys.executable, "-m", "lkactor", "serve", "--bind", "127.0.0.1", "--port", str(port)]
    command += ["--udp-port", str(port + 1), "--keys", f"{KEY}: {SECRET}"]
    command += ["--config-body", f"rtc: {{tcp_port: {port + 2}}}\nlogging: {{level: error}}\nforwarding_plane: {plane}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        os.sched_setaffinity(0, {CORES[-1]})
        wait_for(f"http://127.0.0.1:{port}/")
        if process.poll() is not None:
            raise RuntimeError(f"port {port} is somebody else's")
        yield Server(name or f"lkactor {plane}", f"ws://127.0.0.1:{port}", KEY, SECRET, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        os.sched_setaffinity(0, CORES)


def free_ports(count: int) -> int:
    """The first of some that are free in a row, for TCP and for UDP."""
    for first in range(17900 + os.getpid() % 64 * 16, 30000, count):
        with contextlib.ExitStack() as cleanup:
            try:
                for port in range(first, first + count):
                    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                        probe = cleanup.enter_context(socket.socket(socket.AF_INET, kind))
                        probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise RuntimeError("no port is free")


def wait_for(url: str) -> None:
    for _ in range(1500):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url).read()
            return
        time.sleep(0.02)
    raise RuntimeError(f"nothing answers at {url}")


class Load:
    """Our own share of a core while something was measured."""

    LIMIT = 0.85

    def __init__(self) -> None:
        self._cpu, self._at = time.process_time(), time.monotonic()

    def share(self) -> float:
        return (time.process_time() - self._cpu) / (time.monotonic() - self._at)
