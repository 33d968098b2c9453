"""What the actors write into the forwarding table: sockets and egresses. Without the kernel nobody reads them."""

from __future__ import annotations

from typing import Protocol

from lkactor.srtp import SrtpSender


class SocketCell(Protocol):
    """One UDP socket of the process. The counters are the kernel's: datagrams and bytes."""

    divert: bool
    """Nothing goes through the kernel: faults are being injected."""

    @property
    def packets(self) -> int: ...

    @property
    def bytes(self) -> int: ...

    @property
    def buffer_full(self) -> int: ...

    @property
    def errors(self) -> int: ...


class EgressCell(Protocol):
    """Where the rows of one peer connection are written to."""

    def set_ready(self, ready: bool) -> None:
        """False closes all rows of the egress, by this one write."""

    def set_keys(self, srtp: SrtpSender | None) -> None: ...

    def set_path(self, socket: SocketCell | None, address: bytes) -> None:
        """`address` is a packed sockaddr, empty for a connected socket; no socket: not a UDP path."""


class NoSocketCell:
    """A socket that only Python sends on."""

    def __init__(self) -> None:
        self.divert = False
        self.packets = self.bytes = self.buffer_full = self.errors = 0


class NoEgressCell:
    """An egress that only Python writes to."""

    def set_ready(self, ready: bool) -> None:
        pass

    def set_keys(self, srtp: SrtpSender | None) -> None:
        pass

    def set_path(self, socket: SocketCell | None, address: bytes) -> None:
        pass
