"""A TURN client without I/O, for tests and for `lkactor doctor` (RFC 8656; the caller asks for one thing at a time).

| sent            | answered                                                                                       |
|-----------------|------------------------------------------------------------------------------------------------|
| Allocate        | 401 or 438: once more with its realm and nonce; success: ClientAllocated; else AllocateFailed  |
| the others      | 438: once more; an error: PermissionRefused for permissions and channels                       |
| any, on UDP     | sent again after 0.5 s, doubled, seven times in all, then AllocateFailed(0) (RFC 8489 6.2.1)   |
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from lkactor.counters import Counters
from lkactor.errors import ProtocolViolation
from lkactor.turn import message as turn
from lkactor.turn.message import Peer
from lkactor.wire import stun

RTO, TRANSMISSIONS = 0.5, 7
MAX_CHALLENGES = 3


@dataclass(frozen=True, slots=True)
class ClientAllocated:
    relayed: Peer
    mapped: Peer
    lifetime: int
    """Seconds."""


@dataclass(frozen=True, slots=True)
class AllocateFailed:
    """`code` is STUN's, 0 when nobody answered."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class PermissionRefused:
    code: int


@dataclass(frozen=True, slots=True)
class PeerData:
    peer: Peer
    data: bytes


@dataclass(slots=True)
class _Pending:
    kind: int
    attributes: list[tuple[int, bytes, Peer | None]]
    wire: bytes
    at: float
    sent: int = 1
    challenges: int = 0


