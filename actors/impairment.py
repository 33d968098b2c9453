"""A bad network inside the process: seeded loss, delay, reordering and duplication at the UDP sockets.

For tests and chaos runs; the receive and send paths test one `is None` when it is off. The same seed and the same
sequence of datagrams give the same decisions.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import trio

from actors.kernel import MediaLink
from lkactor.wire.address import Address

MAX_DELAYED = 10_000


@dataclass(frozen=True, slots=True)
class NetworkConditions:
    """Probabilities per datagram (0..1) and seconds; both directions."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class Firewall:
    """What lies between the clients and the media ports. TURN is left open, so what comes by a relay gets through."""

    udp: bool
    tcp: bool
    relay_ports: range

    def stops(self, address: Address) -> bool:
        return self.udp and address.port not in self.relay_ports


class Impairment:
    """Applied by the UDP actor to what comes in and by `UdpPath` to what goes out; by the TCP actor: the firewall."""

    def __init__(self, conditions: NetworkConditions, seed: int) -> None:
        self._conditions = conditions
        self._random = random.Random(seed)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._wake = trio.Event()
        self.firewall: Firewall | None = None
        self.lost = 0
        self.duplicated = 0
        self.delayed = 0

    def receive(self, link: MediaLink, item: tuple[bytes, Address, float]) -> None:
        data, address, now = item
        if self.firewall is not None and self.firewall.stops(address):
            self.lost += 1
            return
        for delay in self._fates():
            if delay:
                self._later(delay, functools.partial(link.push, (data, address, now + delay)))
            else:
                link.push(item)

    def send(self, write: Callable[[], None], to: Address) -> None:
        """`write` sends a datagram that it has copied: buffers of the caller are reused."""
        if self.firewall is not None and self.firewall.stops(to):
            self.lost += 1
            return
        for delay in self._fates():
            if delay:
                self._later(delay, write)
            else:
                write()

    async def run(self) -> None:
        """Deliver what was delayed. A helper task of the UDP actor."""
        while True:
            if not self._heap:
                self._wake = trio.Event()
                await self._wake.wait()
            due = self._heap[0][0]
            with trio.move_on_at(due):
                self._wake = trio.Event()
                await self._wake.wait()
            now = trio.current_time()
            while self._heap and self._heap[0][0] <= now:
                heapq.heappop(self._heap)[2]()

    @property
    def stops_tcp(self) -> bool:
        return self.firewall is not None and self.firewall.tcp

    def _fates(self) -> Iterator[float]:
        """One delay per copy that arrives; none at all when it is lost."""
        conditions, rng = self._conditions, self._random
        if rng.random() < conditions.loss:
            self.lost += 1
            return
        copies = 1
        if conditions.duplicate and rng.random() < conditions.duplicate:
            self.duplicated += 1
            copies = 2
        for _ in range(copies):
            delay = conditions.delay + (rng.random() * conditions.jitter if conditions.jitter else 0.0)
            if conditions.reorder and rng.random() < conditions.reorder:
                delay += 0.005 + rng.random() * 0.02
            yield delay

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        if len(self._heap) >= MAX_DELAYED:
            self.lost += 1
            return
        self.delayed += 1
        heapq.heappush(self._heap, (trio.current_time() + delay, next(self._order), action))
        self._wake.set()
