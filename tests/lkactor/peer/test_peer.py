"""Two of our own peers, whole: negotiation, ICE, DTLS, SRTP and SCTP over the network emulator, in virtual time.

OpenSSL times its handshake flights by its own wall clock, so the network turns bad once the keys are there.
"""

import random

import pytest
from support.netem import Addressed, Link, Wire, run_pair

from lkactor.dtls import Certificate, DtlsEndpoint
from lkactor.ice import host_candidates
from lkactor.peer import KeysReady, PathChanged, PeerConnection, PeerState, PeerStateChanged
from lkactor.peer.channels import DataChannels
from lkactor.peer.negotiation import AnswerNegotiation, AnswerReady, OfferNegotiation, OfferReady
from lkactor.sctp import ChannelOpened, MessageReceived, SctpClosed
from lkactor.sdp import Answerer, Offerer, SendTrack
from lkactor.wire.address import Address
from lkactor.wire.rtcp import Nack, build_rtcp
from lkactor.wire.rtp import build_rtp

CODECS = ("audio/opus", "video/vp8", "video/rtx")
A, B = Address("udp", "10.0.0.1", 7882), Address("udp", "10.0.0.2", 5000)


class Peers:
    """`a` offers and opens the channels, as the server does on the subscriber connection; `b` answers."""

    def __init__(self, seed: int, *, lite: bool = False) -> None:
        rng = random.Random(seed)
        self.rng = rng
        self.a = PeerConnection(
            rng=rng,
            certificate=Certificate.generate(),
            candidates=host_candidates([A.ip], A.port, None),
            controlling=not lite,
            lite=lite,
        )
        self.b = PeerConnection(
            rng=rng,
            certificate=Certificate.generate(),
            candidates=host_candidates([B.ip], B.port, None),
            controlling=lite,
        )
        self.offers = OfferNegotiation(Offerer(codecs=CODECS), self.a, rng)
        self.answers = AnswerNegotiation(Answerer(codecs=CODECS), self.b)
        self.channels = {self.a: DataChannels(), self.b: DataChannels()}
        self.events = {self.a: [], self.b: []}
        self.link = Link(rng), Link(rng)
        self.wire = Wire(*self.link)
        self.now = 0.0

    def negotiate(self) -> None:
        while (offer := self.offers.next_event()) is not None:
            assert isinstance(offer, OfferReady)
            self.answers.receive_offer(offer.sdp, offer.offer_id, {}, self.now)
            answer = self.answers.next_event()
            assert isinstance(answer, AnswerReady)
            self.offers.receive_answer(answer.sdp, self.now)

    def step(self, now: float) -> None:
        self.now = now
        for peer in (self.a, self.b):
            while (event := peer.next_event()) is not None:
                self.events[peer].append(event)
                if isinstance(event, KeysReady) and peer is self.a:
                    self.channels[peer].open_all(peer.sctp)
                if isinstance(event, ChannelOpened):
                    self.channels[peer].opened(event.channel_id, event.label, peer.sctp, now)

    def run(self, until, limit: float = 60.0) -> None:
        a, b = Addressed(self.a, B), Addressed(self.b, A)
        self.now = run_pair(a, b, self.wire, until, self.now, limit=limit, on_step=self.step)

    def connect(self) -> None:
        self.offers.start(self.now)
        self.negotiate()
        self.run(lambda: all(p.state is PeerState.CONNECTED and self.channels[p].ready for p in (self.a, self.b)))

    def spoil(self, **knobs: float) -> None:
        for link in self.link:
            for name, value in knobs.items():
                setattr(link, name, value)

    def received(self, peer) -> list[bytes]:
        return [event.data for event in self.events[peer] if isinstance(event, MessageReceived)]


@pytest.mark.parametrize("lite", [False, True])
def test_connects_with_channels(lite: bool) -> None:
    peers = Peers(1, lite=lite)
    peers.connect()
    assert any(isinstance(event, PathChanged) for event in peers.events[peers.a])
    assert peers.a.ice.selected == B and peers.b.ice.selected == A


@pytest.mark.parametrize("seed", range(8))
def test_reliable_data_over_a_bad_network(seed: int) -> None:
    peers = Peers(seed)
    peers.connect()
    peers.spoil(loss=0.05, reorder=0.05, duplicate=0.05, delay=0.02)
    messages = [bytes([number % 256]) * peers.rng.randrange(1, 40_000) for number in range(40)]
    for message in messages:
        for peer in (peers.a, peers.b):
            peers.channels[peer].send(True, message, peer.sctp, peers.now)
    peers.run(lambda: all(len(peers.received(peer)) >= 40 for peer in (peers.a, peers.b)), limit=300.0)
    assert peers.received(peers.a) == messages and peers.received(peers.b) == messages


