"""Both planes received from without a thread, and what comes of it in the same words."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from actors.pump import PlaneLock, PythonPump, Source
from actors.sending import sender_for
from lkactor.plane import HandedUp, IngressCell, InlineIngress, InlineSocket, Plane, PythonPlane


def packed(address: tuple[Any, ...]) -> bytes:
    """A socket's name as the kernel has it."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    ip, port = socket.inet_pton(family, address[0]), address[1].to_bytes(2, "big")
    if family == socket.AF_INET:
        return struct.pack("=H2s4s8x", family, port, ip)
    return struct.pack("=H2s4s16sI", family, port, bytes(4), ip, 0)


def unpacked(address: bytes) -> tuple[Any, ...]:
    """As `recvfrom` has it."""
    port = int.from_bytes(address[2:4], "big")
    if int.from_bytes(address[:2], "little") == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, address[4:8]), port
    return socket.inet_ntop(socket.AF_INET6, address[8:24]), port, 0, 0


class Known(NamedTuple):
    """A route."""

    number: int
    ingress: InlineIngress | None


class RoutedSocket(InlineSocket):
    """Knows the routes, as `actors.net` does."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.fileno())
        self.sock = sock
        self.sender = sender_for(sock.fileno())
        self.routes: dict[tuple[Any, ...], Known] = {}

    def set_route(self, address: bytes, number: int, ingress: IngressCell | None) -> None:
        if number:
            self.routes[unpacked(address)] = Known(number, ingress if isinstance(ingress, InlineIngress) else None)
        else:
            self.routes.pop(unpacked(address), None)


class InlinePump(PythonPump):
    """What it hands up looks as what the kernel's does."""

    def __init__(self, plane: PythonPlane, cells: Sequence[RoutedSocket], now: float) -> None:
        assert plane.intake is not None
        self._cells = cells
        super().__init__([Source(cell.sock, cell, cell.routes) for cell in cells], plane.intake, PlaneLock(), now)

    def take(self, most: int) -> list[HandedUp]:
        taken = []
        for number, _, address, data, arrival, opened in super().take(most):
            assert isinstance(address, tuple)
            route = self._cells[number].routes.get(address)
            taken.append((number, route.number if route else 0, packed(address), data, arrival, opened))
        return taken


def receiving_cell(plane: Plane, sock: socket.socket) -> Any:
    """What tells the plane of a socket that it receives from."""
    return RoutedSocket(sock) if isinstance(plane, PythonPlane) else plane.socket(sock.fileno())


def pump_of(plane: Plane, cells: Sequence[Any], now: float) -> Any:
    return InlinePump(plane, cells, now) if isinstance(plane, PythonPlane) else plane.pump(cells, now)
