"""Faults on purpose: a seeded plan, given to the system, that any run can be replayed with.

A plan is a value; what happens to it in one run is in the `FaultInjector` that the system makes of it. Paths are
globs in which `*` also matches `/`. Times are seconds; `at` counts from the start of the system.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import trio

from actors.kernel.link import MediaLink
from actors.kernel.timers import TimerQueue

if TYPE_CHECKING:
    from actors.kernel.cell import Cell

REORDER_DELAY: Final = (0.005, 0.025)
"""Seconds by which a reordered item is late, drawn evenly."""


@dataclass(frozen=True, slots=True)
class Kill:
    """`kill` at a time, or in place of handling the `nth` message of type `on` (once per path)."""

    path: str
    at: float | None = None
    on: type | None = None
    nth: int = 1


@dataclass(frozen=True, slots=True)
class Pause:
    """Handles nothing from `at` on for `seconds`."""

    path: str
    seconds: float
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Slow:
    """Waits `delay` before every message and every ring of a link."""

    path: str
    delay: float
    at: float = 0.0
    seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class FailNext:
    """Raises `error` in place of handling the next `times` messages (of type `on`; MediaLink means a ring)."""

    path: str
    error: Exception
    on: type | None = None
    times: int = 1
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Full:
    """`tell` and `ask` raise MailboxFull."""

    path: str
    at: float = 0.0
    seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class LinkFault:
    """A bad network in front of the links `link` of the actors `path`.

    loss, reorder, duplicate: probability per item. delay: seconds. rate: items per second; what waits longer than the
    link's capacity allows is lost.
    """

    path: str
    link: str = "*"
    loss: float = 0.0
    delay: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    rate: float | None = None
    at: float = 0.0
    seconds: float = math.inf


Fault = Kill | Pause | Slow | FailNext | Full | LinkFault


@dataclass(frozen=True, slots=True)
class FaultPlan:
    seed: int = 0
    faults: tuple[Fault, ...] = ()


def _active(fault: Pause | Slow | Full | LinkFault, elapsed: float) -> bool:
    return fault.at <= elapsed < fault.at + fault.seconds


class FaultInjector:
    """One run of a plan. `report(path, text)` is told of each fault on an actor that takes effect."""

    def __init__(self, plan: FaultPlan, timers: TimerQueue, start: float, report: Callable[[str, str], None]) -> None:
        self.seed = plan.seed
        self.faults: list[Fault] = list(plan.faults)
        self.timers = timers
        self.report = report
        self.start = start
        self.counts: dict[tuple[int, str], int] = {}

    def elapsed(self) -> float:
        return trio.current_time() - self.start

    def arm(self, fault: Fault, kill: Callable[[str], None]) -> None:
        """Set the alarm of a timed kill."""
        if isinstance(fault, Kill) and fault.at is not None and fault.on is None:
            self.timers.at(self.start + fault.at, lambda: kill(fault.path))

    def for_actor(self, cell: Cell) -> ActorFaults | None:
        """The faults that can hit this actor; None if there are none."""
        found = [(i, fault) for i, fault in enumerate(self.faults) if fnmatchcase(cell.path, fault.path)]
        return ActorFaults(self, cell, found) if found else None


class ActorFaults:
    """What the mailbox and the loop of one actor ask before each step."""

    def __init__(self, injector: FaultInjector, cell: Cell, faults: list[tuple[int, Fault]]) -> None:
        self._injector = injector
        self._cell = cell
        self._full = [fault for _, fault in faults if isinstance(fault, Full)]
        self._faults = [(i, fault) for i, fault in faults if not isinstance(fault, Full | LinkFault)]
        self._links = [(i, fault) for i, fault in faults if isinstance(fault, LinkFault)]

    def full(self) -> bool:
        return any(_active(fault, self._injector.elapsed()) for fault in self._full)

    def for_link(self, name: str) -> LinkFaults | None:
        found = [(i, fault) for i, fault in self._links if fnmatchcase(name, fault.link)]
        if not found:
            return None
        seeds = [f"{self._injector.seed}/{i}/{self._cell.path}/{name}" for i, _ in found]
        return LinkFaults(
            self._injector, [(fault, random.Random(seed)) for seed, (_, fault) in zip(seeds, found, strict=True)]
        )

    async def before(self, message: object) -> None:
        """In place of handling `message`, or before it: wait, raise, or be killed."""
        for index, fault in self._faults:
            elapsed = self._injector.elapsed()
            match fault:
                case Pause() if _active(fault, elapsed):
                    await trio.sleep(fault.at + fault.seconds - elapsed)
                case Slow() if _active(fault, elapsed):
                    await trio.sleep(fault.delay)
                case Kill(on=on) if on is not None and elapsed >= (fault.at or 0.0) and isinstance(message, on):
                    if self._count(index) == fault.nth:
                        self._injector.report(self._cell.path, f"killed at {type(message).__name__} number {fault.nth}")
                        self._cell.kill()
                        await trio.lowlevel.checkpoint()
                case FailNext() if elapsed >= fault.at and self._is_meant(fault, message):
                    if self._count(index) <= fault.times:
                        self._injector.report(self._cell.path, f"{fault.error!r} at {type(message).__name__}")
                        raise fault.error
                case _:
                    pass

    @staticmethod
    def _is_meant(fault: FailNext, message: object) -> bool:
        if fault.on is None:
            return not isinstance(message, MediaLink)
        return isinstance(message, fault.on)

    def _count(self, index: int) -> int:
        """Per fault and path, kept over restarts and even over a new actor of the same path."""
        key = (index, self._cell.path)
        count = self._injector.counts[key] = self._injector.counts.get(key, 0) + 1
        return count


class LinkFaults:
    """What stands in front of one link."""

    def __init__(self, injector: FaultInjector, faults: list[tuple[LinkFault, random.Random]]) -> None:
        self._injector = injector
        self._faults = faults
        self._free_at = [0.0] * len(faults)

    def push(self, link: MediaLink, item: Any) -> None:
        delays = [0.0]
        for index in range(len(self._faults)):
            delays = [delay + more for delay in delays for more in self._fates(index, link)]
        link.pushed += not delays
        link.dropped += not delays
        now = trio.current_time()
        for delay in delays:
            if delay > 0.0:
                self._injector.timers.at(now + delay, lambda: link.accept(item))
            else:
                link.accept(item)

    def _fates(self, index: int, link: MediaLink) -> list[float]:
        """The extra delay of each copy that arrives."""
        fault, rng = self._faults[index]
        elapsed = self._injector.elapsed()
        if not _active(fault, elapsed):
            return [0.0]
        if rng.random() < fault.loss:
            return []
        delay = fault.delay
        if fault.rate is not None:
            start = max(elapsed, self._free_at[index])
            if start - elapsed > link.capacity / fault.rate:
                return []
            self._free_at[index] = start + 1.0 / fault.rate
            delay += start - elapsed
        copies = [delay, delay] if rng.random() < fault.duplicate else [delay]
        return [each + rng.uniform(*REORDER_DELAY) if rng.random() < fault.reorder else each for each in copies]
