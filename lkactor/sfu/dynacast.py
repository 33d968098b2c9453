"""Dynacast: the publisher is told which qualities of which codec somebody wants, and stops sending the others.

| state of a codec | its wish rises        | its wish falls                | leaves by                              |
|------------------|-----------------------|-------------------------------|----------------------------------------|
| unsettled        | kept                  | kept                          | a subscriber's wish, or SETTLE seconds |
|                  |                       |                               | after its media is there               |
| settled          | all announced at once | announced after `pause_delay` | mute: silent until unmute              |

A codec that nobody has wanted and that is not sent is not spoken of. One that is wanted and not sent is what makes the
publisher start it; as its client may have been busy when it was told, it is told again a few times.

Source: livekit-media 3.10 and 3.11. Qualities are LiveKit's LOW 0, MEDIUM 1, HIGH 2; OFF is -1 here, so that they
compare.
"""

from __future__ import annotations

from collections.abc import Sequence

SETTLE = 10.0
"""Seconds from a codec's start in which nothing is said of it unless a subscriber has said what it wants."""
PAUSE_DELAY = 5.0
REMIND = 5.0
"""Seconds until a wanted codec whose media has not come is asked for again."""
MAX_REMINDERS = 3
OFF = -1


class Dynacast:
    """The highest wish of all subscribers for each codec of one track, debounced. Codecs are mimes in lower case."""

    def __init__(self, codecs: Sequence[str] = (), *, pause_delay: float = PAUSE_DELAY) -> None:
        """`codecs` is the order in which they are told, the primary first."""
        self._order = {codec: position for position, codec in enumerate(codecs)}
        self._pause_delay = pause_delay
        self._settle_at: dict[str, float] = {}
        self._sent: set[str] = set()
        self._latest: dict[str, int] = {}
        """What is wanted now, settled or not."""
        self._wanted: dict[str, int] = {}
        """The settled ones."""
        self._announced: dict[str, int] = {}
        self._lower_at: float | None = None
        self._remind_at: float | None = None
        self._reminders = 0
        self._muted = False
        self._due = False

    def add_codec(self, codec: str, now: float) -> None:
        """Its media is there: after SETTLE seconds it counts, even if nobody wants it."""
        self._sent.add(codec)
        self._reminders = 0
        if codec not in self._wanted:
            self._settle_at.setdefault(codec, now + SETTLE)

    def remove_codec(self, codec: str) -> None:
        """Its media is there no more."""
        self._sent.discard(codec)

    def want(self, codec: str, quality: int, now: float, *, settled: bool) -> None:
        """The highest wish for it now. `settled`: some subscriber has said what it wants."""
        self._latest[codec] = quality
        if settled or codec in self._wanted:
            self._settle(codec, now)

    def _settle(self, codec: str, now: float) -> None:
        self._settle_at.pop(codec, None)
        self._wanted[codec] = self._latest.get(codec, OFF)
        announced = self._announced
        if any(quality > announced.get(known, OFF - 1) for known, quality in self._wanted.items()):
            self._announce(now)
        elif self._wanted == announced:
            self._lower_at = None
        elif self._lower_at is None:
            self._lower_at = now + self._pause_delay

    def set_muted(self, muted: bool) -> None:
        """Nothing is said while the track is muted; unmuting says it again."""
        if self._muted and not muted and self._announced:
            self._due = True
            self._announced = dict(self._wanted)
            self._lower_at = None
        self._muted = muted

    def take(self) -> tuple[tuple[str, int], ...] | None:
        """What the publisher is to be told now, once: (codec, highest quality or OFF)."""
        if not self._due or self._muted:
            return None
        self._due = False
        return tuple(sorted(self._announced.items(), key=lambda item: self._order.get(item[0], len(self._order))))

    def next_timeout(self) -> float | None:
        deadlines = [*self._settle_at.values(), self._lower_at, self._remind_at]
        return min((at for at in deadlines if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        for codec, at in list(self._settle_at.items()):
            if now >= at:
                self._settle(codec, now)
        if self._lower_at is not None and now >= self._lower_at:
            self._announce(now)
        if self._remind_at is not None and now >= self._remind_at:
            self._remind_at = None
            if self._missing():
                self._reminders += 1
                self._announce(now)

    def _announce(self, now: float) -> None:
        self._announced, self._due = dict(self._wanted), True
        self._lower_at = None
        self._remind_at = now + REMIND if self._missing() and self._reminders < MAX_REMINDERS else None

    def _missing(self) -> bool:
        return any(quality > OFF and codec not in self._sent for codec, quality in self._announced.items())
