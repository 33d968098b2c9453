"""One encoded frame, and what a file of them is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_FRAME = 16 * 1024 * 1024
"""Bytes. No encoder makes larger ones; a reader of a damaged file must not try."""
CLOCK_RATES = {"audio/opus": 48000}
Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture, or an audio packet. `time` is in seconds from the file's beginning; H.264 is in Annex B form."""

    data: bytes
    time: float
    keyframe: bool = False


@dataclass(frozen=True, slots=True)
class MediaFile:
    """What a file holds. `frames` may be called again and again: that is how it loops. Sizes are 0 if unknown."""

    mime: str
    frames: Callable[[], Iterator[Frame]]
    width: int = 0
    height: int = 0
    channels: int = 1
    frame_time: float = 1 / 30
    """Seconds that the last frame lasts."""

    @property
    def kind(self) -> str:
        return self.mime.partition("/")[0]

    @property
    def clock_rate(self) -> int:
        return CLOCK_RATES.get(self.mime, 90000)
