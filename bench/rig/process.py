"""The server as a process of its own, and what it costs: /proc is the witness."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

KEY, SECRET = "bench", "a-secret-of-the-bench-32-bytes-or-more"


class Server:
    """`url`, and the process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.url = f"ws://127.0.0.1:{port}"

    def cpu(self) -> float:
        """Seconds on a core so far, user and system, of all its living threads; nanoseconds, where stat has ticks."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9

    def pss(self) -> int:
        """Proportional set size, bytes."""
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no Pss in smaps_rollup")


@contextlib.contextmanager
def server(port: int = 17990, plane: str = "auto") -> Iterator[Server]:
    """A server on core 0; the caller keeps to core 1."""
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "lkactor", "serve", "--bind", "127.0.0.1", "--port", str(port)]
    command += ["--udp-port", str(port + 1), "--keys", f"{KEY}: {SECRET}"]
    command += ["--config-body", f"rtc: {{tcp_port: {port + 2}}}\nlogging: {{level: error}}\nforwarding_plane: {plane}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        os.sched_setaffinity(process.pid, {cores[0]})
        os.sched_setaffinity(0, {cores[-1]})
        for _ in range(500):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/").read()
                break
            time.sleep(0.02)
        yield Server(process, port)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        os.sched_setaffinity(0, cores)
