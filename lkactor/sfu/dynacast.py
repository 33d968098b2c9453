"""Dynacast: the publisher is told which qualities somebody wants, and stops sending the others.

| state     | wish rises       | wish falls                    | leaves by                              |
|-----------|------------------|-------------------------------|----------------------------------------|
| unsettled | kept             | kept                          | a subscriber's wish, or SETTLE seconds |
| settled   | announced at once| announced after `pause_delay` | mute: silent until unmute              |

Source: livekit-media 3.10. Qualities are LiveKit's LOW 0, MEDIUM 1, HIGH 2; OFF is -1 here, so that they compare.
"""

from __future__ import annotations

SETTLE = 10.0
"""Seconds from the start of a track in which nothing is said unless a subscriber has said what it wants."""
PAUSE_DELAY = 5.0
OFF = -1


class Dynacast:
    """The highest wish of all subscribers of one track, debounced."""

    def __init__(self, started: float, *, pause_delay: float = PAUSE_DELAY) -> None:
        self._pause_delay = pause_delay
        self._settle_at: float | None = started + SETTLE
        self._wanted = OFF
        self._announced: int | None = None
        self._lower_at: float | None = None
        self._muted = False
        self._due = False

    def want(self, quality: int, now: float, *, settled: bool) -> None:
        """The highest wish now. `settled`: some subscriber has said what it wants."""
        self._wanted = quality
        if self._announced is None:
            if settled:
                self._announce()
            return
        if quality >= self._announced:
            self._lower_at = None
            if quality > self._announced:
                self._announce()
        elif self._lower_at is None:
            self._lower_at = now + self._pause_delay

    def set_muted(self, muted: bool) -> None:
        """Nothing is said while the track is muted; unmuting says it again."""
        if self._muted and not muted and self._announced is not None:
            self._announce()
        self._muted = muted

    def take(self) -> int | None:
        """What the publisher is to be told now, once."""
        if not self._due or self._muted:
            return None
        self._due = False
        return self._announced

    def next_timeout(self) -> float | None:
        if self._announced is None:
            return self._settle_at
        return self._lower_at

    def handle_timeout(self, now: float) -> None:
        due = self.next_timeout()
        if due is not None and now >= due:
            self._announce()

    def _announce(self) -> None:
        self._announced, self._due = self._wanted, True
        self._lower_at = self._settle_at = None
