"""The garbage collector, kept off the path of media.

A collection stops the loop for about 0.2 us an object that it looks at, and a participant is about 800 objects. So:

| generation | when | what it costs |
|---|---|---|
| what lives for ever | frozen once the server has started | nothing |
| young | CPython's own counting, every 5,000 new objects | about 1 ms |
| middle | after three of those | 2 to 3 ms |
| all | by this actor only | 0.2 ms for each participant |

A participant that leaves is freed by reference counting, with its tracks, connections and legs: who belongs to somebody
knows him by a weak reference (tests/actors/test_freed.py). So collecting all finds next to nothing, what crashes and
errors leave behind, and waits until no media flow, or until four times as many have left as are there, at least MANY.
"""

from __future__ import annotations

import gc

from actors.kernel import Actor
from actors.services import Services
from lkactor.eventlog import LogEntry

YOUNG, MIDDLE, NEVER = 5_000, 2, 1 << 30
PERIOD = 2.0
"""Seconds between two looks."""
MANY = 1000
FEW_PACKETS = 25
"""A second, in and out: consent checks and reports, no media."""


def tune() -> None:
    """Once everything has been imported and started; for a process that is a server, as it is the interpreter's."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, NEVER)


class Need:
    """Who has left since all was last collected."""

    def __init__(self) -> None:
        self.present = self.left = self._before = 0

    def observe(self, entry: LogEntry) -> None:
        match entry.event:
            case "participant.joined":
                self.present += 1
            case "participant.left":
                self.present = max(0, self.present - 1)
                self.left += 1

    def due(self, *, quiet: bool) -> bool:
        """Asked every PERIOD. `quiet`: no media flow. Who has left since the last time may not have ended yet."""
        settled, self._before = self.left == self._before, self.left
        return self.left > 0 and ((quiet and settled) or self.left >= max(MANY, 4 * self.present))

    def done(self) -> None:
        self.left = self._before = 0


class CollectorActor(Actor[None]):
    """Takes its own ticks only."""

    def __init__(self, services: Services, need: Need) -> None:
        self._services = services
        self._need = need
        self._packets = 0

    async def started(self) -> None:
        self._packets = self._total()
        self.context.schedule(PERIOD, None)

    async def receive(self, message: None) -> None:
        total = self._total()
        quiet = total - self._packets < FEW_PACKETS * PERIOD
        self._packets = total
        if self._need.due(quiet=quiet):
            self._need.done()
            gc.collect()
        self.context.schedule(PERIOD, None)

    def _total(self) -> int:
        ports = self._services.ports
        ports.collect()
        return ports.packets_in + ports.packets_out
