"""How long the machine stops a core: somebody of real-time priority wants it every few milliseconds, and is late.

`with heartbeat(core) as beat:` and afterwards `beat.longest`. As a script it is that somebody: `heartbeat.py CORE`
prints the longest delay in milliseconds when its standard input ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator

PERIOD = 0.005
PRIORITY = 50


class Beat:
    """`longest`: milliseconds; None: real-time priority is not to be had here (it takes root), so nobody knows."""

    longest: float | None = None


@contextlib.contextmanager
def heartbeat(core: int) -> Iterator[Beat]:
    """While the body runs. It takes some 1 per cent of the core."""
    beat = Beat()
    command = [sys.executable, __file__, str(core)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield beat
        finally:
            output, _ = process.communicate()
            beat.longest = float(output) if output.strip() else None


def _main(core: int) -> None:
    os.sched_setaffinity(0, {core})
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except PermissionError:
        return
    longest, due = 0.0, time.monotonic() + PERIOD
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        now = time.monotonic()
        longest, due = max(longest, now - due), now + PERIOD
    print(round(longest * 1000, 3))


if __name__ == "__main__":
    _main(int(sys.argv[1]))
