"""How well a participant's own streams arrive, and what it is told of that and of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import proxy

from livekit.protocol import rtc

from actors.messages.room import QualityChanged
from lkactor.room.quality import LOST_PROTOCOL, for_protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.messages.participant import QualitiesUpdated
    from actors.participant import ParticipantActor

MIN_PROTOCOL = 5


class QualityDesk:
    """The part of a participant actor that handles connection quality: the worst stream counts."""

    def __init__(self, participant: ParticipantActor) -> None:
        self._participant: ParticipantActor = proxy(participant)
        self._uplinks: dict[str, float] = {}
        self._downlink: float | None = None

    def uplink(self, track_sid: str, score: float | None) -> None:
        """None: the track is muted or over."""
        if score is None:
            self._uplinks.pop(track_sid, None)
        else:
            self._uplinks[track_sid] = score
        self._report()

    def downlink(self, score: float | None) -> None:
        self._downlink = score
        self._report()

    def _report(self) -> None:
        scores = list(self._uplinks.values())
        if self._downlink is not None:
            scores.append(self._downlink)
        worst = min(scores, default=None)
        self._participant.room.tell(QualityChanged(self._participant.sid, worst))

    def tell_client(self, news: QualitiesUpdated, publishers: frozenset[str]) -> None:
        """Its own, and that of those whose tracks it receives."""
        participant = self._participant
        if participant.protocol < MIN_PROTOCOL:
            return
        heard = sorted(sid for sid in publishers | {participant.sid} if sid in news.infos)
        if heard:
            selection = (participant.protocol < LOST_PROTOCOL, *heard)
            mine = [news.infos[sid] for sid in heard]
            participant.send_shared(news.shared.outgoing(selection, lambda: _update(mine, participant.protocol)))


def _update(infos: Iterable[rtc.ConnectionQualityInfo], protocol: int) -> rtc.SignalResponse:
    updates = [for_protocol(info, protocol) for info in infos]
    return rtc.SignalResponse(connection_quality=rtc.ConnectionQualityUpdate(updates=updates))
