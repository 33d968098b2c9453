"""The Python plane received from as the UDP actor does it, with the face of the kernel's pump."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Sequence
from typing import Any

from actors.sending import sender_for
from lkactor.plane import OPENED, HandedUp, IngressCell, InlineIngress, InlineSocket, Plane, PythonPlane
from lkactor.srtp import PacketBuffer
from lkactor.wire.rtp import is_rtp

MESSAGES = 64


def packed(address: tuple[Any, ...]) -> bytes:
    """A socket's name as the kernel has it."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    ip, port = socket.inet_pton(family, address[0]), address[1].to_bytes(2, "big")
    if family == socket.AF_INET:
        return struct.pack("=H2s4s8x", family, port, ip)
    return struct.pack("=H2s4s16sI", family, port, bytes(4), ip, 0)


class RoutedSocket(InlineSocket):
    """Knows the routes, as `actors.net` does."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.fileno())
        self.sock = sock
        self.sender = sender_for(sock.fileno())
        self.routes: dict[bytes, tuple[int, IngressCell | None]] = {}

    def set_route(self, address: bytes, number: int, ingress: IngressCell | None) -> None:
        if number:
            self.routes[address] = number, ingress
        else:
            self.routes.pop(address, None)


class InlinePump:
    def __init__(self, plane: PythonPlane, cells: Sequence[RoutedSocket], now: float) -> None:
        assert plane.intake is not None
        self._intake, self._cells = plane.intake, cells
        self._up: list[HandedUp] = []
        self._ticks = itertools.count()
        self._now = now
        self._buffer = PacketBuffer(1, 2048)
        self.rings_with_news = False

    def _clock(self) -> float:
        return self._now + next(self._ticks) * 1e-6

    def once(self) -> int:
        count = 0
        for number, cell in enumerate(self._cells):
            for _ in range(MESSAGES):
                try:
                    data, address = cell.sock.recvfrom(2048)
                except BlockingIOError:
                    break
                count += 1
                self._receive(number, cell, data, packed(address))
        self._intake.flush(0.0, self._clock)
        if self._intake.news:
            self.rings_with_news = False
        return count

    def _receive(self, number: int, cell: RoutedSocket, data: bytes, address: bytes) -> None:
        route, ingress = cell.routes.get(address, (0, None))
        now = self._clock()
        if is_rtp(data) and isinstance(ingress, InlineIngress) and ingress.ready and not cell.divert:
            self._buffer.view[: len(data)] = data
            opened = ingress.receive(self._buffer, len(data), now)
            if opened is not None:
                self._up.append((number, route, address, opened[0], now, opened[1]))
        elif isinstance(ingress, InlineIngress) and ingress.ready and not cell.divert:
            other, rtcp = ingress.open_other(data)
            self._up.append((number, route, address, other, now, rtcp))
        else:
            self._up.append((number, route, address, data, now, 0))

    def take(self, most: int) -> list[HandedUp]:
        up, self._up = self._up[:most], self._up[most:]
        taken = [left for datagram in up if (left := self._take_again(datagram)) is not None]
        self._intake.flush(0.0, self._clock)
        return taken

    @property
    def has_more(self) -> bool:
        return bool(self._up)

    def _take_again(self, datagram: HandedUp) -> HandedUp | None:
        number, route, address, data, arrival, opened = datagram
        _, ingress = self._cells[number].routes.get(address, (0, None))  # type: ignore[arg-type]
        if opened != OPENED or not isinstance(ingress, InlineIngress):
            return datagram
        rest = ingress.take(data, arrival)
        return (number, route, address, data, arrival, rest) if rest else None

    def tell_news(self) -> bool:
        told = self._intake.tell_news()
        self.rings_with_news = not told
        return told

    def stop(self) -> None:
        pass


def receiving_cell(plane: Plane, sock: socket.socket) -> Any:
    """What tells the plane of a socket that it receives from."""
    return RoutedSocket(sock) if isinstance(plane, PythonPlane) else plane.socket(sock.fileno())


def pump_of(plane: Plane, cells: Sequence[Any], now: float) -> Any:
    return InlinePump(plane, cells, now) if isinstance(plane, PythonPlane) else plane.pump(cells, now)
