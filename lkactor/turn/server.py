"""A TURN server for one listener (RFC 8656): allocations, permissions, channels. One per socket, without I/O.

| request           | wanted (section)                                              | refused with              |
|-------------------|---------------------------------------------------------------|---------------------------|
| Binding           | answered for anyone: this port is a STUN server, too          |                           |
| any other         | long-term credentials (RFC 8489 9.2.4)                        | 401, 438 with nonce; 400  |
| Allocate          | none for this 5-tuple yet; UDP; known family; quota (7.2)     | 437 442 440 486 508 420   |
| Refresh           | the same user; LIFETIME 0 ends it (7.3)                       | 437 441 443               |
| CreatePermission  | peers of the relay's family, allowed by the policy (10.2)     | 400 403 443 508           |
| ChannelBind       | number in range; one number, one peer (12.2)                  | 400 403 443 508           |
| Send, ChannelData | a permission, a channel; else dropped without a word          |                           |

| allocation | next                                                                                             |
|------------|--------------------------------------------------------------------------------------------------|
| wanted     | `RelayWanted` is out; `relay_opened`: live and answered, `relay_failed`: 508                       |
| live       | relays; ends by Refresh 0, lifetime over, `client_gone`: `AllocationEnded`, the socket is closed   |

Relay sockets are the caller's. It gives their datagrams to `receive_relayed` and sends `relayed_to_send`.
"""

from __future__ import annotations

import hashlib
import heapq
import hmac
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from lkactor.counters import Counters
from lkactor.errors import ProtocolViolation
from lkactor.turn import message as turn
from lkactor.turn.credentials import Account
from lkactor.turn.message import Peer
from lkactor.turn.policy import PeerPolicy, Quota
from lkactor.wire import stun
from lkactor.wire.address import Address

REALM = "livekit"


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """Seconds (RFC 8656 sections 3.2, 9, 12) and bounds of what one client may make us keep."""

    default_lifetime: int = 600
    max_lifetime: int = 3600
    permission: float = 300.0
    channel: float = 600.0
    nonce: float = 3600.0
    allocations: int = 4096
    permissions: int = 256
    channels: int = 256
    queue: int = 4096


@dataclass(frozen=True, slots=True)
class RelayWanted:
    """Open a UDP socket of `family` (4 or 6), on an even port if `even`, then `relay_opened` or `relay_failed`."""

    relay: int
    family: int
    even: bool


@dataclass(frozen=True, slots=True)
class AllocationEnded:
    """Close the socket. `why`: released, expired, gone."""

    relay: int
    user: str
    why: str


@dataclass(slots=True)
class _Channel:
    peer: Peer
    expires: float


@dataclass(slots=True)
class _Allocation:
    relay: int
    client: Address
    account: Account
    family: int
    request: stun.Message
    lifetime: int
    response: bytes = b""
    """Empty as long as the socket is not there."""
    expires: float = 0.0
    permissions: dict[str, float] = field(default_factory=dict)
    """Until when, by the peer's IP."""
    channels: dict[int, _Channel] = field(default_factory=dict)
    channel_of: dict[Peer, int] = field(default_factory=dict)


class _Refused(Exception):
    def __init__(self, code: int, *attributes: tuple[int, bytes]) -> None:
        super().__init__(code)
        self.code = code
        self.attributes = list(attributes)


