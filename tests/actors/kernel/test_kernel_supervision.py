"""Restart types, strategies, intensity, back-off, escalation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from support.actor_leaks import run_actors
from support.probe_actors import Boom, Crash, Events, Log, Note, Probe, boom, does, hang, maker

from actors.kernel import (
    ONE_FOR_ALL,
    REST_FOR_ONE,
    ActorDead,
    ActorRef,
    ActorSystem,
    ChildSpec,
    Exit,
    Group,
    Restart,
    RestartIntensityExceeded,
    StartFailed,
    Strategy,
    Supervisor,
)

MANY = Strategy(intensity=1000, backoff=0)

RESTARTED = {
    (Restart.PERMANENT, "leave"): True,
    (Restart.PERMANENT, "crash"): True,
    (Restart.PERMANENT, "kill"): True,
    (Restart.PERMANENT, "stop"): False,
    (Restart.TRANSIENT, "leave"): False,
    (Restart.TRANSIENT, "crash"): True,
    (Restart.TRANSIENT, "kill"): True,
    (Restart.TRANSIENT, "stop"): False,
    (Restart.TEMPORARY, "leave"): False,
    (Restart.TEMPORARY, "crash"): False,
    (Restart.TEMPORARY, "kill"): False,
    (Restart.TEMPORARY, "stop"): False,
}


def end(ref: ActorRef[object], how: str) -> None:
    match how:
        case "leave":
            ref.tell(does(lambda probe: probe.context.stop()))
        case "crash":
            ref.tell(Crash())
        case "kill":
            ref.kill()
        case _:
            ref.stop()


@pytest.mark.parametrize(("restart", "how"), RESTARTED)
def test_restart_types(restart: Restart, how: str) -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker(log, "a"), "a", restart=restart)
            end(ref, how)
            ref.link("in").push("kept")
            await trio.sleep(1)
            restarted = RESTARTED[restart, how]
            assert ref.alive is restarted
            assert ref.incarnation == 1 + restarted
            assert (system.find("/a") is ref) is restarted
            if restarted:
                assert await ref.ask(Note("hello"), timeout=1) == "hello"
                assert [row.restarts for row in system.tree()] == [1]

    run_actors(main)


def test_messages_and_rings_survive_a_crash_and_state_does_not() -> None:
    log: Log = []
    made: list[Probe] = []

    def factory() -> Probe:
        made.append(Probe(log, f"a{len(made) + 1}"))
        return made[-1]

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(factory, "a", restart=Restart.TRANSIENT)
            link = ref.link("in")
            ref.tell(Note("first"))
            ref.tell(Crash())
            link.push("media")
            ref.tell(Note("second"))
            await trio.sleep(1)
            assert ref.link("in") is link

    run_actors(main)
    assert len(made) == 2 and made[0] is not made[1]
    assert log == [
        ("a1", "started"),
        ("a1", "first"),
        ("a1", Exit.FAILED),
        ("a2", "started"),
        ("a2", ("in", ("media",))),
        ("a2", "second"),
        ("a2", Exit.STOPPED),
    ]


def test_items_left_in_a_ring_by_a_crash_are_rung_again() -> None:
    log: Log = []
    crashed: list[bool] = []

    def once(probe: Probe, link: object) -> None:
        if not crashed:
            crashed.append(True)
            raise Boom("before the drain")

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker(log, "a", on_media=once), "a", restart=Restart.TRANSIENT)
            ref.link("in").push(1)
            ref.link("in").push(2)
            await trio.sleep(1)

    run_actors(main)
    assert ("a", ("in", (1, 2))) in log


FAMILY = ("a", "b", "c", "d")

GROUPS = {
    Group.ONE_FOR_ONE: ((), ("b",)),
    Group.ONE_FOR_ALL: (("d", "c", "a"), ("a", "b", "c", "d")),
    Group.REST_FOR_ONE: (("d", "c"), ("b", "c", "d")),
}


def family(log: Log, strategy: Strategy, **restart: Restart) -> Supervisor:
    specs = [ChildSpec(maker(log, name), name, restart.get(name, Restart.PERMANENT)) for name in FAMILY]
    return Supervisor(specs, strategy)


@pytest.mark.parametrize("group", Group)
@pytest.mark.parametrize("how", ["crash", "kill", "leave"])
def test_groups_stop_in_reverse_and_start_in_order(group: Group, how: str) -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            await system.spawn(lambda: family(log, Strategy(group)), "s")
            b = system.find("/s/b")
            assert b is not None
            log.clear()
            end(b, how)
            await trio.sleep(1)
            stopped, started = GROUPS[group]
            assert [name for name, what in log if what is Exit.STOPPED] == list(stopped)
            assert [name for name, what in log if what == "started"] == list(started)
            assert [row.incarnation for row in system.tree()[1:]] == [1 + (name in started) for name in FAMILY]
            assert [row.state for row in system.tree()] == ["running"] * 5

    run_actors(main)


@pytest.mark.parametrize("group", [ONE_FOR_ALL, REST_FOR_ONE])
def test_a_group_restart_ends_temporary_siblings_and_their_end_touches_nobody(group: Group) -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            await system.spawn(lambda: family(log, Strategy(group), c=Restart.TEMPORARY, d=Restart.TEMPORARY), "s")
            b, c = system.find("/s/b"), system.find("/s/c")
            assert b is not None and c is not None
            c.tell(Crash())
            await trio.sleep(1)
            assert b.incarnation == 1
            b.tell(Crash())
            await trio.sleep(1)
            assert [row.path for row in system.tree()] == ["/s", "/s/a", "/s/b"]

    run_actors(main)


def test_messages_to_siblings_survive_a_group_restart() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            await system.spawn(lambda: family(log, Strategy(ONE_FOR_ALL, backoff=1)), "s")
            a, b = system.find("/s/a"), system.find("/s/b")
            assert a is not None and b is not None
            b.tell(Crash())
            await trio.sleep(0.1)
            assert a.alive and a.incarnation == 1
            a.tell(Note("meanwhile"))
            assert await a.ask(Note("asked meanwhile"), timeout=10) == "asked meanwhile"
            assert a.incarnation == 2

    run_actors(main)
    assert [what for name, what in log if name == "a"][2:4] == ["started", "meanwhile"]


def test_two_failures_at_once_are_one_group_restart() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            await system.spawn(lambda: family(log, Strategy(ONE_FOR_ALL)), "s")
            for name in ("b", "d"):
                ref = system.find(f"/s/{name}")
                assert ref is not None
                ref.tell(Crash())
            await trio.sleep(3)
            assert [row.incarnation for row in system.tree()] == [1, 2, 2, 2, 2]

    run_actors(main)


def test_a_sibling_stopped_by_hand_during_a_group_restart_stays_stopped() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            await system.spawn(lambda: family(log, Strategy(ONE_FOR_ALL, backoff=1)), "s")
            b, c = system.find("/s/b"), system.find("/s/c")
            assert b is not None and c is not None
            b.tell(Crash())
            await trio.sleep(0.1)
            c.stop()
            await c.wait_closed()
            await trio.sleep(5)
            assert [row.path for row in system.tree()] == ["/s", "/s/a", "/s/b", "/s/d"]
            assert {row.incarnation for row in system.tree()[1:]} == {2}

    run_actors(main)


def flaky(log: Log, name: str, fail_at: set[int]) -> Callable[[], Probe]:
    """A factory of probes whose nth incarnation fails to start, for n in `fail_at`."""
    count = 0

    def factory() -> Probe:
        nonlocal count
        count += 1
        return Probe(log, name, on_started=boom if count in fail_at else None)

    return factory


@pytest.mark.parametrize("group", Group)
def test_a_failed_start_during_a_restart_is_tried_again(group: Group) -> None:
    log: Log = []
    factory = flaky(log, "b", {2, 3})

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            specs = [ChildSpec(maker(log, "a"), "a"), ChildSpec(factory, "b"), ChildSpec(maker(log, "c"), "c")]
            await system.spawn(lambda: Supervisor(specs, Strategy(group)), "s")
            b = system.find("/s/b")
            assert b is not None
            b.tell(Crash())
            await trio.sleep(3)
            assert b.incarnation == 4
            assert await b.ask(Note("up"), timeout=1) == "up"
            assert [row.state for row in system.tree()] == ["running"] * 4

    run_actors(main)


def test_a_start_that_never_succeeds_again_escalates() -> None:
    log: Log = []
    factory = flaky(log, "b", set(range(2, 100)))
    events = Events()

    async def main() -> None:
        with pytest.raises(RestartIntensityExceeded) as caught:
            async with ActorSystem(seed=0, on_event=events) as system:
                ref = await system.spawn(factory, "b", restart=Restart.PERMANENT)
                ref.tell(Crash())
                await trio.sleep_forever()
        assert caught.value.child == "/b"
        assert isinstance(caught.value.__cause__, Boom)

    run_actors(main)
    assert [kind for kind, _ in events.kinds()] == [
        "crash",
        "start_failed",
        "start_failed",
        "start_failed",
        "escalation",
        "crash",
    ]


def test_intensity_allows_that_many_restarts_in_the_period() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0, strategy=Strategy(intensity=2, period=10, backoff=0)) as system:
            ref = await system.spawn(maker(log, "a"), "a", restart=Restart.PERMANENT)
            for _ in range(20):
                ref.tell(Crash())
                await trio.sleep(5.1)
            assert ref.incarnation == 21

    run_actors(main)


def test_one_more_than_intensity_escalates_through_every_level() -> None:
    log: Log = []
    events = Events()

    async def main() -> None:
        with pytest.raises(RestartIntensityExceeded) as caught:
            async with ActorSystem(seed=0, on_event=events, strategy=Strategy(intensity=1)) as system:
                inner = Strategy(intensity=1)
                spec = ChildSpec(maker(log, "leaf"), "leaf")
                await system.spawn(lambda: Supervisor([spec], inner), "s", restart=Restart.PERMANENT)
                await system.spawn(maker(log, "bystander"), "bystander")
                for _ in range(4):
                    leaf = system.find("/s/leaf")
                    assert leaf is not None
                    leaf.tell(Crash())
                    await trio.sleep(0.4)
                await trio.sleep_forever()
        assert (caught.value.path, caught.value.child) == ("/", "/s")
        below = caught.value.__cause__
        assert isinstance(below, RestartIntensityExceeded)
        assert (below.path, below.child) == ("/s", "/s/leaf")
        assert isinstance(below.__cause__, Boom)

    run_actors(main)
    assert [path for kind, path in events.kinds() if kind == "escalation"] == ["/s", "/s", "/"]
    assert ("bystander", Exit.STOPPED) not in log


def test_escalation_cancels_the_other_children_and_restarts_the_supervisor_whole() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            supervisor = await system.spawn(lambda: family(log, Strategy(intensity=0)), "s", restart=Restart.PERMANENT)
            b, a = system.find("/s/b"), system.find("/s/a")
            assert a is not None and b is not None
            b.tell(Crash())
            await trio.sleep(1)
            assert supervisor.incarnation == 2
            assert not a.alive and a.cell.exit is Exit.KILLED
            assert [row.path for row in system.tree()] == ["/s", "/s/a", "/s/b", "/s/c", "/s/d"]
            assert [row.incarnation for row in system.tree()] == [2, 1, 1, 1, 1]

    run_actors(main)


def test_any_actor_supervises_its_children_with_the_class_strategy() -> None:
    log: Log = []

    class Parent(Probe):
        strategy = Strategy(intensity=0)

        async def started(self) -> None:
            await self.context.spawn(maker(self.log, "child"), "child", restart=Restart.PERMANENT)

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            default = await system.spawn(lambda: Parent(log, "p"), "p")
            given = await system.spawn(lambda: Parent(log, "q"), "q", strategy=MANY)
            for path in ("/p/child", "/q/child"):
                ref = system.find(path)
                assert ref is not None
                ref.tell(Crash())
            await trio.sleep(1)
            assert not default.alive
            assert isinstance(default.cell.error, RestartIntensityExceeded)
            assert given.alive

    run_actors(main)


def backoff_delays(seed: int, *, rest: float = 0.0) -> list[float]:
    """Seconds between a crash and the next start, for six crashes in a row."""
    log: Log = []

    async def main() -> list[float]:
        delays = []
        strategy = Strategy(intensity=100, period=60, backoff=1.0, backoff_limit=12)
        async with ActorSystem(seed=seed, strategy=strategy) as system:
            ref = await system.spawn(maker(log, "a"), "a", restart=Restart.PERMANENT)
            for _ in range(6):
                start = trio.current_time()
                ref.tell(Crash())
                await ref.ask(Note("up"), timeout=100)
                delays.append(trio.current_time() - start)
                await trio.sleep(rest)
        return delays

    return run_actors(main)


def test_backoff_doubles_with_jitter_from_the_seed_up_to_its_limit() -> None:
    delays = backoff_delays(1)
    for n, delay in enumerate(delays):
        assert min(12, 0.5 * 2**n) <= delay <= min(12, 1.5 * 2**n)
    assert delays[-1] == pytest.approx(12)
    assert delays == backoff_delays(1)
    assert delays != backoff_delays(2)


def test_backoff_starts_again_after_a_period_without_failure() -> None:
    assert all(0.5 <= delay <= 1.5 for delay in backoff_delays(1, rest=61))


def test_a_stop_ends_a_child_that_waits_for_its_restart() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0, strategy=Strategy(backoff=50, backoff_limit=100)) as system:
            ref = await system.spawn(maker(log, "a"), "a", restart=Restart.PERMANENT)
            ref.tell(Crash())
            await trio.sleep(1)
            assert [row.state for row in system.tree()] == ["waiting"]
            assert ref.alive
            ref.tell(Note("queued"))
            ref.kill()
            assert ref.cell.parked, "there is nothing to kill between two incarnations"
            ref.stop()
            await ref.wait_closed()
            assert system.dead_letters == 1
            other = await system.spawn(maker(log, "b"), "b", restart=Restart.PERMANENT)
            other.tell(Crash())
            await trio.sleep(1)
            start = trio.current_time()
        assert trio.current_time() == start, "the system does not wait for a back-off"
        assert not other.alive

    run_actors(main)


@pytest.mark.parametrize("group", Group)
def test_a_supervisor_may_stop_crash_or_die_in_the_middle_of_a_restart(group: Group) -> None:
    async def run(how: str, at: float) -> None:
        log: Log = []
        slow = maker(log, "a", on_stopping=hang)
        specs = [ChildSpec(slow, "a"), ChildSpec(maker(log, "b"), "b"), ChildSpec(slow, "c")]
        async with ActorSystem(seed=0, strategy=MANY) as system:
            strategy = Strategy(group, grace=1, backoff=1)
            ref = await system.spawn(lambda: Supervisor(specs, strategy), "s", restart=Restart.TEMPORARY)
            b = system.find("/s/b")
            assert b is not None
            b.tell(Crash())
            await trio.sleep(at)
            if how == "stop":
                ref.stop()
            elif how == "kill":
                ref.kill()
            else:
                ref.tell("no ChildSpec")  # type: ignore[arg-type]
            await ref.wait_closed()
            await b.wait_closed()
            assert system.tree() == []

    for how in ("stop", "kill", "crash"):
        for at in (0.0, 0.01, 0.5, 1.2, 2.2, 3.0):
            run_actors(lambda how=how, at=at: run(how, at))  # type: ignore[misc]


def test_a_supervisor_starts_more_children_on_request() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            supervisor = await system.spawn(Supervisor, "s")
            ref = await supervisor.ask(ChildSpec(maker(log, "late"), "late"), timeout=1)
            assert ref.path == "/s/late"
            assert await ref.ask(Note("hi"), timeout=1) == "hi"
            with pytest.raises(ActorDead):
                await supervisor.ask(ChildSpec(maker(log, "bad", on_started=boom), "bad"), timeout=1)
            assert isinstance(supervisor.cell.error, StartFailed)

    run_actors(main)


def test_a_crash_while_the_parent_stops_is_not_restarted() -> None:
    log: Log = []

    async def child(probe: Probe) -> None:
        await probe.context.spawn(maker(log, "c", on_stopping=boom), "c", restart=Restart.PERMANENT)

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker(log, "a", on_started=child), "a", restart=Restart.PERMANENT)
            inner = system.find("/a/c")
            assert inner is not None
            inner.tell(Crash())
            ref.stop()
            await ref.wait_closed()
            assert inner.cell.exit is not None

    run_actors(main)
    assert [what for name, what in log if name == "a"] == ["started", Exit.STOPPED]
