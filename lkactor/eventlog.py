"""What happened, room by room: a bounded record that explains a failed test or a failed join.

Entries never hold tokens, secrets or payloads; `lkactor.redaction` goes over every detail to be sure. Written by
actors, read by `lkactor.testing` and `/debug`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lkactor.redaction import redacted

CAPACITY = 20_000
MAX_NAME = 1024
"""Characters kept of a room's name, an identity, a path."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """`at` is seconds since the server started."""

    at: float
    room: str
    participant: str
    event: str
    detail: str

    def __str__(self) -> str:
        who = f" {self.participant}" if self.participant else ""
        return f"{self.at:9.3f} [{self.room or '-'}]{who} {self.event}{': ' + self.detail if self.detail else ''}"


class EventLog:
    """A ring of entries, oldest dropped first."""

    def __init__(self, started: float, capacity: int = CAPACITY) -> None:
        self.secrets: Callable[[], Iterable[str]] = tuple
        """The operator's, as they are now."""
        self._started = started
        self._entries: deque[LogEntry] = deque(maxlen=capacity)
        self._listeners: list[Callable[[LogEntry], None]] = []

    def listen(self, listener: Callable[[LogEntry], None]) -> None:
        """`listener` is called with every entry from now on, on the loop. It must be quick and must not raise."""
        self._listeners.append(listener)

    def record(self, now: float, room: str, participant: str, event: str, detail: str = "") -> None:
        clean = redacted(detail, self.secrets()) if detail else ""
        entry = LogEntry(now - self._started, room[:MAX_NAME], participant[:MAX_NAME], event, clean)
        self._entries.append(entry)
        for listener in self._listeners:
            listener(entry)

    def entries(self, room: str | None = None) -> list[LogEntry]:
        """All entries, or those of one room."""
        return [entry for entry in self._entries if room is None or entry.room == room]
