"""The root: one tree of actors, its timers, its randomness, its faults."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Literal, TypeVar

import trio

from actors.kernel.actor import Actor, Restart, Strategy
from actors.kernel.cell import Cell
from actors.kernel.faults import ActorFaults, Fault, FaultInjector, FaultPlan
from actors.kernel.ref import ActorRef
from actors.kernel.timers import TimerQueue
from actors.kernel.turn import MediaTurn
from actors.kernel.turnstile import Turns, Turnstile, Unmeasured

M = TypeVar("M")

EventKind = Literal["crash", "start_failed", "restart", "escalation", "grace_exceeded", "fault"]
EventHook = Callable[[EventKind, str, str], object]
"""(kind, path, detail); detail of a crash or failed start is the traceback. It must neither block nor raise."""


@dataclass(frozen=True, slots=True)
class ActorInfo:
    """One row of `ActorSystem.tree()`."""

    path: str
    type: str
    state: str
    incarnation: int
    depth: int
    """Control messages queued."""
    dropped: int
    """Media items dropped on all its links."""
    refused: int
    """Senders that were told MailboxFull."""
    restarts: int


class Root(Actor[object]):
    """The parent of what `system.spawn` starts. It takes no messages."""


class ActorSystem:
    """`async with ActorSystem() as system`: leaving the block stops the tree, the last started first.

    An exception in the block kills the tree and passes on unchanged. An escalation that reaches the root cancels the
    block and is raised from it: RestartIntensityExceeded, with the last error
    as its cause.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        faults: FaultPlan | None = None,
        on_event: EventHook | None = None,
        strategy: Strategy | None = None,
        turns: Turns | None = None,
    ) -> None:
        """`turns`: see `Turnstile`; without them turns are as long as there is something to do."""
        self.seed = random.SystemRandom().getrandbits(64) if seed is None else seed
        self.random = random.Random(self.seed)
        self.timers = TimerQueue()
        self.media_turn = MediaTurn()
        self.turnstile = Turnstile(turns or Unmeasured())
        self.cells: dict[str, Cell] = {}
        self.dead_letters = 0
        self.nursery: trio.Nursery
        self._start = 0.0
        self._plan = faults
        self._injector: FaultInjector | None = None
        self._on_event = on_event
        self._manager: AbstractAsyncContextManager[trio.Nursery, bool | None] | None = None
        self._root = Cell(self, None, "", Root, Restart.TEMPORARY, strategy)

    async def __aenter__(self) -> ActorSystem:
        self._start = trio.current_time()
        self._manager = trio.open_nursery()
        self.nursery = await self._manager.__aenter__()
        if self._plan is not None:
            self._injector = FaultInjector(self._plan, self.timers, self._start, self._report_fault)
            for fault in self._plan.faults:
                self._injector.arm(fault, self._kill_matching)
        self.nursery.start_soon(self.timers.run, name="actors.timers")
        self._root.launch()
        await self._root.began.wait()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        manager = self._manager
        assert manager is not None
        if exc is None:
            try:
                self._root.stop("the system stops")
                await self._root.closed.wait()
                self.nursery.cancel_scope.cancel()
            except (trio.Cancelled, KeyboardInterrupt) as error:
                # Escalation or cancellation while we stop: the nursery must see it to sort it out.
                exc_type, exc, traceback = type(error), error, error.__traceback__
        try:
            return await manager.__aexit__(exc_type, exc, traceback)
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:
                # One cause, one exception: `except RestartIntensityExceeded` works around the block.
                if group.exceptions[0] is exc:
                    return False
                raise group.exceptions[0] from group.exceptions[0].__cause__
            raise

    async def spawn(
        self,
        factory: Callable[[], Actor[M]],
        name: str,
        *,
        restart: Restart = Restart.TEMPORARY,
        strategy: Strategy | None = None,
    ) -> ActorRef[M]:
        """Start an actor below the root. As `ActorContext.spawn`."""
        return await self._root.spawn(factory, name, restart, strategy)

    def find(self, path: str) -> ActorRef[Any] | None:
        """The living actor of that path ("/rooms/demo")."""
        cell = self.cells.get(path)
        return None if cell is None else cell.ref

    def tree(self) -> list[ActorInfo]:
        """All actors, parents before children, siblings in order of start."""
        rows: list[ActorInfo] = []
        stack = list(reversed(self._root.children.values()))
        while stack:
            cell = stack.pop()
            rows.append(_info(cell))
            stack.extend(reversed(cell.children.values()))
        return rows

    def inject(self, fault: Fault) -> None:
        """Add a fault to the running system; its `at` still counts from the system's start."""
        if self._injector is None:
            self._injector = FaultInjector(FaultPlan(self.seed), self.timers, self._start, self._report_fault)
        self._injector.faults.append(fault)
        self._injector.arm(fault, self._kill_matching)
        for cell in self.cells.values():
            if fnmatchcase(cell.path, fault.path):
                cell.mailbox.set_faults(self._injector.for_actor(cell))

    # -- for the kernel

    def faults_for(self, cell: Cell) -> ActorFaults | None:
        return None if self._injector is None else self._injector.for_actor(cell)

    def event(self, kind: EventKind, path: str, detail: str) -> None:
        if self._on_event is not None:
            self._on_event(kind, path, detail)

    def count_dead_letter(self) -> None:
        self.dead_letters += 1

    def _report_fault(self, path: str, text: str) -> None:
        self.event("fault", path, text)

    def _kill_matching(self, pattern: str) -> None:
        for cell in list(self.cells.values()):
            if fnmatchcase(cell.path, pattern):
                self._report_fault(cell.path, "killed by the plan")
                cell.kill()


def _info(cell: Cell) -> ActorInfo:
    mailbox = cell.mailbox
    return ActorInfo(
        path=cell.path,
        type=cell.actor_type,
        state=cell.state.value,
        incarnation=cell.incarnation,
        depth=mailbox.pending,
        dropped=mailbox.dropped,
        refused=mailbox.refused,
        restarts=max(0, cell.incarnation - 1),
    )
