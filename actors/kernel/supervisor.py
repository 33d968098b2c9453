"""Supervision: an exception becomes data, data becomes a decision (docs/runtime-semantics.md, Supervision).

child ended, must restart --> within intensity --> back-off --> next incarnation
                          \\-> one too many     --> RestartIntensityExceeded in the supervisor's nursery
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import proxy

import trio

from actors.kernel.actor import Actor, Exit, Group, Restart, Strategy
from actors.kernel.errors import RestartIntensityExceeded
from actors.kernel.ref import ActorRef

if TYPE_CHECKING:
    from actors.kernel.cell import Cell

T = TypeVar("T")


async def contain(run: Callable[[], Awaitable[object]], on_error: Callable[[Exception], object]) -> Exception | None:
    """Run it, report and return its error. With `contain_call` the only place that catches `Exception`.

    Cancellation is no `Exception`: it passes, alone, also when it comes in a group with errors; those are reported.
    """
    error: Exception | None = None
    try:
        await run()
    except* Exception as group:  # noqa: BLE001
        error = collapse(group)
        on_error(error)
    return error


def contain_call(run: Callable[[T], object], argument: T) -> Exception | None:
    """`contain` for a call that does not wait: its error is for the actor's own task to raise."""
    try:
        run(argument)
    except Exception as error:  # noqa: BLE001
        return error
    return None


def collapse(error: Exception) -> Exception:
    """A group that holds one error is that error."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def describe(error: Exception) -> str:
    """The traceback as text."""
    return "".join(traceback.format_exception(error))


class Supervision:
    """One actor's supervision of its children, for one incarnation of it."""

    def __init__(self, owner: Cell, strategy: Strategy) -> None:
        self.owner: Cell = proxy(owner)
        self.strategy = strategy
        self._restarts: list[float] = []
        self._pending: list[Cell] = []
        self._busy = False

    def child_over(self, child: Cell, exit: Exit, error: Exception | None) -> RestartIntensityExceeded | None:
        """An incarnation of `child` is over. Decide what follows; what is returned is raised into our nursery."""
        owner = self.owner
        if child.closing or not owner.can_restart_children():
            child.finish(exit, error)
            return None
        if child.held:
            child.held = False
            if child.restart is Restart.TEMPORARY:
                child.finish(exit, error)
            else:
                child.park(error)
            return None
        if not wants_restart(child.restart, exit):
            child.finish(exit, error)
            return None
        if self._exceeded():
            child.finish(exit, error)
            strategy = self.strategy
            escalation = RestartIntensityExceeded(owner.path, child.path, strategy.intensity, strategy.period)
            escalation.__cause__ = error
            owner.system.event("escalation", owner.path, str(escalation))
            return escalation
        child.park(error)
        self._launch(child)
        return None

    def _exceeded(self) -> bool:
        """Count one restart; True if it is one too many."""
        now = trio.current_time()
        self._restarts.append(now)
        while self._restarts[0] < now - self.strategy.period:
            self._restarts.pop(0)
        return len(self._restarts) > self.strategy.intensity

    def _launch(self, child: Cell) -> None:
        nursery = self.owner.require_running("restart a child")
        if self.strategy.group is Group.ONE_FOR_ONE:
            nursery.start_soon(self._restart_one, child, name=f"{child.path}!restart")
            return
        self._pending.append(child)
        if not self._busy:
            self._busy = True
            nursery.start_soon(self._restart_groups, name=f"{self.owner.path}!restart")

    async def _restart_one(self, child: Cell) -> None:
        await trio.sleep(self._backoff(child))
        if child.parked and self.owner.can_restart_children():
            child.launch()

    async def _restart_groups(self) -> None:
        """One group restart at a time; children that fail meanwhile make the next one."""
        while self._pending:
            pending, self._pending = self._pending, []
            group = self._group_of(pending)
            for sibling in reversed(group):
                if not sibling.parked:
                    sibling.hold()
                    await sibling.halted.wait()
            # Those that failed while the group came down are part of this restart already.
            self._pending = [child for child in self._pending if child not in group]
            await trio.sleep(max(self._backoff(child) for child in pending))
            await self._start_in_order(group)
        self._busy = False

    async def _start_in_order(self, group: Sequence[Cell]) -> None:
        for child in group:
            if not child.parked:
                continue
            if not self.owner.can_restart_children():
                return
            child.launch()
            await child.began.wait()
            if self._pending:
                return

    def _group_of(self, pending: Sequence[Cell]) -> list[Cell]:
        children = list(self.owner.children.values())
        if self.strategy.group is Group.ONE_FOR_ALL:
            return children
        return list(itertools.dropwhile(lambda child: child not in pending, children))

    def _backoff(self, child: Cell) -> float:
        strategy = self.strategy
        delay = strategy.backoff * 2.0 ** min(child.failures - 1, 30)
        jitter = 0.5 + self.owner.system.random.random()
        return min(delay * jitter, strategy.backoff_limit)

    async def stop_children(self) -> None:
        """One by one, the last started first."""
        for child in reversed(list(self.owner.children.values())):
            child.stop("the supervisor stops")
            await child.closed.wait()


def wants_restart(restart: Restart, exit: Exit) -> bool:
    if restart is Restart.TEMPORARY or exit is Exit.STOPPED:
        return False
    return restart is Restart.PERMANENT or exit in (Exit.FAILED, Exit.KILLED)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A child of a `Supervisor`; as a message to it, a child to start: the reply is its ActorRef."""

    factory: Callable[[], Actor[Any]]
    name: str
    restart: Restart = Restart.PERMANENT
    strategy: Strategy | None = None


class Supervisor(Actor[ChildSpec]):
    """Starts its children in order and supervises them; does nothing else.

    A `ChildSpec` asked of it later starts one more. A start failure crashes it, as in OTP.
    """

    def __init__(self, children: Sequence[ChildSpec] = (), strategy: Strategy | None = None) -> None:
        self._specs = tuple(children)
        if strategy is not None:
            self.strategy = strategy

    async def started(self) -> None:
        for spec in self._specs:
            await self._start(spec)

    async def receive(self, message: ChildSpec) -> ActorRef[Any]:
        return await self._start(message)

    async def _start(self, spec: ChildSpec) -> ActorRef[Any]:
        return await self.context.spawn(spec.factory, spec.name, restart=spec.restart, strategy=spec.strategy)
