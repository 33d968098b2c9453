"""One webhook URL: follows the log, posts, and remembers what has arrived (lkactor/journal/delivery.py says when what).

A receiver has ANSWER_TIMEOUT to answer. What it has is written to the journal's store after every answer, so that after
a restart, or `kill -9`, it gets what it has not got. An answer that came in the very moment of the kill is asked for
again: the same event with the same id.
"""

from __future__ import annotations

import hashlib
import random
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from actors.httpclient import HttpClient, HttpError, shown_url, target_of
from actors.kernel import Actor, Exit
from lkactor.journal import Delivery, Gap, Outcome, ReceiverState, Record, StoreError
from lkactor.journal.webhook import CONTENT_TYPE, USER_AGENT, authorization, event_filter, event_json, outcome_of

if TYPE_CHECKING:
    from actors.journal import JournalPort

ANSWER_TIMEOUT = 10.0
"""Seconds from the first byte of the connection to the last of the answer."""
READ = 64
"""Records taken from the log at once."""


@dataclass(frozen=True, slots=True)
class ReceiverSpec:
    """Where to and how. Raises ValueError for a URL that is none."""

    url: str = field(repr=False)
    api_key: str
    keys: Callable[[], Mapping[str, str]] = field(repr=False, compare=False)
    """The keys as they are now: they can be reloaded."""
    rng: random.Random = field(repr=False, compare=False)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        target_of(self.url)

    @property
    def label(self) -> str:
        """The address without what may be secret."""
        return shown_url(self.url)

    @property
    def state_name(self) -> str:
        return f"receiver-{hashlib.sha256(self.url.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class ReceiverStatus:
    """For `/debug` and metrics."""

    url: str
    pending: int
    """Read from the log and not accepted yet."""
    down: bool
    last_error: str
    counters: Mapping[str, int]


class WebhookReceiver(Actor[None]):
    """Permanent: a crash starts it again from its saved state."""

    def __init__(self, spec: ReceiverSpec, port: JournalPort) -> None:
        self._spec = spec
        self._port = port
        self._client = HttpClient(spec.url, tls=spec.tls, user_agent=USER_AGENT)
        self._target = target_of(spec.url)
        self._changed = trio.Event()
        self._unsaved = False
        self._last_error = ""

    async def started(self) -> None:
        spec, port = self._spec, self._port
        state = await self._load()
        self._delivery = Delivery(state, rng=spec.rng, allowed=event_filter(spec.include, spec.exclude))
        self._reader = port.reader(port.journal.position(state.start))
        port.receivers[spec.url] = self
        self.context.start_soon(self._keep_client)
        self.context.start_soon(self._feed)
        self.context.start_soon(self._drive)

    async def stopping(self, exit: Exit) -> None:
        if self._unsaved:
            await self._save()
        self._port.receivers.pop(self._spec.url, None)

    async def _keep_client(self) -> None:
        """Its connections end with this incarnation, also when that is killed and says no farewell."""
        try:
            await trio.sleep_forever()
        finally:
            await self._client.aclose()

    # -- what has arrived -------------------------------------------------------------------------------------------

    async def _load(self) -> ReceiverState:
        """A URL that is new gets what happens from now on. A state that cannot be read: better twice than never."""
        port, name = self._port, self._spec.state_name
        try:
            if name not in await port.call(port.store.names):
                state = ReceiverState(port.journal.last)
                await self._save(state)
                return state
            kept = ReceiverState.decode(await port.call(port.store.read, name))
        except StoreError as error:
            port.log("webhook.state_unreadable", str(error))
            kept = None
        if kept is None:
            port.counters.count("webhook.bad_state")
            return ReceiverState(0)
        return kept

    async def _save(self, state: ReceiverState | None = None) -> None:
        port, spec = self._port, self._spec
        data = (state or self._delivery.state).encode(spec.label)
        self._unsaved = False
        try:
            await port.call(port.store.replace, spec.state_name, data)
        except StoreError as error:
            port.counters.count("webhook.state_unwritten")
            port.log("webhook.state_unwritten", str(error))

    # -- from the log, to the receiver ------------------------------------------------------------------------------

    async def _feed(self) -> None:
        while True:
            if not self._delivery.space:
                await self._changed.wait()
                continue
            step = await self._reader.next(min(READ, self._delivery.space))
            if isinstance(step, Gap):
                self._port.log("webhook.expired", f"{self._spec.label}: events before {step.before} are gone")
                self._delivery.skipped(step.before)
            else:
                self._delivery.offer(step)
            self._notify()

    async def _drive(self) -> None:
        while True:
            changed = self._changed
            # First, so that a kill repeats at most one event of each room.
            while self._unsaved:
                await self._save()
            for record in self._delivery.next_posts(trio.current_time()):
                self.context.start_soon(self._post, record)
            deadline = self._delivery.next_timeout()
            with trio.move_on_at(float("inf") if deadline is None else deadline):
                await changed.wait()

    async def _post(self, record: Record) -> None:
        outcome, retry_after, said = await self._attempt(record)
        self._delivery.settle(record, outcome, trio.current_time(), retry_after)
        if outcome is Outcome.ACCEPTED:
            if self._last_error:
                self._port.log("webhook.up", self._spec.label)
            self._last_error = ""
        elif said != self._last_error:
            self._last_error = said
            self._port.log("webhook.failed", f"{self._spec.label}: {record.event.event} {record.event.id}: {said}")
        self._unsaved = True
        self._notify()

    async def _attempt(self, record: Record) -> tuple[Outcome, float, str]:
        """What came of one post: the outcome, the seconds of Retry-After, and words."""
        spec = self._spec
        secret = spec.keys().get(spec.api_key)
        if secret is None:
            return Outcome.UNREACHABLE, 0.0, f"webhook.api_key {spec.api_key!r} is no key any more"
        body = event_json(record.event).encode()
        token = authorization(body, spec.api_key, secret, self._port.unix())
        headers = {"Authorization": token, "Content-Type": CONTENT_TYPE}
        try:
            with trio.fail_after(ANSWER_TIMEOUT):
                answer = await self._client.request("POST", self._target, headers, body)
        except HttpError as error:
            return Outcome.UNREACHABLE, 0.0, str(error)
        except trio.TooSlowError:
            return Outcome.UNREACHABLE, 0.0, f"no answer within {ANSWER_TIMEOUT:g} s"
        after = answer.headers.get("retry-after", "")
        seconds = float(after) if after.isascii() and after.isdigit() and len(after) < 9 else 0.0
        return outcome_of(answer.status), seconds, f"HTTP {answer.status}"

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # -- for others -------------------------------------------------------------------------------------------------

    @property
    def at_rest(self) -> bool:
        """Nothing more will arrive soon: it has everything, or is down, or refuses what is left."""
        if self._delivery.down:
            return True
        return self._reader.at_end and not self._unsaved and self._delivery.resting(trio.current_time())

    def status(self) -> ReceiverStatus:
        delivery = self._delivery
        pending = len(delivery.state.pending)
        return ReceiverStatus(self._spec.label, pending, delivery.down, self._last_error, dict(delivery.counters))
