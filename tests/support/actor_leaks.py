"""Run an actor test in virtual time and prove that nothing of it is left: no task, no open channel, no timer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import trio
import trio.testing

from actors.kernel import ActorSystem
from actors.kernel.cell import Cell
from actors.kernel.mailbox import State

T = TypeVar("T")


class TaskCounter(trio.abc.Instrument):
    """Which tasks live: those that were spawned and have not exited."""

    def __init__(self) -> None:
        self.living: dict[int, str] = {}

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.living[id(task)] = task.name

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.living.pop(id(task), None)


class Cells:
    """All cells made while it watches."""

    def __init__(self) -> None:
        self.seen: list[Cell] = []


@contextmanager
def cells_recorded() -> Iterator[Cells]:
    cells = Cells()
    original = Cell.__init__

    def recording(self: Cell, *args: Any) -> None:
        original(self, *args)
        cells.seen.append(self)

    Cell.__init__ = recording  # type: ignore[method-assign, assignment]
    try:
        yield cells
    finally:
        Cell.__init__ = original  # type: ignore[method-assign]


def assert_nothing_left(counter: TaskCounter, before: set[int], cells: Cells, systems: tuple[ActorSystem, ...]) -> None:
    left = [name for key, name in counter.living.items() if key not in before]
    assert not left, f"tasks left over: {left}"
    for cell in cells.seen:
        assert cell.closed.is_set(), f"{cell.path} never ended"
        assert cell.mailbox.state is State.CLOSED, f"the channel of {cell.path} is open"
        assert not cell.children, f"{cell.path} still has children"
        assert not cell._timers, f"{cell.path} still has timers"
    for system in systems:
        assert not system.cells, f"registered: {sorted(system.cells)}"


def run_actors(
    main: Callable[[], Awaitable[T]], *, limit: float = 10_000.0, instruments: Sequence[trio.abc.Instrument] = ()
) -> T:
    """`trio.run(main)` on a clock that jumps; fails if anything lives on. `limit`: virtual seconds."""

    async def checked() -> T:
        counter = TaskCounter()
        trio.lowlevel.add_instrument(counter)
        before = set(counter.living)
        with cells_recorded() as cells:
            with trio.fail_after(limit):
                result = await main()
            await trio.testing.wait_all_tasks_blocked()
            systems = tuple({id(cell.system): cell.system for cell in cells.seen}.values())
            assert_nothing_left(counter, before, cells, systems)
        trio.lowlevel.remove_instrument(counter)
        return result

    return trio.run(checked, clock=trio.testing.MockClock(autojump_threshold=0), instruments=instruments)


@contextmanager
def deterministic_scheduling(seed: int) -> Iterator[None]:
    """Trio's private switch, as its own tests use it: the same seed gives the same order of tasks."""
    run = trio._core._run
    state, allowed = run._r.getstate(), run._ALLOW_DETERMINISTIC_SCHEDULING
    run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    run._r.seed(seed)
    try:
        yield
    finally:
        run._r.setstate(state)
        run._ALLOW_DETERMINISTIC_SCHEDULING = allowed  # type: ignore[misc]
