"""The event log as an actor: `services.journal.publish(event)` returns at once, the actor writes, receivers follow.

    room -> JournalPort.publish -> queue (bounded) -> JournalActor: one write per batch -> readers: webhooks, /events

An event is shown to readers only when the operating system has it. The port outlives the actor's restarts and belongs
to the node; the queue is bounded, and what does not fit is counted as `journal.overflow` and logged.
"""

from __future__ import annotations

import itertools
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio
from livekit.protocol import models
from livekit.protocol.webhook import WebhookEvent

from actors.filestore import FileStore
from actors.kernel import Actor, ActorRef, Exit, Restart, Strategy
from actors.webhooks import ReceiverSpec, ReceiverStatus, WebhookReceiver
from lkactor.config import Config, ConfigError
from lkactor.journal import Batch, Gap, Journal, Limits, MemoryStore, Position, Record, Store, StoreError, execute
from lkactor.journal.log import Fetch
from lkactor.room.sids import new_sid

MAX_QUEUED = 10_000
MAX_QUEUED_BYTES = 32 * 1024 * 1024
BATCH = 256
SYNC_INTERVAL = 1.0
"""A power cut costs at most about this many seconds of events; the end of the process costs none."""
WRITE_TIMEOUT = 1.0
"""Seconds that a disk which hangs may hold up an answer of the API."""
EXPIRE_INTERVAL = 3600.0
MOST_IN_MEMORY = 8 * 1024 * 1024
"""Bytes that are kept when no directory is configured."""
LogEvent = Callable[[str, str], object]
"""(event, detail), into the server's record."""
T = TypeVar("T")


