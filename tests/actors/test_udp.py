"""The UDP actor's turns: as many datagrams as their work takes its share of the time, whoever receives them."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import trio.testing

from actors.net import Ports
from actors.udp import BURST, MOST, UdpActor


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
