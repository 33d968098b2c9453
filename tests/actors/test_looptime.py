"""Turns of the event loop and the collector's share, seen from inside."""

from __future__ import annotations

import gc
import time

import pytest
import trio
import trio.lowlevel
import trio.testing

from actors import looptime
from actors.looptime import MAX_YIELDS, SHARED_TURN, TURN, LoopTime, SharedLoopTime


class Clock:
    """The wall, as the module sees it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def turn(loop: LoopTime, clock: Clock, begin: float, end: float) -> None:
    clock.now = begin
    loop.after_io_wait(0.0)
    clock.now = end
    loop.before_io_wait(0.0)


def test_the_longest_turn_of_a_window(monkeypatch) -> None:
    clock = Clock()
    monkeypatch.setattr(looptime, "monotonic", clock)
    loop = LoopTime()
    turn(loop, clock, 100.0, 100.25)
    turn(loop, clock, 100.5, 100.625)
    turn(loop, clock, 103.0, 103.0625)
    assert [(entry.second, entry.turns, entry.busy, entry.longest) for entry in loop.since(100)] == [
        (100, 2, 0.375, 0.25),
        (103, 1, 0.0625, 0.0625),
    ]
    assert loop.longest(window=60) == 0.25
    assert loop.longest(window=2) == 0.0625


def test_beside_the_longest_turn_stands_its_cpu(monkeypatch) -> None:
    """Not that of the turn that took the most: a stall with little CPU is not the server's doing."""
    clock, cpu = Clock(), Clock()
    monkeypatch.setattr(looptime, "monotonic", clock)
    monkeypatch.setattr(looptime, "thread_time", cpu)
    loop = LoopTime()
    turn(loop, clock, 100.0, 100.0)
    for begin, end, spent in ((100.0, 100.25, 0.25), (100.25, 100.75, 0.125), (101.0, 101.25, 0.0625)):
        cpu.now += spent
        turn(loop, clock, begin, end)
    assert [(entry.longest, entry.longest_cpu) for entry in loop.since(100)] == [(0.5, 0.125), (0.25, 0.0625)]


def test_a_turn_over_several_seconds_is_seen_where_it_ends(monkeypatch) -> None:
    clock = Clock()
    monkeypatch.setattr(looptime, "monotonic", clock)
    loop = LoopTime()
    turn(loop, clock, 100.0, 104.5)
    assert [(entry.second, entry.longest) for entry in loop.since(101)] == [(104, 4.5)]


def test_history_is_bounded(monkeypatch) -> None:
    clock = Clock()
    monkeypatch.setattr(looptime, "monotonic", clock)
    loop = LoopTime()
    for second in range(1000):
        turn(loop, clock, second, second + 0.5)
    assert len(loop.seconds) == looptime.KEPT


def test_a_real_loop_and_a_real_collection() -> None:
    loop = LoopTime()

    async def main() -> None:
        with loop.watching():
            await trio.testing.wait_all_tasks_blocked()
            begun = time.monotonic()
            while time.monotonic() - begun < 0.02:
                pass
            cycle: list[object] = []
            cycle.append(cycle)
            del cycle
            gc.collect(0)
            await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            assert loop.longest() >= 0.02
            assert max(entry.longest_cpu for entry in loop.since(0)) > 0
            assert loop.generations[0].collections >= 1
            assert loop.generations[0].collected >= 1
            assert loop.collecting[0] > 0

    trio.run(main)
    assert loop._on_collection not in gc.callbacks
    seen = sum(entry.turns for entry in loop.since(0))
    trio.run(trio.sleep, 0)
    assert sum(entry.turns for entry in loop.since(0)) == seen


def test_as_dict_is_json_of_numbers() -> None:
    loop = LoopTime()
    loop.before_io_wait(0.0)
    answer = loop.as_dict()
    assert set(answer) == {"now", "longest_turn_ms", "window_s", "seconds", "collector"}


@pytest.mark.parametrize(("turns", "yields"), [((0.0,), 0), ((1.0, 1.0, 0.0), 2), ((1.0,) * 100, MAX_YIELDS)])
def test_who_is_woken_late_in_a_turn_takes_the_next_one(monkeypatch, turns: tuple[float, ...], yields: int) -> None:
    """... until one has just begun, or it has waited often enough."""

    class Turns(trio.abc.Instrument):
        count = 0

        def before_io_wait(self, timeout: float) -> None:
            self.count += 1

    async def main() -> None:
        lengths, counted, loop = iter(turns), Turns(), LoopTime()
        monkeypatch.setattr(loop, "turn_so_far", lambda: next(lengths))
        trio.lowlevel.add_instrument(counted)
        await loop.in_time()
        assert counted.count == yields

    trio.run(main)


def test_a_loop_that_shares_the_interpreter_is_late_by_what_it_took_of_a_core(monkeypatch) -> None:
    clock, cpu = Clock(), Clock()
    monkeypatch.setattr(looptime, "monotonic", clock)
    monkeypatch.setattr(looptime, "thread_time", cpu)
    loop = LoopTime()
    shared = SharedLoopTime(loop)
    turn(loop, clock, 100.0, 100.5)
    loop.after_io_wait(0.0)
    clock.now += 2 * max(TURN, SHARED_TURN)  # Waiting for the other thread.
    assert loop.is_late() and not shared.is_late()
    assert shared.turn_so_far() == 0.0
    cpu.now += SHARED_TURN + 1e-6
    assert shared.is_late()
    assert shared.turn_so_far() == pytest.approx(SHARED_TURN, abs=1e-5)
    assert shared.number == loop.number == 1
    loop.before_io_wait(0.0)
    assert not shared.is_late()
    assert shared.number == 2
