"""Turns of an event loop in which time is what the test says. Implements `actors.kernel.turnstile.Turns`."""

from __future__ import annotations

import trio


class CountedTurns(trio.abc.Instrument):
    """An instrument of the run. `spent`: of the present turn, for tests to add to; at `limit` the turn is long."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.number = 0
        self.spent = 0.0

    def before_io_wait(self, timeout: float) -> None:
        self.number += 1
        self.spent = 0.0

    def turn_so_far(self) -> float:
        return self.spent

    def is_late(self) -> bool:
        return self.spent >= self.limit
