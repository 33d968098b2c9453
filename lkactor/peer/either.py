"""Offer and answer where both sides may begin: the server answers, and offers when it has more to send.

| state   | leaves it                                                                                    |
|---------|----------------------------------------------------------------------------------------------|
| WAITING | the peer's first offer: STABLE. If we are to begin: the start and its debounce: OFFERED       |
| STABLE  | an offer of the peer: STABLE. A change of ours and its debounce: OFFERED                      |
| OFFERED | the answer: STABLE. An offer of the peer: STABLE, ours is withdrawn and said again afterwards |
|         | 15 s without an answer: MUTE                                                                 |
| MUTE    | an offer of the peer: STABLE. We do not offer: this peer does not listen                      |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lkactor.peer.connection import PeerConnection
from lkactor.peer.negotiation import (
    ANSWER_TIMEOUT,
    DEBOUNCE,
    AnswerReady,
    MediaAgreed,
    NegotiationEvent,
    OfferReady,
    local_transport,
)
from lkactor.sdp import ReceivePreference, SendMedia, SendTrack
from lkactor.sdp.either import EitherSide


class EitherNegotiation:
    """`begins`: the server makes the first offer."""

    def __init__(self, description: EitherSide, peer: PeerConnection, *, begins: bool) -> None:
        self._description = description
        self._peer = peer
        self._begins = begins
        self._established = False
        self._mute = False
        self._offer_id = 0
        self._offer_due: float | None = None
        self._answer_due: float | None = None
        self._events: list[NegotiationEvent] = []

    def start(self, now: float) -> None:
        """The first word on what there is to send. What comes with the next few is part of the first offer."""
        if self._begins and not self._established and self._offer_due is None and self._answer_due is None:
            self._offer_due = now + DEBOUNCE

    def set_send_tracks(self, tracks: Sequence[SendTrack], now: float) -> None:
        self._description.set_send_tracks(tracks)
        self._plan(now)

    def restart_ice(self, now: float) -> None:
        """The peer restarts ICE in an offer of its own."""

    def receive_offer(self, sdp: str, offer_id: int, preferences: Mapping[str, ReceivePreference], now: float) -> None:
        """Raises ProtocolViolation if the offer cannot be answered."""
        summary = self._description.receive_offer(sdp)
        remote = summary.transport
        known = self._peer.ice.remote_ufrag
        if known is not None and known != remote.ufrag:
            self._peer.restart_ice(now)
        answer = self._description.create_answer(local_transport(self._peer))
        # RFC 8842 5.3: the answerer to "actpass" is best active.
        self._peer.set_remote(remote, dtls_client=remote.setup != "active", with_data=summary.has_data, now=now)
        self._established, self._mute, self._answer_due = True, False, None
        media = self._description.receive_media()
        self._events.append(AnswerReady(answer, offer_id, self._description.mid_to_track_id(), media))
        self._plan(now)

    def receive_answer(self, sdp: str, now: float) -> None:
        """Raises ProtocolViolation if the answer cannot be used."""
        if not self._description.outstanding:
            # Our offer was withdrawn when the peer's crossed it; the peer may have answered before it knew.
            self._peer.counters.count("negotiation.unexpected_answer")
            return
        remote = self._description.receive_answer(sdp)
        self._answer_due, self._mute, self._established = None, False, True
        has_data = self._description.has_data
        self._peer.set_remote(remote, dtls_client=remote.setup == "passive", with_data=has_data, now=now)
        self._events.append(MediaAgreed(self._description.receive_media()))
        self._plan(now)

    def send_media(self) -> Sequence[SendMedia]:
        return self._description.send_media()

    def next_timeout(self) -> float | None:
        return self._answer_due if self._answer_due is not None else self._offer_due

    def handle_timeout(self, now: float) -> None:
        if self._answer_due is not None:
            if now >= self._answer_due:
                self._answer_due, self._mute = None, True
        elif self._offer_due is not None and now >= self._offer_due:
            self._offer(now)

    def next_event(self) -> NegotiationEvent | None:
        return self._events.pop(0) if self._events else None

    def _plan(self, now: float) -> None:
        ready = self._established and not self._mute and self._answer_due is None
        if ready and self._offer_due is None and self._description.must_offer():
            self._offer_due = now + DEBOUNCE

    def _offer(self, now: float) -> None:
        self._offer_due = None
        if self._established and not self._description.must_offer():
            return
        self._offer_id += 1
        self._answer_due = now + ANSWER_TIMEOUT
        sdp = self._description.create_offer(local_transport(self._peer))
        self._events.append(OfferReady(sdp, self._offer_id, self._description.mid_to_track_id()))