class JournalPort:
    """The log as the rest of the process sees it. All methods are called on the loop."""

    def __init__(
        self,
        store: Store,
        *,
        unix: Callable[[], float],
        rng: random.Random,
        limits: Limits | None = None,
        in_thread: bool = False,
        log: LogEvent = lambda event, detail: None,
    ) -> None:
        """Raises StoreError. `in_thread`: the store may block, so it is used from threads."""
        self.store = store
        self.journal = Journal.open(store, unix(), limits)
        self.unix = unix
        self.log = log
        self.counters = self.journal.counters
        self.receivers: dict[str, WebhookReceiver] = {}
        """By URL, while they run."""
        self.committed = trio.Event()
        """Set, and replaced, when there are new records."""
        self._in_thread = in_thread
        self._rng = rng
        self._queue: deque[WebhookEvent] = deque()
        self._queued_bytes = 0
        self._overflowing = False
        self._wake = trio.Event()
        self._batch: Batch | None = None
        self._accepted = self._taken = self._settled = 0
        """Events so far: into the queue; out of it; written, or given up on."""
        self._gone: list[str] = []
        """Rooms, by sid, that are over once the queue is written."""
        # An earlier run of this server was killed with rooms open: what it could not say is said now.
        self.publish(self.journal.ledger.closing(models.DisconnectReason.SERVER_SHUTDOWN))

    # -- for rooms --------------------------------------------------------------------------------------------------

    def publish(self, events: Iterable[WebhookEvent]) -> None:
        """Hand events over: they get their ids and times here. Never blocks and never raises."""
        for event in events:
            size = event.ByteSize()
            if len(self._queue) >= MAX_QUEUED or self._queued_bytes + size > MAX_QUEUED_BYTES:
                self.counters.count("journal.overflow")
                if not self._overflowing:
                    self._overflowing = True
                    self.log("journal.overflow", f"{len(self._queue)} events wait to be written; new ones are lost")
                continue
            event.id = new_sid("EV_", self._rng)
            event.created_at = int(self.unix())
            self._queue.append(event)
            self._queued_bytes += size
            self._accepted += 1
        self._wake.set()

    async def written(self, timeout: float = WRITE_TIMEOUT) -> None:  # noqa: ASYNC109 - a slow disk is no error
        """Until the operating system has what was published so far: a kill after that loses none of it."""
        wanted = self._accepted
        if self._settled >= wanted:
            return
        with trio.move_on_after(timeout):
            while self._settled < wanted:
                await self.committed.wait()

    def room_gone(self, sid: str) -> None:
        """A room has ended, perhaps without a farewell: whatever it left open is closed. Harmless otherwise."""
        self._gone.append(sid)
        self._wake.set()

    # -- for readers ------------------------------------------------------------------------------------------------

    def reader(self, position: Position) -> LogReader:
        return LogReader(self, position)

    async def call(self, function: Callable[..., T], *args: object) -> T:
        """Run a function of the store, in a thread if it may block."""
        if self._in_thread:
            return await trio.to_thread.run_sync(function, *args)
        return function(*args)

    def statuses(self) -> list[ReceiverStatus]:
        """How the receivers are doing, for `/debug`."""
        return [receiver.status() for receiver in self.receivers.values()]

    @property
    def queue_length(self) -> int:
        """Events that wait to be written, or to be sent."""
        return len(self._queue) + sum(status.pending for status in self.statuses())

    async def settled(self, timeout: float) -> None:  # noqa: ASYNC109 - a courtesy at the end, not an error
        """Until everything is written and every receiver that is up has it; at most `timeout` seconds."""
        with trio.move_on_after(timeout):
            # Several actors' states, at shutdown only: looked at, not waited for.
            while self.queued or self._batch or not all(r.at_rest for r in self.receivers.values()):  # noqa: ASYNC110
                await trio.sleep(0.01)

    def close(self) -> None:
        """After the actor has ended for good."""
        if isinstance(self.store, FileStore):
            self.store.close()

    # -- for the actor ----------------------------------------------------------------------------------------------

    async def wait_for_events(self, deadline: float) -> bool:
        """False when the deadline comes first."""
        with trio.move_on_at(deadline):
            while not self.queued:
                self._wake = trio.Event()
                await self._wake.wait()
        return self.queued

    async def write(self) -> None:
        """One batch of the queue: to the operating system, then to the readers."""
        events: list[WebhookEvent] = []
        while self._queue and len(events) < BATCH:
            event = self._queue.popleft()
            self._queued_bytes -= event.ByteSize()
            events.append(event)
        self._taken += len(events)
        if not self._queue:
            self._overflowing = False
        self._batch = batch = self.journal.append(events, self.unix())
        written = await self.execute(batch)
        self.commit(written=written)
        if self._gone and not self._queue:
            gone, self._gone = self._gone, []
            self.publish(self.journal.ledger.closing(models.DisconnectReason.UNKNOWN_REASON, gone))

    def commit(self, *, written: bool) -> None:
        """Show the batch in hand; also after a crash in the middle of writing it."""
        if self._batch is None:
            return
        batch, self._batch = self._batch, None
        self.journal.commit(batch, written=written)
        self._settled = self._taken
        self.committed.set()
        self.committed = trio.Event()

    async def execute(self, batch: Batch) -> bool:
        try:
            await self.call(execute, self.store, batch.operations)
        except StoreError as error:
            self.log("journal.write_failed", str(error))
            return False
        return True

    @property
    def queued(self) -> bool:
        """There is something to write."""
        return bool(self._queue or self._gone)


class LogReader:
    """One follower of the log."""

    def __init__(self, port: JournalPort, position: Position) -> None:
        self._port = port
        self.position = position

    async def next(self, limit: int, *, wait: bool = True) -> tuple[Record, ...] | Gap:
        """The next records, at most `limit`; a Gap once where some are gone. `wait` False: () at the end."""
        port = self._port
        while True:
            committed = port.committed
            step = port.journal.read(self.position, limit)
            match step:
                case Fetch(name=name, offset=offset, length=length):
                    try:
                        data: bytes | None = await port.call(port.store.read, name, offset, length)
                    except StoreError as error:
                        port.log("journal.read_failed", str(error))
                        data = None
                    gap = port.journal.fetched(self.position, data)
                    if gap is not None:
                        return gap
                case () if wait:
                    await committed.wait()
                case _:
                    return step

    @property
    def at_end(self) -> bool:
        return self.position.cursor >= self._port.journal.last and not self.position.ready


@dataclass(frozen=True, slots=True)
class SetReceivers:
    """The webhook URLs have changed. The answer, None, comes when they run."""

    specs: tuple[ReceiverSpec, ...]


