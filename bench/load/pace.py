"""When packets leave. Clocks that tick some thousand times a second: epoll's own timeouts are whole milliseconds,
timerfd's are not.
"""

from __future__ import annotations

import ctypes
import os
import time
from types import TracebackType

import trio

CLOCK_MONOTONIC = 1
FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
"""The same bits as TFD_NONBLOCK and TFD_CLOEXEC (sys/timerfd.h)."""
APART = 1e-4
"""Seconds from a packet of a picture to the next. Chromium's pacer lets a picture go at once: 26 and 134 us (p10 and
median) between its packets, on the machine of docs/benchmarks.md."""


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Time), ("first", _Time))


class Pace:
    """`rate` ticks a second, evenly spaced; may be changed at any time. 0: none."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.timerfd_create(CLOCK_MONOTONIC, FLAGS)
        self.rate = 0.0

    def set(self, rate: float) -> None:
        if rate != self.rate:
            self.rate = rate
            seconds, nanoseconds = divmod(int(1e9 / rate) if rate else 0, 10**9)
            interval = _Time(seconds, nanoseconds)
            self._libc.timerfd_settime(self._descriptor, 0, ctypes.byref(_Timer(interval, interval)), None)

    async def ticks(self) -> int:
        """Waits for the next; more than one when we come late."""
        while True:
            await trio.lowlevel.wait_readable(self._descriptor)
            try:
                return int.from_bytes(os.read(self._descriptor, 8), "little")
            except BlockingIOError:
                continue  # The rate was changed meanwhile, and with it the count is zero again.

    def close(self) -> None:
        os.close(self._descriptor)


class Departures:
    """Of a stream's packets: `together` of them, a picture's, APART one after the other, and pictures evenly spaced;
    where it is 1, packets."""

    def __init__(self, together: int) -> None:
        self._together, self._place = together, -1
        self._pictures, self._packets = Pace(), Pace()
        self._due, self._last = 0, 0.0
        self._crowded = False

    async def next(self, rate: float) -> bool:
        """Waits until the next packet is due, at `rate` packets a second. True: it, or the picture that it is of, comes
        less than half an interval after the one before, since we make up for what we were late."""
        self._place = (self._place + 1) % self._together
        if self._place:
            self._packets.set(1 / APART)
            await self._packets.ticks()
            return self._crowded
        self._packets.set(0)
        if not self._due:
            self._pictures.set(rate / self._together)
            self._due = await self._pictures.ticks()
        self._due -= 1
        now = time.monotonic()
        self._crowded = now - self._last < 0.5 / self._pictures.rate
        self._last = now
        return self._crowded

    def __enter__(self) -> Departures:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pictures.close()
        self._packets.close()
