"""One peer connection over a UDP socket of its own: the sans-IO peer, driven on Trio."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable
from typing import Protocol

import trio

from lkactor.dtls import Certificate
from lkactor.ice import host_candidates
from lkactor.peer import PeerConnection, PeerEvent, PeerState
from lkactor.peer.negotiation import NegotiationEvent
from lkactor.wire.address import Address
from lkactor.wire.rtcp import RtcpPacket, build_rtcp
from lkactor.wire.rtp import RtpPacket

BURST = 256
"""Datagrams read in one turn."""
RECEIVE_BUFFER = 4 * 1024 * 1024
LONGEST_SLEEP = 0.25


class Negotiation(Protocol):
    """What of offer and answer has a clock."""

    def next_timeout(self) -> float | None: ...
    def handle_timeout(self, now: float) -> None: ...
    def next_event(self) -> NegotiationEvent | None: ...


class Transport:
    """`host` is the server's: the interface towards it is what we announce. Raises OSError without a route there.

    The callbacks run on the transport's task and must not block; `on_turn` runs after each burst and each timeout.
    """

    def __init__(self, host: str, *, controlling: bool, certificate: Certificate, rng: random.Random) -> None:
        family, ip = local_address(host)
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.socket.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
        self._family = family
        candidates = host_candidates([ip], self.socket.getsockname()[1], None)
        self.peer = PeerConnection(rng=rng, certificate=certificate, candidates=candidates, controlling=controlling)
        self.negotiation: Negotiation | None = None
        self.connected = trio.Event()
        self.on_event: Callable[[PeerEvent], None] = lambda _: None
        self.on_rtp: Callable[[list[RtpPacket]], None] = lambda _: None
        self.on_rtcp: Callable[[list[RtcpPacket]], None] = lambda _: None
        self.on_turn: Callable[[float], None] = lambda _: None
        self.datagrams_sent = self.send_blocked = 0
        self._wake = trio.Event()

    def wake(self) -> None:
        """Something was given to the peer or the negotiation from outside."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            while True:
                self._turn()
                now = trio.current_time()
                self._wake = trio.Event()
                with trio.move_on_at(max(now + 0.001, min(self._deadline(), now + LONGEST_SLEEP))):
                    await self._wake.wait()
                now = trio.current_time()
                if (due := self.peer.next_timeout()) is not None and now >= due:
                    self.peer.handle_timeout(now)
                if self.negotiation is not None:
                    due = self.negotiation.next_timeout()
                    if due is not None and now >= due:
                        self.negotiation.handle_timeout(now)

    def say_goodbye(self) -> None:
        """The socket stays open until `close`, for `run` may be waiting for it."""
        now = trio.current_time()
        self.peer.close(now)
        self._send(now)

    def close(self) -> None:
        """After `run` has ended."""
        self.socket.close()

    # -- sending ----------------------------------------------------------------------------------------------------

    def send_rtp(self, packet: bytes) -> bytes | None:
        """Protect and send; what was sent, for a retransmission. None: not connected, or the socket was full."""
        sender = self.peer.sender
        if sender is None:
            return None
        protected = sender.protect_rtp(packet)
        self.send_raw(protected)
        return protected

    def send_rtcp(self, packets: list[RtcpPacket]) -> None:
        sender = self.peer.sender
        if sender is not None and packets:
            self.send_raw(sender.protect_rtcp(build_rtcp(packets)))

    def send_raw(self, data: bytes) -> None:
        path = self.peer.ice.selected
        if path is not None:
            self._put(data, path)

    def _put(self, data: bytes, address: Address) -> None:
        if address.transport != "udp" or (":" in address.ip) != (self._family == socket.AF_INET6):
            return
        try:
            self.socket.sendto(data, (address.ip, address.port))
            self.datagrams_sent += 1
        except BlockingIOError:
            self.send_blocked += 1
        except OSError:
            # No route to one of the server's candidates: another pair will do.
            pass

    # -- inside -----------------------------------------------------------------------------------------------------

    def _deadline(self) -> float:
        due = [self.peer.next_timeout(), None if self.negotiation is None else self.negotiation.next_timeout()]
        return min((deadline for deadline in due if deadline is not None), default=float("inf"))

    def _turn(self) -> None:
        now = trio.current_time()
        while (event := self.peer.next_event()) is not None:
            self.on_event(event)
        if self.peer.state is PeerState.CONNECTED:
            self.connected.set()
        if rtp := self.peer.take_rtp():
            self.on_rtp(rtp)
        if rtcp := self.peer.take_rtcp():
            self.on_rtcp(rtcp)
        self.on_turn(now)
        self._send(now)

    def _send(self, now: float) -> None:
        for data, address in self.peer.datagrams_to_send(now):
            self._put(data, address)

    async def _read(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            now = trio.current_time()
            with contextlib.suppress(BlockingIOError):
                for _ in range(BURST):
                    try:
                        data, source = self.socket.recvfrom(2048)
                    except ConnectionError:
                        continue  # an ICMP error of an earlier datagram
                    self.peer.receive_datagram(data, Address("udp", *source[:2]), now)
            self.wake()
            await trio.lowlevel.checkpoint()


def local_address(host: str) -> tuple[socket.AddressFamily, str]:
    """(family, our address) on the way to a host. Raises OSError."""
    error: OSError | None = None
    # A connected UDP socket sends nothing; the kernel chooses the interface.
    found = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
    for family, _, _, _, address in sorted(found, key=lambda entry: entry[0] != socket.AF_INET):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(address)
            except OSError as failure:
                error = failure
                continue
            return family, str(probe.getsockname()[0]).partition("%")[0]
    raise error or OSError(f"no address for {host}")
