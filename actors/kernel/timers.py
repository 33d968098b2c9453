"""All timers of a system in one heap and one task: setting one costs a push, cancelling one costs a flag."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable

import trio

COMPACT_AT = 64
"""Cancelled entries are swept out when there are more of them than live ones, and at least this many."""

AT_ONCE = 4
"""Timers that go off in one turn of the event loop. Whoever they wake runs in one turn, too, a quarter of a millisecond
each, half of one and more where media take the caches, and those of many connections are often due together
(actors/transport.py)."""


class Timer:
    """A pending call. `cancel()` may come at any time, also after it fired."""

    __slots__ = ("_group", "_queue", "callback", "cancelled", "deadline", "fired", "incarnation")

    def __init__(
        self, queue: TimerQueue, deadline: float, callback: Callable[[], object], group: set[Timer] | None = None
    ) -> None:
        self._queue = queue
        self._group = group
        self.incarnation = 0
        self.deadline = deadline
        self.callback: Callable[[], object] | None = callback
        self.cancelled = False
        self.fired = False

    @property
    def pending(self) -> bool:
        return not (self.cancelled or self.fired)

    def cancel(self) -> None:
        """Nothing arrives after this, even if the timer's message was already queued."""
        if self.pending:
            self.cancelled = True
            self.callback = None
            self._leave_group()
            self._queue.forget_one()
        self.cancelled = True

    def fire(self) -> None:
        """By the queue, once."""
        self.fired = True
        self._leave_group()
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()

    def _leave_group(self) -> None:
        if self._group is not None:
            self._group.discard(self)


class TimerQueue:
    """Timers in order of deadline, then of setting. Deadlines are on Trio's clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._cancelled = 0
        self._scope: trio.CancelScope | None = None

    def __len__(self) -> int:
        """How many are still to fire."""
        return len(self._heap) - self._cancelled

    def at(self, deadline: float, callback: Callable[[], object], group: set[Timer] | None = None) -> Timer:
        """Call `callback` at `deadline`; it must neither block nor raise.

        The timer is in `group` while it is pending.
        """
        timer = Timer(self, deadline, callback, group)
        if group is not None:
            group.add(timer)
        heapq.heappush(self._heap, (deadline, next(self._order), timer))
        scope = self._scope
        if scope is not None and deadline < scope.deadline:
            scope.deadline = deadline
        return timer

    def forget_one(self) -> None:
        """A timer in the heap was cancelled: sweep when most of them are. Nobody is woken for the first one."""
        self._cancelled += 1
        heap = self._heap
        if heap[0][2].cancelled:
            while heap and heap[0][2].cancelled:
                heapq.heappop(heap)
                self._cancelled -= 1
            if self._scope is not None:
                self._scope.deadline = heap[0][0] if heap else math.inf
            return
        if self._cancelled > COMPACT_AT and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].cancelled]
            heapq.heapify(self._heap)
            self._cancelled = 0

    async def run(self) -> None:
        """The system's timer task; runs until it is cancelled."""
        while True:
            deadline = self._heap[0][0] if self._heap else math.inf
            with trio.CancelScope(deadline=deadline) as scope:
                self._scope = scope
                await trio.sleep_forever()
            self._scope = None
            while self._fire(trio.current_time()):
                await trio.lowlevel.checkpoint()

    def _fire(self, now: float) -> bool:
        """Some of those that are due. Are there more?"""
        fired = 0
        while self._heap and self._heap[0][0] <= now:
            if fired == AT_ONCE:
                return True
            timer = heapq.heappop(self._heap)[2]
            if timer.cancelled:
                self._cancelled -= 1
                continue
            timer.fire()
            fired += 1
        return False
