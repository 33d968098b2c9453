"""What one receiver still has to get, and when: at least once, in order per resource, no resource holding another.

| a record is | from | to |
|---|---|---|
| waiting | read from the log, and the filter lets it pass | posted, when it is the first of its lane and the lane may |
| posted | handed out by `next_posts` | settled by ACCEPTED; waiting again by any other outcome |
| settled | accepted; filtered; given up | forgotten: `state` no longer names it |

A lane is one resource (a room, say): one post at a time. Outcomes and what follows:

| outcome | is | then |
|---|---|---|
| ACCEPTED | 2xx | the lane goes on |
| UNREACHABLE | no connection, no answer in time, 408, 425, 429, 502, 503, 504 | all lanes pause, then one post probes |
| FAILED | any other 5xx but 501 | the lane waits; given up after `give_up` tries, if others got through meanwhile |
| REFUSED | anything else (3xx, 4xx, 501) | the lane waits; given up after `refusals` tries: it is not wanted |

Waits double from `first_wait` to `longest_wait` seconds, times 0.75 to 1.25; Retry-After makes them longer, up to the
same limit. `state` is what must outlive the process: cursors only, bounded by the window.
"""

from __future__ import annotations

import enum
import json
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from lkactor.counters import Counters
from lkactor.journal.records import Record


class Outcome(enum.Enum):
    ACCEPTED = enum.auto()
    UNREACHABLE = enum.auto()
    FAILED = enum.auto()
    REFUSED = enum.auto()


@dataclass(frozen=True, slots=True)
class Policy:
    """Seconds, numbers."""

    concurrency: int = 8
    window: int = 512
    """Unsettled records held in memory."""
    first_wait: float = 1.0
    longest_wait: float = 60.0
    refusals: int = 5
    give_up: int = 20


