"""Both sides may begin: who offers when, what crosses, who does not listen."""

import random
import re

import pytest

from lkactor.dtls import Certificate
from lkactor.errors import ProtocolViolation
from lkactor.peer import PeerConnection
from lkactor.peer.either import EitherNegotiation
from lkactor.peer.negotiation import ANSWER_TIMEOUT, DEBOUNCE, AnswerReady, MediaAgreed, NegotiationEvent, OfferReady
from lkactor.sdp import SendTrack
from lkactor.sdp.either import EitherSide

CERTIFICATE = Certificate.generate()


class Side:
    """One end; `said` is what it has to say to the other."""

    def __init__(self, seed: int, *, begins: bool = False) -> None:
        rng = random.Random(seed)
        self.peer = PeerConnection(rng=rng, certificate=CERTIFICATE, candidates=(), controlling=begins)
        self.description = EitherSide(codecs=("audio/opus", "video/vp8"))
        self.negotiation = EitherNegotiation(self.description, self.peer, begins=begins)

    def send(self, *names: str, now: float) -> None:
        tracks = [
            SendTrack(name, "s", "audio", ssrc=len(name) + n, mimes=("audio/opus",)) for n, name in enumerate(names)
        ]
        self.negotiation.set_send_tracks(tracks, now)
        self.negotiation.start(now)

    def said(self, now: float) -> list[NegotiationEvent]:
        self.negotiation.handle_timeout(now)
        events = []
        while (event := self.negotiation.next_event()) is not None:
            events.append(event)
        return events

    def offer(self, now: float) -> str:
        (event,) = self.said(now)
        assert isinstance(event, OfferReady)
        return event.sdp

    def answer(self, offer: str, now: float) -> str:
        self.negotiation.receive_offer(offer, 1, {}, now)
        (event,) = self.said(now)
        assert isinstance(event, AnswerReady)
        return event.sdp

    def sending(self) -> set[str]:
        return {media.track_id for media in self.negotiation.send_media()}


def connected() -> tuple[Side, Side]:
    """The first has offered a section of each kind, the second answered; nothing is sent but by the second."""
    a, b = Side(1, begins=True), Side(2)
    a.send(now=0.0)
    b.send("voice", now=0.0)
    assert b.negotiation.next_timeout() is None, "it waits for the peer's first offer"
    assert a.negotiation.next_timeout() == DEBOUNCE
    answer = b.answer(a.offer(1.0), 1.0)
    a.negotiation.receive_answer(answer, 1.0)
    (agreed,) = a.said(1.0)
    assert isinstance(agreed, MediaAgreed)
    return a, b


def test_the_one_that_begins_offers_once_and_with_all_that_came_meanwhile() -> None:
    a, b = Side(1, begins=True), Side(2)
    a.send(now=0.0)
    a.send("tone", now=0.1)
    assert a.said(0.1) == []
    offer = a.offer(DEBOUNCE)
    assert "tone" in offer
    a.negotiation.receive_answer(b.answer(offer, 1.0), 1.0)
    assert a.sending() == {"tone"}
    assert a.peer.ice.remote_ufrag == b.peer.ice.local_ufrag


def test_changes_are_offered_and_nothing_else() -> None:
    a, b = connected()
    assert a.negotiation.next_timeout() is None
    a.send("tone", now=2.0)
    assert a.negotiation.next_timeout() == 2.0 + DEBOUNCE
    a.send(now=2.05)
    assert a.said(3.0) == [], "there and gone again: nothing to say"
    a.send("tone", now=4.0)
    a.negotiation.receive_answer(b.answer(a.offer(5.0), 5.0), 5.0)
    assert a.sending() == {"tone"}


def test_a_change_while_an_offer_is_out_is_the_next_offer() -> None:
    a, b = connected()
    a.send("one", now=2.0)
    offer = a.offer(3.0)
    a.send("one", "two", now=3.1)
    assert a.said(4.0) == []
    a.negotiation.receive_answer(b.answer(offer, 4.0), 4.0)
    a.said(4.0)
    assert a.negotiation.next_timeout() == 4.0 + DEBOUNCE
    assert "two" in a.offer(5.0)


def test_a_peer_that_does_not_answer_is_not_offered_to_again_before_it_speaks() -> None:
    a, b = connected()
    a.send("one", now=2.0)
    lost = a.offer(3.0)
    assert a.negotiation.next_timeout() == 3.0 + ANSWER_TIMEOUT
    assert a.said(3.0 + ANSWER_TIMEOUT) == []
    a.send("one", "two", now=20.0)
    assert a.negotiation.next_timeout() is None
    a.negotiation.receive_answer(b.answer(lost, 30.0), 30.0)
    a.said(30.0)
    assert a.sending() == {"one"}, "late is better than never"
    assert "two" in a.offer(31.0)


def test_an_offer_that_crosses_ours_is_answered_and_ours_said_again() -> None:
    a, b = connected()
    a.send("one", now=2.0)
    b.send("voice", "other", now=2.0)
    ours, theirs = a.offer(3.0), b.offer(3.0)
    answer = a.answer(theirs, 3.1)
    a.negotiation.receive_answer(re.sub("actpass|passive", "active", ours), 3.2)
    assert a.peer.counters["negotiation.unexpected_answer"] == 1
    b.negotiation.receive_answer(answer, 3.2)
    b.said(3.2)
    assert b.sending() == {"voice", "other"}
    again = a.offer(4.0)
    a.negotiation.receive_answer(b.answer(again, 4.0), 4.0)
    assert a.sending() == {"one"}


def test_new_credentials_of_the_peer_restart_ice() -> None:
    a, b = connected()
    before = a.peer.ice.local_ufrag
    b.peer.restart_ice(2.0)
    b.send("voice", "other", now=2.0)
    a.answer(b.offer(3.0), 3.0)
    assert a.peer.ice.local_ufrag != before


@pytest.mark.parametrize("sdp", ["", "v=0\r\n"])
def test_what_cannot_be_read_is_a_violation(sdp: str) -> None:
    a, _ = connected()
    with pytest.raises(ProtocolViolation):
        a.negotiation.receive_offer(sdp, 1, {}, 2.0)
    a.send("one", now=2.0)
    a.offer(3.0)
    with pytest.raises(ProtocolViolation):
        a.negotiation.receive_answer(sdp, 4.0)
