"""Connection quality, room by room: who changed since everybody was told. Pure (livekit-media 4.15)."""

from __future__ import annotations

from livekit.protocol import rtc

from lkactor.sfu.quality import BEST, Quality, mos, quality_of


class QualityBoard:
    """The latest score of each member, and what the members know of it."""

    def __init__(self) -> None:
        self._scores: dict[str, float] = {}
        self._told: dict[str, int] = {}

    def update(self, sid: str, score: float | None) -> None:
        """None: nothing to be scored, so nothing is wrong."""
        self._scores[sid] = BEST if score is None else score

    def forget(self, sid: str) -> None:
        self._scores.pop(sid, None)
        self._told.pop(sid, None)

    def changes(self) -> tuple[rtc.ConnectionQualityInfo, ...]:
        """Everybody's state if anybody's step has changed, else nothing."""
        steps = {sid: int(quality_of(score)) for sid, score in self._scores.items()}
        if steps == self._told:
            return ()
        self._told = steps
        return tuple(
            rtc.ConnectionQualityInfo(participant_sid=sid, quality=steps[sid], score=mos(score))  # type: ignore[arg-type]
            for sid, score in self._scores.items()
        )


LOST_PROTOCOL = 11


def for_protocol(info: rtc.ConnectionQualityInfo, protocol: int) -> rtc.ConnectionQualityInfo:
    """Clients up to protocol 10 know no LOST."""
    if info.quality == Quality.LOST and protocol < LOST_PROTOCOL:
        return rtc.ConnectionQualityInfo(participant_sid=info.participant_sid, quality=Quality.POOR, score=info.score)
    return info
