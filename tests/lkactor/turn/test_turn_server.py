"""TURN in memory: two peers over the relay, every refusal, lifetimes, quotas, vectors, noise."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkactor.errors import ProtocolViolation
from lkactor.turn import (
    AllocateFailed,
    AllocationEnded,
    Authenticator,
    ClientAllocated,
    PeerData,
    PeerPolicy,
    PermissionRefused,
    Quota,
    RelayWanted,
    TurnClient,
    TurnLimits,
    TurnReader,
    TurnServer,
    issue_credentials,
)
from lkactor.turn import message as turn
from lkactor.turn.credentials import base62, from_base62
from lkactor.turn.message import Peer
from lkactor.wire import stun
from lkactor.wire.address import Address

KEYS = {"key": "secret"}
ALICE = Address("udp", "203.0.113.5", 40000)
UNIX = 1_800_000_000.0


class World:
    """A server, and clients that reach it without loss."""

    def __init__(self, *, limit: int = 12, limits: TurnLimits | None = None, policy: PeerPolicy | None = None) -> None:
        self.unix = UNIX
        self.server = TurnServer(
            rng=random.Random(1),
            authenticate=Authenticator(lambda: KEYS, lambda: self.unix, "livekit"),
            policy=policy or PeerPolicy(),
            quota=Quota(limit),
            limits=limits or TurnLimits(),
        )
        self.clients: dict[Address, TurnClient] = {}
        self.ended: list[AllocationEnded] = []
        self.full = False

    def client(
        self, address: Address = ALICE, sid: str = "PA_a", *, secret: str = "secret", expiry: int = int(UNIX) + 300
    ) -> TurnClient:
        name, password = issue_credentials("key", secret, sid, expiry)
        client = TurnClient(name, password, rng=random.Random(str(address)))
        self.clients[address] = client
        return client

    def run(self, now: float = 0.0) -> list[tuple[int, bytes, Peer]]:
        relayed: list[tuple[int, bytes, Peer]] = []
        for _ in range(20):
            for address, client in self.clients.items():
                for data in client.datagrams_to_send(now):
                    self.server.receive_datagram(data, address, now)
            while (event := self.server.next_event()) is not None:
                if isinstance(event, AllocationEnded):
                    self.ended.append(event)
                elif self.full:
                    self.server.relay_failed(event.relay, now)
                else:
                    self.server.relay_opened(event.relay, Peer("198.51.100.1", 30000 + event.relay), now)
            relayed += self.server.relayed_to_send()
            for data, address in self.server.datagrams_to_send(now):
                if address in self.clients:
                    self.clients[address].receive_datagram(data, now)
        return relayed


def allocated(world: World, address: Address = ALICE, sid: str = "PA_a", now: float = 0.0) -> TurnClient:
    client = world.client(address, sid)
    client.allocate(now)
    world.run(now)
    assert isinstance(client.next_event(), ClientAllocated)
    return client


def test_two_peers_talk_through_two_relays() -> None:
    world = World()
    bob_at = Address("tcp", "203.0.113.9", 555)
    ann, bob = allocated(world), allocated(world, bob_at, "PA_b")
    assert ann.relayed == Peer("198.51.100.1", 30001) and bob.relayed == Peer("198.51.100.1", 30002)
    ann.permit(bob.relayed, 0.0)
    bob.bind_channel(0x4001, ann.relayed, 0.0)
    assert world.run() == []
    ann.send(bob.relayed, b"ping")
    assert world.run() == [(1, b"ping", bob.relayed)]
    world.server.receive_relayed(2, b"ping", ann.relayed, 0.0)
    world.run()
    assert bob.next_event() == PeerData(ann.relayed, b"ping")
    bob.send_on(0x4001, b"pong!")
    assert world.run() == [(2, b"pong!", ann.relayed)]
    world.server.receive_relayed(1, b"pong!", bob.relayed, 0.0)
    world.run()
    assert ann.next_event() == PeerData(bob.relayed, b"pong!")


def test_no_permission_no_data_either_way_and_permissions_end() -> None:
    world, peer = World(), Peer("192.0.2.7", 9)
    client = allocated(world)
    client.send(peer, b"x")
    world.server.receive_relayed(1, b"x", peer, 0.0)
    assert world.run() == [] and client.next_event() is None
    client.permit(peer, 0.0)
    world.run()
    client.send(peer, b"x")
    assert world.run(299.0) == [(1, b"x", peer)]
    client.send(peer, b"x")
    assert world.run(300.0) == []


@pytest.mark.parametrize(
    ("peer", "code"),
    [("10.0.0.1", 403), ("127.0.0.1", 403), ("224.0.0.1", 403), ("169.254.1.1", 403), ("0.0.0.0", 403), ("::1", 443)],
)
def test_restricted_and_foreign_peers_are_refused(peer: str, code: int) -> None:
    world = World()
    client = allocated(world)
    for ask in (lambda: client.permit(Peer(peer, 9), 0.0), lambda: client.bind_channel(0x4000, Peer(peer, 9), 0.0)):
        ask()
        world.run()
        assert client.next_event() == PermissionRefused(code)


def test_policy_lists() -> None:
    policy = PeerPolicy(["10.1.0.0/16"], ["10.1.9.0/24", "192.0.2.1"])
    allowed = {"10.1.2.3": True, "10.1.9.3": False, "10.2.0.1": False, "192.0.2.1": False, "192.0.2.2": True}
    allowed |= {"::ffff:10.2.0.1": False, "::ffff:10.1.0.1": True, "fd00::1": False, "2001:db8::1": True}
    assert {ip: policy.permits(ip) for ip in allowed} == allowed


@pytest.mark.parametrize("why", ["secret", "expired", "never", "other expiry", "no expiry", "key", "noise"])
def test_wrong_credentials_get_400_as_from_livekit(why: str) -> None:
    world = World()
    none = random.Random(1)
    good, _ = issue_credentials("key", "secret", "PA_a", int(UNIX) + 300)
    _, later = issue_credentials("key", "secret", "PA_a", int(UNIX) + 360)
    client = {
        "secret": lambda: world.client(secret="other"),
        "expired": lambda: world.client(expiry=int(UNIX) - 1),
        "never": lambda: world.client(expiry=0),
        "other expiry": lambda: world.clients.setdefault(ALICE, TurnClient(good, later, rng=none)),
        "no expiry": lambda: world.clients.setdefault(ALICE, TurnClient(base62(b"key|PA_a"), later, rng=none)),
        "key": lambda: world.clients.setdefault(ALICE, TurnClient(base62(b"x|PA|9999999999"), "", rng=none)),
        "noise": lambda: world.clients.setdefault(ALICE, TurnClient("!\u00e9", "p", rng=none)),
    }[why]()
    client.allocate(0.0)
    world.run()
    assert client.next_event() == AllocateFailed(400, "Bad Request")
    assert world.server.allocations == 0


def test_what_is_allocated_outlives_its_credentials() -> None:
    world = World()
    client = allocated(world)
    world.unix += 10_000
    client.refresh(900, 500.0)
    world.run(500.0)
    world.server.handle_timeout(1399.0)
    assert world.server.allocations == 1
    world.server.handle_timeout(1400.0)
    world.run(1400.0)
    assert world.ended == [AllocationEnded(1, "PA_a", "expired")] and world.server.next_timeout() is None


def test_a_stale_nonce_is_replaced_without_notice() -> None:
    world = World()
    client = allocated(world)
    client.refresh(3600, 590.0)
    world.run(590.0)
    client.refresh(3600, 3700.0)
    world.run(3700.0)
    assert world.server.counters["turn.refused_438"] == 1 and client.next_event() is None
    world.server.handle_timeout(7299.0)
    assert world.server.allocations == 1


def test_quota_is_by_user_and_given_back() -> None:
    world = World(limit=2)
    places = [Address("udp", "203.0.113.5", port) for port in (1, 2, 3, 4)]
    first = allocated(world, places[0])
    allocated(world, places[1])
    third = world.client(places[2])
    third.allocate(0.0)
    world.run()
    assert third.next_event() == AllocateFailed(486, "Allocation Quota Reached")
    allocated(world, places[3], "PA_other")
    first.refresh(0, 1.0)
    world.run(1.0)
    third.allocate(1.0)
    world.run(1.0)
    assert isinstance(third.next_event(), ClientAllocated)
    assert world.ended == [AllocationEnded(1, "PA_a", "released")]


def test_no_port_free_is_508_and_costs_no_quota() -> None:
    world = World(limit=1)
    world.full = True
    client = world.client()
    client.allocate(0.0)
    world.run()
    assert client.next_event() == AllocateFailed(508, "Insufficient Capacity")
    world.full = False
    client.allocate(0.0)
    world.run()
    assert isinstance(client.next_event(), ClientAllocated)


def test_a_client_that_is_gone_takes_its_allocation_along() -> None:
    world = World()
    allocated(world)
    world.server.client_gone(ALICE, 1.0)
    world.run()
    assert world.ended == [AllocationEnded(1, "PA_a", "gone")]


class Raw:
    """Signed requests of any shape."""

    def __init__(self) -> None:
        self.world = World()
        self.name, self.password = issue_credentials("key", "secret", "PA_a", int(UNIX) + 300)
        self.key = turn.long_term_key(self.name, "livekit", self.password)
        self.nonce = b""
        self.ask(turn.ALLOCATE, [], sign=False)

    def ask(
        self, kind: int, attributes: list[tuple[int, bytes]], *, sign: bool = True, transaction: bytes = b"t" * 12
    ) -> stun.Message | None:
        credentials = [(stun.USERNAME, self.name.encode()), (turn.REALM, b"livekit"), (turn.NONCE, self.nonce)]
        data = turn.build(kind, transaction, [*attributes, *(credentials if sign else [])], self.key if sign else None)
        server = self.world.server
        server.receive_datagram(data, ALICE, 0.0)
        while (event := server.next_event()) is not None:
            if isinstance(event, RelayWanted):
                server.relay_opened(event.relay, Peer("198.51.100.1", 30000), 0.0)
        answers = [stun.parse(data) for data, _ in server.datagrams_to_send(0.0)]
        for answer in answers:
            self.nonce = answer.attributes.get(turn.NONCE, self.nonce)
        return answers[0] if answers else None


UDP = (turn.REQUESTED_TRANSPORT, b"\x11\0\0\0")
PEER = (turn.XOR_PEER_ADDRESS, stun.xor_address("192.0.2.7", 9, b"t" * 12))
OTHER = (turn.XOR_PEER_ADDRESS, stun.xor_address("192.0.2.8", 9, b"t" * 12))


def channel(number: int) -> tuple[int, bytes]:
    return (turn.CHANNEL_NUMBER, number.to_bytes(2, "big") + b"\0\0")


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ([], 400),
        ([(turn.REQUESTED_TRANSPORT, b"\x11")], 400),
        ([(turn.REQUESTED_TRANSPORT, b"\x06\0\0\0")], 442),
        ([UDP, (0x001A, b"")], 420),
        ([UDP, (0x7FFF, b"")], 420),
        ([UDP, (turn.REQUESTED_ADDRESS_FAMILY, b"\x02\0\0\0")], 440),
        ([UDP, (turn.REQUESTED_ADDRESS_FAMILY, b"\x09\0\0\0")], 440),
        ([UDP, (turn.REQUESTED_ADDRESS_FAMILY, b"\x01")], 400),
        ([UDP, (turn.ADDITIONAL_ADDRESS_FAMILY, b"\x01\0\0\0")], 400),
        ([UDP, (turn.EVEN_PORT, b"\x80")], 508),
        ([UDP, (turn.RESERVATION_TOKEN, bytes(8))], 508),
        ([UDP, (turn.RESERVATION_TOKEN, bytes(8)), (turn.EVEN_PORT, b"\0")], 400),
        ([UDP, (turn.LIFETIME, b"\0")], 400),
        ([UDP, (turn.EVEN_PORT, b"\0")], None),
        ([UDP, (turn.ADDITIONAL_ADDRESS_FAMILY, b"\x02\0\0\0")], None),
    ],
)
def test_allocate(attributes: list[tuple[int, bytes]], code: int | None) -> None:
    answer = Raw().ask(turn.ALLOCATE, attributes)
    assert answer is not None and answer.error_code == code
    assert turn.signed_by(answer, Raw().key)


@pytest.mark.parametrize(
    ("kind", "attributes", "code"),
    [
        (turn.ALLOCATE, [UDP], 437),
        (turn.REFRESH, [(turn.REQUESTED_ADDRESS_FAMILY, b"\x02\0\0\0")], 443),
        (turn.REFRESH, [], None),
        (turn.CREATE_PERMISSION, [], 400),
        (turn.CREATE_PERMISSION, [(turn.XOR_PEER_ADDRESS, b"\0\x01\0")], 400),
        (turn.CREATE_PERMISSION, [PEER, OTHER], None),
        (turn.CHANNEL_BIND, [PEER], 400),
        (turn.CHANNEL_BIND, [channel(0x4000)], 400),
        (turn.CHANNEL_BIND, [channel(0x3FFF), PEER], 400),
        (turn.CHANNEL_BIND, [channel(0x5000), PEER], 400),
        (turn.CHANNEL_BIND, [channel(0x4000), OTHER], 400),
        (turn.CHANNEL_BIND, [channel(0x4001), PEER], 400),
        (turn.CHANNEL_BIND, [channel(0x4000), PEER], None),
        (turn.CHANNEL_BIND, [channel(0x4FFF), OTHER], None),
    ],
)
def test_requests_on_an_allocation(kind: int, attributes: list[tuple[int, bytes]], code: int | None) -> None:
    raw = Raw()
    raw.ask(turn.ALLOCATE, [UDP], transaction=b"a" * 12)
    raw.ask(turn.CHANNEL_BIND, [channel(0x4000), PEER])
    answer = raw.ask(kind, attributes)
    assert answer is not None and answer.error_code == code


@pytest.mark.parametrize("kind", [turn.REFRESH, turn.CREATE_PERMISSION, turn.CHANNEL_BIND])
def test_requests_without_an_allocation(kind: int) -> None:
    answer = Raw().ask(kind, [PEER])
    assert answer is not None and answer.error_code == 437


def test_another_user_on_the_same_address_is_refused() -> None:
    raw = Raw()
    raw.ask(turn.ALLOCATE, [UDP])
    raw.name, raw.password = issue_credentials("key", "secret", "PA_b", int(UNIX) + 300)
    raw.key = turn.long_term_key(raw.name, "livekit", raw.password)
    answer = raw.ask(turn.REFRESH, [])
    assert answer is not None and answer.error_code == 441


def test_a_retransmitted_allocate_gets_the_same_answer() -> None:
    raw = Raw()
    first, second = raw.ask(turn.ALLOCATE, [UDP]), raw.ask(turn.ALLOCATE, [UDP])
    assert first is not None and second is not None and first.raw == second.raw


def test_permissions_are_bounded() -> None:
    world = World(limits=TurnLimits(permissions=2))
    client = allocated(world)
    for host, code in ((1, None), (2, None), (3, 508)):
        client.permit(Peer(f"192.0.2.{host}", 9), 0.0)
        world.run()
        assert client.next_event() == (PermissionRefused(code) if code else None)
    client.permit(Peer("192.0.2.4", 9), 301.0)
    world.run(301.0)
    assert client.next_event() is None


def test_the_client_gives_up_in_the_end() -> None:
    client, now = TurnClient("u", "p", rng=random.Random(1)), 0.0
    client.allocate(now)
    sent = len(client.datagrams_to_send(now))
    while (timeout := client.next_timeout()) is not None:
        now = timeout
        client.handle_timeout(now)
        sent += len(client.datagrams_to_send(now))
    assert sent == 7 and client.next_event() == AllocateFailed(0, "no answer")


def test_rfc_5769_long_term_vector() -> None:
    """Section 2.4; the password is the one that SASLprep makes of it."""
    data = bytes.fromhex(
        "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015001c662f2f34"
        "39396b39353464364f4c33346f4c39465354767936347341001400"
        "0b6578616d706c652e6f7267000008"
        "0014f67024656dd64a3e02b8e0712e85c9a28ca89666"
    )
    message = stun.parse(data)
    username = turn.text_of(message, stun.USERNAME)
    assert username is not None and turn.text_of(message, turn.REALM) == "example.org"
    assert turn.signed_by(message, turn.long_term_key(username, "example.org", "TheMatrIX"))
    assert not turn.signed_by(message, turn.long_term_key(username, "example.org", "TheMatrix"))


@given(st.binary(min_size=1, max_size=64).filter(lambda data: data[0] != 0))
def test_base62_there_and_back(data: bytes) -> None:
    assert from_base62(base62(data)) == data


@given(st.binary(max_size=200))
def test_noise_is_counted_and_dropped(data: bytes) -> None:
    world = World()
    client = allocated(world)
    world.server.receive_datagram(data, ALICE, 0.0)
    client.receive_datagram(data, 0.0)
    assert world.server.allocations == 1
    try:
        TurnReader().feed(data)
    except ProtocolViolation:
        pass


@pytest.mark.parametrize("build", [lambda c: c.send(Peer("192.0.2.7", 9), b"x"), lambda c: c.refresh(0, 0.0)])
def test_every_truncation_is_harmless(build: Callable[[TurnClient], None]) -> None:
    world = World()
    client = allocated(world)
    build(client)
    (data,) = client.datagrams_to_send(0.0)
    for size in range(len(data)):
        world.server.receive_datagram(data[:size], ALICE, 0.0)
    assert world.server.allocations == 1 and world.server.datagrams_to_send(0.0) == []


def test_a_stream_is_cut_into_messages_wherever_it_is_split() -> None:
    parts = [turn.build(stun.BINDING_REQUEST, b"b" * 12, []), turn.channel_data(0x4000, b"12345", stream=True)]
    for at in range(len(b"".join(parts))):
        reader, whole = TurnReader(), b"".join(parts)
        assert reader.feed(whole[:at]) + reader.feed(whole[at:]) == parts
    assert turn.parse_channel_data(parts[1]) == (0x4000, b"12345")
    for bad in (b"\x80\0\0\0", b"\x40\0\xff\xff", b"\0\x01\0\x03"):
        with pytest.raises(ProtocolViolation, match=r"turn\.stream"):
            TurnReader().feed(bad)
