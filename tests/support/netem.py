"""A network between two sans-IO objects, in virtual time: loss, delay, jitter, reordering, duplication, a bottleneck.

Everything random comes from the `random.Random` passed in, so a run is replayed by its seed. Nothing sleeps: time is
the `now` that `run_pair` moves from one deadline to the next.

    wire = Wire(Link(rng, loss=0.05, delay=0.02), Link(rng, loss=0.05, delay=0.02))
    now = run_pair(client, server, wire, until=lambda: server.done, now=0.0)
"""

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

Until = float | Callable[[], bool]


class Endpoint(Protocol):
    """A point-to-point protocol object. Objects whose verbs carry an address go into `Addressed`."""

    def datagrams_to_send(self, now: float) -> list[bytes]: ...
    def receive_datagram(self, data: bytes, now: float) -> None: ...
    def next_timeout(self) -> float | None: ...
    def handle_timeout(self, now: float) -> None: ...


class Addressed:
    """Gives an object with addresses in its verbs (ICE, a whole peer) the point-to-point verbs.

    `source` is where the other side's datagrams seem to come from; destinations are ignored: there is one wire.
    """

    def __init__(self, inner: Any, source: Any) -> None:
        self.inner = inner
        self.source = source

    def datagrams_to_send(self, now: float) -> list[bytes]:
        return [data for data, _ in self.inner.datagrams_to_send(now)]

    def receive_datagram(self, data: bytes, now: float) -> None:
        self.inner.receive_datagram(data, self.source, now)

    def next_timeout(self) -> float | None:
        deadline: float | None = self.inner.next_timeout()
        return deadline

    def handle_timeout(self, now: float) -> None:
        self.inner.handle_timeout(now)


class Link:
    """One direction. All knobs may be changed while it runs.

    loss, reorder, duplicate: probabilities per packet, 0..1. delay, jitter: seconds; jitter is uniform in 0..jitter
    and by itself keeps the order. reorder: the packet is held back by up to `delay + jitter + 20 ms` more, so later
    ones pass it. duplicate: a second copy arrives right behind, or on its own when the first is lost or held back.
    rate_bps: bits per second of a bottleneck before the delay, with a tail-drop queue of `queue_packets`.

    `counters`: sent, lost, overflow, duplicated, reordered, delivered.
    """

    def __init__(
        self,
        rng: random.Random,
        loss: float = 0.0,
        delay: float = 0.0,
        jitter: float = 0.0,
        reorder: float = 0.0,
        duplicate: float = 0.0,
        rate_bps: float | None = None,
        queue_packets: int = 1000,
    ) -> None:
        self._rng = rng
        self.loss = loss
        self.delay = delay
        self.jitter = jitter
        self.reorder = reorder
        self.duplicate = duplicate
        self.rate_bps = rate_bps
        self.queue_packets = queue_packets
        self.counters: Counter[str] = Counter()
        self._heap: list[tuple[float, int, bytes]] = []
        self._departures: deque[float] = deque()
        self._tie = 0
        self._last_arrival = 0.0

    def send(self, data: bytes, now: float) -> None:
        self.counters["sent"] += 1
        copies = 1
        if self.duplicate and self._rng.random() < self.duplicate:
            self.counters["duplicated"] += 1
            copies = 2
        for _ in range(copies):
            if self.loss and self._rng.random() < self.loss:
                self.counters["lost"] += 1
                continue
            departure = self._departure(len(data), now)
            if departure is None:
                self.counters["overflow"] += 1
                continue
            self._push(data, departure)

    def receive(self, now: float) -> list[bytes]:
        """What has arrived by now, in order of arrival."""
        out = []
        while self._heap and self._heap[0][0] <= now:
            out.append(heapq.heappop(self._heap)[2])
        self.counters["delivered"] += len(out)
        return out

    def next_timeout(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    @property
    def in_flight(self) -> int:
        return len(self._heap)

    def _departure(self, size: int, now: float) -> float | None:
        """When the last bit is on the wire; None: the bottleneck's queue is full."""
        if self.rate_bps is None:
            return now
        while self._departures and self._departures[0] <= now:
            self._departures.popleft()
        if len(self._departures) >= self.queue_packets:
            return None
        start = self._departures[-1] if self._departures else now
        departure = start + size * 8 / self.rate_bps
        self._departures.append(departure)
        return departure

    def _push(self, data: bytes, departure: float) -> None:
        arrival = departure + self.delay + (self._rng.uniform(0.0, self.jitter) if self.jitter else 0.0)
        arrival = max(arrival, self._last_arrival)
        if self.reorder and self._rng.random() < self.reorder:
            self.counters["reordered"] += 1
            arrival += self._rng.uniform(0.0, self.delay + self.jitter + 0.02)
        else:
            self._last_arrival = arrival
        heapq.heappush(self._heap, (arrival, self._tie, data))
        self._tie += 1


@dataclass(slots=True)
class Wire:
    """Two links: `there` carries a's datagrams to b, `back` carries b's to a."""

    there: Link
    back: Link

    @classmethod
    def symmetric(cls, rng: random.Random, **knobs: Any) -> "Wire":
        """Both directions alike; the two links share `rng`."""
        return cls(Link(rng, **knobs), Link(rng, **knobs))

    def next_timeout(self) -> float | None:
        deadlines = [t for t in (self.there.next_timeout(), self.back.next_timeout()) if t is not None]
        return min(deadlines, default=None)


def run_pair(
    a: Endpoint,
    b: Endpoint,
    wire: Wire,
    until: Until,
    now: float,
    *,
    limit: float = 600.0,
    on_step: Callable[[float], None] | None = None,
) -> float:
    """Moves datagrams and time until `until` and returns the time then.

    until: a time, or a condition looked at after every step. `on_step(now)` runs after every step: the application.
    AssertionError when the condition does not come true within `limit` virtual seconds, when nothing is left that
    could make it true, or when time stands still for 20,000 steps (two objects answering each other for ever).
    """
    end = now + limit if callable(until) else until
    stuck = 0
    while True:
        busy = _exchange(a, b, wire, now)
        if on_step is not None:
            on_step(now)
            busy = _exchange(a, b, wire, now) or busy
        if callable(until) and until():
            return now
        deadlines = [t for t in (a.next_timeout(), b.next_timeout(), wire.next_timeout()) if t is not None]
        following = now if busy else min(deadlines, default=None)
        if following is None or following > end:
            if not callable(until):
                return end
            what = "nothing left to happen" if following is None else f"not within {limit} s"
            raise AssertionError(f"{what}, at {now:.3f}: {dict(wire.there.counters)} {dict(wire.back.counters)}")
        stuck = stuck + 1 if following <= now else 0
        assert stuck < 20_000, f"time stands still at {now:.6f}"
        now = max(now, following)
        for endpoint in (a, b):
            deadline = endpoint.next_timeout()
            if deadline is not None and deadline <= now:
                endpoint.handle_timeout(now)


def _exchange(a: Endpoint, b: Endpoint, wire: Wire, now: float) -> bool:
    """One round in both directions. False: no datagram moved."""
    moved = False
    for source, link, sink in ((a, wire.there, b), (b, wire.back, a)):
        for data in source.datagrams_to_send(now):
            link.send(data, now)
            moved = True
        for data in link.receive(now):
            sink.receive_datagram(data, now)
            moved = True
    return moved
