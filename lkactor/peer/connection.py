"""One peer connection as a single sans-IO object: ICE, DTLS, SRTP and SCTP behind the five verbs.

A datagram's first byte says whose it is (RFC 7983): 0..3 STUN, 20..63 DTLS, 128..191 RTP or RTCP.

| state        | meaning                                             | leaves it                          |
|--------------|-----------------------------------------------------|------------------------------------|
| NEW          | no remote description                               | `set_remote`                       |
| CONNECTING   | checks or handshake under way                       | ICE path and DTLS keys: CONNECTED  |
| CONNECTED    | media and data flow                                 | silence: DISCONNECTED              |
| DISCONNECTED | no consent for a while; packets may still arrive    | a check: CONNECTED; more silence: FAILED |
| FAILED       | ICE gave up or the handshake was refused            | an ICE restart: CONNECTING         |
| CLOSED       | `close` or the peer's close of the association      | never                              |
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import Literal

from lkactor.counters import Counters
from lkactor.dtls import Certificate, DtlsClosed, DtlsConnected, DtlsData, DtlsEndpoint
from lkactor.errors import ProtocolViolation
from lkactor.ice import Candidate, IceAgent, IceState, IceStateChanged, IceTiming, PathKind, PathSelected
from lkactor.ice.agent import MAX_REMOTE_CANDIDATES
from lkactor.sctp import (
    ChannelClosed,
    ChannelOpened,
    MessageReceived,
    SctpAssociation,
    SctpClosed,
    SctpConnected,
    SctpLimits,
)
from lkactor.sdp import RemoteTransport
from lkactor.srtp import SrtpKeys, SrtpReceiver, SrtpSender, libsrtp
from lkactor.wire.address import Address
from lkactor.wire.rtcp import RtcpPacket, parse_rtcp
from lkactor.wire.rtp import RtpPacket, is_rtcp, parse_rtp

EARLY_MEDIA_PACKETS = 64
"""SRTP that outruns the last handshake flight waits here; more is dropped."""
EARLY_HANDSHAKE, EARLY_SIZE = 4, 2048
"""Handshake datagrams, and their octets, that outrun the check of their path wait for it; of more the last are kept."""
HANDSHAKE_TIME = (10.0, 20.0)
"""Seconds for the handshake once ICE has a path: three times what ICE took, within these (livekit-media 1.3)."""


class Moved(IntEnum):
    """What a datagram can have changed; of several the highest counts."""

    MEDIA = 0
    """There is something for `take_rtp`, `take_rtcp` or `answers`, no more."""
    DATA = 1
    """There are events and datagrams, too, and of all that has timers only `sctp` may have moved."""
    ALL = 2


class PeerState(Enum):
    NEW = auto()
    CONNECTING = auto()
    CONNECTED = auto()
    DISCONNECTED = auto()
    FAILED = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class PeerStateChanged:
    state: PeerState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PathChanged:
    """Datagrams go to `address` from now on."""

    address: Address


@dataclass(frozen=True, slots=True)
class KeysReady:
    """The handshake is done: `sender` protects what legs of this peer send, `receiver` opens what the peer sends."""

    sender: SrtpSender
    receiver: SrtpReceiver
    profile: str


PeerEvent = (
    PeerStateChanged
    | PathChanged
    | KeysReady
    | SctpConnected
    | SctpClosed
    | ChannelOpened
    | ChannelClosed
    | MessageReceived
)


class PeerConnection:
    """Verbs: `receive_datagram`, `datagrams_to_send`, `next_timeout`, `handle_timeout`, `next_event`.

    RTP and RTCP do not become events: the caller takes them in bursts with `take_rtp` and `take_rtcp`.
    """

    def __init__(
        self,
        *,
        rng: random.Random,
        certificate: Certificate,
        candidates: Sequence[Candidate],
        controlling: bool,
        lite: bool = False,
        timing: IceTiming | None = None,
        sctp_limits: SctpLimits | None = None,
        lock: AbstractContextManager[object] | None = None,
        srtp: Callable[[SrtpKeys], tuple[SrtpSender, SrtpReceiver]] = libsrtp,
    ) -> None:
        """`lock` is held while SRTP sessions are used, where another thread uses them, too; `srtp` makes them."""
        self._make_srtp = srtp
        self._lock = lock or nullcontext()
        self._sctp_limits = sctp_limits
        self._rng = rng
        self._relays: set[tuple[str, int]] = set()
        """Addresses of the peer that are relayed ones."""
        self.certificate = certificate
        self.ice = IceAgent(
            rng=rng, local_candidates=candidates, controlling=controlling, lite=lite, timing=timing or IceTiming()
        )
        self._check_timeout = self.ice.check_timeout
        self.dtls: DtlsEndpoint | None = None
        self.sctp: SctpAssociation | None = None
        self.sender: SrtpSender | None = None
        self._receiver: SrtpReceiver | None = None
        self.state = PeerState.NEW
        self.counters = Counters()
        self._dtls_path: Address | None = None
        self._events: deque[PeerEvent] = deque()
        self._rtp: list[RtpPacket] = []
        self._rtcp: list[tuple[RtcpPacket, float]] = []
        self._early: deque[tuple[bytes, float]] = deque()
        self._early_handshake: deque[tuple[bytes, Address]] = deque(maxlen=EARLY_HANDSHAKE)
        self._dtls_up = False
        self._begun_at: float | None = None
        self._handshake_due: float | None = None

    # -- set-up -----------------------------------------------------------------------------------------------------

    def set_remote(self, remote: RemoteTransport, *, dtls_client: bool, with_data: bool, now: float) -> None:
        """Apply the peer's half of a description. Idempotent; new ICE credentials mean an ICE restart.

        Raises ProtocolViolation("peer.no_fingerprint") if DTLS would have nothing to check.
        """
        if (remote.ufrag, remote.pwd) != (self.ice.remote_ufrag, self.ice.remote_pwd):
            self.ice.set_remote_credentials(remote.ufrag, remote.pwd, lite=remote.lite, now=now)
        for text in remote.candidates:
            self.add_remote_candidate(text, now)
        if self.dtls is None:
            if not remote.fingerprints:
                raise ProtocolViolation("peer.no_fingerprint")
            role: Literal["client", "server"] = "client" if dtls_client else "server"
            self.dtls = DtlsEndpoint(certificate=self.certificate, role=role, remote_fingerprints=remote.fingerprints)
            if role == "server":
                self.dtls.start(now)
        if with_data and self.sctp is None:
            side: Literal["client", "server"] = "client" if self.dtls.role == "client" else "server"
            self.sctp = SctpAssociation(rng=self._rng, dtls_role=side, limits=self._sctp_limits)
            if self._dtls_up:
                self.sctp.start(now)
        if self.state is PeerState.NEW:
            self._begun_at = now
            self._set_state(PeerState.CONNECTING)
        self._drain(now)

    @property
    def local_candidates(self) -> tuple[Candidate, ...]:
        """Those that the peer is told of. TCP alone is possible only if there is any."""
        tcp = tuple(candidate for candidate in self.ice.local_candidates if candidate.transport == "tcp")
        return self.ice.local_candidates if self.ice.uses_udp or not tcp else tcp

    def use_candidates(self, *, tcp_only: bool, check_timeout: float | None = None) -> None:
        """From the next description and the next restart on; a path that works is kept till then."""
        self.ice.uses_udp = not tcp_only
        self.ice.check_timeout = check_timeout or self._check_timeout

    @property
    def path_kind(self) -> PathKind:
        """What the selected path is, or was last."""
        path = self.ice.selected
        if path is None:
            return PathKind.NONE
        if path.transport == "tcp":
            return PathKind.TCP
        return PathKind.RELAY if (path.ip, path.port) in self._relays else PathKind.UDP

    def add_remote_candidate(self, text: str, now: float) -> None:
        """Trickled candidate. A bad or unusable one is counted."""
        try:
            candidate = Candidate.parse(text)
        except ProtocolViolation as violation:
            self.counters.count(violation.reason)
            return
        if candidate.type == "relay" and len(self._relays) < MAX_REMOTE_CANDIDATES:
            self._relays.add((candidate.ip, candidate.port))
        self.ice.add_remote_candidate(candidate, now)

    def restart_ice(self, now: float) -> None:
        self.ice.restart(now)
        self._begun_at, self._handshake_due = now, None
        if self.state is PeerState.FAILED:
            self._set_state(PeerState.CONNECTING)

    # -- verbs ------------------------------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, addr: Address, now: float) -> Moved:
        """Bad ones are counted."""
        if not data:
            self.counters.count("peer.empty")
            return Moved.MEDIA
        first = data[0]
        if first >= 128:
            if first < 192:
                self._receive_srtp(data, now)
            else:
                self.counters.count("peer.unknown_protocol")
            return Moved.MEDIA
        if first < 4:
            if self.ice.receive_datagram(data, addr, now):
                return Moved.MEDIA
            self._drain(now)
        elif 20 <= first < 64:
            return self._receive_dtls(data, addr, now)
        else:
            self.counters.count("peer.unknown_protocol")
        return Moved.ALL

    def answers(self, now: float) -> list[tuple[bytes, Address]]:
        """All there is to send where nothing but media and checks of a path that works have come."""
        return self.ice.datagrams_to_send(now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        out = self.ice.datagrams_to_send(now)
        dtls = self.dtls
        if dtls is None:
            return out
        if self.sctp is not None and self._dtls_up:
            for packet in self.sctp.datagrams_to_send(now):
                dtls.send(packet)
        path = self.ice.selected or self._dtls_path
        if path is not None:
            out.extend((datagram, path) for datagram in dtls.datagrams_to_send(now))
        return out

    def next_timeout(self) -> float | None:
        deadlines = [self.ice.next_timeout(), self._handshake_due]
        if self.dtls is not None:
            deadlines.append(self.dtls.next_timeout())
        if self.sctp is not None and self._dtls_up:
            deadlines.append(self.sctp.next_timeout())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        self.ice.handle_timeout(now)
        if self.dtls is not None:
            self.dtls.handle_timeout(now)
        if self.sctp is not None and self._dtls_up:
            self.sctp.handle_timeout(now)
        if self._handshake_due is not None and now >= self._handshake_due:
            self._handshake_due = None
            self._set_state(PeerState.FAILED, f"dtls: no handshake over {self.path_kind.name.lower()}")
        self._drain(now)

    def next_event(self) -> PeerEvent | None:
        return self._events.popleft() if self._events else None

    def take_rtp(self) -> list[RtpPacket]:
        packets, self._rtp = self._rtp, []
        return packets

    def take_rtcp(self) -> list[tuple[RtcpPacket, float]]:
        """Each with when it came."""
        packets, self._rtcp = self._rtcp, []
        return packets

    def close(self, now: float) -> None:
        """Say goodbye: the datagrams are still to be fetched with `datagrams_to_send`."""
        if self.dtls is not None and self._dtls_up:
            self.dtls.close(now)
        self._set_state(PeerState.CLOSED)

    @property
    def all_counters(self) -> dict[str, int]:
        """This object's counters and those of its layers in one mapping."""
        total = Counters(self.counters)
        for layer in (self.ice, self.dtls, self.sctp):
            if layer is not None:
                for reason, n in layer.counters.items():
                    total.count(reason, n)
        return total

    # -- inside -----------------------------------------------------------------------------------------------------

    def _receive_srtp(self, data: bytes, now: float) -> None:
        receiver = self._receiver
        if receiver is None:
            if len(self._early) < EARLY_MEDIA_PACKETS:
                self._early.append((data, now))
            else:
                self.counters.count("srtp.before_keys")
            return
        rtcp = is_rtcp(data)
        try:
            with self._lock:
                opened = receiver.unprotect_rtcp(data) if rtcp else receiver.unprotect_rtp(data)
        except ProtocolViolation as violation:
            self.counters.count(violation.reason)
            return
        if rtcp:
            self.receive_rtcp(opened, now)
        else:
            self.receive_rtp(opened, now)

    def receive_rtp(self, data: bytes, now: float, *, rest: bool = False) -> None:
        """A packet that has been opened, with this peer's keys. `rest`: as `RtpPacket.rest`."""
        try:
            packet = parse_rtp(data, now)
        except ProtocolViolation as violation:
            self.counters.count(violation.reason)
        else:
            packet.rest = rest
            self._rtp.append(packet)

    def receive_rtcp(self, data: bytes, now: float) -> None:
        """A compound that has been opened, with this peer's keys."""
        try:
            self._rtcp.extend((packet, now) for packet in parse_rtcp(data))
        except ProtocolViolation as violation:
            self.counters.count(violation.reason)

    def _receive_dtls(self, data: bytes, addr: Address, now: float) -> Moved:
        valid, dtls = self.ice.path_is_valid(addr), self.dtls
        if dtls is None or not (valid or self._dtls_up):
            # A ClientHello may outrun the check that validates its path, and its sender's next try is far away.
            self.counters.count("dtls.unvalidated_path")
            if len(data) <= EARLY_SIZE:
                self._early_handshake.append((data, addr))
            return Moved.ALL
        if valid:
            self._dtls_path = addr
        # Once it is up its records are authentic wherever they come from. In an ICE restart Chrome sends by new ports
        # that it still pairs with our old credentials, and refuses checks of ours there.
        received = dtls.receive_data(data)
        if received is None:
            dtls.receive_datagram(data, now)
        else:
            self._receive_sctp(received, now)
            if dtls.open:
                return Moved.DATA
        self._drain(now)
        return Moved.ALL

    def _receive_sctp(self, packets: Sequence[bytes], now: float) -> None:
        sctp = self.sctp
        if sctp is None:
            if packets:
                self.counters.count("sctp.not_negotiated", len(packets))
            return
        for packet in packets:
            sctp.receive_datagram(packet, now)
        self._drain_sctp(sctp)

    def _drain(self, now: float) -> None:
        """Move what one layer produced into the next, until all are quiet."""
        while (ice_event := self.ice.next_event()) is not None:
            match ice_event:
                case IceStateChanged(state=state):
                    self._on_ice_state(state)
                case PathSelected(address=address):
                    self._events.append(PathChanged(address))
                    self._expect_handshake(now)
                    self._start_handshake(now)
                case _:
                    # A validated pair is enough to start the handshake as client (RFC 8842 section 5.4).
                    self._dtls_path = self._dtls_path or ice_event.address
                    self._start_handshake(now)
        if self.dtls is not None:
            if self._early_handshake:
                self._admit_early(self.dtls, now)
            self._drain_dtls(self.dtls, now)
        if self.sctp is not None:
            self._drain_sctp(self.sctp)

    def _admit_early(self, dtls: DtlsEndpoint, now: float) -> None:
        waiting, self._early_handshake = self._early_handshake, deque(maxlen=EARLY_HANDSHAKE)
        for data, addr in waiting:
            if self.ice.path_is_valid(addr):
                self._dtls_path = addr
                dtls.receive_datagram(data, now)
            elif not self._dtls_up:
                self._early_handshake.append((data, addr))

    def _expect_handshake(self, now: float) -> None:
        if not self._dtls_up and self._handshake_due is None and self._begun_at is not None:
            least, most = HANDSHAKE_TIME
            self._handshake_due = now + min(max(3 * (now - self._begun_at), least), most)

    def _start_handshake(self, now: float) -> None:
        if self.dtls is not None and self.dtls.role == "client":
            self.dtls.start(now)

    def _drain_dtls(self, dtls: DtlsEndpoint, now: float) -> None:
        while (event := dtls.next_event()) is not None:
            match event:
                case DtlsConnected(keys=keys):
                    self._dtls_up = True
                    self._handshake_due = None
                    self.sender, self._receiver = self._make_srtp(keys)
                    self._events.append(KeysReady(self.sender, self._receiver, str(keys.profile)))
                    if self.sctp is not None:
                        self.sctp.start(now)
                    early, self._early = self._early, deque()
                    for data, arrival in early:
                        self._receive_srtp(data, arrival)
                    self._update_connected()
                case DtlsData(data=data):
                    self._receive_sctp((data,), now)
                case DtlsClosed(reason=reason):
                    # A close_notify alone does not end the connection: the signalling says when it is over.
                    if not self._dtls_up or "fingerprint" in reason:
                        self._set_state(PeerState.FAILED, f"dtls: {reason}")
                    else:
                        self.counters.count("dtls.close_notify")

    def _drain_sctp(self, sctp: SctpAssociation) -> None:
        while (event := sctp.next_event()) is not None:
            if isinstance(event, SctpClosed):
                self.counters.count("sctp.closed")
            self._events.append(event)

    def _on_ice_state(self, state: IceState) -> None:
        match state:
            case IceState.CONNECTED:
                self._update_connected()
            case IceState.DISCONNECTED:
                self._set_state(PeerState.DISCONNECTED)
            case IceState.FAILED:
                self._set_state(PeerState.FAILED, f"ice: no pair answered; tried {self.ice.describe_pairs()}")
            case IceState.CHECKING if self.state is PeerState.FAILED:
                self._set_state(PeerState.CONNECTING)
            case _:
                pass

    def _update_connected(self) -> None:
        if self._dtls_up and self.ice.state is IceState.CONNECTED:
            self._set_state(PeerState.CONNECTED)

    def _set_state(self, state: PeerState, detail: str = "") -> None:
        if state is not self.state and self.state is not PeerState.CLOSED:
            self.state = state
            self._events.append(PeerStateChanged(state, detail))
