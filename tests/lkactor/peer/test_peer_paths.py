"""Which candidates are announced and taken, what the path is, and how long each step may last."""

import random

import pytest

from lkactor.dtls import Certificate
from lkactor.ice import PathKind, host_candidates
from lkactor.peer import PeerConnection, PeerState, PeerStateChanged
from lkactor.peer.negotiation import AnswerNegotiation, AnswerReady, OfferNegotiation, OfferReady
from lkactor.sctp import MessageReceived
from lkactor.sdp import Answerer, Offerer
from lkactor.wire.address import Address

CODECS = ("audio/opus",)
CERTIFICATE = Certificate.generate()


def peer(ip: str, *, tcp_port: int | None = None, controlling: bool = False) -> PeerConnection:
    return PeerConnection(
        rng=random.Random(ip),
        certificate=CERTIFICATE,
        candidates=host_candidates([ip], 7882, tcp_port),
        controlling=controlling,
    )


def offer(connection: PeerConnection, now: float = 0.0) -> OfferReady:
    negotiation = OfferNegotiation(Offerer(codecs=CODECS), connection, random.Random(1))
    negotiation.start(now)
    ready = negotiation.next_event()
    assert isinstance(ready, OfferReady)
    return ready


def negotiated(a: PeerConnection, b: PeerConnection, now: float = 0.0) -> None:
    """`a` offers, `b` answers."""
    offers = OfferNegotiation(Offerer(codecs=CODECS), a, random.Random(1))
    offers.start(now)
    ready = offers.next_event()
    assert isinstance(ready, OfferReady)
    answers = AnswerNegotiation(Answerer(codecs=CODECS), b)
    answers.receive_offer(ready.sdp, ready.offer_id, {}, now)
    answer = answers.next_event()
    assert isinstance(answer, AnswerReady)
    offers.receive_answer(answer.sdp, now)


def exchange_checks(a: PeerConnection, b: PeerConnection, at_b: Address, at_a: Address, now: float) -> None:
    """STUN only: what a path is worth on which no handshake comes through. `at_b`: how `a` is seen by `b`."""
    for _ in range(40):
        now += 0.05
        for sender, receiver, seen_as in ((a, b, at_b), (b, a, at_a)):
            sender.handle_timeout(now)
            for data, _ in sender.datagrams_to_send(now):
                if data[0] < 4:
                    receiver.receive_datagram(data, seen_as, now)


def failed(connection: PeerConnection) -> bool:
    return connection.state is PeerState.FAILED


A, B = Address("udp", "10.0.0.1", 7882), Address("udp", "10.0.0.2", 7882)
BINDING_REQUEST = b"\0\1"


def test_tcp_alone_is_announced() -> None:
    server = peer("10.0.0.1", tcp_port=7881, controlling=True)
    server.use_candidates(tcp_only=True)
    sdp = offer(server).sdp
    assert " tcp " in sdp and " udp " not in sdp
    server.use_candidates(tcp_only=False)
    assert " udp " in offer(server).sdp


def test_without_tcp_there_is_nothing_to_leave_out() -> None:
    server = peer("10.0.0.1", controlling=True)
    server.use_candidates(tcp_only=True)
    assert " udp " in offer(server).sdp


def test_udp_candidates_of_the_peer_are_not_checked_when_tcp_is_wanted() -> None:
    for tcp_only, checks in ((True, False), (False, True)):
        a, b = peer("10.0.0.1", tcp_port=7881, controlling=True), peer("10.0.0.2")
        a.use_candidates(tcp_only=tcp_only)
        negotiated(a, b)
        a.handle_timeout(0.1)
        assert bool(a.datagrams_to_send(0.1)) is checks


@pytest.mark.parametrize(
    ("at", "candidate", "kind"),
    [
        (B, "", PathKind.UDP),
        (Address("tcp", "10.0.0.2", 5000), "", PathKind.TCP),
        (Address("udp", "192.0.2.9", 6000), "candidate:1 1 udp 1 192.0.2.9 6000 typ relay", PathKind.RELAY),
        (Address("udp", "192.0.2.9", 6000), "candidate:1 1 udp 1 192.0.2.9 6000 typ srflx", PathKind.UDP),
    ],
)
def test_what_the_path_is(at: Address, candidate: str, kind: PathKind) -> None:
    a, b = peer("10.0.0.1", controlling=True), peer("10.0.0.2")
    assert a.path_kind is PathKind.NONE
    negotiated(a, b)
    if candidate:
        a.add_remote_candidate(candidate, 0.0)
    exchange_checks(a, b, A, at, 0.0)
    assert a.ice.selected == at
    assert a.path_kind is kind


