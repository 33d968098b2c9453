"""One unbounded Trio memory channel for all lanes, with the bounds kept outside it (docs/runtime-semantics.md).

OPEN      items are queued; the control lane is bounded
DRAINING  a stop was asked: control messages are discarded and counted, asks fail
CLOSED    the actor has ended: tell raises
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from actors.kernel.errors import ActorDead, MailboxFull
from actors.kernel.link import MediaLink

if TYPE_CHECKING:
    from actors.kernel.faults import ActorFaults
    from actors.kernel.timers import Timer

DEFAULT_CAPACITY = 256
SWEEP_AT = 64
"""Links at which the closed ones are first looked for."""


class Reply:
    """The one-shot answer to an ask."""

    __slots__ = ("_event", "error", "value")

    def __init__(self) -> None:
        self._event = trio.Event()
        self.value: object = None
        self.error: ActorDead | None = None

    @property
    def done(self) -> bool:
        return self._event.is_set()

    def answer(self, value: object) -> None:
        self.value = value
        self._event.set()

    def fail(self, error: ActorDead) -> None:
        self.error = error
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


class NotNow:
    """Not an answer: the actor is busy, or the message is one that takes time."""

    __slots__ = ()


NOT_NOW: Final = NotNow()


class Envelope:
    """One message of the control or system lane. `bounded`: it counts against the capacity."""

    __slots__ = ("bounded", "message", "reply", "timer")

    def __init__(self, message: Any, reply: Reply | None, bounded: bool, timer: Timer | None = None) -> None:
        self.message = message
        self.reply = reply
        self.bounded = bounded
        self.timer = timer


class Crash:
    """What an actor raised while a media turn handed it a link; its own task raises it again."""

    __slots__ = ("error", "incarnation")

    def __init__(self, error: Exception, incarnation: int) -> None:
        self.error = error
        self.incarnation = incarnation


class Stop:
    """Wakes the loop so that it looks at what was asked of it."""

    __slots__ = ()


STOP: Final = Stop()
Item = Envelope | MediaLink | Crash | Stop


class State(enum.Enum):
    OPEN = enum.auto()
    DRAINING = enum.auto()
    CLOSED = enum.auto()


class Mailbox:
    """Belongs to a path, not to an incarnation: it survives restarts."""

    __slots__ = (
        "_bell",
        "_receive",
        "_send",
        "_sweep_at",
        "capacity",
        "faults",
        "links",
        "on_dead_letter",
        "path",
        "pending",
        "receive",
        "receive_nowait",
        "refused",
        "retired_drops",
        "returned",
        "send",
        "state",
    )

    def __init__(
        self, path: str, on_dead_letter: Callable[[], None], bell: Callable[[MediaLink], None] | None = None
    ) -> None:
        """`bell` is called in place of `ring` when a link has something."""
        self._send, self._receive = trio.open_memory_channel[Item](math.inf)
        self.send = self._send.send_nowait
        self.receive = self._receive.receive
        self.receive_nowait = self._receive.receive_nowait
        self.path = path
        self.capacity = DEFAULT_CAPACITY
        self.pending = 0
        self.refused = 0
        self.retired_drops = 0
        self.returned: Item | None = None
        self.state = State.OPEN
        self.links: dict[str, MediaLink] = {}
        self._sweep_at = SWEEP_AT
        self._bell = bell
        self.faults: ActorFaults | None = None
        self.on_dead_letter = on_dead_letter

    def put(self, message: Any, reply: Reply | None) -> None:
        """The control lane. Raises MailboxFull or ActorDead, never waits."""
        if self.state is not State.OPEN:
            self._put_late(reply)
            return
        if self.pending >= self.capacity or (self.faults is not None and self.faults.full()):
            self.refused += 1
            raise MailboxFull(self.path, self.capacity)
        self.pending += 1
        self.send(Envelope(message, reply, True))

    def _put_late(self, reply: Reply | None) -> None:
        if self.state is State.CLOSED:
            raise ActorDead(self.path)
        if reply is not None:
            raise ActorDead(self.path, "the actor is stopping")
        self.on_dead_letter()

    def put_system(self, message: Any, timer: Timer | None = None) -> None:
        """The system lane: no bound, nothing raised; dropped once the actor has ended."""
        if self.state is not State.CLOSED:
            self.send(Envelope(message, None, False, timer))

    def wake(self) -> None:
        if self.state is not State.CLOSED:
            self.send(STOP)

    async def next(self) -> Item:
        """The next item; a checkpoint, also when one is there."""
        item, self.returned = self.returned, None
        if item is None:
            return await self.receive()
        await trio.lowlevel.checkpoint()
        return item

    @property
    def parked(self) -> bool:
        """Its actor waits here for something to do: nothing is queued, and nothing was given to it just now."""
        return self.state is State.OPEN and self._receive.statistics().tasks_waiting_receive == 1

    def ring(self, link: MediaLink) -> None:
        if self.state is not State.CLOSED:
            self.send(link)

    def link(self, name: str, capacity: int) -> MediaLink:
        """The link of that name, made at the first call."""
        link = self.links.get(name)
        if link is not None and not link.closed:
            if link.capacity != capacity:
                link.resize(capacity)
            return link
        if link is not None:
            self.retired_drops += link.dropped
        link = MediaLink(name, capacity, self._bell or self.ring)
        if self.state is State.CLOSED:
            link.close()
            return link
        if self.faults is not None:
            link.set_faults(self.faults.for_link(name))
        self.links[name] = link
        if len(self.links) >= self._sweep_at:
            self._forget_closed_links()
        return link

    def set_faults(self, faults: ActorFaults | None) -> None:
        self.faults = faults
        for link in self.links.values():
            link.set_faults(None if faults is None else faults.for_link(link.name))

    def _forget_closed_links(self) -> None:
        for name in [name for name, link in self.links.items() if link.closed]:
            self.retired_drops += self.links.pop(name).dropped
        self._sweep_at = max(SWEEP_AT, 2 * len(self.links))

    @property
    def dropped(self) -> int:
        """Media items dropped on all links so far."""
        return self.retired_drops + sum(link.dropped for link in self.links.values())

    def ring_again(self) -> None:
        """After a restart: a link whose burst the crash interrupted still has items and no bell on the way."""
        for link in self.links.values():
            if len(link) and not link.rung:
                link.rung = True
                self.send(link)

    def close(self) -> None:
        """The actor has ended: asks fail, messages become dead letters, links drop."""
        self.state = State.CLOSED
        item, self.returned = self.returned, None
        while True:
            if isinstance(item, Envelope) and item.bounded:
                if item.reply is not None:
                    item.reply.fail(ActorDead(self.path))
                else:
                    self.on_dead_letter()
            try:
                item = self.receive_nowait()
            except trio.WouldBlock:
                break
        self.pending = 0
        for link in self.links.values():
            link.close()
            self.retired_drops += link.dropped
        self.links.clear()
        self._bell = None
        self._send.close()
        self._receive.close()
