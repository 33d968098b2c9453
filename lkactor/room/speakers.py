"""Who speaks: audio levels over windows, and what of that is news to a room. Pure.

Source: livekit-media 3.7, livekit-surface 2.11.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lkactor.config import AudioConfig

STALE_AFTER = 0.8
STEPS = 8


class AudioLevel:
    """Smoothed level of one audio track, linear 0..1, from the levels (-dBov) in its packets."""

    def __init__(self, config: AudioConfig) -> None:
        self._threshold = config.active_level
        self._window = config.update_interval / 1000
        self._needed = self._window * config.min_percentile / 100
        self._smoothing = 2 / (config.smooth_intervals + 1)
        self._loudest = 127
        self._active = self._observed = 0.0
        self._smoothed = 0.0
        self._last_at = float("-inf")

    def observe(self, level: int, duration: float, now: float) -> bool:
        """One packet of `duration` seconds. True when a window was closed: `level` may be new."""
        self._last_at = now
        self._observed += duration
        if level <= self._threshold:
            self._active += duration
            self._loudest = min(self._loudest, level)
        if self._observed < self._window:
            return False
        if self._active >= self._needed:
            adjusted = self._loudest - 20 * math.log10(min(1.0, self._active / self._window))
            linear = 10 ** (-adjusted / 20)
            self._smoothed += (linear - self._smoothed) * self._smoothing
        else:
            self._smoothed = 0.0
        self._loudest, self._active, self._observed = 127, 0.0, 0.0
        return True

    def level(self, now: float) -> float:
        """0 when nobody speaks, or nothing came for a while."""
        if now - self._last_at > STALE_AFTER or self._smoothed < 10 ** (-self._threshold / 20):
            return 0.0
        return min(1.0, self._smoothed)


@dataclass(frozen=True, slots=True)
class SpeakerChange:
    sid: str
    level: float
    active: bool


class ActiveSpeakers:
    """The levels of a room's participants, and the changes since the last look."""

    def __init__(self) -> None:
        self._levels: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def update(self, sid: str, level: float) -> None:
        self._levels[sid] = math.ceil(level * STEPS) / STEPS

    def forget(self, sid: str) -> None:
        self._levels.pop(sid, None)
        self._told.pop(sid, None)

    def changes(self) -> list[SpeakerChange]:
        """Loudest first; those who stopped come with level 0."""
        changed = [
            SpeakerChange(sid, level, level > 0)
            for sid, level in self._levels.items()
            if level != self._told.get(sid, 0.0)
        ]
        self._told.update((change.sid, change.level) for change in changed)
        return sorted(changed, key=lambda change: -change.level)