def test_ice_has_the_time_that_it_is_given() -> None:
    a, b = peer("10.0.0.1", tcp_port=7881, controlling=True), peer("10.0.0.2")
    a.use_candidates(tcp_only=True, check_timeout=5.0)
    negotiated(a, b)
    for now in (4.9, 5.1):
        a.handle_timeout(now)
        assert failed(a) is (now > 5.0)
    a.use_candidates(tcp_only=False)
    a.restart_ice(6.0)
    for now in (35.0, 36.1):
        a.handle_timeout(now)
        assert failed(a) is (now > 36.0)


def test_path_without_a_handshake_fails() -> None:
    a, b = peer("10.0.0.1", controlling=True), peer("10.0.0.2")
    negotiated(a, b)
    exchange_checks(a, b, A, B, 0.0)
    assert a.ice.selected == B
    for now in (9.0, 13.0):
        # The path is alive: only the handshake is missing.
        exchange_checks(a, b, A, B, now - 2.0)
        a.handle_timeout(now)
        assert failed(a) is (now > 10.0)
    changes = [event for event in iter(a.next_event, None) if isinstance(event, PeerStateChanged)]
    assert changes[-1] == PeerStateChanged(PeerState.FAILED, "dtls: no handshake over udp")


def exchange(a: PeerConnection, b: PeerConnection, at_a: Address, now: float, seconds: float = 2.0) -> float:
    """Everything both ways; `at_a`: how `b` is seen by `a`."""
    ends = now + seconds
    while now < ends:
        now += 0.02
        for sender, receiver, seen_as in ((a, b, A), (b, a, at_a)):
            sender.handle_timeout(now)
            for data, _ in sender.datagrams_to_send(now):
                receiver.receive_datagram(data, seen_as, now)
    return now


def messages(connection: PeerConnection) -> list[bytes]:
    found = []
    while (event := connection.next_event()) is not None:
        if isinstance(event, MessageReceived):
            found.append(bytes(event.data))
    return found


def test_data_of_an_established_session_comes_by_any_path_a_handshake_does_not() -> None:
    server, client = peer("10.0.0.1", controlling=True), peer("10.0.0.2")
    negotiated(server, client)
    stranger = Address("udp", "10.0.0.2", 40719)
    for data in (b"\x16\xfe\xfd" + bytes(60), b"\x17\xfe\xfd" + bytes(60)):
        server.receive_datagram(data, stranger, 0.0)
    assert server.all_counters["dtls.unvalidated_path"] == 2
    now = exchange(server, client, B, 0.0)
    assert server.state is client.state is PeerState.CONNECTED
    assert client.sctp is not None
    channel = client.sctp.open_channel("_reliable")
    now = exchange(server, client, B, now)
    client.sctp.send(channel, b"by a new port", now=now)
    for data, _ in client.datagrams_to_send(now):
        server.receive_datagram(data, stranger, now)
    assert messages(server) == [b"by a new port"]
    assert all(to == B for _, to in server.datagrams_to_send(now)), "what is sent goes by the path that was checked"


def test_a_handshake_that_outruns_the_check_of_its_path_waits_for_it() -> None:
    """The peer's check succeeds first and it begins: answering its next try instead cost a join 100 ms."""
    server, client = peer("10.0.0.1", controlling=True), peer("10.0.0.2")
    negotiated(server, client)
    held: list[bytes] = []

    def deliver(*, hold: bool) -> bool:
        moved = False
        for sender, receiver, seen_as in ((client, server, B), (server, client, A)):
            sender.handle_timeout(0.05)
            for data, _ in sender.datagrams_to_send(0.05):
                if hold and sender is server and data[:2] == BINDING_REQUEST:
                    held.append(data)
                    continue
                moved = True
                receiver.receive_datagram(data, seen_as, 0.05)
        return moved

    while deliver(hold=True):
        pass
    assert server.all_counters["dtls.unvalidated_path"] == 1
    assert server.sender is client.sender is None
    client.receive_datagram(held[-1], A, 0.05)
    while deliver(hold=False):
        pass
    assert server.sender is not None and client.sender is not None, "with the first try, in no time"
