"""Connection quality: how well a stream arrives, as LiveKit scores it.

A window's score is 100 minus its loss in percent times a weight of the codec, minus 35 for each spatial layer below the
one wanted; it rises slowly and falls fast. A participant is as well off as the worst of its streams. Source:
livekit-media 4.15, livekit-surface 2.11.
"""

from __future__ import annotations

from livekit.protocol import models

WINDOW = 5.0
"""Seconds."""
BEST, FLOOR = 100.0, 30.0
SILENT_RTCP_ONLY, SILENT = 40.0, 20.0
"""Without packets: the far end still reports, or not even that."""
LAYER_PENALTY = 35.0
RISE, FALL = 0.4, 0.8
VIDEO_WEIGHT = 10.0
AUDIO_WEIGHTS = {"audio/opus": 8.0 / 1.5, "audio/red": 4.0 / 1.5}

Quality = models.ConnectionQuality


def loss_weight(kind: str, mime: str) -> float:
    """Points per percent of loss. Opus counts with its in-band redundancy, which clients leave on."""
    return VIDEO_WEIGHT if kind == "video" else AUDIO_WEIGHTS.get(mime, 8.0)


class StreamScore:
    """The score of one stream over time."""

    __slots__ = ("_fresh", "_weight", "value")

    def __init__(self, weight: float) -> None:
        self._weight = weight
        self._fresh = True
        self.value = BEST

    def window(self, expected: int, lost: int, *, layers_missing: float = 0.0, reports: bool = True) -> float:
        """One window: packets that should have come, and how many of them did not. The new score, 0 to 100."""
        if expected <= 0:
            self.value = SILENT_RTCP_ONLY if reports else SILENT
            return self.value
        percent = 100.0 * max(0, min(lost, expected)) / expected
        score = min(BEST - percent * self._weight, BEST - layers_missing * LAYER_PENALTY)
        score = max(FLOOR, score)
        factor = RISE if score > self.value else FALL
        self.value += factor * (score - self.value)
        return self.value

    def halt(self) -> float:
        """The connection has no room for it: as bad as a live stream can be, at once."""
        self.value = FLOOR
        return self.value

    def rest(self) -> None:
        """Muted or paused on purpose: nothing can be held against the connection."""
        self.value = BEST


def quality_of(score: float) -> Quality:
    """LiveKit's four steps."""
    if score > 80:
        return Quality.EXCELLENT
    if score > 40:
        return Quality.GOOD
    return Quality.POOR if score > 20 else Quality.LOST


def mos(score: float) -> float:
    """Mean opinion score, 1.0 to 4.5 (ITU-T G.107, annex B)."""
    value = 1 + 0.035 * score + 7e-6 * score * (score - 60) * (100 - score)
    return max(1.0, min(4.5, value))
