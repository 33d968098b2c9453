"""One peer connection over a UDP socket of its own, TCP connections and relays: the sans-IO peer, driven on Trio."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import trio
from livekit.protocol import rtc

from lkactor.client.arrival import CONTROL, stamp_arrivals, waited
from lkactor.client.paths import Relay, TcpPath, Way, turn_servers, why_not
from lkactor.dtls import Certificate
from lkactor.ice import Candidate, host_candidates
from lkactor.ice.candidate import priority
from lkactor.peer import PeerConnection, PeerEvent, PeerState
from lkactor.peer.negotiation import NegotiationEvent
from lkactor.turn.message import Peer
from lkactor.wire.address import Address
from lkactor.wire.rtcp import RtcpPacket, build_rtcp
from lkactor.wire.rtp import RtpPacket

BURST = 256
"""Datagrams read in one turn."""
RECEIVE_BUFFER = 4 * 1024 * 1024
LONGEST_SLEEP = 0.25
TCP_AFTER, RELAY_AFTER = 0.5, 1.5
"""Seconds that UDP has for itself in way `auto`: then a firewall is likely."""
MAX_RELAYS = 4
RELAY_PRIORITY = priority("relay", 65535)


class Negotiation(Protocol):
    """What of offer and answer has a clock."""

    def next_timeout(self) -> float | None: ...
    def handle_timeout(self, now: float) -> None: ...
    def next_event(self) -> NegotiationEvent | None: ...


class Transport:
    """`host` is the server's: the interface towards it is what we announce. Raises OSError without a route there.

    The callbacks run on the transport's task and must not block; `on_turn` runs after each burst and each timeout.
    """

    def __init__(
        self, host: str, *, controlling: bool, certificate: Certificate, rng: random.Random, way: Way = "auto"
    ) -> None:
        family, ip = local_address(host)
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        stamp_arrivals(self.socket)
        self.socket.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
        self._family = family
        self._rng, self._way = rng, way
        candidates = host_candidates([ip], self.socket.getsockname()[1], None) if way in ("auto", "udp") else []
        self.peer = PeerConnection(rng=rng, certificate=certificate, candidates=candidates, controlling=controlling)
        self.peer.ice.uses_udp = way in ("auto", "udp")
        self.ice_servers: Sequence[rtc.ICEServer] = ()
        self.on_relayed: Callable[[Peer], None] = lambda _: None
        """With the address that a TURN server gave us, for a candidate."""
        self._streams: dict[tuple[str, int], TcpPath] = {}
        self._relays: list[Relay] = []
        self._announced: set[Peer] = set()
        self._opened: set[Address] = set()
        """Paths of this ICE generation that are being checked."""
        self._begun: float | None = None
        self._generation = ""
        self._nursery: trio.Nursery | None = None
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
            self._nursery = nursery
            nursery.start_soon(self._read)
            while True:
                self._open_ways(trio.current_time())
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
        for relay in self._relays:
            relay.end()

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

    @property
    def path(self) -> str:
        """What the media takes, for people."""
        selected = self.peer.ice.selected
        if selected is None:
            return "none"
        via = f" by {self._relays[selected.local - 1].server}" if selected.local else ""
        return f"{selected.transport} {selected.ip}:{selected.port}{via}"

    def describe_failure(self) -> str:
        """What was tried, and what came of it."""
        tried = [self.peer.ice.describe_pairs() if self.peer.ice.remote_candidates else "the server named no address"]
        tried += [f"tcp {ip}:{port}: {path.stream.problem}" for (ip, port), path in self._streams.items()]
        tried = [line for line in tried if not line.endswith(": ")]
        if self._way.startswith("relay") and not self._relays:
            tried = ["the server names no TURN server of this kind"]
        elif problems := why_not(self._relays):
            tried.append(problems)
        return "; ".join(tried)

    def _put(self, data: bytes, address: Address) -> None:
        if address.local or address.transport == "tcp":
            way = self._streams.get((address.ip, address.port))
            if address.local:
                sent = self._relays[address.local - 1].send(Peer(address.ip, address.port), data)
            else:
                sent = way is not None and way.send(data)
            self.datagrams_sent += sent
            self.send_blocked += not sent
            return
        if (":" in address.ip) != (self._family == socket.AF_INET6):
            return
        try:
            self.socket.sendto(data, (address.ip, address.port))
            self.datagrams_sent += 1
        except BlockingIOError:
            self.send_blocked += 1
        except OSError:
            # No route to one of the server's candidates: another pair will do.
            pass

    # -- other ways than the socket --------------------------------------------------------------------------------

    def _open_ways(self, now: float) -> None:
        """Dial what may be tried by now, until the path stands; an ICE restart begins anew."""
        ice, nursery = self.peer.ice, self._nursery
        if nursery is None or self._way == "udp" or ice.remote_ufrag is None:
            return
        if self._generation != ice.local_ufrag:
            self._generation, self._begun = ice.local_ufrag, now
            self._opened.clear()
        if ice.settled:
            return
        waited = now - (self._begun or now)
        for candidate in ice.remote_candidates:
            if candidate.component != 1 or not candidate.port:
                continue
            if candidate.transport == "tcp" and (self._way == "tcp" or (self._way == "auto" and waited >= TCP_AFTER)):
                self._open_stream(candidate, nursery, now)
        if self._way.startswith("relay") or (self._way == "auto" and waited >= RELAY_AFTER):
            self._open_relays(nursery, now)

    def _open_stream(self, candidate: Candidate, nursery: trio.Nursery, now: float) -> None:
        """A passive candidate is ours to connect to (RFC 6544 section 5.2)."""
        address = Address("tcp", candidate.ip, candidate.port)
        if candidate.tcp_type != "passive" or address in self._opened:
            return
        self._opened.add(address)
        known = self._streams.get((address.ip, address.port))
        if known is not None and not known.stream.problem:
            self.peer.ice.add_path(address, candidate.priority, now)
            return

        def receive(data: bytes) -> None:
            self.peer.receive_datagram(data, address, trio.current_time())
            self.wake()

        def up() -> None:
            self.peer.ice.add_path(address, candidate.priority, trio.current_time())
            self.wake()

        path = self._streams[address.ip, address.port] = TcpPath(address.ip, address.port, receive)
        nursery.start_soon(path.stream.run, up)

    def _open_relays(self, nursery: trio.Nursery, now: float) -> None:
        if not self._relays:
            for local, server in enumerate(turn_servers(self.ice_servers, self._way)[:MAX_RELAYS], 1):
                self._relays.append(Relay(server, self._rng, self._receiver(local), self.wake))
                nursery.start_soon(self._relays[-1].run)
        for local, relay in enumerate(self._relays, 1):
            if relay.relayed is None:
                continue
            if relay.relayed not in self._announced:
                self._announced.add(relay.relayed)
                self.on_relayed(relay.relayed)
            for candidate in self.peer.ice.remote_candidates:
                address = Address("udp", candidate.ip, candidate.port, local)
                if candidate.transport == "udp" and candidate.port and address not in self._opened:
                    self._opened.add(address)
                    if relay.reach(Peer(candidate.ip, candidate.port)):
                        self.peer.ice.add_path(address, RELAY_PRIORITY, now)

    def _receiver(self, local: int) -> Callable[[Peer, bytes], None]:
        def receive(peer: Peer, data: bytes) -> None:
            self.peer.receive_datagram(data, Address("udp", peer.ip, peer.port, local), trio.current_time())
            self.wake()

        return receive

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
            self.on_rtcp([packet for packet, _ in rtcp])
        self.on_turn(now)
        self._send(now)

    def _send(self, now: float) -> None:
        for data, address in self.peer.datagrams_to_send(now):
            self._put(data, address)

    async def _read(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            now, time_of_day = trio.current_time(), time.time()
            with contextlib.suppress(BlockingIOError):
                for _ in range(BURST):
                    try:
                        data, control, _flags, source = self.socket.recvmsg(2048, CONTROL)
                    except ConnectionError:
                        continue  # an ICMP error of an earlier datagram
                    # Media only: the clocks of handshakes and checks must not go back.
                    ago = waited(control, time_of_day) if data and 128 <= data[0] <= 191 else 0.0
                    self.peer.receive_datagram(data, Address("udp", *source[:2]), now - ago)
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
