"""Checks that the receiving thread answers: the same octets as `lkactor.ice`, and none that tells it anything new."""

from __future__ import annotations

import math
import random
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.inline import packed, pump_of, receiving_cell
from support.media import available_planes, plane_named

from lkactor.ice import Consent, IceAgent, IceState, host_candidates
from lkactor.wire import stun
from lkactor.wire.address import Address

FAST = available_planes()[1:]
PATIENCE = 20.0


def udp(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    sock.settimeout(PATIENCE)
    return sock


class Peers:
    """A server's agent and a client's that have found each other, with real sockets for what comes after."""

    def __init__(self, plane: str, family: socket.AddressFamily, role: str) -> None:
        self.plane: Any = plane_named(plane)
        self.socks = self.server, self.client = udp(family), udp(family)
        self.server.setblocking(False)
        self.addresses = [Address("udp", *sock.getsockname()[:2]) for sock in self.socks]
        rng = random.Random(5)
        self.agents = self.ours, self.theirs = [
            IceAgent(
                rng=rng, local_candidates=host_candidates([at.ip], at.port, None), lite=lite, controlling=controlling
            )
            for at, lite, controlling in zip(
                self.addresses, (role == "lite", False), (role == "controlling", role != "controlling"), strict=True
            )
        ]
        self.now = 1000.0
        self.introduce()
        self.cell = receiving_cell(self.plane, self.server)
        self.pump = pump_of(self.plane, [self.cell], self.now)
        self.ingress = self.plane.ingress()
        self.at = packed(self.client.getsockname())
        self.cell.set_route(self.at, 1, self.ingress)

    def introduce(self) -> None:
        ours, theirs = self.agents
        ours.set_remote_credentials(theirs.local_ufrag, theirs.local_pwd, lite=False, now=self.now)
        theirs.set_remote_credentials(ours.local_ufrag, ours.local_pwd, lite=ours.lite, now=self.now)
        theirs.add_remote_candidate(ours.local_candidates[0], self.now)
        self.pass_time(1.0)

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds / 0.05)):
            self.now += 0.05
            for source, sink, origin in ((0, 1, 0), (1, 0, 1)) * 2:
                self.agents[source].handle_timeout(self.now)
                for data, _ in self.agents[source].datagrams_to_send(self.now):
                    self.agents[sink].receive_datagram(data, self.addresses[origin], self.now)

    def share(self) -> None:
        self.ingress.set_consent(self.cell, self.at, self.ours.consent)

    def check(self) -> bytes:
        """The client's next one."""
        while True:
            self.now += 0.05
            self.theirs.handle_timeout(self.now)
            for data, _ in self.theirs.datagrams_to_send(self.now):
                if stun.parse(data).kind == stun.BINDING_REQUEST:
                    return data

    def send(self, data: bytes) -> bytes | None:
        """The answer; None: it went up."""
        self.client.sendto(data, self.server.getsockname())
        while not self.pump.once():
            pass
        up = [entry[3] for entry in self.pump.take(4096)]
        assert up in ([], [data])
        return None if up else self.client.recv(2048)

    def close(self) -> None:
        self.pump.stop()
        for sock in self.socks:
            sock.close()


@pytest.fixture
def role() -> str:
    """Ours; a test may say another."""
    return "controlled"


@pytest.fixture
def family() -> socket.AddressFamily:
    return socket.AF_INET


@pytest.fixture(params=FAST)
def plane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def peers(plane: str, family: socket.AddressFamily, role: str) -> Iterator[Peers]:
    made = Peers(plane, family, role)
    yield made
    made.close()