class TurnServer:
    """The five verbs towards clients, and the relay side. `authenticate(username, allocating)` knows the users."""

    def __init__(
        self,
        *,
        rng: random.Random,
        authenticate: Callable[[str, bool], Account | None],
        policy: PeerPolicy,
        quota: Quota,
        families: frozenset[int] = frozenset((4,)),
        limits: TurnLimits = TurnLimits(),
    ) -> None:
        self.counters = Counters()
        self._rng = rng
        self._authenticate = authenticate
        self._policy = policy
        self._quota = quota
        self._families = families
        self._limits = limits
        self._nonce_key = rng.randbytes(16)
        self._clients: dict[Address, _Allocation] = {}
        self._relays: dict[int, _Allocation] = {}
        self._next_relay = 1
        self._deadlines: list[tuple[float, int]] = []
        self._out: list[tuple[bytes, Address]] = []
        self._relayed: list[tuple[int, bytes, Peer]] = []
        self._events: list[RelayWanted | AllocationEnded] = []

    @property
    def allocations(self) -> int:
        return len(self._clients)

    def has_allocation(self, addr: Address) -> bool:
        return addr in self._clients

    # -- the five verbs ---------------------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, addr: Address, now: float) -> None:
        """From a client: a STUN message or ChannelData."""
        try:
            if data and data[0] >> 6 == 1:
                self._on_channel_data(data, addr, now)
            else:
                self._on_message(stun.parse(data), addr, now)
        except ProtocolViolation as violation:
            self.counters.count(violation.reason)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """For clients."""
        out, self._out = self._out, []
        return out

    def next_timeout(self) -> float | None:
        return self._deadlines[0][0] if self._deadlines else None

    def handle_timeout(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            _, relay = heapq.heappop(self._deadlines)
            allocation = self._relays.get(relay)
            if allocation is None or not allocation.response:
                continue
            if allocation.expires <= now:
                self._end(allocation, "expired")
            else:  # refreshed since
                heapq.heappush(self._deadlines, (allocation.expires, relay))

    def next_event(self) -> RelayWanted | AllocationEnded | None:
        return self._events.pop(0) if self._events else None

    # -- the relay side ---------------------------------------------------------------------------------------------

    def relay_opened(self, relay: int, address: Peer, now: float) -> None:
        """The socket is there; `address` is what peers are told."""
        allocation = self._relays.get(relay)
        if allocation is None or allocation.response:
            return
        request, client = allocation.request, allocation.client
        attributes = [
            (turn.XOR_RELAYED_ADDRESS, stun.xor_address(*address, request.transaction)),
            (turn.LIFETIME, allocation.lifetime.to_bytes(4, "big")),
            (stun.XOR_MAPPED_ADDRESS, stun.xor_address(client.ip, client.port, request.transaction)),
        ]
        if turn.ADDITIONAL_ADDRESS_FAMILY in request.attributes:
            # One address per allocation; RFC 8656 7.2 lets the second family fail by itself.
            attributes.append((turn.ADDRESS_ERROR_CODE, b"\x02\x00" + stun.error_value(440, turn.REASONS[440])[2:]))
        kind, key = turn.ALLOCATE + turn.SUCCESS, allocation.account.key
        allocation.response = turn.build(kind, request.transaction, attributes, key)
        allocation.expires = now + allocation.lifetime
        heapq.heappush(self._deadlines, (allocation.expires, relay))
        self._send(allocation.response, client)

    def relay_failed(self, relay: int, now: float) -> None:
        """No port is free."""
        allocation = self._relays.get(relay)
        if allocation is None or allocation.response:
            return
        self._forget(allocation)
        error = [(stun.ERROR_CODE, stun.error_value(508, turn.REASONS[508]))]
        answer = turn.build(turn.ALLOCATE + turn.ERROR, allocation.request.transaction, error, allocation.account.key)
        self._send(answer, allocation.client)

    def receive_relayed(self, relay: int, data: bytes, peer: Peer, now: float) -> None:
        """A datagram from a peer: for the client if it has a permission for that IP (RFC 8656 11.3, 12.7)."""
        allocation = self._relays.get(relay)
        if allocation is None or allocation.permissions.get(peer.ip, 0.0) <= now:
            self.counters.count("turn.peer_without_permission")
            return
        client = allocation.client
        channel = allocation.channel_of.get(peer)
        if channel is not None and allocation.channels[channel].expires > now:
            self._send(turn.channel_data(channel, data, stream=client.transport == "tcp"), client)
            return
        transaction = self._rng.randbytes(12)
        attributes = [(turn.XOR_PEER_ADDRESS, stun.xor_address(*peer, transaction)), (turn.DATA, data)]
        self._send(turn.build(turn.DATA_INDICATION, transaction, attributes), client)

    def relayed_to_send(self) -> list[tuple[int, bytes, Peer]]:
        """(relay, datagram, peer), in order."""
        out, self._relayed = self._relayed, []
        return out

    def client_gone(self, addr: Address, now: float) -> None:
        """The client's stream ended, and with it its allocation."""
        allocation = self._clients.get(addr)
        if allocation is not None:
            self._end(allocation, "gone")

    # -- messages ---------------------------------------------------------------------------------------------------

    def _on_message(self, message: stun.Message, addr: Address, now: float) -> None:
        if message.kind == stun.BINDING_REQUEST:
            mapped = stun.xor_address(addr.ip, addr.port, message.transaction)
            attributes = [(stun.XOR_MAPPED_ADDRESS, mapped)]
            self._send(turn.build(stun.BINDING_SUCCESS, message.transaction, attributes), addr)
        elif message.kind == turn.SEND_INDICATION:
            self._on_send(message, addr, now)
        elif message.kind in turn.REQUESTS:
            self._on_request(message, addr, now)
        else:
            self.counters.count("turn.method")

    def _on_request(self, message: stun.Message, addr: Address, now: float) -> None:
        account: Account | None = None
        try:
            account = self._account(message, addr, now)
            unknown = [at for at in message.attributes if at < 0x8000 and at not in turn.KNOWN]
            if unknown:
                raise _Refused(420, (stun.UNKNOWN_ATTRIBUTES, b"".join(at.to_bytes(2, "big") for at in unknown)))
            if message.kind == turn.ALLOCATE:
                self._on_allocate(message, addr, account, now)
                return
            allocation = self._clients.get(addr)
            if allocation is None or not allocation.response:
                raise _Refused(437)
            if allocation.account.username != account.username:
                raise _Refused(441)  # RFC 8656 section 5
            handler = {
                turn.REFRESH: self._on_refresh,
                turn.CREATE_PERMISSION: self._on_create_permission,
                turn.CHANNEL_BIND: self._on_channel_bind,
            }[message.kind]
            attributes = handler(message, allocation, now)
            self._send(turn.build(message.kind + turn.SUCCESS, message.transaction, attributes, account.key), addr)
        except _Refused as refusal:
            self._refuse(message, addr, refusal, account)
        except ProtocolViolation as violation:
            self.counters.count(violation.reason)
            self._refuse(message, addr, _Refused(400), account)

    def _refuse(self, message: stun.Message, addr: Address, refusal: _Refused, account: Account | None) -> None:
        self.counters.count(f"turn.refused_{refusal.code}")
        error = (stun.ERROR_CODE, stun.error_value(refusal.code, turn.REASONS[refusal.code]))
        key = account.key if account is not None else None
        answer = turn.build(message.kind + turn.ERROR, message.transaction, [error, *refusal.attributes], key)
        self._send(answer, addr)

    # -- credentials (RFC 8489 9.2.4) -------------------------------------------------------------------------------

    def _account(self, message: stun.Message, addr: Address, now: float) -> Account:
        if not message.integrity_offset:
            raise self._challenge(401, addr, now)
        username, realm = turn.text_of(message, stun.USERNAME, 512), turn.text_of(message, turn.REALM)
        nonce = turn.text_of(message, turn.NONCE)
        if username is None or realm is None or nonce is None:
            raise _Refused(400)
        if not self._nonce_is_fresh(nonce, addr, now):
            raise self._challenge(438, addr, now)
        account = self._authenticate(username, message.kind == turn.ALLOCATE)
        if account is None or realm != REALM or not turn.signed_by(message, account.key):
            # RFC 8489 9.2.4 has 401 here. LiveKit answers 400, and its clients' tests want that: 401 asks for
            # credentials, these are wrong, and nobody should try them again.
            raise _Refused(400)
        return account

    def _challenge(self, code: int, addr: Address, now: float) -> _Refused:
        nonce = self._nonce(int(now), addr)
        return _Refused(code, (turn.REALM, REALM.encode()), (turn.NONCE, nonce.encode()))

    def _nonce(self, at: int, addr: Address) -> str:
        """When it was given, and a proof that we gave it to this address: nothing to remember."""
        stamp = f"{at & 0xFFFFFFFFFF:010x}"
        proof = hmac.digest(self._nonce_key, f"{stamp} {addr}".encode(), hashlib.sha256)
        return stamp + proof[:12].hex()

    def _nonce_is_fresh(self, nonce: str, addr: Address, now: float) -> bool:
        stamp = nonce[:10]
        if len(nonce) != 34 or not all(c in "0123456789abcdef" for c in stamp):
            return False
        at = int(stamp, 16)
        ours = self._nonce(at, addr).encode()
        return hmac.compare_digest(ours, nonce.encode()) and now - at <= self._limits.nonce

    # -- requests ---------------------------------------------------------------------------------------------------

    def _on_allocate(self, message: stun.Message, addr: Address, account: Account, now: float) -> None:
        attributes = message.attributes
        present = self._clients.get(addr)
        if present is not None:
            if present.request.transaction != message.transaction:
                raise _Refused(437)
            if present.response:  # a retransmission: the same answer
                self._send(present.response, addr)
            return
        transport = attributes.get(turn.REQUESTED_TRANSPORT)
        if transport is None or len(transport) != 4:
            raise _Refused(400)
        if transport[0] != turn.UDP_PROTOCOL:
            raise _Refused(442)
        family, even = self._wanted_family(attributes), self._wanted_even(attributes)
        lifetime = self._lifetime(message)
        if len(self._clients) >= self._limits.allocations:
            raise _Refused(508)
        if not self._quota.take(account.user):
            raise _Refused(486)
        relay = self._next_relay
        self._next_relay += 1
        allocation = _Allocation(relay, addr, account, family, message, max(lifetime, self._limits.default_lifetime))
        self._clients[addr] = self._relays[relay] = allocation
        self._events.append(RelayWanted(relay, family, even))

    def _wanted_family(self, attributes: dict[int, bytes]) -> int:
        wanted, more = (attributes.get(at) for at in (turn.REQUESTED_ADDRESS_FAMILY, turn.ADDITIONAL_ADDRESS_FAMILY))
        if more is not None:
            odd = wanted is not None or turn.EVEN_PORT in attributes or turn.RESERVATION_TOKEN in attributes
            if odd or len(more) != 4 or more[0] != 2:
                raise _Refused(400)  # RFC 8656 7.2
        if wanted is not None and (len(wanted) != 4 or turn.RESERVATION_TOKEN in attributes):
            raise _Refused(400)
        family = {1: 4, 2: 6}.get(wanted[0]) if wanted is not None else 4
        if wanted is None and 4 not in self._families:
            family = 6
        if family not in self._families:
            raise _Refused(440)
        return family

    def _wanted_even(self, attributes: dict[int, bytes]) -> bool:
        even = attributes.get(turn.EVEN_PORT)
        if turn.RESERVATION_TOKEN in attributes:
            raise _Refused(400 if even is not None else 508)  # We never gave one.
        if even is None:
            return False
        if len(even) != 1:
            raise _Refused(400)
        if even[0] & 0x80:
            raise _Refused(508)  # We keep no port in reserve.
        return True

    def _lifetime(self, message: stun.Message) -> int:
        value = message.attributes.get(turn.LIFETIME)
        if value is None:
            return self._limits.default_lifetime
        if len(value) != 4:
            raise _Refused(400)
        return min(int.from_bytes(value, "big"), self._limits.max_lifetime)

    def _on_refresh(self, message: stun.Message, allocation: _Allocation, now: float) -> list[tuple[int, bytes]]:
        family = message.attributes.get(turn.REQUESTED_ADDRESS_FAMILY)
        if family is not None and (len(family) != 4 or {1: 4, 2: 6}.get(family[0]) != allocation.family):
            raise _Refused(443)
        lifetime = self._lifetime(message)
        if lifetime == 0:
            self._end(allocation, "released")
        else:
            lifetime = max(lifetime, self._limits.default_lifetime)
            allocation.expires = now + lifetime
        return [(turn.LIFETIME, lifetime.to_bytes(4, "big"))]

    def _on_create_permission(
        self, message: stun.Message, allocation: _Allocation, now: float
    ) -> list[tuple[int, bytes]]:
        peers = turn.peers_of(message)
        if not peers:
            raise _Refused(400)
        for peer in peers:  # all or none (RFC 8656 10.2)
            self._check_peer(peer, allocation)
        for peer in peers:
            self._permit(peer, allocation, now)
        return []

    def _on_channel_bind(self, message: stun.Message, allocation: _Allocation, now: float) -> list[tuple[int, bytes]]:
        number, peers = message.attributes.get(turn.CHANNEL_NUMBER), turn.peers_of(message)
        if number is None or len(number) != 4 or not peers:
            raise _Refused(400)
        channel, peer = int.from_bytes(number[:2], "big"), peers[0]
        if not turn.FIRST_CHANNEL <= channel <= turn.LAST_CHANNEL:
            raise _Refused(400)
        self._check_peer(peer, allocation)
        self._drop_old_channels(allocation, now)
        bound = allocation.channels.get(channel)
        if (bound is not None and bound.peer != peer) or allocation.channel_of.get(peer, channel) != channel:
            raise _Refused(400)
        if bound is None and len(allocation.channels) >= self._limits.channels:
            raise _Refused(508)
        self._permit(peer, allocation, now)
        allocation.channels[channel] = _Channel(peer, now + self._limits.channel)
        allocation.channel_of[peer] = channel
        return []

    def _drop_old_channels(self, allocation: _Allocation, now: float) -> None:
        for number in [n for n, channel in allocation.channels.items() if channel.expires <= now]:
            del allocation.channel_of[allocation.channels.pop(number).peer]

    def _check_peer(self, peer: Peer, allocation: _Allocation) -> None:
        if (6 if ":" in peer.ip else 4) != allocation.family:
            raise _Refused(443)
        if not self._policy.permits(peer.ip):
            raise _Refused(403)

    def _permit(self, peer: Peer, allocation: _Allocation, now: float) -> None:
        permissions = allocation.permissions
        if peer.ip not in permissions and len(permissions) >= self._limits.permissions:
            for ip in [ip for ip, until in permissions.items() if until <= now]:
                del permissions[ip]
            if len(permissions) >= self._limits.permissions:
                raise _Refused(508)
        permissions[peer.ip] = now + self._limits.permission

    # -- data towards peers -----------------------------------------------------------------------------------------

    def _on_send(self, message: stun.Message, addr: Address, now: float) -> None:
        """RFC 8656 11.2: whatever is not right is dropped. A Send does not refresh the permission."""
        allocation, data = self._clients.get(addr), message.attributes.get(turn.DATA)
        unknown = any(at < 0x8000 and at not in turn.KNOWN for at in message.attributes)
        peers = turn.peers_of(message)
        if allocation is None or data is None or not peers or unknown:
            self.counters.count("turn.bad_send")
        else:
            self._relay(allocation, data, peers[0], now)

    def _on_channel_data(self, data: bytes, addr: Address, now: float) -> None:
        number, payload = turn.parse_channel_data(data)
        allocation = self._clients.get(addr)
        channel = allocation.channels.get(number) if allocation is not None else None
        if allocation is None or channel is None or channel.expires <= now:
            self.counters.count("turn.unbound_channel")
            return
        self._relay(allocation, payload, channel.peer, now)

    def _relay(self, allocation: _Allocation, data: bytes, peer: Peer, now: float) -> None:
        if allocation.permissions.get(peer.ip, 0.0) <= now:
            self.counters.count("turn.send_without_permission")
        elif len(self._relayed) >= self._limits.queue:
            self.counters.count("turn.queue_full")
        else:
            self._relayed.append((allocation.relay, data, peer))
            self.counters.count("turn.relayed")

    # -- small things -----------------------------------------------------------------------------------------------

    def _end(self, allocation: _Allocation, why: str) -> None:
        self._forget(allocation)
        self.counters.count("turn.allocation_ended")
        self._events.append(AllocationEnded(allocation.relay, allocation.account.user, why))

    def _forget(self, allocation: _Allocation) -> None:
        del self._clients[allocation.client]
        del self._relays[allocation.relay]
        self._quota.release(allocation.account.user)

    def _send(self, data: bytes, addr: Address) -> None:
        if len(self._out) >= self._limits.queue:
            self.counters.count("turn.queue_full")
        else:
            self._out.append((data, addr))
