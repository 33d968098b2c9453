"""The UDP actor's turns: as many datagrams as their work takes its share of the time, whoever receives them."""

from __future__ import annotations

import contextlib
import socket
from types import SimpleNamespace
from typing import Any

import pytest
import trio.testing

from actors.net import Ports
from actors.udp import BURST, MOST, UdpActor
from lkactor.plane import HandedUp


@pytest.mark.parametrize(
    ("cost", "first", "later"),
    [(1e-6, MOST, MOST), (2e-4, 3 * BURST, 10), (2e-3, BURST, BURST)],
)
def test_a_turn_is_bounded_by_what_its_datagrams_cost(cost: float, first: int, later: int) -> None:
    """In virtual time: a packet for a hundred legs that Python has to look at costs what hundreds of others do."""
    turns: list[int] = []

    async def main() -> None:
        actor: Any = UdpActor(Ports())
        actor.context = SimpleNamespace(media_turn=contextlib.nullcontext())

        def drain(count: int) -> bool:
            turns[-1] += count
            clock.jump(count * cost)
            return True

        for _ in range(40):
            turns.append(0)
            actor._turn(drain)

    clock = trio.testing.MockClock()
    trio.run(main, clock=clock)
    assert turns[0] == first and later <= turns[-1] <= later + BURST


def test_a_turn_ends_when_nothing_is_left() -> None:
    counts: list[int] = []

    async def main() -> None:
        actor: Any = UdpActor(Ports())
        actor.context = SimpleNamespace(media_turn=contextlib.nullcontext())
        actor._turn(lambda count: bool(counts.append(count)))

    trio.run(main)
    assert counts == [BURST]


class LossyPump:
    """What is to be said about a pump that has losses to tell of when it rings."""

    has_more = False

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        self.fd = self._near.fileno()
        self.has_losses = self.rings_with_news = False
        self.told = trio.Event()
        self.looks = 0

    def lose(self) -> None:
        self.has_losses = True
        self._far.send(b"\0")

    def take(self, most: int) -> list[HandedUp]:
        self._near.recv(64)
        return []

    def tell_news(self) -> bool:
        self.looks += 1
        if self.has_losses:
            self.has_losses = False
            self.told.set()
        return True

    def close(self) -> None:
        self._near.close()
        self._far.close()


def test_losses_do_not_wait_for_the_next_look() -> None:
    """In virtual time: what is missing is due to be asked for after 20 ms, and a look comes every 100."""
    pump: Any = LossyPump()

    async def main() -> None:
        ports = Ports()
        actor: Any = UdpActor(ports)
        actor.context = SimpleNamespace(media_turn=contextlib.nullcontext())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(actor._take, pump)
            pump.lose()
            await pump.told.wait()
            assert trio.current_time() == began
            nursery.cancel_scope.cancel()

    clock = trio.testing.MockClock()
    began = clock.current_time()
    trio.run(main, clock=clock)
    assert pump.looks == 1
    pump.close()
