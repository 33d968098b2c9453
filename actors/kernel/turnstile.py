"""Turns of the event loop stay short: who is woken late in one runs in a later one.

Hundreds of actors may have something to do at once, when a room ends or a crowd comes, and whoever waits for a socket
waits until all of them are through. So an actor that comes to a message when the turn is long already waits here, and
a few go on in each of the next turns, in the order in which they came, as long as the share of the turn lasts that is
theirs. Media do not wait: docs/runtime-semantics.md.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

MESSAGE = 0.0005
"""Seconds that a message takes, about, with what others have to do because of it. Some take longer: sixteen packets of
data for one subscriber are 3 ms."""
SENT_BACK = 3
"""Times that who is let in may find the share used up. Then it goes on, whoever was shuffled before it."""
StartSoon = Callable[[Callable[[], Awaitable[Any]]], None]


class Turns(Protocol):
    """Of the event loop, from one wait for I/O to the next."""

    @property
    def number(self) -> int:
        """Of turns until now: which one this is."""

    @property
    def limit(self) -> float:
        """Seconds that a turn is long enough with; as much again is for those who have waited for it."""

    def turn_so_far(self) -> float:
        """Seconds since this turn began."""

    def is_late(self) -> bool:
        """It has reached the limit: who can wait takes another one."""


class Unmeasured:
    """Turns that are as long as there is something to do."""

    number, limit = 0, 0.0

    def turn_so_far(self) -> float:
        return 0.0

    def is_late(self) -> bool:
        return False


class Turnstile:
    """One per system."""

    def __init__(self, turns: Turns) -> None:
        self.is_late = turns.is_late
        self.at_once = max(1, round(turns.limit / MESSAGE))
        """Actors that are let in for one turn at most, whatever else is in it."""
        self._turns = turns
        self._waiting: list[tuple[int, trio.Event]] = []
        """A heap: who came first goes first, also if it was let in already and the share was used up."""
        self._tickets = itertools.count()
        self._open = False
        self._let = self.at_once
        self._gone_on = self._sent_back = 0
        """How many are let in, and of those, since others were, how many found time and how many did not."""
        self._overdue_in = -1
        """The turn in which somebody went on without time."""
        self._number = -1
        """The turn that the next two are of."""
        self._spent = 0.0
        self._entered: float | None = None
        """What those who were let in have spent of the turn, and since when somebody is at it. What others do in the
        same turn is not theirs."""

    def has_time(self) -> bool:
        """Whether who was let in may go on in this turn. The first may."""
        return self._used() < self._turns.limit

    def leave(self) -> None:
        """Who was let in, and went on, gives the loop away."""
        self._spent, self._entered = self._used(), None

    def _used(self) -> float:
        """Seconds of this turn's share."""
        if self._turns.number != self._number:
            self._number, self._spent, self._entered = self._turns.number, 0.0, None
        if self._entered is None:
            return self._spent
        return self._spent + self._turns.turn_so_far() - self._entered

    async def wait(self, start_soon: StartSoon) -> None:
        """Until a later turn; then `leave`. `start_soon`: for the task that there is as long as somebody waits."""
        ticket = next(self._tickets)
        for times in itertools.count():
            let_in = trio.Event()
            heapq.heappush(self._waiting, (ticket, let_in))
            if not self._open:
                self._open = True
                start_soon(self._let_in)
            await let_in.wait()
            if self.has_time() or self._overdue(times):
                self._gone_on += 1
                self._entered = self._turns.turn_so_far()
                return
            self._sent_back += 1

    def _overdue(self, times: int) -> bool:
        """Of those who were sent back so often one goes on in a turn without time."""
        if times < SENT_BACK or self._turns.number == self._overdue_in:
            return False
        self._overdue_in = self._turns.number
        return True

    async def _let_in(self) -> None:
        while self._waiting:
            await trio.lowlevel.checkpoint()
            for _ in range(min(self._how_many(), len(self._waiting))):
                heapq.heappop(self._waiting)[1].set()
        self._open = False

    def _how_many(self) -> int:
        """As many as lately found time, and one more when all did. Trio shuffles those who are let in together: were
        they always as many as can be, the first of them could wait for long where a message takes long."""
        if self._sent_back:
            self._let = max(1, self._gone_on)
        elif self._gone_on:
            self._let = min(self.at_once, self._let + 1)
        self._gone_on = self._sent_back = 0
        return self._let
