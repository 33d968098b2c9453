"""The client offers: how soon it is asked to, when there is something for it."""

import random

from lkactor.dtls import Certificate
from lkactor.peer import PeerConnection
from lkactor.peer.negotiation import DEBOUNCE, FAST_DEBOUNCE, AnswerNegotiation, AnswerReady, SectionsWanted
from lkactor.sdp import Answerer, SendTrack

HEAD = (
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=ice-ufrag:abcd\r\n"
    "a=ice-pwd:0123456789abcdef012345\r\na=setup:actpass\r\na=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\n"
)
AUDIO = (
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtcp-mux\r\na=recvonly\r\n"
    "a=rtpmap:111 opus/48000/2\r\n"
)


def offered(now: float) -> AnswerNegotiation:
    """A client has made its first offer, with one section to receive on."""
    peer = PeerConnection(rng=random.Random(1), certificate=Certificate.generate(), candidates=(), controlling=False)
    negotiation = AnswerNegotiation(Answerer(codecs=("audio/opus",), single=True), peer)
    offer(negotiation, now)
    return negotiation


def offer(negotiation: AnswerNegotiation, now: float) -> None:
    negotiation.receive_offer(HEAD + AUDIO, 1, {}, now)
    assert isinstance(negotiation.next_event(), AnswerReady)


def tracks(count: int) -> list[SendTrack]:
    return [SendTrack(f"TR_{n}", "s", "audio", ssrc=n + 1, mimes=("audio/opus",)) for n in range(count)]


def asked(negotiation: AnswerNegotiation, now: float) -> list[SectionsWanted]:
    negotiation.handle_timeout(now)
    events = []
    while (event := negotiation.next_event()) is not None:
        assert isinstance(event, SectionsWanted)
        events.append(event)
    return events


def test_a_track_for_who_has_just_offered_does_not_wait_for_the_offer_to_be_old() -> None:
    negotiation = offered(10.0)
    negotiation.set_send_tracks(tracks(1), 10.01)
    assert asked(negotiation, 10.01 + FAST_DEBOUNCE) == [SectionsWanted(0, 0)]


def test_what_comes_soon_after_our_asking_is_gathered() -> None:
    negotiation = offered(10.0)
    negotiation.set_send_tracks(tracks(1), 11.0)
    assert asked(negotiation, 11.0 + FAST_DEBOUNCE)
    offer(negotiation, 11.05)
    for number in (2, 3):
        negotiation.set_send_tracks(tracks(number), 11.06)
    assert not asked(negotiation, 11.06 + FAST_DEBOUNCE)
    assert asked(negotiation, 11.06 + DEBOUNCE) == [SectionsWanted(2, 0)]


def test_an_offer_that_comes_by_itself_need_not_be_asked_for() -> None:
    negotiation = offered(10.0)
    negotiation.set_send_tracks(tracks(1), 11.0)
    offer(negotiation, 11.001)
    assert negotiation.next_timeout() is None


def test_a_client_that_never_gives_the_sections_is_asked_seven_times_a_second_at_most() -> None:
    negotiation = offered(10.0)
    negotiation.set_send_tracks(tracks(2), 11.0)
    now, times = 11.0, 0
    while now < 13.0:
        if asked(negotiation, now):
            times += 1
            offer(negotiation, now)
        now += 0.005
    assert 10 <= times <= 2.0 / DEBOUNCE + 2
