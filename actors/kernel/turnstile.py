"""Turns of the event loop stay short: who is woken late in one runs in a later one.

Hundreds of actors may have something to do at once, when a room ends or a crowd comes, and whoever waits for a socket
waits until all of them are through. So an actor that comes to a message when the turn is long already waits here, and
a few go on in each of the next turns, in the order in which they came. Media do not wait: docs/runtime-semantics.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

AT_ONCE = 4
"""Actors that go on in one turn, whatever else is in it. A message takes a quarter of a millisecond or so, and others
have to do with what follows from it."""
StartSoon = Callable[[Callable[[], Awaitable[Any]]], None]


def never() -> bool:
    return False


class Turnstile:
    """One per system."""

    def __init__(self, is_late: Callable[[], bool] = never) -> None:
        """`is_late`: the turn has taken so long that who can wait leaves the rest of it to others."""
        self.is_late = is_late
        self._waiting = trio.lowlevel.ParkingLot()
        self._open = False

    async def wait(self, start_soon: StartSoon) -> None:
        """Until a later turn. `start_soon`: for the task that there is as long as somebody waits."""
        if not self._open:
            self._open = True
            start_soon(self._let_in)
        await self._waiting.park()

    async def _let_in(self) -> None:
        while self._waiting:
            await trio.lowlevel.checkpoint()
            self._waiting.unpark(count=AT_ONCE)
        self._open = False
