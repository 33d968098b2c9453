"""Start, stop, kill, and a crash at each point of an actor's life."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from support.actor_leaks import Cells, TaskCounter, assert_nothing_left, run_actors
from support.probe_actors import Boom, Crash, Do, Events, Log, Note, Probe, boom, does, hang, maker

from actors.kernel import (
    Actor,
    ActorDead,
    ActorRef,
    ActorSystem,
    Exit,
    MediaLink,
    Restart,
    StartFailed,
    Strategy,
    Terminated,
)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_the_system_starts_and_stops_in_reverse_order_of_start() -> None:
    log: Log = []

    async def children(probe: Probe) -> None:
        await probe.context.spawn(maker(log, "b1"), "b1")
        await probe.context.spawn(maker(log, "b2"), "b2")

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            await system.spawn(maker(log, "a"), "a")
            await system.spawn(maker(log, "b", on_started=children), "b")
            await system.spawn(maker(log, "c"), "c")
            log.append(("test", "up"))

    run_actors(main)
    names = [name for name, _ in log]
    assert names == ["a", "b1", "b2", "b", "c", "test", "c", "b2", "b1", "b", "a"]
    assert [what for _, what in log[6:]] == [Exit.STOPPED] * 5


def test_what_is_queued_before_a_stop_is_handled_and_what_comes_after_is_a_dead_letter() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker(log, "a"), "a")
            ref.tell(Note("before"))
            ref.stop("enough")
            assert not ref.alive
            ref.tell(Note("after"))
            with pytest.raises(ActorDead):
                await ref.ask(Note("ask"), timeout=1)
            await ref.wait_closed()
            assert system.dead_letters == 1
            with pytest.raises(ActorDead):
                ref.tell(Note("late"))
            with pytest.raises(ActorDead):
                await ref.ask(Note("late"), timeout=1)
            assert system.find("/a") is None
            ref.stop()
            ref.kill()

    run_actors(main)
    assert [what for _, what in log] == ["started", "before", Exit.STOPPED]


def test_an_actor_that_ends_itself_leaves_normally_and_at_once() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker(log, "a"), "a")
            ref.tell(does(lambda probe: probe.context.stop("done")))
            ref.tell(Note("never"))
            await ref.wait_closed()
            assert system.dead_letters == 1

    run_actors(main)
    assert [what for _, what in log] == ["started", Exit.NORMAL]


def test_an_actor_may_end_itself_from_started_and_from_a_helper() -> None:
    log: Log = []

    async def leave(probe: Probe) -> None:
        probe.context.stop()

    async def leave_later(probe: Probe) -> None:
        async def helper() -> None:
            await trio.sleep(1)
            probe.context.stop()

        probe.context.start_soon(helper)

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            first = await system.spawn(maker(log, "a", on_started=leave), "a")
            second = await system.spawn(maker(log, "b", on_started=leave_later), "b")
            await first.wait_closed()
            await second.wait_closed()

    run_actors(main)
    for actor in ("a", "b"):
        assert [what for name, what in log if name == actor] == ["started", Exit.NORMAL]


def test_a_child_can_always_tell_its_stopping_parent() -> None:
    log: Log = []
    parents: list[ActorRef[Any]] = []

    async def tell_up(child: Probe) -> None:
        (parent,) = parents
        parent.tell(Note("from the child"))
        with pytest.raises(ActorDead):
            await parent.ask(Note("ask up"), timeout=1)

    async def with_child(probe: Probe) -> None:
        await probe.context.spawn(maker(log, "child", on_stopping=tell_up), "child")

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            parent = await system.spawn(maker(log, "parent", on_started=with_child), "parent")
            parents.append(parent)
            parent.stop()
            await parent.wait_closed()
            assert system.dead_letters == 1

    run_actors(main)
    assert log[-2:] == [("child", Exit.STOPPED), ("parent", Exit.STOPPED)]


def test_helpers_timers_and_children_are_gone_in_stopping() -> None:
    log: Log = []
    left: list[str] = []

    async def up(probe: Probe) -> None:
        async def helper() -> None:
            try:
                await trio.sleep_forever()
            finally:
                left.append("helper")

        probe.context.start_soon(helper)
        probe.context.schedule(0.5, Note("too late"))
        await probe.context.spawn(maker(log, "child"), "child")

    async def down(probe: Probe) -> None:
        assert left == ["helper"]
        assert probe.context.children == ()
        assert probe.context.schedule(0, Note("never")).cancelled
        with pytest.raises(ActorDead):
            probe.context.start_soon(trio.sleep, 0)
        with pytest.raises(ActorDead):
            await probe.context.spawn(maker(log, "late"), "late")
        await trio.sleep(1)

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            await system.spawn(maker(log, "a", on_started=up, on_stopping=down), "a")

    run_actors(main)
    assert log == [("child", "started"), ("a", "started"), ("child", Exit.STOPPED), ("a", Exit.STOPPED)]


def test_kill_takes_the_whole_subtree_without_farewell() -> None:
    log: Log = []

    async def grandchild(probe: Probe) -> None:
        await probe.context.spawn(maker(log, "c"), "c")

    async def child(probe: Probe) -> None:
        await probe.context.spawn(
            maker(log, "b", on_started=grandchild), "b", restart=Restart.PERMANENT, strategy=Strategy(backoff=0)
        )

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker(log, "a", on_started=child), "a")
            watcher = await system.spawn(maker(log, "w"), "w")
            grand = system.find("/a/b/c")
            assert grand is not None
            for target in (ref, grand):
                await watcher.ask(does(lambda probe, target=target: probe.context.watch(target)), timeout=1)  # type: ignore[misc]
            ref.kill()
            await ref.wait_closed()
            assert [row.path for row in system.tree()] == ["/w"]
            await watcher.ask(Note("x"), timeout=1)
            ended = [what for _, what in log if isinstance(what, Terminated)]
            assert {end.ref.path: end.exit for end in ended} == {"/a": Exit.KILLED, "/a/b/c": Exit.KILLED}

    run_actors(main)
    assert [name for name, what in log if isinstance(what, Exit)] == ["w"]


def test_kill_ends_a_farewell_that_is_under_way() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0, strategy=Strategy(grace=100)) as system:
            ref = await system.spawn(maker(log, "a", on_stopping=hang), "a")
            start = trio.current_time()
            ref.stop()
            await trio.sleep(1)
            ref.kill()
            await ref.wait_closed()
            assert trio.current_time() - start == pytest.approx(1)
            assert ref.cell.exit is Exit.KILLED

    run_actors(main)


@pytest.mark.parametrize("stuck_in", ["receive", "stopping"])
def test_grace_bounds_a_stop(stuck_in: str) -> None:
    log: Log = []
    events = Events()

    async def main() -> float:
        async with ActorSystem(seed=0, on_event=events, strategy=Strategy(grace=3)) as system:
            if stuck_in == "stopping":
                ref = await system.spawn(maker(log, "a", on_stopping=hang), "a")
            else:
                ref = await system.spawn(maker(log, "a"), "a")
                ref.tell(Do(hang))
            await trio.sleep(1)
            start = trio.current_time()
            ref.stop()
            await ref.wait_closed()
            assert ref.cell.exit is Exit.KILLED
            return trio.current_time() - start

    assert run_actors(main) == pytest.approx(3)
    assert events.kinds() == [("grace_exceeded", "/a")]


def test_an_error_in_the_factory_or_started_goes_to_the_spawner() -> None:
    log: Log = []
    events = Events()

    def broken() -> Probe:
        raise Boom("factory")

    async def main() -> None:
        async with ActorSystem(seed=0, on_event=events) as system:
            for factory in (broken, maker(log, "a", on_started=boom)):
                with pytest.raises(StartFailed) as caught:
                    await system.spawn(factory, "a", restart=Restart.PERMANENT)
                assert isinstance(caught.value.__cause__, Boom)
                assert caught.value.path == "/a"
                assert system.find("/a") is None
            assert await (await system.spawn(maker(log, "a"), "a")).ask(Note("ok"), timeout=1) == "ok"

    run_actors(main)
    assert events.kinds() == [("start_failed", "/a")] * 2
    assert "Boom: factory" in events.rows[0][2]
    assert Exit.FAILED not in [what for _, what in log], "no farewell for an actor that never was up"


def test_a_failed_start_inside_a_handler_is_an_ordinary_exception_there() -> None:
    log: Log = []

    async def try_it(probe: Probe) -> str:
        try:
            await probe.context.spawn(maker(log, "child", on_started=boom), "child")
        except StartFailed as error:
            return str(error)
        return "no error"

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker(log, "a"), "a")
            assert await ref.ask(Do(try_it), timeout=1) == "/a/child: Boom: step"
            assert ref.incarnation == 1

    run_actors(main)


def test_a_name_is_taken_while_its_actor_lives() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            first = await system.spawn(maker(log, "a"), "a")
            with pytest.raises(StartFailed, match="name is taken"):
                await system.spawn(maker(log, "b"), "a")
            first.stop()
            await first.wait_closed()
            second = await system.spawn(maker(log, "b"), "a")
            assert second is not first
            assert system.find("/a") is second
            with pytest.raises(ValueError, match="needs a name"):
                await system.spawn(maker(log, "b"), "")

    run_actors(main)


def test_a_peers_name_cannot_reach_another_path() -> None:
    log: Log = []

    async def child(probe: Probe) -> None:
        await probe.context.spawn(maker(log, "x"), "b")

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            await system.spawn(maker(log, "a", on_started=child), "a")
            sly = await system.spawn(maker(log, "sly"), "a/b")
            other = await system.spawn(maker(log, "sly2"), "a%2Fb")
            assert [row.path for row in system.tree()] == ["/a", "/a/b", "/a%2Fb", "/a%252Fb"]
            assert system.find("/a%2Fb") is sly
            assert system.find("/a%252Fb") is other

    run_actors(main)


def test_a_spawner_that_gives_up_leaves_no_half_started_child() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            with trio.move_on_after(1) as scope:
                await system.spawn(maker(log, "a", on_started=hang), "a", restart=Restart.PERMANENT)
            assert scope.cancelled_caught
            await trio.testing.wait_all_tasks_blocked()
            assert system.tree() == []

    run_actors(main)


def test_a_kill_while_starting_is_a_failed_start() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system, trio.open_nursery() as nursery:

            async def spawn() -> None:
                with pytest.raises(StartFailed, match="killed while starting"):
                    await system.spawn(maker(log, "a", on_started=hang), "a", restart=Restart.PERMANENT)

            nursery.start_soon(spawn)
            await trio.sleep(1)
            ref = system.find("/a")
            assert ref is not None
            ref.kill()

    run_actors(main)


def media_boom(_probe: Probe, _link: MediaLink) -> None:
    raise Boom("media")


async def helper_boom(probe: Probe) -> None:
    probe.context.start_soon(boom, probe)


@pytest.mark.parametrize("where", ["receive", "receive_media", "helper", "helper_during_receive"])
def test_a_crash_fails_the_actor_after_its_farewell(where: str) -> None:
    log: Log = []
    events = Events()

    async def wait_beside_a_bad_helper(probe: Probe) -> None:
        await helper_boom(probe)
        await trio.sleep(1000)

    async def main() -> None:
        async with ActorSystem(seed=0, on_event=events) as system:
            watcher = await system.spawn(maker(log, "w"), "w")
            ref = await system.spawn(maker(log, "a", on_media=media_boom), "a")
            other = await system.spawn(maker(log, "b"), "b")
            await watcher.ask(does(lambda probe: probe.context.watch(ref)), timeout=1)
            match where:
                case "receive":
                    ref.tell(Crash())
                case "receive_media":
                    ref.link("in").push(1)
                case "helper":
                    ref.tell(Do(helper_boom))
                case _:
                    ref.tell(Do(wait_beside_a_bad_helper))
            await ref.wait_closed()
            await watcher.ask(Note("sync"), timeout=1)
            (end,) = [what for _, what in log if isinstance(what, Terminated)]
            assert (end.ref, end.exit, type(end.error)) == (ref, Exit.FAILED, Boom)
            assert other.alive

    run_actors(main)
    assert ("a", Exit.FAILED) in log
    assert events.kinds() == [("crash", "/a")]
    assert "Boom" in events.rows[0][2] and "Traceback" in events.rows[0][2]


def test_a_crash_in_stopping_makes_the_exit_failed_and_nothing_else() -> None:
    log: Log = []
    events = Events()

    async def main() -> None:
        async with ActorSystem(seed=0, on_event=events) as system:
            ref = await system.spawn(maker(log, "a", on_stopping=boom), "a", restart=Restart.PERMANENT)
            ref.stop()
            await ref.wait_closed()
            assert ref.cell.exit is Exit.FAILED
            assert isinstance(ref.cell.error, Boom)

    run_actors(main)
    assert events.kinds() == [("crash", "/a")]


def test_children_of_a_crashed_actor_are_killed_and_its_next_incarnation_starts_new_ones() -> None:
    log: Log = []

    async def child(probe: Probe) -> None:
        await probe.context.spawn(maker(log, "child"), "child")

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker(log, "a", on_started=child), "a", restart=Restart.PERMANENT)
            old = system.find("/a/child")
            assert old is not None
            ref.tell(Crash())
            await trio.sleep(1)
            new = system.find("/a/child")
            assert new is not None and new is not old
            assert not old.alive and old.cell.exit is Exit.KILLED
            assert ref.incarnation == 2

    run_actors(main)


def test_several_errors_at_once_stay_a_group_and_one_is_itself() -> None:
    log: Log = []

    async def two(probe: Probe) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(boom, probe)
            nursery.start_soon(boom, probe)

    async def nested_one(probe: Probe) -> None:
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            inner.start_soon(boom, probe)
            outer.start_soon(hang, probe)

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            for step, kind in ((two, ExceptionGroup), (nested_one, Boom)):
                ref = await system.spawn(maker(log, "a"), "a")
                ref.tell(Do(step))
                await ref.wait_closed()
                assert type(ref.cell.error) is kind

    run_actors(main)


def test_cancelling_the_whole_system_leaves_nothing() -> None:
    log: Log = []

    async def child(probe: Probe) -> None:
        await probe.context.spawn(maker(log, "b"), "b", restart=Restart.PERMANENT)

    async def main() -> None:
        with trio.move_on_after(1) as scope:
            async with ActorSystem(seed=0) as system:
                ref = await system.spawn(maker(log, "a", on_started=child), "a", restart=Restart.PERMANENT)
                ref.tell(Do(hang))
                await trio.sleep_forever()
        assert scope.cancelled_caught

    run_actors(main)
    assert not [what for _, what in log if isinstance(what, Exit)]


def test_an_error_in_the_block_kills_the_tree_and_passes_unchanged() -> None:
    log: Log = []

    async def main() -> None:
        with pytest.raises(Boom, match="the block"):
            async with ActorSystem(seed=0) as system:
                await system.spawn(maker(log, "a"), "a")
                raise Boom("the block")

    run_actors(main)


def test_an_actor_without_receive_crashes_on_a_message_and_throws_media_away() -> None:
    class Mute(Actor[object]):
        pass

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(Mute, "mute")
            link = ref.link("in")
            link.push(1)
            link.push(2)
            await trio.testing.wait_all_tasks_blocked()
            assert link.dropped == 2
            ref.tell("hello")
            await ref.wait_closed()
            assert isinstance(ref.cell.error, TypeError)

    run_actors(main)


@pytest.mark.parametrize("restart", [Restart.TEMPORARY, Restart.TRANSIENT])
def test_a_killed_actor_handles_nothing_more_and_its_next_incarnation_everything(restart: Restart) -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker(log, "a"), "a", restart=restart)
            await trio.testing.wait_all_tasks_blocked()
            ref.tell(Note("1"))
            ref.tell(Note("2"))
            ref.link("in").push("media")
            ref.kill()
            await trio.sleep(1)
            if restart is Restart.TEMPORARY:
                assert system.dead_letters == 2
                assert ref.link("in").closed

    run_actors(main)
    handled = ["started", "1", "2", ("in", ("media",)), Exit.STOPPED] if restart is Restart.TRANSIENT else []
    assert [what for _, what in log] == ["started", *handled]


@pytest.mark.usefixtures("no_collector")
def test_an_ended_actor_is_freed_without_the_garbage_collector() -> None:
    refs: list[weakref.ref[Probe]] = []

    def factory() -> Probe:
        probe = Probe([], "a")
        refs.append(weakref.ref(probe))
        return probe

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            for how in ("stop", "leave", "kill"):
                ref = await system.spawn(factory, how)
                ref.link("in").push(1)
                assert await ref.ask(Note("x"), timeout=1) == "x"
                await ref.ask(does(lambda probe: probe.context.schedule(100, Note("later"))), timeout=1)
                match how:
                    case "stop":
                        ref.stop()
                    case "leave":
                        ref.tell(does(lambda probe: probe.context.stop()))
                    case _:
                        ref.kill()
                await ref.wait_closed()
            await trio.testing.wait_all_tasks_blocked()
            assert [ref() for ref in refs] == [None, None, None]

    run_actors(main)


@pytest.mark.usefixtures("no_collector")
def test_who_holds_the_ref_of_an_ended_actor_does_not_hold_what_it_was_made_of() -> None:
    """A room has the refs of its members until it ends itself, and would free them all in one step."""

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            factory = maker([], "a")
            made_of = weakref.ref(factory)
            ref = await system.spawn(factory, "a", restart=Restart.PERMANENT)
            del factory
            ref.tell(Crash())
            await trio.sleep(1)
            assert ref.incarnation == 2
            assert made_of() is not None
            ref.stop()
            await ref.wait_closed()
            await trio.testing.wait_all_tasks_blocked()
            assert made_of() is None
            assert not ref.alive

    run_actors(main)


def test_an_error_that_meets_a_cancellation_from_above_is_reported() -> None:
    events = Events()

    async def fail_on_the_way_out(probe: Probe) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Boom("while cancelled")

    async def main() -> None:
        with trio.move_on_after(1):
            async with ActorSystem(seed=0, on_event=events) as system:
                ref = await system.spawn(maker([], "a"), "a", restart=Restart.PERMANENT)
                ref.tell(does(lambda probe: probe.context.start_soon(fail_on_the_way_out, probe)))
                await trio.sleep_forever()

    run_actors(main)
    assert events.kinds() == [("crash", "/a")]


def test_the_leak_check_can_fail() -> None:
    async def leave_a_task() -> None:
        manager = ActorSystem(seed=0)
        await manager.__aenter__()
        try:
            counter = TaskCounter()
            counter.living = {1: "left behind"}
            with pytest.raises(AssertionError, match="left behind"):
                assert_nothing_left(counter, set(), Cells(), ())
            cells = Cells()
            cells.seen = [*manager.cells.values(), (await manager.spawn(maker([], "a"), "a")).cell]
            with pytest.raises(AssertionError, match="/a never ended"):
                assert_nothing_left(TaskCounter(), set(), cells, ())
        finally:
            await manager.__aexit__(None, None, None)

    run_actors(leave_a_task)


@pytest.mark.parametrize(
    ("how", "reason"), [("ref", "server_leave"), ("context", "left"), ("system", "the supervisor stops")]
)
def test_stopping_can_read_why(how: str, reason: str) -> None:
    log: Log = []

    async def why(probe: Probe) -> None:
        probe.say(probe.context.stop_reason)

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker(log, "a", on_stopping=why), "a")
            if how == "ref":
                ref.stop(reason)
                ref.stop("too late")
            elif how == "context":
                ref.tell(does(lambda probe: probe.context.stop(reason)))
            await trio.sleep(1)

    run_actors(main)
    assert log[1] == ("a", reason)
