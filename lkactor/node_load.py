"""How much this node carries, against `limit.num_tracks` and `limit.bytes_per_sec` (livekit-surface 12). Pure.

A node over one of them takes no new sessions and rooms; the sessions it has go on, and may resume.
"""

from __future__ import annotations

from collections import deque

from lkactor.config_sections import LimitConfig

WINDOW = 10.0
"""Seconds over which bytes are averaged."""
INTERVAL = 1.0
"""Seconds between samples."""
MAX_SAMPLES = 32


class NodeLoad:
    """`sample` every INTERVAL. Times are seconds, monotonic."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=MAX_SAMPLES)

    def sample(self, now: float, total_bytes: int) -> None:
        """`total_bytes`: of the media ports, both ways, since the start."""
        self._samples.append((now, total_bytes))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW:
            self._samples.popleft()

    @property
    def bytes_per_second(self) -> float:
        if len(self._samples) < 2:
            return 0.0
        (first, before), (last, after) = self._samples[0], self._samples[-1]
        return (after - before) / (last - first) if last > first else 0.0

    def reached(self, limit: LimitConfig, tracks: int) -> bool:
        """`tracks`: published ones, and one for each subscriber of each. A limit of 0 is none."""
        if 0 < limit.num_tracks <= tracks:
            return True
        return 0 < limit.bytes_per_sec <= self.bytes_per_second
