"""When a datagram came, by the kernel's clock: how long it then lay in the socket is our own doing, not the network's.

Linux stamps a datagram with the time of day when it takes it in (SO_TIMESTAMPNS, socket(7)). Elsewhere, and for what
comes over a stream, the arrival is the moment of reading.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Iterable

SO_TIMESTAMPNS = 35
"""Also the kind of its control message. Python names neither."""
CONTROL = 64
"""Octets for control messages: one timespec and its header."""
_TIMESPEC = struct.Struct("@ll")
MOST = 5.0
"""Seconds; who sets the clock back or forward meanwhile gets no nonsense."""


def stamp_arrivals(sock: socket.socket) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def waited(control: Iterable[tuple[int, int, bytes]], time_of_day: float) -> float:
    """Seconds between the arrival and `time_of_day`; 0 if that is not known."""
    for level, kind, value in control:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(value) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(value)
            age = time_of_day - (seconds + nanoseconds * 1e-9)
            return float(age) if 0.0 < age < MOST else 0.0
    return 0.0
