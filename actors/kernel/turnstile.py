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

AT_ONCE = 4
"""Actors that are let in for one turn at most, whatever else is in it. A message takes a quarter of a millisecond, and
others have to do with what follows from it."""
SHARE = 0.002
"""Seconds of a turn for those who were let in. The first of them goes on in any case, also if a message takes longer:
sixteen packets of data for one subscriber are 3 ms."""
StartSoon = Callable[[Callable[[], Awaitable[Any]]], None]


class Turns(Protocol):
    """Of the event loop, from one wait for I/O to the next."""

    @property
    def number(self) -> int:
        """Of turns until now: which one this is."""

    def turn_so_far(self) -> float:
        """Seconds since this turn began."""

    def is_late(self) -> bool:
        """This turn is long enough: who can wait takes another one."""


class Unmeasured:
    """Turns that are as long as there is something to do."""

    number = 0

    def turn_so_far(self) -> float:
        return 0.0

    def is_late(self) -> bool:
        return False


class Turnstile:
    """One per system."""

    def __init__(self, turns: Turns) -> None:
        self.is_late = turns.is_late
        self._turns = turns
        self._waiting: list[tuple[int, trio.Event]] = []
        """A heap: who came first goes first, also if it was let in already and the share was used up."""
        self._tickets = itertools.count()
        self._open = False
        self._let = AT_ONCE
        self._gone_on = self._sent_back = 0
        """How many are let in, and of those, since others were, how many found time and how many did not."""
        self._number = -1
        self._began = 0.0
        """The turn in which somebody went on last, and when in that turn the first one did."""

    def has_time(self) -> bool:
        """Whether who was let in may go on in this turn. The first to ask may."""
        number, so_far = self._turns.number, self._turns.turn_so_far()
        if number != self._number:
            self._number, self._began = number, so_far
        return so_far - self._began < SHARE

    async def wait(self, start_soon: StartSoon) -> None:
        """Until a later turn. `start_soon`: for the task that there is as long as somebody waits."""
        ticket = next(self._tickets)
        while True:
            let_in = trio.Event()
            heapq.heappush(self._waiting, (ticket, let_in))
            if not self._open:
                self._open = True
                start_soon(self._let_in)
            await let_in.wait()
            if self.has_time():
                self._gone_on += 1
                return
            self._sent_back += 1

    async def _let_in(self) -> None:
        while self._waiting:
            await trio.lowlevel.checkpoint()
            for _ in range(min(self._how_many(), len(self._waiting))):
                heapq.heappop(self._waiting)[1].set()
        self._open = False

    def _how_many(self) -> int:
        """As many as lately found time, and one more when all did. Trio shuffles those who are let in together: were
        they always four where one has time, the first of them could wait for long."""
        if self._sent_back:
            self._let = max(1, self._gone_on)
        elif self._gone_on:
            self._let = min(AT_ONCE, self._let + 1)
        self._gone_on = self._sent_back = 0
        return self._let
