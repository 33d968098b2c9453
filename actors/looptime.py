"""How long the event loop's turns are, and what the garbage collector takes of them.

A turn is everything between two waits for I/O: whoever becomes ready meanwhile waits for its end, so the longest turn
is the longest stall. The instrument is called twice a turn, not per task or packet, and costs 1.5 microseconds a turn.
Each second is kept by itself, so that a window of any length can be judged afterwards. Beside the longest turn stands
the CPU that it took: a turn of 500 ms with 2 ms of CPU is not this thread's doing, but another one's or the machine's.
"""

from __future__ import annotations

import contextlib
import gc
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic, thread_time

import trio

KEPT = 120
"""Seconds of history."""
WINDOW = 15
"""Seconds that the gauges look back: the usual interval between two scrapes."""
TURN, MAX_YIELDS = 0.002, 16
"""Seconds after which whoever can wait leaves the rest of the loop's turn to others, and how often at most."""

SHARED_TURN = 0.0025
"""The same in CPU, of a loop that shares the interpreter (`SharedLoopTime`). By the clock it is about twice that: where
one core does both, the loop waits for the core as long again, 3 to 5 ms at a time (docs/benchmarks.md)."""


@dataclass(frozen=True, slots=True)
class LoopSecond:
    """What the loop did in one second of the monotonic clock. All times in seconds."""

    second: int
    turns: int
    busy: float
    """In turns; the rest was waiting for I/O."""
    longest: float
    """The longest turn by the clock on the wall, the time included in which the machine gave the core to others."""
    longest_cpu: float
    """What that turn took of a core, with the wait for I/O before it; a machine below this one may hide in it, too."""
    collecting: float
    """In the garbage collector, in or out of turns."""


@dataclass(slots=True)
class Generation:
    """Collections of one generation since the start."""

    collections: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    collected: int = 0
    """Objects in cycles that were freed."""


class LoopTime(trio.abc.Instrument):
    """`with loop_time.watching():` in the task that runs the loop, for as long as it is to be watched."""

    limit = TURN

    def __init__(self) -> None:
        self.seconds: deque[LoopSecond] = deque(maxlen=KEPT)
        """Ended ones in which there was a turn, oldest first."""
        self.generations = (Generation(), Generation(), Generation())
        self.number = 0
        """Of turns that have ended."""
        self._began = self._collection_began = 0.0
        self._second = self._turns = 0
        self._busy = self._longest = self._longest_cpu = self._collecting = 0.0
        self._cpu = 0.0
        """Of this thread, when the last turn ended."""

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        self._began, self._cpu = monotonic(), thread_time()
        self._second = int(self._began)
        trio.lowlevel.add_instrument(self)
        gc.callbacks.append(self._on_collection)
        try:
            yield
        finally:
            gc.callbacks.remove(self._on_collection)
            with contextlib.suppress(KeyError):  # Trio takes out an instrument that has failed.
                trio.lowlevel.remove_instrument(self)

    # -- called by Trio and by the collector ------------------------------------------------------------------------

    def after_io_wait(self, timeout: float) -> None:
        self._began = monotonic()

    def before_io_wait(self, timeout: float) -> None:
        now, cpu = monotonic(), thread_time()
        spent = now - self._began
        if int(now) != self._second:
            self._close(int(now))
        self.number += 1
        self._turns += 1
        self._busy += spent
        if spent > self._longest:
            self._longest, self._longest_cpu = spent, cpu - self._cpu
        self._cpu = cpu

    def _close(self, second: int) -> None:
        """A turn belongs to the second in which it ends."""
        if self._turns:
            self.seconds.append(self._current())
        self._second = second
        self._turns = 0
        self._busy = self._longest = self._longest_cpu = self._collecting = 0.0

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        now = monotonic()
        if phase == "start":
            self._collection_began = now
            return
        spent, generation = now - self._collection_began, self.generations[info["generation"]]
        self._collecting += spent
        generation.collections += 1
        generation.seconds += spent
        generation.longest = max(generation.longest, spent)
        generation.collected += info["collected"]

    def turn_so_far(self) -> float:
        """Seconds since the loop last looked at its sockets; 0.0 when nobody watches."""
        return monotonic() - self._began if self._began else 0.0

    def cpu_so_far(self) -> float:
        """What this turn, and the wait for I/O before it, took of a core; 0.0 when nobody watches."""
        return thread_time() - self._cpu if self._began else 0.0

    def is_late(self) -> bool:
        """This turn is long enough: who can wait takes the next one."""
        return self.turn_so_far() >= TURN

    async def in_time(self) -> None:
        """For whoever was woken by a socket: those that were woken together are not all served in one turn of the loop,
        packets wait for its end."""
        for _ in range(MAX_YIELDS):
            if not self.is_late():
                return
            await trio.lowlevel.checkpoint()

    # -- asked ------------------------------------------------------------------------------------------------------

    def _current(self) -> LoopSecond:
        return LoopSecond(self._second, self._turns, self._busy, self._longest, self._longest_cpu, self._collecting)

    def since(self, second: float) -> list[LoopSecond]:
        """Those that began at `second` (of the monotonic clock) or later, the current one included."""
        return [entry for entry in (*self.seconds, self._current()) if entry.second >= second]

    def longest(self, window: float = WINDOW) -> float:
        """Seconds of the longest turn in the last `window` seconds."""
        return max((entry.longest for entry in self.since(monotonic() - window)), default=0.0)

    @property
    def collecting(self) -> list[float]:
        """Seconds since the start, by generation."""
        return [generation.seconds for generation in self.generations]

    def as_dict(self) -> dict[str, object]:
        """For `/debug/loop`: milliseconds. `now` and `second` are of the same clock, which has no epoch."""
        return {
            "now": round(monotonic(), 3),
            "longest_turn_ms": _ms(self.longest()),
            "window_s": WINDOW,
            "seconds": [
                {
                    "second": entry.second,
                    "turns": entry.turns,
                    "busy_ms": _ms(entry.busy),
                    "longest_turn_ms": _ms(entry.longest),
                    "longest_turn_cpu_ms": _ms(entry.longest_cpu),
                    "collector_ms": _ms(entry.collecting),
                }
                for entry in self.since(0)
            ],
            "collector": {
                "thresholds": gc.get_threshold(),
                "counts": gc.get_count(),
                "generations": [
                    {
                        "collections": generation.collections,
                        "total_ms": _ms(generation.seconds),
                        "longest_ms": _ms(generation.longest),
                        "collected": generation.collected,
                    }
                    for generation in self.generations
                ],
            },
        }


class SharedLoopTime:
    """Turns of a loop whose interpreter another thread uses, too: implements `actors.kernel.turnstile.Turns`.

    Of a turn counts what it took of a core, not what it waited for the other thread; and as each turn hands the
    interpreter over, and may have to wait some milliseconds for it, there are somewhat fewer and longer ones.
    """

    limit = SHARED_TURN

    def __init__(self, loop: LoopTime) -> None:
        self._loop = loop

    @property
    def number(self) -> int:
        return self._loop.number

    def turn_so_far(self) -> float:
        return self._loop.cpu_so_far()

    def is_late(self) -> bool:
        return self._loop.cpu_so_far() >= SHARED_TURN


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
