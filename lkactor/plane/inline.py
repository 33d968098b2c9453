"""What the actors write into the forwarding table of the Python plane, and what it sends by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from lkactor.plane.cells import IngressCell, PackedAddress, SocketCell
from lkactor.srtp import SrtpSender

if TYPE_CHECKING:
    from lkactor.plane.riding import RidingLeg


class Sender(Protocol):
    """Sends many datagrams by one call: `sendmmsg`. It never blocks and never raises; what does not fit is dropped."""

    packets: int
    bytes: int
    buffer_full: int
    errors: int
    gso: bool
    """Runs of one destination may share a message (UDP_SEGMENT)."""

    def prepare(self, addresses: Sequence[PackedAddress], parts: int, run: int) -> Any:
        """Messages for `send`: the first `run` of the `struct iovec` at `parts` go to the first address, the next ones
        to the second, and so on."""

    def count(self, reason: int, datagrams: int) -> None:
        """They did not go, for this `errno`."""

    def send(self, messages: Any, first: int, count: int, sizes: Sequence[int]) -> None:
        """`count` of the messages, from the `first` on, each of datagrams of these sizes: equal, the last may be
        less."""


class InlineSocket:
    """One UDP socket; `sender` None: only Python sends on it, one datagram at a time."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.divert = False
        self.sender: Sender | None = None
        self.received = (0, 0, 0)
        """As `SocketCell.received`, for whoever reads it to write."""

    @property
    def packets(self) -> int:
        return self.sender.packets if self.sender is not None else 0

    @property
    def bytes(self) -> int:
        return self.sender.bytes if self.sender is not None else 0

    @property
    def buffer_full(self) -> int:
        return self.sender.buffer_full if self.sender is not None else 0

    @property
    def errors(self) -> int:
        return self.sender.errors if self.sender is not None else 0

    def set_route(self, address: PackedAddress, number: int, ingress: IngressCell | None) -> None:
        """Whoever reads the socket knows the routes itself."""


class InlineEgress:
    """Legs that ride alight before anything of it changes."""

    def __init__(self, lock: AbstractContextManager[object], *, protect: bool) -> None:
        self._lock = lock
        self.ready = False
        self.srtp: SrtpSender | None = None
        self.socket: InlineSocket | None = None
        self.address: PackedAddress = b""
        self.riders: set[RidingLeg] = set()
        self._protect = protect

    def set_ready(self, ready: bool) -> None:
        with self._lock:
            self.ready = ready
            if not ready:
                self._alight()

    def set_keys(self, srtp: SrtpSender | None) -> None:
        with self._lock:
            self._alight()
            self.srtp = srtp

    def set_path(self, socket: SocketCell | None, address: bytes) -> None:
        with self._lock:
            self._alight()
            self.socket = socket if isinstance(socket, InlineSocket) else None
            self.address = address

    def _alight(self) -> None:
        for leg in list(self.riders):
            leg.alight()

    @property
    def way(self) -> InlineSocket | None:
        """The socket, if many can be written to by it at once, now."""
        socket = self.socket
        if socket is None or socket.sender is None or socket.divert or (self._protect and self.srtp is None):
            return None
        return socket


Clock = Callable[[], float]
