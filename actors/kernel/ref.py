"""The only handle on an actor."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from actors.kernel.errors import AskCycle, AskTimeout
from actors.kernel.link import DEFAULT_CAPACITY, MediaLink
from actors.kernel.mailbox import Mailbox, Reply

if TYPE_CHECKING:
    from actors.kernel.cell import Cell

M_contra = TypeVar("M_contra", contravariant=True)

handling: ContextVar[Cell | None] = ContextVar("actors.kernel.handling", default=None)
"""The actor whose mailbox is deaf while this task waits; None in helper tasks and outside of actors."""


class ActorRef(Generic[M_contra]):
    """A name that outlives restarts. One object per actor, so identity is equality."""

    __slots__ = ("__weakref__", "_cell", "_mailbox")

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._mailbox: Mailbox = cell.mailbox

    @property
    def path(self) -> str:
        return self._cell.path

    @property
    def incarnation(self) -> int:
        """1 at first, one more at each restart."""
        return self._cell.incarnation

    @property
    def alive(self) -> bool:
        """False from the moment a stop was asked. True while the actor waits to be restarted."""
        return self._cell.alive

    @property
    def cell(self) -> Cell:
        """The kernel's own side of the actor. Not for actors."""
        return self._cell

    def tell(self, message: M_contra) -> None:
        """Queue and return. Raises MailboxFull, or ActorDead once the actor has ended."""
        self._mailbox.put(message, None)

    async def ask(self, message: M_contra, *, timeout: float) -> Any:  # noqa: ASYNC109  (part of the contract)
        """What `receive` returns for this message. `timeout` in seconds.

        Raises AskTimeout, AskCycle, ActorDead, MailboxFull.
        """
        reply = Reply()
        asker = handling.get()
        if asker is None:
            self._mailbox.put(message, reply)
            with trio.move_on_after(timeout):
                await reply.wait()
        else:
            ring = asker.ring_through(self._cell)
            if ring is not None:
                raise AskCycle(self._cell.path, ring)
            self._mailbox.put(message, reply)
            with asker.waiting_for(self._cell):
                with trio.move_on_after(timeout):
                    await reply.wait()
        if reply.error is not None:
            raise reply.error
        if not reply.done:
            raise AskTimeout(self._cell.path, timeout)
        return reply.value

    def ask_now(self, message: M_contra) -> object:
        """What `receive_now` returns for this message, or NOT_NOW: then `ask`.

        Without a task switch, in the caller's task, and only if the actor is between two messages with none queued: so
        nobody can tell it from an `ask` that was quick. Raises ActorDead if the actor crashes of it.
        """
        return self._cell.receive_now(message)

    def link(self, name: str, capacity: int = DEFAULT_CAPACITY) -> MediaLink:
        """The media link `name` of this actor, made at the first call and kept over restarts."""
        return self._mailbox.link(name, capacity)

    def stop(self, reason: str = "") -> None:
        """Ask the actor to end, after what is queued, for good. No wait; nothing happens if it has ended."""
        self._cell.stop(reason)

    def kill(self) -> None:
        """Cancel the actor and all below it at once, without farewell. Its supervisor may restart it."""
        self._cell.kill()

    async def wait_closed(self) -> None:
        """Return when the actor has ended for good."""
        await self._cell.closed.wait()

    def when_closed(self, call: Callable[[], object]) -> None:
        """`call()` when the actor has ended for good: at once, if it has. It must neither wait nor raise."""
        if self._cell.closed.is_set():
            call()
        else:
            self._cell.on_closed.append(call)

    def forget_closed(self, call: Callable[[], object]) -> None:
        """Take back `when_closed`."""
        if call in self._cell.on_closed:
            self._cell.on_closed.remove(call)

    def __repr__(self) -> str:
        return f"<ActorRef {self._cell.path} #{self._cell.incarnation} {self._cell.state.value}>"
