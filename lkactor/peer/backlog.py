"""Data that waits, both ways: what a slow reader takes, and what the room cannot take just now.

| reader                                          | reliable data for it                                         |
|-------------------------------------------------|--------------------------------------------------------------|
| keeps up                                        | is queued                                                    |
| is behind, at the threshold's rate or faster    | is queued; the publishers wait (`DataChannels.congested`)    |
| is behind, slower than that over two busy secs  | is dropped until its queue is short again; nobody waits      |

The threshold is `rtc.datachannel_slow_threshold` in bits per second; 0, the default, drops nothing: who is slow holds
everybody up. Source: livekit-media section 1.9.
"""

from __future__ import annotations

WINDOW = 0.1
BUSY = 2.0
"""Seconds: of one sample, and of all samples that make a rate."""
SLICE = 16 * 1024
"""Bytes of reliable data that go up at once when there is a threshold: back-pressure has time to come back."""
SLICE_INTERVAL = 0.005
SHORT_WINDOW = 320 * 1024
"""What one publisher may have waiting for slow readers when there is a threshold: the largest message and more."""


class DrainRate:
    """How quickly a queue empties while there is something in it. Idle time does not count."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []
        self._seconds = 0.0
        self._taken = 0
        self._at: float | None = None
        self._level = self._queued = 0

    def queued(self, size: int) -> None:
        """So many bytes more wait."""
        self._queued += size

    def sample(self, level: int, now: float) -> None:
        """`level`: bytes that wait at present."""
        elapsed = 0.0 if self._at is None else now - self._at
        if self._at is not None and elapsed < WINDOW:
            return
        if self._level or self._queued:
            taken = max(0, self._level + self._queued - level)
            self._samples.append((elapsed, taken))
            self._seconds += elapsed
            self._taken += taken
        while self._samples and self._seconds - self._samples[0][0] >= BUSY:
            gone, bytes_gone = self._samples.pop(0)
            self._seconds -= gone
            self._taken -= bytes_gone
        self._at, self._level, self._queued = now, level, 0

    @property
    def bits_per_second(self) -> float | None:
        """None: not enough is known."""
        return 8 * self._taken / self._seconds if self._seconds >= BUSY else None


class Received:
    """Messages (reliable, payload) on their way up, in order. `sliced`: only so much of reliable data at once."""

    def __init__(self, *, sliced: bool) -> None:
        self._sliced = sliced
        self._waiting: list[tuple[bool, bytes]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def extend(self, messages: list[tuple[bool, bytes]]) -> None:
        self._waiting.extend(messages)

    def ready(self, *, paused: bool) -> tuple[tuple[bool, bytes], ...]:
        """What may go up now. While the room is congested that is what is not reliable."""
        if paused:
            return tuple(message for message in self._waiting if not message[0])
        if not self._sliced:
            return tuple(self._waiting)
        size = number = 0
        for number, (_, payload) in enumerate(self._waiting, 1):  # noqa: B007 - the number is what is wanted
            size += len(payload)
            if size >= SLICE:
                break
        return tuple(self._waiting[:number])

    def gone(self, number: int, *, paused: bool) -> None:
        """So many of `ready` have gone up."""
        if paused:
            self._waiting = [message for message in self._waiting if message[0]]
        else:
            del self._waiting[:number]