@dataclass(frozen=True, slots=True)
class ReceiverState:
    """Everything up to `read` is settled, but for `pending`."""

    read: int
    pending: tuple[int, ...] = ()

    def encode(self, label: str) -> bytes:
        """`label` tells a human whose it is."""
        return json.dumps({"receiver": label, "read": self.read, "pending": self.pending}).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> ReceiverState | None:
        """None: this is no state."""
        try:
            tree = json.loads(data)
            read, pending = tree["read"], tree["pending"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        if not isinstance(pending, list) or not all(type(c) is int and c >= 0 for c in (read, *pending)):
            return None
        return cls(read, tuple(pending))

    @property
    def start(self) -> int:
        """Where in the log to go on: behind this cursor."""
        return min((self.read, *(cursor - 1 for cursor in self.pending)))


@dataclass(slots=True)
class Lane:
    queue: deque[Record] = field(default_factory=deque)
    posted: bool = False
    tries: int = 0
    """Of the first in the queue."""
    not_before: float = 0.0
    failed_at: float = 0.0
    """When the first in the queue failed first."""


class Delivery:
    """The plan for one receiver. Times are seconds, monotonic."""

    def __init__(
        self,
        state: ReceiverState,
        *,
        rng: random.Random,
        allowed: Callable[[str], bool] = lambda event: True,
        policy: Policy | None = None,
    ) -> None:
        self.policy = policy or Policy()
        self.counters = Counters()
        self._rng = rng
        self._allowed = allowed
        self._read = state.read
        self._missed = set(state.pending)
        """Pending when the last run ended, and not yet read again."""
        self._lanes: dict[str, Lane] = {}
        self._pending: dict[int, None] = {}
        self._posted = 0
        self._down_tries = 0
        self._down_until = 0.0
        self._accepted_at = -1.0

    # -- in ---------------------------------------------------------------------------------------------------------

    @property
    def space(self) -> int:
        """How many records it takes now."""
        return max(0, self.policy.window - len(self._pending))

    def offer(self, records: Iterable[Record]) -> None:
        """The next records of the log, in order. What was settled by an earlier run is passed over."""
        for record in records:
            if record.cursor <= self._read and record.cursor not in self._missed:
                continue
            self._missed.discard(record.cursor)
            self._read = max(self._read, record.cursor)
            if not self._allowed(record.event.event):
                self.counters.count("webhook.filtered")
                continue
            self._pending[record.cursor] = None
            self._lanes.setdefault(record.key, Lane()).queue.append(record)

    def skipped(self, before: int) -> None:
        """Events under this cursor that were not offered are gone from the log."""
        lost = {cursor for cursor in self._missed if cursor < before}
        self._missed -= lost
        self.counters.count("webhook.expired", max(1, len(lost)))
        self._read = max(self._read, before - 1)

    # -- out --------------------------------------------------------------------------------------------------------

    def next_posts(self, now: float) -> Sequence[Record]:
        """What to send now. Each must come back by `settle`."""
        if now < self._down_until:
            return ()
        room = (1 if self._down_tries else self.policy.concurrency) - self._posted
        posts: list[Record] = []
        for lane in self._lanes.values():
            if room <= len(posts):
                break
            if not lane.posted and lane.not_before <= now:
                lane.posted = True
                posts.append(lane.queue[0])
        self._posted += len(posts)
        return posts

    def settle(self, record: Record, outcome: Outcome, now: float, retry_after: float = 0.0) -> None:
        """How a post went. `retry_after`: seconds that the receiver asks for."""
        key = record.key
        lane = self._lanes[key]
        lane.posted = False
        self._posted -= 1
        match outcome:
            case Outcome.ACCEPTED:
                self._up()
                self._accepted_at = now
                self.counters.count("webhook.sent")
                self._done(key, lane)
            case Outcome.UNREACHABLE:
                self.counters.count("webhook.unreachable")
                if now >= self._down_until:
                    # Posts that were out at the same time fail together: that is one failure.
                    self._down_tries += 1
                    self._down_until = now + self._wait(self._down_tries, retry_after)
            case Outcome.FAILED:
                self.counters.count("webhook.failed")
                self._failed(key, lane, self._hopeless(lane), now, retry_after)
            case Outcome.REFUSED:
                self.counters.count("webhook.refused")
                self._failed(key, lane, lane.tries + 1 >= self.policy.refusals, now, retry_after)

    def next_timeout(self) -> float | None:
        """When `next_posts` may have more than now; None: not before something else happens."""
        if self._posted and self._down_tries:
            return None
        times = [lane.not_before for lane in self._lanes.values() if not lane.posted]
        if not times or (not self._down_tries and self._posted >= self.policy.concurrency):
            return None
        return max(min(times), self._down_until)

    def _hopeless(self, lane: Lane) -> bool:
        return lane.tries + 1 >= self.policy.give_up and self._accepted_at > lane.failed_at

    def _failed(self, key: str, lane: Lane, over: bool, now: float, retry_after: float) -> None:
        """The receiver is there, but does not take this one."""
        self._up()
        if over:
            self.counters.count("webhook.given_up")
            self._done(key, lane)
            return
        if not lane.tries:
            lane.failed_at = now
        lane.tries += 1
        lane.not_before = now + self._wait(lane.tries, retry_after)
        # Behind the others: a lane that waits must not be looked at first for ever.
        self._lanes[key] = self._lanes.pop(key)

    def _up(self) -> None:
        self._down_tries, self._down_until = 0, 0.0

    def _done(self, key: str, lane: Lane) -> None:
        del self._pending[lane.queue.popleft().cursor]
        lane.tries, lane.not_before = 0, 0.0
        del self._lanes[key]
        if lane.queue:
            self._lanes[key] = lane

    def _wait(self, tries: int, retry_after: float) -> float:
        policy = self.policy
        wait = min(policy.longest_wait, policy.first_wait * 2.0 ** min(tries - 1, 30)) * self._rng.uniform(0.75, 1.25)
        return max(wait, min(retry_after, policy.longest_wait))

    # -- what is kept -----------------------------------------------------------------------------------------------

    @property
    def state(self) -> ReceiverState:
        return ReceiverState(self._read, tuple(sorted({*self._pending, *self._missed})))

    def resting(self, now: float) -> bool:
        """Nothing is out, and nothing may go out before some wait is over."""
        return not self._posted and (self.down or all(lane.not_before > now for lane in self._lanes.values()))

    @property
    def idle(self) -> bool:
        """Everything that was offered is settled."""
        return not self._pending

    @property
    def down(self) -> bool:
        return bool(self._down_tries)