class TurnClient:
    """The five verbs towards one server, so without addresses. `stream`: over TCP or TLS, nothing is sent twice."""

    def __init__(self, username: str, password: str, *, rng: random.Random, stream: bool = False) -> None:
        self.counters = Counters()
        self.relayed: Peer | None = None
        self._username, self._password = username, password
        self._rng = rng
        self._stream = stream
        self._realm = self._nonce = ""
        self._pending: dict[bytes, _Pending] = {}
        self._channels: dict[int, Peer] = {}
        self._out: list[bytes] = []
        self._events: list[ClientAllocated | AllocateFailed | PermissionRefused | PeerData] = []

    def allocate(self, now: float, *, family: int | None = None) -> None:
        attributes = [(turn.REQUESTED_TRANSPORT, bytes((turn.UDP_PROTOCOL, 0, 0, 0)))]
        if family is not None:
            attributes.append((turn.REQUESTED_ADDRESS_FAMILY, bytes((1 if family == 4 else 2, 0, 0, 0))))
        self._ask(turn.ALLOCATE, attributes, now)

    def refresh(self, lifetime: int, now: float) -> None:
        """0 ends the allocation."""
        self._ask(turn.REFRESH, [(turn.LIFETIME, lifetime.to_bytes(4, "big"))], now)

    def permit(self, peer: Peer, now: float) -> None:
        self._ask(turn.CREATE_PERMISSION, [], now, peer)

    def bind_channel(self, channel: int, peer: Peer, now: float) -> None:
        self._channels[channel] = peer
        self._ask(turn.CHANNEL_BIND, [(turn.CHANNEL_NUMBER, channel.to_bytes(2, "big") + b"\0\0")], now, peer)

    def send(self, peer: Peer, data: bytes) -> None:
        transaction = self._rng.randbytes(12)
        attributes = [(turn.XOR_PEER_ADDRESS, stun.xor_address(*peer, transaction)), (turn.DATA, data)]
        self._out.append(turn.build(turn.SEND_INDICATION, transaction, attributes))

    def send_on(self, channel: int, data: bytes) -> None:
        self._out.append(turn.channel_data(channel, data, stream=self._stream))

    # -- the five verbs ---------------------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, now: float) -> None:
        try:
            if data and data[0] >> 6 == 1:
                channel, payload = turn.parse_channel_data(data)
                peer = self._channels.get(channel)
                if peer is not None:
                    self._events.append(PeerData(peer, payload))
                return
            message = stun.parse(data)
            if message.kind == turn.DATA_INDICATION:
                peers, payload = turn.peers_of(message), message.attributes.get(turn.DATA, b"")
                self._events += [PeerData(peer, payload) for peer in peers[:1]]
            else:
                self._on_answer(message, now)
        except ProtocolViolation as violation:
            self.counters.count(violation.reason)

    def datagrams_to_send(self, now: float) -> list[bytes]:
        out, self._out = self._out, []
        return out

    def next_timeout(self) -> float | None:
        return min((pending.at for pending in self._pending.values()), default=None)

    def handle_timeout(self, now: float) -> None:
        for transaction, pending in list(self._pending.items()):
            if pending.at > now:
                continue
            if pending.sent >= TRANSMISSIONS or self._stream:
                del self._pending[transaction]
                self._events.append(AllocateFailed(0, "no answer"))
                continue
            pending.at = now + RTO * (2**pending.sent)
            pending.sent += 1
            self._out.append(pending.wire)

    def next_event(self) -> ClientAllocated | AllocateFailed | PermissionRefused | PeerData | None:
        return self._events.pop(0) if self._events else None

    # -- transactions -----------------------------------------------------------------------------------------------

    def _ask(
        self, kind: int, attributes: list[tuple[int, bytes]], now: float, peer: Peer | None = None, challenges: int = 0
    ) -> None:
        transaction = self._rng.randbytes(12)
        kept: list[tuple[int, bytes, Peer | None]] = [(at, value, None) for at, value in attributes]
        if peer is not None:
            kept.append((turn.XOR_PEER_ADDRESS, b"", peer))
        self._transmit(_Pending(kind, kept, b"", now, challenges=challenges), transaction, now)

    def _transmit(self, pending: _Pending, transaction: bytes, now: float) -> None:
        attributes = [
            (at, stun.xor_address(*peer, transaction) if peer is not None else value)
            for at, value, peer in pending.attributes
        ]
        key = None
        if self._nonce:
            attributes += [
                (stun.USERNAME, self._username.encode()),
                (turn.REALM, self._realm.encode()),
                (turn.NONCE, self._nonce.encode()),
            ]
            key = turn.long_term_key(self._username, self._realm, self._password)
        pending.wire = turn.build(pending.kind, transaction, attributes, key)
        pending.at = now + (RTO * (2**TRANSMISSIONS) if self._stream else RTO)
        pending.sent = 1
        self._pending[transaction] = pending
        self._out.append(pending.wire)

    def _on_answer(self, message: stun.Message, now: float) -> None:
        pending = self._pending.get(message.transaction)
        if pending is None or message.kind not in (pending.kind + turn.SUCCESS, pending.kind + turn.ERROR):
            self.counters.count("turn.unexpected_answer")
            return
        if message.kind == pending.kind + turn.ERROR:
            del self._pending[message.transaction]
            self._on_error(message, pending, now)
            return
        key = turn.long_term_key(self._username, self._realm, self._password)
        if not turn.signed_by(message, key):
            self.counters.count("turn.unauthenticated")
            return
        del self._pending[message.transaction]
        if pending.kind == turn.ALLOCATE:
            self._on_allocated(message)

    def _on_allocated(self, message: stun.Message) -> None:
        relayed, mapped = (message.attributes.get(at) for at in (turn.XOR_RELAYED_ADDRESS, stun.XOR_MAPPED_ADDRESS))
        if relayed is None or mapped is None:
            raise ProtocolViolation("turn.address")
        self.relayed = turn.address_of(relayed, message.transaction)
        where = turn.address_of(mapped, message.transaction)
        self._events.append(ClientAllocated(self.relayed, where, message.number(turn.LIFETIME) or 0))

    def _on_error(self, message: stun.Message, pending: _Pending, now: float) -> None:
        code = message.error_code or 400
        realm, nonce = turn.text_of(message, turn.REALM), turn.text_of(message, turn.NONCE)
        wrong = code == 401 and bool(self._nonce)  # asked with credentials, and refused
        if code in (401, 438) and not wrong and realm and nonce and pending.challenges < MAX_CHALLENGES:
            self._realm, self._nonce = realm, nonce
            pending.challenges += 1
            self._transmit(pending, self._rng.randbytes(12), now)
        elif pending.kind == turn.ALLOCATE:
            self._events.append(AllocateFailed(code, turn.REASONS.get(code, "refused")))
        else:
            self._events.append(PermissionRefused(code))