class JournalActor(Actor[SetReceivers]):
    """Writes what the port holds; supervises a receiver for every webhook URL."""

    # A receiver that crashes is started again for ever, ever more slowly, and takes nobody with it.
    strategy = Strategy(intensity=1_000_000, period=60.0, backoff=0.5, backoff_limit=60.0)

    def __init__(self, port: JournalPort, receivers: tuple[ReceiverSpec, ...] = ()) -> None:
        self._port = port
        self._specs = receivers
        self._receivers: dict[ReceiverSpec, ActorRef[None]] = {}
        self._numbers = itertools.count()

    async def started(self) -> None:
        self._port.commit(written=False)
        self.context.start_soon(self._write)
        for spec in self._specs:
            await self._start(spec)

    async def receive(self, message: SetReceivers) -> object:
        """Those that stay as they were go on undisturbed; a URL that comes back goes on where it was."""
        for spec in [spec for spec in self._receivers if spec not in message.specs]:
            ref = self._receivers.pop(spec)
            ref.stop("not configured any more")
            await ref.wait_closed()
        for spec in message.specs:
            if spec not in self._receivers:
                await self._start(spec)
        return None

    async def _start(self, spec: ReceiverSpec) -> None:
        name = f"webhook-{next(self._numbers)}"
        self._receivers[spec] = await self.context.spawn(self._factory(spec), name, restart=Restart.PERMANENT)

    async def stopping(self, exit: Exit) -> None:
        """What is still queued must not die with the process."""
        port = self._port
        port.commit(written=False)
        while port.queued:
            await port.write()
        await port.execute(port.journal.sync())

    def _factory(self, spec: ReceiverSpec) -> Callable[[], WebhookReceiver]:
        return lambda: WebhookReceiver(spec, self._port)

    async def _write(self) -> None:
        port = self._port
        unsynced, expire_at = False, trio.current_time() + EXPIRE_INTERVAL
        sync_at = 0.0
        while True:
            if await port.wait_for_events(min(expire_at, sync_at) if unsynced else expire_at):
                await port.write()
                if not unsynced:
                    unsynced, sync_at = True, trio.current_time() + SYNC_INTERVAL
            now = trio.current_time()
            if unsynced and now >= sync_at:
                unsynced = False
                await port.execute(port.journal.sync())
            if now >= expire_at:
                expire_at = now + EXPIRE_INTERVAL
                await port.execute(port.journal.expire(port.unix()))


def open_journal(
    config: Config, *, rng: random.Random, log: LogEvent, unix: Callable[[], float] = time.time
) -> JournalPort:
    """The log that the configuration asks for. Raises ConfigError when its directory cannot be used."""
    events = config.events
    if not events.directory:
        limits = limits_of(min(events.max_size, MOST_IN_MEMORY), events.max_age)
        return JournalPort(MemoryStore(), unix=unix, rng=rng, limits=limits, log=log)
    try:
        store = FileStore(Path(events.directory).expanduser())
        limits = limits_of(events.max_size, events.max_age)
        return JournalPort(store, unix=unix, rng=rng, limits=limits, in_thread=True, log=log)
    except StoreError as error:
        raise ConfigError(f"events.directory: {error}") from None


def limits_of(total: int, max_age: float) -> Limits:
    """Segments are small enough that what is kept is never much less, or more, than what may be."""
    segment = max(4096, min(1024 * 1024, total // 16))
    return Limits(
        segment_bytes=segment, segment_age=min(86400.0, max(60.0, max_age / 8)), total_bytes=total, max_age=max_age
    )


def receivers_of(
    config: Config, keys: Callable[[], Mapping[str, str]], rng: random.Random, tls: ssl.SSLContext | None = None
) -> tuple[ReceiverSpec, ...]:
    """One for every URL. Raises ConfigError for an address that is none."""
    webhook = config.webhook
    specs = []
    for url in dict.fromkeys(webhook.urls):
        try:
            spec = ReceiverSpec(
                url=url,
                api_key=webhook.api_key,
                keys=keys,
                rng=rng,
                include=webhook.filter_params.include_events,
                exclude=webhook.filter_params.exclude_events,
                tls=tls,
            )
        except ValueError as error:
            raise ConfigError(f"webhook.urls: {url!r} is {error}") from None
        specs.append(spec)
    return tuple(specs)
