"""Which news of a participant the others hear at once, and which can wait for more of its kind.

In a large room every arrival is told to very many: viewers of a livestream that begins would cost the square of their
number. So there, what becomes of those who publish nothing waits a moment and is told together; the reference waits 3 s
in every room (livekit-surface 2.3). Whoever publishes, and whatever an application has changed, is told at once.
"""

from __future__ import annotations

from livekit.protocol import models

SMALL_ROOM = 16
"""Members up to which everything is told at once."""
INTERVAL = 1.0
"""Seconds that news wait, at most."""
MAX_TOGETHER = 200
"""Participants in one message."""


def can_wait(before: models.ParticipantInfo, after: models.ParticipantInfo) -> bool:
    """Nobody is heard, seen or addressed any differently because of it."""
    return not (before.is_publisher or after.is_publisher) and _public(before) == _public(after)


def _public(info: models.ParticipantInfo) -> tuple[object, ...]:
    """What applications and permissions make of a participant."""
    return info.name, info.metadata, dict(info.attributes), info.permission, len(info.tracks), len(info.data_tracks)


class WaitingUpdates:
    """The latest of each participant, in the order of the news."""

    def __init__(self) -> None:
        self._waiting: dict[str, models.ParticipantInfo] = {}

    def add(self, info: models.ParticipantInfo) -> bool:
        """True: it is the first one, and somebody has to come for it after INTERVAL."""
        first = not self._waiting
        self._waiting.pop(info.sid, None)
        self._waiting[info.sid] = info
        return first

    def told(self, sid: str) -> None:
        """Something newer was told at once."""
        self._waiting.pop(sid, None)

    def take(self) -> list[tuple[models.ParticipantInfo, ...]]:
        """All of them, in messages of MAX_TOGETHER."""
        infos, self._waiting = list(self._waiting.values()), {}
        return [tuple(infos[n : n + MAX_TOGETHER]) for n in range(0, len(infos), MAX_TOGETHER)]
