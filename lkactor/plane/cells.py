"""What the actors write into the forwarding table: sockets, egresses and ingresses. Without the kernel nobody reads
them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from lkactor.ice import Consent
from lkactor.sfu.twcc import Arrival
from lkactor.srtp import SrtpReceiver, SrtpSender

OPENED, REST, RTCP = 1, 2, 3
"""What became of a datagram before it is handed up, 0: nothing; it is RTP and unprotected; and all but some rows have
it; it is RTCP and unprotected."""
RECORDS, DTLS_DATA = 4, b"\x17"
"""So much RTCP, or so many records of data channels, count as one datagram when what is handed up is counted: they cost
less than most of the rest, and who is handed many at once answers them by one turn. What records begin with (RFC 5246
section 6.2.1)."""
PackedAddress = bytes
"""A `struct sockaddr_in` or `sockaddr_in6`."""
HandedUp = tuple[int, int, "PackedAddress | tuple[Any, ...]", bytes, float, int]
"""The number of the socket, that of the route, 0 if it is not known, from whom, packed or as `recvfrom` has it, the
datagram, when, and 0, OPENED, REST or RTCP."""


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

    @property
    def received(self) -> tuple[int, int, int]:
        """(datagrams, bytes, errors) that the kernel's own thread has read."""

    def set_route(self, address: PackedAddress, number: int, ingress: IngressCell | None) -> None:
        """Datagrams from `address` are handed up with `number`; RTP among them is `ingress`'s.
        Number 0 forgets the address."""


class IngressCell(Protocol):
    """Where one peer connection is read."""

    on_news: Callable[[], None] | None
    """Called when there is something to take."""

    def set_keys(self, srtp: SrtpReceiver | None) -> None:
        """From now on RTP is opened before it is handed up; None: no more."""

    def set_transport_cc(self, id: int) -> None:
        """The header extension with the transport-wide sequence number; 0: none."""

    def set_eager(self, eager: bool) -> None:
        """Reports that say nothing new are read as soon as others, from now on; else within a second or so."""

    def set_consent(self, socket: SocketCell | None, address: PackedAddress, consent: Consent | None) -> None:
        """The peer's checks from `address` may be answered before anybody sees them; None: they may not."""

    @property
    def heard(self) -> float:
        """When the last check was answered so; minus infinity: none has been."""

    @property
    def has_track_news(self) -> bool:
        """Some stream of it has audio levels or losses to take."""

    def take_arrivals(self) -> Iterable[Arrival]:
        """Of packets that Python has not seen."""

    def take_refusals(self) -> Mapping[str, int]:
        """What SRTP has refused since the last call, by reason."""


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
        self.received = (0, 0, 0)

    def set_route(self, address: PackedAddress, number: int, ingress: IngressCell | None) -> None:
        pass


class NoIngressCell:
    """A peer whose packets are all read by Python."""

    def __init__(self) -> None:
        self.on_news: Callable[[], None] | None = None

    def set_keys(self, srtp: SrtpReceiver | None) -> None:
        pass

    def set_transport_cc(self, id: int) -> None:
        pass

    def set_eager(self, eager: bool) -> None:
        pass

    def set_consent(self, socket: SocketCell | None, address: PackedAddress, consent: Consent | None) -> None:
        pass

    heard = -math.inf
    has_track_news = False

    def take_arrivals(self) -> Iterable[Arrival]:
        return ()

    def take_refusals(self) -> Mapping[str, int]:
        return {}


class NoEgressCell:
    """An egress that only Python writes to."""

    def set_ready(self, ready: bool) -> None:
        pass

    def set_keys(self, srtp: SrtpSender | None) -> None:
        pass

    def set_path(self, socket: SocketCell | None, address: bytes) -> None:
        pass
