"""Offer and answer as sans-IO state machines: when to offer, what an answer changes, when an ICE restart is due.

A peer connection is negotiated by one side only (LiveKit's rule): `OfferNegotiation` where the server offers (the
subscriber connection), `AnswerNegotiation` where the client does (the publisher connection, and the single one).

| offering state | leaves it                                                              |
|----------------|------------------------------------------------------------------------|
| STABLE         | a change and its debounce time (150 ms, 10 ms after quiet): OFFERED     |
| OFFERED        | the answer: STABLE, or a new offer at once if something changed meanwhile |
|                | 15 s without one: `AnswerOverdue`, the caller ends the session          |
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lkactor.errors import ProtocolViolation
from lkactor.peer.connection import PeerConnection
from lkactor.sdp import (
    Answerer,
    LocalTransport,
    Offerer,
    ReceiveMedia,
    ReceivePreference,
    RemoteTransport,
    SendMedia,
    SendTrack,
)

DEBOUNCE = 0.150
FAST_DEBOUNCE = 0.010
ANSWER_TIMEOUT = 15.0


@dataclass(frozen=True, slots=True)
class OfferReady:
    sdp: str
    offer_id: int
    mid_to_track_id: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AnswerReady:
    sdp: str
    offer_id: int
    mid_to_track_id: Mapping[str, str]
    media: tuple[ReceiveMedia, ...]


@dataclass(frozen=True, slots=True)
class MediaAgreed:
    """The peer answered our offer: on these sections it sends (only where both sides may offer)."""

    media: tuple[ReceiveMedia, ...]


@dataclass(frozen=True, slots=True)
class AnswerOverdue:
    offer_id: int


@dataclass(frozen=True, slots=True)
class SectionsWanted:
    """The client is to offer, with so many more sections to receive on (0 is a plain request for an offer)."""

    audios: int
    videos: int


NegotiationEvent = OfferReady | AnswerReady | MediaAgreed | AnswerOverdue | SectionsWanted


def local_transport(peer: PeerConnection) -> LocalTransport:
    """Our half of a description, as the peer connection has it now."""
    return LocalTransport(
        ufrag=peer.ice.local_ufrag,
        pwd=peer.ice.local_pwd,
        lite=peer.ice.lite,
        fingerprint=peer.certificate.fingerprint,
        candidates=tuple(candidate.to_sdp() for candidate in peer.local_candidates),
    )


class _Debounce:
    """One deadline that many changes share."""

    def __init__(self) -> None:
        self.due: float | None = None
        self._last = float("-inf")

    def want(self, now: float) -> None:
        if self.due is None:
            self.due = now + (FAST_DEBOUNCE if now - self._last > DEBOUNCE else DEBOUNCE)

    def done(self, now: float) -> None:
        self.due = None
        self._last = now


class _TrackPlan:
    """Removals are described before additions: a client sees a track that left and came back only if a description in
    between was without it (livekit-clients section 3)."""

    def __init__(self) -> None:
        self._target: tuple[SendTrack, ...] = ()
        self.applied: tuple[SendTrack, ...] = ()
        self._removal_pending = False

    def set_target(self, tracks: Sequence[SendTrack]) -> bool:
        """True when `applied` has changed: a description is due."""
        self._target = tuple(tracks)
        return self._advance()

    def described(self) -> bool:
        """A description with `applied` has been answered. True: the next one is due."""
        self._removal_pending = False
        return self._advance()

    def _advance(self) -> bool:
        kept = tuple(track for track in self.applied if track in self._target)
        if len(kept) != len(self.applied):
            self.applied, self._removal_pending = kept, True
            return True
        if self._removal_pending or self.applied == self._target:
            return False
        self.applied = self._target
        return True


class OfferNegotiation:
    """The server offers: one offer in flight, changes meanwhile are merged into the next."""

    def __init__(self, offerer: Offerer, peer: PeerConnection, rng: random.Random) -> None:
        self._offerer = offerer
        self._peer = peer
        self._offer_id = rng.randrange(1, 257)
        self._debounce = _Debounce()
        self._plan = _TrackPlan()
        self._started = False
        self._wanted = False
        self._restart = False
        self._answer_due: float | None = None
        self._events: list[NegotiationEvent] = []

    def start(self, now: float) -> None:
        """The first offer, without debounce and with the tracks set so far: the client waits for it."""
        if not self._started:
            self._started = True
            self._offer(now)

    def set_send_tracks(self, tracks: Sequence[SendTrack], now: float) -> None:
        if self._plan.set_target(tracks):
            self._offerer.set_send_tracks(self._plan.applied)
            if self._started:
                self._want(now)

    def restart_ice(self, now: float) -> None:
        if not self._started:
            return
        self._restart = True
        if self._answer_due is not None and self._peer.ice.remote_ufrag is None:
            # No answer ever came: the outstanding offer was lost with the old signal connection. Send it anew.
            self._offer(now)
            return
        self._answer_due = None
        self._want(now)

    def receive_answer(self, sdp: str, now: float) -> None:
        """Raises ProtocolViolation if the answer cannot be used."""
        if self._answer_due is None:
            raise ProtocolViolation("negotiation.unexpected_answer")
        remote = self._offerer.receive_answer(sdp)
        self._answer_due = None
        self._peer.set_remote(remote, dtls_client=remote.setup == "passive", with_data=self._offerer.has_data, now=now)
        if not self._wanted and self._plan.described():
            self._offerer.set_send_tracks(self._plan.applied)
            self._wanted = True
        if self._wanted:
            self._debounce.want(now)

    def send_media(self) -> Sequence[SendMedia]:
        return self._offerer.send_media()

    def next_timeout(self) -> float | None:
        if self._answer_due is not None:
            return self._answer_due
        return self._debounce.due

    def handle_timeout(self, now: float) -> None:
        if self._answer_due is not None:
            if now >= self._answer_due:
                self._answer_due = None
                self._events.append(AnswerOverdue(self._offer_id))
        elif self._debounce.due is not None and now >= self._debounce.due:
            self._offer(now)

    def next_event(self) -> NegotiationEvent | None:
        return self._events.pop(0) if self._events else None

    def _want(self, now: float) -> None:
        self._wanted = True
        if self._answer_due is None:
            self._debounce.want(now)

    def _offer(self, now: float) -> None:
        if self._restart:
            self._restart = False
            self._peer.restart_ice(now)
        self._wanted = False
        self._debounce.done(now)
        self._offer_id += 1
        self._answer_due = now + ANSWER_TIMEOUT
        sdp = self._offerer.create_offer(local_transport(self._peer))
        self._events.append(OfferReady(sdp, self._offer_id, self._offerer.mid_to_track_id()))


class AnswerNegotiation:
    """The client offers. What the server wants to send it asks for with `SectionsWanted`."""

    def __init__(self, answerer: Answerer, peer: PeerConnection) -> None:
        self._answerer = answerer
        self._peer = peer
        self._debounce = _Debounce()
        self._plan = _TrackPlan()
        self._offered = False
        self._events: list[NegotiationEvent] = []

    def start(self, now: float) -> None:
        """Nothing to do: the client begins."""

    def set_send_tracks(self, tracks: Sequence[SendTrack], now: float) -> None:
        """Before the first offer the tracks just wait for it."""
        if self._plan.set_target(tracks):
            self._answerer.set_send_tracks(self._plan.applied)
            if self._offered:
                self._debounce.want(now)

    def restart_ice(self, now: float) -> None:
        """The client restarts ICE in an offer of its own."""

    def receive_offer(self, sdp: str, offer_id: int, preferences: Mapping[str, ReceivePreference], now: float) -> None:
        """Raises ProtocolViolation if the offer cannot be answered."""
        summary = self._answerer.receive_offer(sdp)
        remote: RemoteTransport = summary.transport
        known = self._peer.ice.remote_ufrag
        if known is not None and known != remote.ufrag:
            self._peer.restart_ice(now)
        answer = self._answerer.create_answer(local_transport(self._peer), preferences=preferences)
        # RFC 8842 5.3: the answerer to "actpass" is best active, and LiveKit's clients are used to it.
        self._peer.set_remote(remote, dtls_client=remote.setup != "active", with_data=summary.has_data, now=now)
        self._offered = True
        self._debounce.done(now)
        media = tuple(self._answerer.receive_media())
        self._events.append(AnswerReady(answer, offer_id, self._answerer.mid_to_track_id(), media))
        if self._plan.described():
            self._answerer.set_send_tracks(self._plan.applied)
            self._debounce.want(now)
        elif self._answerer.missing_sections() != (0, 0):
            self._debounce.want(now)

    def send_media(self) -> Sequence[SendMedia]:
        return self._answerer.send_media()

    def next_timeout(self) -> float | None:
        return self._debounce.due

    def handle_timeout(self, now: float) -> None:
        if self._debounce.due is not None and now >= self._debounce.due:
            self._debounce.done(now)
            self._events.append(SectionsWanted(*self._answerer.missing_sections()))

    def next_event(self) -> NegotiationEvent | None:
        return self._events.pop(0) if self._events else None
