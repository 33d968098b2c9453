"""A clock that ticks some thousand times a second: epoll's own timeouts are whole milliseconds, timerfd's are not."""

from __future__ import annotations

import ctypes
import os
from types import TracebackType

import trio

CLOCK_MONOTONIC = 1
FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
"""The same bits as TFD_NONBLOCK and TFD_CLOEXEC (sys/timerfd.h)."""


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Time), ("first", _Time))


class Pace:
    """`rate` ticks a second, evenly spaced; may be changed at any time."""

    def __init__(self, rate: float) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.timerfd_create(CLOCK_MONOTONIC, FLAGS)
        self.rate = 0.0
        self.set(rate)

    def set(self, rate: float) -> None:
        if rate != self.rate:
            self.rate = rate
            seconds, nanoseconds = divmod(int(1e9 / rate), 10**9)
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

    def __enter__(self) -> Pace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
