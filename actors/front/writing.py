"""Bytes for a client's socket: at once as far as it takes them, the rest when it takes more.

A room may tell hundreds in one turn of the loop, and each write is a system call of some 100 us. So what is said when
a turn is long already is written in the next ones, and no turn gets longer for it.

    IDLE      everything is written               -> `write` in a long turn: LATE; the socket is full: BEHIND
    LATE      pieces wait for a later turn        -> written: IDLE; the socket is full: BEHIND
    BEHIND    pieces wait for the socket          -> it has taken them: IDLE; it breaks: nothing is written any more
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from itertools import count

import trio

from actors.looptime import LoopTime

FEWEST = 8
"""Sockets that are written to in a turn, however long it is."""
MANY = 32
"""Pieces for one socket that wait for a later turn; with one more they are written."""
StartSoon = Callable[..., None]


class LateWrites:
    """The writers that wait for a later turn, in the order in which they came."""

    def __init__(self, loop: LoopTime) -> None:
        self.loop = loop
        self._writers: deque[Writer] = deque()

    def add(self, writer: Writer, start_soon: StartSoon) -> None:
        """`start_soon`: for the task that there is as long as somebody waits."""
        self._writers.append(writer)
        if len(self._writers) == 1:
            start_soon(self._write)

    async def _write(self) -> None:
        while True:
            for written in count(1):
                self._writers.popleft().write_late()
                if not self._writers:
                    return
                if written >= FEWEST and self.loop.is_late():
                    break
            await trio.lowlevel.checkpoint()


class Writer:
    """The sending half of one socket, which does not block."""

    __slots__ = ("_drained", "_is_late", "_late", "_peer", "_rest", "_start_soon", "broken")

    def __init__(self, peer: socket.socket, start_soon: StartSoon, late: LateWrites) -> None:
        self._peer = peer
        self._start_soon = start_soon
        self._late = late
        self._rest: list[bytes] = []
        self._is_late = False
        self._drained = trio.Event()
        self._drained.set()
        self.broken = False

    @property
    def waiting(self) -> int:
        """Pieces that are not written."""
        return len(self._rest)

    def write(self, data: bytes) -> None:
        """In order; in a later turn if this one is long."""
        if not self._rest and self._late.loop.is_late():
            self._rest.append(data)
            self._is_late = True
            self._drained = trio.Event()
            self._late.add(self, self._start_soon)
            return
        self._put(data)
        if self._is_late and len(self._rest) > MANY:
            self.write_late()

    def write_now(self, data: bytes) -> None:
        """For the last words: the socket may be closed before a later turn."""
        self.write_late()
        self._put(data)

    def write_late(self) -> None:
        """What waits for a later turn; nothing may."""
        if self._is_late:
            data = b"".join(self._rest)
            self._rest.clear()
            self._is_late = False
            self._put(data)
            if not self._rest:
                self._drained.set()

    async def drained(self) -> None:
        """Until the socket has taken everything, or has broken."""
        await self._drained.wait()

    def _put(self, data: bytes) -> None:
        if self._rest:
            self._rest.append(data)
            return
        rest = self._send(data)
        if rest:
            self._rest.append(rest)
            if self._drained.is_set():
                self._drained = trio.Event()
            self._start_soon(self._flush)

    def _send(self, data: bytes) -> bytes:
        """What is left of it."""
        if self.broken:
            return b""
        try:
            return data[self._peer.send(data) :]
        except BlockingIOError:
            return data
        except OSError:
            self.broken = True  # The reading side finds out, too, and ends the connection.
            self._rest.clear()
            return b""

    async def _flush(self) -> None:
        while self._rest:
            try:
                await trio.lowlevel.wait_writable(self._peer)
            except trio.ClosedResourceError:
                break
            rest = self._send(self._rest[0])
            if rest:
                self._rest[0] = rest
            elif self._rest:
                self._rest.pop(0)
        self._drained.set()
