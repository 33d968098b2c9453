"""What actor code sees: the base class, its context, and what it is told about others."""

from __future__ import annotations

import enum
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import trio

from actors.kernel.link import MediaLink
from actors.kernel.mailbox import DEFAULT_CAPACITY, NOT_NOW
from actors.kernel.ref import ActorRef
from actors.kernel.timers import Timer
from actors.kernel.turn import MediaTurn

if TYPE_CHECKING:
    from actors.kernel.cell import Cell

M = TypeVar("M")
N = TypeVar("N")


class Exit(enum.Enum):
    """How an actor, or one incarnation of it, ended."""

    NORMAL = "normal"
    """It ended itself: `context.stop()`."""
    STOPPED = "stopped"
    """It was asked to stop, by `ref.stop()` or its supervisor."""
    KILLED = "killed"
    """Cancelled: `ref.kill()`, an ancestor's end, or grace exceeded."""
    FAILED = "failed"
    """An exception."""


class Restart(enum.Enum):
    """When a supervisor starts a child again. A child that was asked to stop never is."""

    PERMANENT = "permanent"
    """Always."""
    TRANSIENT = "transient"
    """After FAILED or KILLED."""
    TEMPORARY = "temporary"
    """Never."""


class Group(enum.Enum):
    """Who is restarted when one child must be."""

    ONE_FOR_ONE = "one-for-one"
    ONE_FOR_ALL = "one-for-all"
    REST_FOR_ONE = "rest-for-one"


ONE_FOR_ONE = Group.ONE_FOR_ONE
ONE_FOR_ALL = Group.ONE_FOR_ALL
REST_FOR_ONE = Group.REST_FOR_ONE


@dataclass(frozen=True, slots=True)
class Strategy:
    """How an actor supervises its children. Times in seconds."""

    group: Group = Group.ONE_FOR_ONE
    intensity: int = 3
    """At most this many restarts within `period`; one more and the supervisor gives up."""
    period: float = 5.0
    backoff: float = 0.05
    """Before the first restart; doubled by each further failure in a row, times 0.5 to 1.5."""
    backoff_limit: float = 10.0
    grace: float = 2.0
    """For a child to take its stop, and again for its `stopping`."""


DEFAULT_STRATEGY = Strategy()


@dataclass(frozen=True, slots=True)
class Terminated:
    """A watched actor has ended for good."""

    ref: ActorRef[Any]
    exit: Exit
    error: Exception | None


@dataclass(frozen=True, slots=True)
class Restarted:
    """A watched actor runs again. `error` is what ended the incarnation before, if it was an exception."""

    ref: ActorRef[Any]
    incarnation: int
    error: Exception | None


class Actor(Generic[M]):
    """State, and what happens to it. One message at a time; raising is crashing."""

    mailbox_capacity: ClassVar[int] = DEFAULT_CAPACITY
    patient: ClassVar[bool] = False
    """One of a crowd that may all have something to do at once: in a turn of the event loop that is long already its
    messages wait for a later one (`actors.kernel.turnstile`)."""
    strategy: Strategy = DEFAULT_STRATEGY
    """For its children, unless its spawner says otherwise."""
    context: ActorContext[M]
    """Set before `started()`; not there yet in `__init__`."""

    async def started(self) -> None:
        """Before the first message. An error goes to the spawner, or at a restart to the supervisor."""

    async def receive(self, message: M) -> object:
        """Handle one message. The result answers an ask."""
        raise TypeError(f"{type(self).__name__} takes no messages, got {type(message).__name__}")

    def receive_now(self, message: M) -> object:
        """As `receive`, for a message of `ref.ask_now`. Synchronous by contract.

        NOT_NOW, before anything has changed, for a message that has to wait for something: it is asked again, by `ask`.
        """
        return NOT_NOW

    def receive_media(self, link: MediaLink) -> None:
        """A link has items: drain it. Synchronous by contract. By default they are thrown away."""
        link.dropped += len(link.drain())

    async def stopping(self, exit: Exit) -> None:
        """Farewell. Children, helpers and timers are gone; shielded, and cut off after the grace."""


class ActorContext(Generic[M]):
    """An actor's way to the kernel; belongs to one incarnation."""

    __slots__ = ("_cell", "_incarnation", "random", "ref")

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._incarnation = cell.incarnation
        self.ref: ActorRef[M] = cell.ref
        self.random: random.Random = cell.system.random

    @property
    def children(self) -> tuple[ActorRef[Any], ...]:
        """In order of start."""
        return tuple(child.ref for child in self._cell.children.values())

    async def spawn(
        self,
        factory: Callable[[], Actor[N]],
        name: str,
        *,
        restart: Restart = Restart.TEMPORARY,
        strategy: Strategy | None = None,
    ) -> ActorRef[N]:
        """Start a child and wait for its `started()`. `factory` is called again for each restart.

        Raises StartFailed; ActorDead if this actor is ending.
        """
        return await self._cell.spawn(factory, name, restart, strategy)

    def watch(self, ref: ActorRef[Any]) -> None:
        """Be told Terminated (once, also if it is gone already) and Restarted of `ref`."""
        self._cell.watch(ref.cell)

    def unwatch(self, ref: ActorRef[Any]) -> None:
        self._cell.unwatch(ref.cell)

    def schedule(self, delay: float, message: M) -> Timer:
        """Tell this actor `message` in `delay` seconds. Gone with this incarnation."""
        return self._cell.schedule(delay, message)

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], *args: Any, name: str | None = None) -> None:
        """Run a helper task until this incarnation ends. An error in it is this actor's error."""
        self._cell.start_soon(async_fn, args, name or str(getattr(async_fn, "__name__", "helper")))

    @property
    def media_turn(self) -> MediaTurn:
        """`with context.media_turn:` around pushes: the receivers run before the block is left, without a hop."""
        return self._cell.system.media_turn

    @property
    def turn_is_long(self) -> bool:
        """This turn of the event loop: whoever has many to tell something had better leave the rest of them to later
        ones, with `tell` in place of `ask_now`."""
        return self._cell.system.turnstile.is_late()

    def stop(self, reason: str = "") -> None:
        """End this actor after the message in hand: Exit.NORMAL."""
        if self._cell.incarnation == self._incarnation:
            self._cell.leave(reason)

    @property
    def stop_reason(self) -> str:
        """What `stop` was called with, for `stopping` to read; "" if nothing was said."""
        return self._cell.stop_reason

    def now(self) -> float:
        """Seconds on Trio's clock."""
        return trio.current_time()