@pytest.mark.parametrize("seed", range(4))
def test_media_and_feedback_over_a_bad_network(seed: int) -> None:
    peers = Peers(seed)
    peers.connect()
    peers.spoil(loss=0.05, reorder=0.05, duplicate=0.05, delay=0.01)
    sent = [
        build_rtp(payload_type=96, sequence=number & 0xFFFF, timestamp=number, ssrc=7, payload=bytes(900))
        for number in range(65_300, 66_300)
    ]
    got = []
    for packet in sent:
        peers.link[0].send(peers.a.sender.protect_rtp(packet), peers.now)
        peers.run(peers.now + 0.002)
        got += peers.b.take_rtp()
    peers.run(peers.now + 1.0)
    got += peers.b.take_rtp()
    assert {packet.data for packet in got} <= set(sent)
    assert len(got) == len({packet.data for packet in got}), "a duplicate passed the replay check"
    assert len(got) > 900
    peers.spoil(loss=0.0)
    peers.link[1].send(peers.b.sender.protect_rtcp(build_rtcp([Nack(7, 7, (65_301, 3))])), peers.now)
    peers.run(peers.now + 1.0)
    assert [packet for packet, _ in peers.a.take_rtcp()] == [Nack(7, 7, (65_301, 3))]


def test_tracks_come_and_go_in_two_steps() -> None:
    """A track that leaves and comes back before an offer was made is described without it once."""
    peers = Peers(3)
    peers.connect()
    track = SendTrack(track_id="TR_a", stream_id="PA_x|TR_a", kind="video", ssrc=5, rtx_ssrc=6, stereo=False)
    again = SendTrack(track_id="TR_a", stream_id="PA_x|TR_a", kind="video", ssrc=8, rtx_ssrc=9, stereo=False)

    def settle() -> list[set[str]]:
        described = []
        while (due := peers.offers.next_timeout()) is not None:
            peers.now = max(peers.now, due)
            peers.offers.handle_timeout(peers.now)
            peers.negotiate()
            described.append({media.track_id for media in peers.offers.send_media()})
        return described

    peers.offers.set_send_tracks([track], peers.now)
    assert settle() == [{"TR_a"}]
    peers.offers.set_send_tracks([], peers.now)
    peers.offers.set_send_tracks([again], peers.now)
    assert settle() == [set(), {"TR_a"}]


def test_ice_restart_keeps_everything_going() -> None:
    peers = Peers(5)
    peers.connect()
    before = peers.a.ice.local_ufrag
    peers.offers.restart_ice(peers.now)
    peers.now = peers.offers.next_timeout()
    peers.offers.handle_timeout(peers.now)
    peers.negotiate()
    peers.run(peers.now + 3.0)
    assert peers.a.ice.local_ufrag != before
    assert peers.a.state is peers.b.state is PeerState.CONNECTED
    peers.channels[peers.a].send(True, b"still there", peers.a.sctp, peers.now)
    peers.run(lambda: peers.received(peers.b) == [b"still there"])


def test_channels_that_end_are_no_change_of_the_connection() -> None:
    """A client that leaves aborts its association first: its log then said "connected", of a client that was going."""
    peers = Peers(7)
    peers.connect()
    changes = [event for event in peers.events[peers.a] if isinstance(event, PeerStateChanged)]
    peers.b.sctp.abort(peers.now)
    peers.run(lambda: SctpClosed("aborted") in peers.events[peers.a], limit=5.0)
    assert [event for event in peers.events[peers.a] if isinstance(event, PeerStateChanged)] == changes


def test_a_foreign_certificate_fails() -> None:
    """Somebody else answers the handshake: the fingerprint of the description does not fit."""
    peers = Peers(6)
    peers.offers.start(0.0)
    peers.negotiate()
    expected = [peers.a.certificate.fingerprint]
    peers.b.dtls = DtlsEndpoint(certificate=Certificate.generate(), role="client", remote_fingerprints=expected)
    peers.run(lambda: peers.a.state is PeerState.FAILED, limit=10.0)
    failed = [e for e in peers.events[peers.a] if isinstance(e, PeerStateChanged) and e.state is PeerState.FAILED]
    assert "fingerprint" in failed[0].detail
    assert peers.a.sender is None


@pytest.mark.parametrize("seed", range(5))
def test_random_datagrams_do_no_harm(seed: int) -> None:
    peers = Peers(seed)
    peers.connect()
    rng = random.Random(seed)
    for _ in range(500):
        packet = bytearray(rng.randbytes(rng.randrange(0, 300)))
        if packet:
            packet[0] = rng.choice((0, 1, 20, 22, 23, 63, 64, 128, 144, 200))
        peers.a.receive_datagram(bytes(packet), rng.choice((A, B)), peers.now)
    peers.run(peers.now + 3.0)
    assert peers.a.state is PeerState.CONNECTED
    assert sum(peers.a.all_counters.values()) >= 490
