"""Faults on purpose, and that a seed replays them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import trio
from support.actor_leaks import run_actors
from support.probe_actors import Boom, Events, Log, Note, Probe, does, maker

from actors.kernel import (
    ActorDead,
    ActorRef,
    ActorSystem,
    Exit,
    FailNext,
    FaultPlan,
    Full,
    Kill,
    LinkFault,
    MailboxFull,
    MediaLink,
    Pause,
    Restart,
    Slow,
)

Ref = ActorRef[object]


@dataclass(frozen=True, slots=True)
class Other:
    """A message of another type."""


def plan(*faults: object, seed: int = 0) -> FaultPlan:
    return FaultPlan(seed, faults)  # type: ignore[arg-type]


def test_without_a_plan_nothing_is_installed() -> None:
    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker([], "a"), "a")
            assert ref.cell.mailbox.faults is None
        async with ActorSystem(seed=0, faults=plan(Full("/elsewhere"))) as system:
            ref = await system.spawn(maker([], "a"), "a")
            assert ref.cell.mailbox.faults is None

    run_actors(main)


def test_kill_at_a_time_hits_all_that_match() -> None:
    events = Events()

    async def main() -> None:
        async with ActorSystem(seed=0, faults=plan(Kill("/a*", at=2.0)), on_event=events) as system:
            a1, a2, b = [
                await system.spawn(maker([], name), name, restart=Restart.TRANSIENT) for name in ("a1", "a2", "b")
            ]
            await trio.sleep(1.9)
            assert (a1.incarnation, a2.incarnation, b.incarnation) == (1, 1, 1)
            await trio.sleep(1)
            assert (a1.incarnation, a2.incarnation, b.incarnation) == (2, 2, 1)

    run_actors(main)
    assert sorted(events.kinds()) == [("fault", "/a1"), ("fault", "/a2"), ("restart", "/a1"), ("restart", "/a2")]


def test_kill_at_the_nth_message_of_a_type_once() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0, faults=plan(Kill("/a", on=Note, nth=2))) as system:
            a = await system.spawn(maker(log, "a"), "a", restart=Restart.TRANSIENT)
            for message in (Note("1"), Other(), Note("2"), Note("3"), Note("4")):
                a.tell(message)
            await trio.sleep(1)
            assert a.incarnation == 2

    run_actors(main)
    assert [what for _, what in log] == ["started", "1", Other(), "started", "3", "4", Exit.STOPPED]


def test_an_ask_that_meets_a_kill_fails() -> None:
    async def main() -> None:
        async with ActorSystem(seed=0, faults=plan(Kill("/a", on=Note))) as system:
            a = await system.spawn(maker([], "a"), "a", restart=Restart.TRANSIENT)
            with pytest.raises(ActorDead, match="cancelled"):
                await a.ask(Note("x"), timeout=1)

    run_actors(main)


def test_pause_and_slow_take_time_and_lose_nothing() -> None:
    async def seconds(fault: object) -> float:
        async with ActorSystem(seed=0, faults=plan(fault)) as system:
            start = trio.current_time()
            a = await system.spawn(maker([], "a"), "a")
            for _ in range(3):
                assert await a.ask(Note("x"), timeout=100) == "x"
            return trio.current_time() - start

    assert run_actors(lambda: seconds(Pause("/a", 7))) == pytest.approx(7)
    assert run_actors(lambda: seconds(Pause("/a", 7, at=1))) == 0
    assert run_actors(lambda: seconds(Slow("/a", 2))) == pytest.approx(6)
    assert run_actors(lambda: seconds(Slow("/a", 2, seconds=3))) == pytest.approx(4)


def test_fail_next_fails_the_next_message_of_its_type() -> None:
    log: Log = []
    error = Boom("injected")

    async def main() -> None:
        async with ActorSystem(seed=0, faults=plan(FailNext("/a", error, on=Other, times=2))) as system:
            a = await system.spawn(maker(log, "a"), "a", restart=Restart.TRANSIENT)
            assert await a.ask(Note("fine"), timeout=1) == "fine"
            for _ in range(2):
                with pytest.raises(ActorDead) as caught:
                    await a.ask(Other(), timeout=1)
                assert caught.value.__cause__ is error
            await a.ask(Other(), timeout=1)
            assert a.incarnation == 3

    run_actors(main)


def test_fail_next_on_a_ring_keeps_the_items() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0, faults=plan(FailNext("/a", Boom(), on=MediaLink))) as system:
            a = await system.spawn(maker(log, "a"), "a", restart=Restart.TRANSIENT)
            a.link("in").push(1)
            await trio.sleep(1)
            assert a.incarnation == 2

    run_actors(main)
    assert ("a", ("in", (1,))) in log


def test_full_refuses_for_its_time() -> None:
    async def main() -> None:
        async with ActorSystem(seed=0, faults=plan(Full("/a", at=1, seconds=2))) as system:
            a = await system.spawn(maker([], "a"), "a")
            outcomes = []
            for _ in range(4):
                try:
                    a.tell(Note("x"))
                    outcomes.append("ok")
                except MailboxFull:
                    outcomes.append("full")
                await trio.sleep(1)
            assert outcomes == ["ok", "full", "full", "ok"]

    run_actors(main)


def test_a_fault_can_be_injected_into_a_running_system() -> None:
    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            a = await system.spawn(maker([], "a"), "a", restart=Restart.TRANSIENT)
            link = a.link("in")
            await trio.sleep(1)
            system.inject(LinkFault("/a", loss=1.0))
            link.push(1)
            assert (link.pushed, link.dropped) == (1, 1)
            system.inject(Kill("/a", at=2.0))
            await trio.sleep(2)
            assert a.incarnation == 2

    run_actors(main)


def arrivals(
    fault: LinkFault, count: int, *, seed: int = 0, gap: float = 0.0
) -> tuple[list[tuple[object, float]], int]:
    """What arrives of `count` items, when (seconds), and how many were dropped."""
    got: list[tuple[object, float]] = []
    start = 0.0

    class Sink(Probe):
        def receive_media(self, link: MediaLink) -> None:
            got.extend((item, round(trio.current_time() - start, 6)) for item in link.drain())

    async def main() -> int:
        nonlocal start
        async with ActorSystem(seed=0, faults=plan(fault, seed=seed)) as system:
            start = trio.current_time()
            a = await system.spawn(lambda: Sink([]), "a")
            link = a.link("in", 1000)
            for n in range(count):
                link.push(n)
                await trio.sleep(gap)
            await trio.sleep(100)
            return link.dropped

    dropped = run_actors(main)
    return got, dropped


def test_link_loss_is_counted_and_follows_the_seed() -> None:
    fault = LinkFault("/a", "in", loss=0.3)
    got, dropped = arrivals(fault, 1000)
    assert len(got) + dropped == 1000
    assert 200 < dropped < 400
    assert arrivals(fault, 1000) == (got, dropped)
    assert arrivals(fault, 1000, seed=1) != (got, dropped)
    assert arrivals(LinkFault("/a", "other", loss=1.0), 10)[1] == 0


def test_link_delay_reorder_and_duplicate() -> None:
    got, _ = arrivals(LinkFault("/a", delay=0.5), 3)
    assert got == [(0, 0.5), (1, 0.5), (2, 0.5)]
    got, _ = arrivals(LinkFault("/a", reorder=0.2), 500, gap=0.002)
    order = [item for item, _ in got]
    assert order != sorted(order) and sorted(order) == list(range(500))  # type: ignore[type-var]
    got, _ = arrivals(LinkFault("/a", duplicate=1.0), 5)
    assert [item for item, _ in got] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_link_rate_spreads_items_and_drops_what_would_wait_too_long() -> None:
    got, dropped = arrivals(LinkFault("/a", rate=10), 5)
    assert [when for _, when in got] == [0.0, 0.1, 0.2, 0.3, 0.4]
    got, dropped = arrivals(LinkFault("/a", rate=100), 3000)
    assert len(got) + dropped == 3000
    assert 1000 <= len(got) <= 1002


def test_faults_on_one_link_add_up() -> None:
    log: Log = []

    async def main() -> None:
        faults = plan(LinkFault("/a", delay=0.5), LinkFault("/a", delay=0.25, duplicate=1.0))
        async with ActorSystem(seed=0, faults=faults) as system:
            a = await system.spawn(maker(log, "a"), "a")
            a.link("in").push("x")
            await trio.sleep(0.7)
            assert log == [("a", "started")]
            await trio.sleep(0.1)
            assert log[1:] == [("a", ("in", ("x", "x")))]
            await a.ask(does(lambda probe: probe.say("end")), timeout=1)

    run_actors(main)


def test_a_paused_actor_can_be_killed_and_stopped() -> None:
    async def main() -> None:
        async with ActorSystem(seed=0, faults=plan(Pause("/a", 1000), Pause("/b", 1000))) as system:
            a = await system.spawn(maker([], "a"), "a")
            b = await system.spawn(maker([], "b"), "b")
            a.tell(Note("never"))
            b.tell(Note("x"))
            await trio.sleep(1)
            a.kill()
            await a.wait_closed()
            b.stop()
            await b.wait_closed()
            assert trio.current_time() and b.cell.exit is Exit.KILLED

    run_actors(main)
