"""Which packets to ask a publisher for again, and when (livekit-media 3.4).

First 20 ms after the gap was seen (reordering allowance), then every max(20 ms, min(400 ms, rtt * 1.25^(n-1))), five
times at most, for at most 100 packets.
"""

from __future__ import annotations

MAX_TRACKED = 100
MAX_TRIES = 5
FIRST_DELAY = 0.020
MIN_INTERVAL, MAX_INTERVAL = 0.020, 0.400
BACKOFF = 1.25
DEFAULT_RTT = 0.070


class NackGenerator:
    """Works on extended sequence numbers."""

    def __init__(self) -> None:
        self.rtt = DEFAULT_RTT
        self._missing: dict[int, tuple[float, int]] = {}
        """extended sequence -> (due, tries)"""

    def lost(self, first: int, last: int, now: float) -> None:
        """A gap: `first`..`last` did not come. Of a long one only the end is worth having."""
        for sequence in range(max(first, last - MAX_TRACKED + 1), last + 1):
            self._missing[sequence] = (now + FIRST_DELAY, 0)
        while len(self._missing) > MAX_TRACKED:
            del self._missing[next(iter(self._missing))]

    def received(self, sequence: int) -> None:
        self._missing.pop(sequence, None)

    def due(self, now: float) -> list[int]:
        """Extended sequence numbers to ask for now, ascending."""
        out = []
        for sequence, (at, tries) in list(self._missing.items()):
            if at > now:
                continue
            out.append(sequence)
            if tries + 1 >= MAX_TRIES:
                del self._missing[sequence]
            else:
                interval = max(MIN_INTERVAL, min(MAX_INTERVAL, self.rtt * BACKOFF**tries))
                self._missing[sequence] = (now + interval, tries + 1)
        return sorted(out)

    def next_timeout(self) -> float | None:
        return min((at for at, _ in self._missing.values()), default=None)

    def clear(self) -> None:
        self._missing.clear()
