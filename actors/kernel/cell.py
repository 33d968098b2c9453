"""The kernel's side of one actor: its task, its phases, its end.

    STARTING -> RUNNING -> STOPPING -> ENDED
        |          |           |
        +----------+-----------+--> WAITING (for its supervisor to start the next incarnation) -> STARTING

STARTING: factory and `started()`. RUNNING: the loop. STOPPING: children, then `stopping()`. docs/runtime-semantics.md
says what each means to others.
"""

from __future__ import annotations

import contextlib
import enum
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import trio

from actors.kernel.actor import Actor, ActorContext, Exit, Restart, Restarted, Strategy, Terminated
from actors.kernel.errors import ActorDead, StartFailed
from actors.kernel.link import MediaLink
from actors.kernel.mailbox import NOT_NOW, Crash, Envelope, Mailbox, Reply, State, Stop
from actors.kernel.ref import ActorRef, handling
from actors.kernel.supervisor import Supervision, contain, contain_call, describe
from actors.kernel.timers import Timer

if TYPE_CHECKING:
    from actors.kernel.system import ActorSystem

QUANTUM = 64
"""Mailbox items per turn of an actor."""
QUANTUM_LATE = 8
"""Items, when it has waited for another turn of the event loop, before it may have to wait once more."""


class Phase(enum.Enum):
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    WAITING = "waiting"
    ENDED = "ended"


def child_path(parent: str, name: str) -> str:
    """`name` as one segment, whatever a peer put into it."""
    if not name:
        raise ValueError(f"an actor below {parent} needs a name")
    return parent.rstrip("/") + "/" + name.replace("%", "%25").replace("/", "%2F")