@pytest.mark.parametrize("role", ["lite", "controlled", "controlling"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_answers_are_those_of_the_agent(peers: Peers) -> None:
    assert peers.ours.state is peers.theirs.state is IceState.CONNECTED
    assert peers.send(peers.check()) is None and peers.ingress.heard == -math.inf
    peers.share()
    for _ in range(3):
        check = peers.check()
        answer = peers.send(check)
        assert peers.ours.receive_datagram(check, peers.addresses[1], peers.now)
        assert [(answer, peers.addresses[1])] == peers.ours.datagrams_to_send(peers.now)
        assert peers.theirs.receive_datagram(answer or b"", peers.addresses[0], peers.now)
    assert peers.ingress.heard >= 1000.0
    assert (peers.cell.packets, peers.cell.errors) == (3, 0)
    peers.ingress.set_consent(None, b"", None)
    assert peers.send(peers.check()) is None


def test_the_answer_to_a_check_of_ours_waits_for_others_on_a_path_that_works_alone(peers: Peers) -> None:
    def rings(data: bytes) -> bool:
        peers.client.sendto(data, peers.server.getsockname())
        while not peers.pump.once():
            pass
        rung = bool(select.select([peers.pump.fd], [], [], 0)[0])
        assert [entry[3] for entry in peers.pump.take(64)] == [data]
        return rung

    answer = stun.build(stun.BINDING_SUCCESS, bytes(12), [], "key")
    assert rings(answer)
    peers.share()
    assert not rings(answer)
    assert rings(b"\x01\x11" + answer[2:]), "an error"
    peers.ingress.set_consent(None, b"", None)
    assert rings(answer)


def rebuilt(rng: random.Random, check: bytes, password: str) -> bytes:
    """A check with something else in it, most often signed."""
    message = stun.parse(check)
    attributes = [pair for pair in message.attributes.items() if pair[0] != stun.MESSAGE_INTEGRITY]
    known = [stun.USE_CANDIDATE, stun.ICE_CONTROLLED, stun.ICE_CONTROLLING, stun.PRIORITY, stun.USERNAME]
    known += [0x0019, 0xC057]
    for _ in range(rng.randrange(3)):
        change = rng.randrange(4)
        if change == 0 and attributes:
            attributes.pop(rng.randrange(len(attributes)))
        elif change == 1:
            added = rng.choice(known), rng.randbytes(rng.choice([0, 4, 8]))
            attributes.insert(rng.randrange(len(attributes) + 1), added)
        elif change == 2:
            rng.shuffle(attributes)
        else:
            attributes.append((0x8000 | rng.randrange(0x20), rng.randbytes(rng.randrange(40))))
    kind = rng.choice([stun.BINDING_REQUEST] * 9 + [stun.BINDING_INDICATION, stun.BINDING_SUCCESS])
    secret = rng.choice([password] * 9 + ["another", None])
    data = bytearray(stun.build(kind, rng.randbytes(12), attributes, secret, fingerprint=rng.random() < 0.8))
    if rng.random() < 0.2:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    if rng.random() < 0.1:
        del data[rng.randrange(1, len(data)) :]
    return bytes(data)


@pytest.mark.parametrize("role", ["lite", "controlled", "controlling"])
def test_what_is_answered_would_have_told_the_agent_nothing(peers: Peers) -> None:
    rng, answered, up = random.Random(9), 0, 0
    peers.share()
    usual = peers.check()
    while peers.ours.next_event() is not None:
        pass
    for _ in range(400):
        check = rebuilt(rng, usual, peers.ours.local_pwd)
        answer = peers.send(check)
        if answer is None:
            up += 1
            continue
        answered += 1
        assert peers.ours.receive_datagram(check, peers.addresses[1], peers.now)
        assert [answer for answer, _ in peers.ours.datagrams_to_send(peers.now)] == [answer]
        assert peers.ours.next_event() is None
    assert answered > 60 and up > 60, (answered, up)


def test_from_elsewhere_or_by_another_socket(peers: Peers) -> None:
    peers.share()
    assert peers.send(peers.check()) is not None
    consent = peers.ours.consent
    assert consent is not None
    other = peers.plane.socket(peers.server.fileno())
    peers.ingress.set_consent(other, peers.at, consent)
    assert peers.send(peers.check()) is None
    peers.ingress.set_consent(peers.cell, packed(("127.0.0.1", 9)), consent)
    assert peers.send(peers.check()) is None
    peers.share()
    peers.cell.divert = True
    assert peers.send(peers.check()) is None


@pytest.mark.skipif("kernel" not in FAST, reason="the C kernel is not built here")
@pytest.mark.parametrize("plane", ["kernel"])
def test_names_that_are_too_long_are_for_python(peers: Peers) -> None:
    consent = peers.ours.consent
    assert consent is not None
    peers.ingress.set_consent(peers.cell, peers.at, consent._replace(user=bytes(289)))
    assert peers.send(peers.check()) is None


def test_consent_is_for_who_has_settled(peers: Peers) -> None:
    ours = peers.ours
    first = ours.consent
    assert isinstance(first, Consent) and first.address == peers.addresses[1]
    ours.restart(peers.now)
    assert ours.consent is None
    peers.theirs.restart(peers.now)
    peers.introduce()
    assert ours.consent is not None and ours.consent.user != first.user


def test_checks_that_others_have_answered_keep_the_path_alive(peers: Peers) -> None:
    ours = peers.ours
    silent = peers.now
    while peers.now < silent + 30:
        peers.now += 0.5
        if peers.now < silent + 15:
            ours.path_heard(peers.now)
        ours.handle_timeout(peers.now)
        assert (ours.state is IceState.CONNECTED) == (peers.now < silent + 24.5)
        assert (ours.consent is not None) == (ours.state is IceState.CONNECTED)
    ours.path_heard(peers.now)
    assert ours.state is IceState.FAILED