class Cell:
    """Lives as long as the ref is meant to: over restarts, until the end."""

    __slots__ = (
        "__weakref__", "_factory", "_faded", "_farewell_scope", "_grace_timer", "_killed", "_leaving", "_nursery",
        "_receptive", "_ref", "_reply", "_scope", "_started", "_started_at", "_strategy", "_timers", "_verdict",
        "_waiting_on", "_was_started", "_watchers", "_watching", "actor", "actor_type", "began", "children", "closed",
        "closing", "error", "exit", "failures", "halted", "held", "incarnation", "mailbox", "name", "on_closed",
        "parent", "path", "restart", "state", "stop_reason", "supervision", "system",
    )  # fmt: skip

    def __init__(
        self,
        system: ActorSystem,
        parent: Cell | None,
        name: str,
        factory: Callable[[], Actor[Any]],
        restart: Restart,
        strategy: Strategy | None,
    ) -> None:
        self.system = system
        self.parent = parent
        self.name = name
        self.path: str = "/" if parent is None else child_path(parent.path, name)
        self.restart = restart
        self.incarnation: int = 0
        self.failures = 0
        self.state = Phase.STARTING
        self.closing = False
        self.held = False
        self.stop_reason = ""
        self.exit: Exit | None = None
        self.error: Exception | None = None
        self.children: dict[str, Cell] = {}
        self.closed = trio.Event()
        self.on_closed: list[Callable[[], object]] = []
        self.mailbox = Mailbox(self.path, system.count_dead_letter, self._media_rings)
        self._ref: ActorRef[Any] | None = ActorRef(self)
        self._faded = weakref.ref(self._ref)
        self._factory = factory
        self._strategy = strategy
        self._watchers: dict[Cell, None] = {}
        self._watching: dict[Cell, None] = {}
        self._waiting_on: list[Cell] = []
        self._grace_timer: Timer | None = None
        self._was_started = False
        self._prepare()

    def _prepare(self) -> None:
        """What belongs to one incarnation."""
        self.actor: Actor[Any] | None = None
        self.supervision = Supervision(self, self._strategy or Strategy())
        self.began = trio.Event()
        self.halted = trio.Event()
        self.actor_type = ""
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope()
        self._farewell_scope = trio.CancelScope(shield=True)
        self._killed = False
        self._leaving = False
        self._started = False
        self._started_at = 0.0
        self._verdict: Exit | None = None
        self._reply: Reply | None = None
        self._timers: set[Timer] = set()
        self._receptive = False

    # -- what others see

    @property
    def ref(self) -> ActorRef[Any]:
        """The same one for as long as anybody has it."""
        ref = self._ref or self._faded()
        if ref is None:
            ref = ActorRef(self)
            self._faded = weakref.ref(ref)
        return ref

    @property
    def alive(self) -> bool:
        return self.mailbox.state is State.OPEN

    @property
    def parked(self) -> bool:
        return self.state is Phase.WAITING

    def can_restart_children(self) -> bool:
        """Not while this actor is on its way down for any reason."""
        return (
            self.state in (Phase.STARTING, Phase.RUNNING)
            and not self._killed
            and self._nursery is not None
            and not self._nursery.cancel_scope.cancel_called
        )

    def require_running(self, what: str) -> trio.Nursery:
        if self._nursery is None or self.state not in (Phase.STARTING, Phase.RUNNING):
            raise ActorDead(self.path, f"cannot {what}: the actor is {self.state.value}")
        return self._nursery

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], args: tuple[Any, ...], name: str) -> None:
        """A helper task: until the nursery is closed, so also while the children are being stopped."""
        if self._nursery is None:
            raise ActorDead(self.path, f"cannot start a helper task: the actor is {self.state.value}")
        self._nursery.start_soon(_helper, async_fn, args, name=f"{self.path}!{name}")

    # -- children

    async def spawn(
        self, factory: Callable[[], Actor[Any]], name: str, restart: Restart, strategy: Strategy | None
    ) -> ActorRef[Any]:
        self.require_running("spawn")
        if name in self.children:
            raise StartFailed(child_path(self.path, name), "the name is taken")
        child = Cell(self.system, self, name, factory, restart, strategy)
        self.system.cells[child.path] = child
        self.children[name] = child
        child.mailbox.faults = self.system.faults_for(child)
        child.launch()
        await self._await_start(child)
        if not child._was_started:
            text = "killed while starting" if child.error is None else f"{type(child.error).__name__}: {child.error}"
            raise StartFailed(child.path, text) from child.error
        return child.ref

    async def _await_start(self, child: Cell) -> None:
        asker = handling.get()
        with contextlib.nullcontext() if asker is None else asker.waiting_for(child):
            try:
                await child.began.wait()
            except trio.Cancelled:
                # As with nursery.start: who gives up waiting does not leave a half-started task behind.
                child.closing = True
                child.kill()
                raise

    def launch(self) -> None:
        """Start the next incarnation, in the parent's nursery (the first comes from `spawn`)."""
        if self.incarnation:
            self._prepare()
        self.incarnation += 1
        self.state = Phase.STARTING
        nursery = self.system.nursery if self.parent is None else self.parent.require_running("start a child")
        nursery.start_soon(self.run, name=self.path)

    # -- one incarnation

    async def run(self) -> None:
        """The actor's task. Raises only to escalate, or when it is cancelled from above."""
        handling.set(self)
        exit: Exit | None = None
        error: Exception | None = None
        escalation: Exception | None = None
        try:
            exit, error = await self._live()
        finally:
            escalation = self._over(exit, error)
        if escalation is not None:
            raise escalation

    async def _live(self) -> tuple[Exit, Exception | None]:
        error = await contain(self._body, self._report)
        self._receptive = False
        self._nursery = None
        exit = Exit.FAILED if error is not None else self._verdict
        if exit is None or (error is None and self._scope.cancelled_caught):
            exit = Exit.KILLED
        self.state = Phase.STOPPING
        self._cancel_timers()
        self._bury_children()
        if self._started and exit is not Exit.KILLED and self.actor is not None:
            return await self._say_farewell(self.actor, exit, error)
        return exit, error

    async def _body(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._start()
                verdict = await self._loop()
                self.state = Phase.STOPPING
                self._took_stop()
                await self.supervision.stop_children()
                self._verdict = verdict
                nursery.cancel_scope.cancel()

    async def _start(self) -> None:
        self.actor = actor = self._factory()
        self.actor_type = type(actor).__name__
        self.mailbox.capacity = actor.mailbox_capacity
        self.supervision.strategy = self._strategy or actor.strategy
        actor.context = ActorContext(self)
        await actor.started()
        self._started = self._was_started = True
        self._started_at = trio.current_time()
        self.state = Phase.RUNNING
        self.mailbox.ring_again()
        if self.incarnation > 1:
            self.system.event("restart", self.path, f"incarnation {self.incarnation}")
            for watcher in self._watchers:
                watcher.mailbox.put_system(Restarted(self.ref, self.incarnation, self.error))
        if self._leaving or self.held or self.closing:
            self.mailbox.wake()
        self.began.set()

    async def _loop(self) -> Exit:
        mailbox, actor, turnstile = self.mailbox, self.actor, self.system.turnstile
        assert actor is not None
        while True:
            self._receptive = True
            item = await mailbox.next()
            budget, unasked, waited = QUANTUM, 0, False
            while True:
                if unasked and turnstile.has_time():
                    unasked -= 1
                elif actor.patient and turnstile.is_late() and isinstance(item, (Envelope, Stop)):
                    if waited:
                        turnstile.leave()
                    await self._wait_with(item)
                    unasked, waited = QUANTUM_LATE, True
                self._receptive = False
                if self._killed:
                    # The next incarnation, if there is one, handles it.
                    mailbox.returned = None if isinstance(item, Crash) else item
                    await trio.lowlevel.checkpoint()
                if isinstance(item, Envelope):
                    await self._handle(actor, item)
                elif isinstance(item, MediaLink):
                    item.rung = False
                    if mailbox.faults is not None:
                        await mailbox.faults.before(item)
                    actor.receive_media(item)
                elif isinstance(item, Crash):
                    if item.incarnation == self.incarnation:
                        raise item.error
                elif self.closing or self.held:
                    return Exit.STOPPED
                if self._leaving:
                    return Exit.NORMAL
                budget -= 1
                if not budget or (not unasked and not isinstance(item, MediaLink) and turnstile.is_late()):
                    break
                try:
                    item = mailbox.receive_nowait()
                except trio.WouldBlock:
                    break
            if waited:
                turnstile.leave()
            del item  # Nothing is kept alive by the last one who was told of it.

    async def _wait_with(self, item: Envelope | Stop) -> None:
        """For a later turn of the event loop. Until then the actor is between two messages, and has not begun this."""
        self.mailbox.returned = item
        self._receptive = True  # Also if it has handled one just now.
        await self.system.turnstile.wait(self.system.nursery.start_soon)
        self.mailbox.returned = None

    def _media_rings(self, link: MediaLink) -> None:
        turn = self.system.media_turn
        if turn.open:
            turn.ring(self, link)
        else:
            self.mailbox.send(link)

    def hand_over(self, link: MediaLink) -> None:
        """Within a media turn: handle the link now if this actor is between two messages, else when it comes to it."""
        mailbox, actor = self.mailbox, self.actor
        if not self._receptive or self._killed or self._leaving or mailbox.faults is not None or actor is None:
            mailbox.ring(link)
            return
        link.rung = False
        error = contain_call(actor.receive_media, link)
        if error is not None:
            self._receptive = False
            mailbox.send(Crash(error, self.incarnation))

    def receive_now(self, message: object) -> object:
        """`ref.ask_now`. Raises ActorDead."""
        mailbox, actor = self.mailbox, self.actor
        if not self._receptive or self._killed or self._leaving or mailbox.faults is not None or actor is None:
            return NOT_NOW
        if not mailbox.parked:
            return NOT_NOW
        answers: list[object] = []
        self._receptive = False
        error = contain_call(lambda message: answers.append(actor.receive_now(message)), message)
        if error is not None:
            mailbox.send(Crash(error, self.incarnation))
            dead = ActorDead(self.path, "the actor crashed")
            raise dead from error
        self._receptive = True
        return answers[0]

    async def _handle(self, actor: Actor[Any], envelope: Envelope) -> None:
        message = envelope.message
        if envelope.bounded:
            self.mailbox.pending -= 1
        elif not self._still_wanted(envelope):
            return
        self._reply = reply = envelope.reply
        if self.mailbox.faults is not None:
            await self.mailbox.faults.before(message)
        result = await actor.receive(message)
        if reply is not None:
            reply.answer(result)
            self._reply = None

    def _still_wanted(self, envelope: Envelope) -> bool:
        """System messages can be called back while they are queued."""
        timer, message = envelope.timer, envelope.message
        if timer is not None:
            return not timer.cancelled and timer.incarnation == self.incarnation
        if isinstance(message, Terminated):
            watched: Cell = message.ref.cell
            if watched not in self._watching:
                return False
            del self._watching[watched]
            return True
        return not isinstance(message, Restarted) or message.ref.cell in self._watching

    async def _say_farewell(
        self, actor: Actor[Any], exit: Exit, error: Exception | None
    ) -> tuple[Exit, Exception | None]:
        scope = self._farewell_scope
        scope.deadline = trio.current_time() + self._grace()

        async def stopping() -> None:
            with scope:
                await actor.stopping(exit)

        late = await contain(stopping, self._report)
        if late is not None:
            return Exit.FAILED, error or late
        if scope.cancelled_caught:
            if not self._killed:
                self.system.event("grace_exceeded", self.path, f"stopping() took more than {self._grace():g} s")
            return (exit if exit is Exit.FAILED else Exit.KILLED), error
        return exit, error

    def _report(self, error: Exception) -> None:
        self.system.event("crash" if self._started else "start_failed", self.path, describe(error))

    # -- its end

    def _over(self, exit: Exit | None, error: Exception | None) -> Exception | None:
        """The incarnation is over; `exit` None: cancelled from above. Returns what the parent's nursery is to get."""
        self.state = Phase.STOPPING
        self._cancel_timers()
        self._bury_children()
        self._took_stop()
        self._nursery = None
        self.actor = None
        self._waiting_on.clear()
        for watched in self._watching:
            watched._watchers.pop(self, None)
        self._watching.clear()
        if self._reply is not None and not self._reply.done:
            dead = ActorDead(self.path, "the actor crashed" if error is not None else "the actor was cancelled")
            dead.__cause__ = error
            self._reply.fail(dead)
        self._reply = None
        escalation: Exception | None = None
        if exit is None or not self._was_started:
            self.finish(exit or Exit.KILLED, error)
        elif self.parent is None:
            self.finish(exit, error)
            escalation = error
        else:
            escalation = self.parent.supervision.child_over(self, exit, error)
        self.began.set()
        self.halted.set()
        return escalation

    def park(self, error: Exception | None) -> None:
        """To be restarted. Called by the supervisor."""
        lived = trio.current_time() - self._started_at if self._started else 0.0
        period = self.parent.supervision.strategy.period if self.parent is not None else 0.0
        self.failures = 1 if lived > period else self.failures + 1
        self.error = error
        self.state = Phase.WAITING

    def finish(self, exit: Exit, error: Exception | None) -> None:
        """The end for good."""
        self.exit, self.error = exit, error
        self.state = Phase.ENDED
        self.mailbox.close()
        if self.parent is not None:
            self.parent.children.pop(self.name, None)
        self.system.cells.pop(self.path, None)
        for watcher in self._watchers:
            watcher.mailbox.put_system(Terminated(self.ref, exit, error))
        self._watchers.clear()
        self.closed.set()
        on_closed, self.on_closed = self.on_closed, []
        for call in on_closed:
            call()
        self._ref = None  # It knows us: who has ended is freed at once, and nobody has to stop the loop to look for it.
        self._factory = _ended  # Who still has our ref does not keep what we were made of.

    def _bury_children(self) -> None:
        """The nursery is closed: children that are still listed were waiting for a restart."""
        for child in reversed(list(self.children.values())):
            child.finish(Exit.KILLED, child.error)

    # -- what is asked of it

    def stop(self, reason: str) -> None:
        if self.closing or self.state is Phase.ENDED:
            return
        self.closing = True
        self.stop_reason = reason
        self.mailbox.state = State.DRAINING
        if self.state is Phase.WAITING:
            self.finish(Exit.STOPPED, self.error)
            return
        self._ask_to_stop()

    def hold(self) -> None:
        """Stop for a group restart: the mailbox stays open."""
        self.held = True
        if self.state in (Phase.STARTING, Phase.RUNNING):
            self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        self.mailbox.wake()
        if self.state is not Phase.STOPPING and self._grace_timer is None:
            self._grace_timer = self.system.timers.at(trio.current_time() + self._grace(), self._grace_over)

    def leave(self, reason: str) -> None:
        """`context.stop()`."""
        if self.state not in (Phase.STARTING, Phase.RUNNING) or self._leaving:
            return
        self._leaving = True
        self.stop_reason = reason
        if self.restart is not Restart.PERMANENT:
            self.mailbox.state = State.DRAINING
        self.mailbox.wake()

    def kill(self) -> None:
        if self.state in (Phase.WAITING, Phase.ENDED):
            return
        self._killed = True
        self._scope.cancel()
        self._farewell_scope.cancel()
        for child in list(self.children.values()):
            child.kill()

    def _grace(self) -> float:
        owner = self.parent if self.parent is not None else self
        return owner.supervision.strategy.grace

    def _grace_over(self) -> None:
        self._grace_timer = None
        self.system.event("grace_exceeded", self.path, f"did not take its stop within {self._grace():g} s")
        self.kill()

    def _took_stop(self) -> None:
        self._cancel_timers()
        if self._grace_timer is not None:
            self._grace_timer.cancel()
            self._grace_timer = None

    # -- watches, timers, asks

    def watch(self, target: Cell) -> None:
        self._watching[target] = None
        if target.state is Phase.ENDED:
            self.mailbox.put_system(Terminated(target.ref, target.exit or Exit.KILLED, target.error))
        else:
            target._watchers[self] = None

    def unwatch(self, target: Cell) -> None:
        self._watching.pop(target, None)
        target._watchers.pop(self, None)

    def schedule(self, delay: float, message: object) -> Timer:
        def due() -> None:
            self.mailbox.put_system(message, timer)

        timer = self.system.timers.at(trio.current_time() + max(0.0, delay), due, self._timers)
        timer.incarnation = self.incarnation
        if self.state not in (Phase.STARTING, Phase.RUNNING):
            timer.cancel()
        return timer

    def _cancel_timers(self) -> None:
        for timer in tuple(self._timers):
            timer.cancel()

    @contextlib.contextmanager
    def waiting_for(self, target: Cell) -> Iterator[None]:
        """This actor is deaf until `target` answers."""
        self._waiting_on.append(target)
        try:
            yield
        finally:
            # A crash has cleared the list already.
            if target in self._waiting_on:
                self._waiting_on.remove(target)

    def ring_through(self, target: Cell) -> tuple[str, ...] | None:
        """The paths of the ring that waiting for `target` would close, or None."""
        seen: set[Cell] = set()
        stack: list[tuple[Cell, tuple[str, ...]]] = [(target, (self.path, target.path))]
        while stack:
            cell, ring = stack.pop()
            if cell is self:
                return ring
            if cell not in seen:
                seen.add(cell)
                stack.extend((other, (*ring, other.path)) for other in cell._waiting_on)
        return None


def _ended() -> Actor[Any]:
    raise AssertionError("an actor that has ended is not started again")


async def _helper(async_fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
    """A helper does not make its actor deaf: its asks belong to nobody."""
    handling.set(None)
    await async_fn(*args)
