"""Media turns: receivers run before the block is left, without a task switch; all else is as outside of a turn."""

from __future__ import annotations

import trio
from support.actor_leaks import run_actors
from support.probe_actors import Boom, Do, Events, Log, Note, Probe, maker

from actors.kernel import ActorRef, ActorSystem, Exit, MediaLink, Pause, Restart
from actors.kernel.faults import FaultPlan


def media(log: Log) -> list[object]:
    return [what for _, what in log if isinstance(what, tuple)]


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


def test_a_burst_passes_two_actors_before_the_turn_ends() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            second = await system.spawn(maker(log, "second"), "second")
            onward = second.link("onward")
            first = await system.spawn(maker(log, "first", on_media=lambda probe, link: onward.push("copy")), "first")
            link = first.link("in")
            await settle()
            with system.media_turn:
                link.push(1)
                link.push(2)
                assert media(log) == []
            assert [row for row in log if isinstance(row[1], tuple)] == [
                ("first", ("in", (1, 2))),
                ("second", ("onward", ("copy",))),
            ]

    run_actors(main)


def test_outside_a_turn_a_ring_waits_for_the_actors_task() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker(log, "a"), "a")
            link = ref.link("in")
            await settle()
            link.push(1)
            assert media(log) == []
            await settle()
            assert media(log) == [("in", (1,))]

    run_actors(main)


def test_an_actor_in_the_middle_of_a_message_is_not_disturbed() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker(log, "a"), "a")
            link = ref.link("in")

            async def work(probe: Probe) -> None:
                probe.say("begun")
                await trio.sleep(1)
                probe.say("done")

            ref.tell(Do(work))
            await settle()
            with system.media_turn:
                link.push(1)
            await trio.sleep(2)
            said = [what for name, what in log if what != "started"]
            assert said == ["begun", "done", ("in", (1,))]

    run_actors(main)


def crashing(log: Log, name: str) -> Probe:
    def on_media(probe: Probe, link: MediaLink) -> None:
        if 13 in link.drain():
            raise Boom("thirteen")

    return Probe(log, name, on_media=on_media)


def test_a_crash_in_a_turn_is_the_receivers_and_nobody_elses() -> None:
    log: Log = []
    events = Events()

    async def main() -> None:
        async with ActorSystem(seed=0, on_event=events) as system:
            bad = await system.spawn(lambda: crashing(log, "bad"), "bad", restart=Restart.PERMANENT)
            good = await system.spawn(maker(log, "good"), "good")
            links = [bad.link("in"), good.link("in"), bad.link("more")]
            await settle()
            with system.media_turn:
                links[0].push(13)
                links[1].push("for the good one")
                links[2].push("for the next incarnation")
            assert media(log) == [("in", ("for the good one",))]
            await trio.sleep(5)
            assert bad.incarnation == 2
            assert ("bad", Exit.FAILED) in log
            assert not len(links[2]), "the ring that came after the crash was handled by the next incarnation"

    run_actors(main)
    (crash,) = [row for row in events.rows if row[0] == "crash"]
    assert "thirteen" in crash[2]


def test_a_crash_that_a_kill_overtakes_does_not_hit_the_next_incarnation() -> None:
    log: Log = []
    events = Events()

    async def main() -> None:
        async with ActorSystem(seed=0, on_event=events) as system:
            bad = await system.spawn(lambda: crashing(log, "bad"), "bad", restart=Restart.PERMANENT)
            link = bad.link("in")
            await settle()
            with system.media_turn:
                link.push(13)
            bad.kill()
            await trio.sleep(5)
            assert bad.incarnation == 2
            assert await bad.ask(Note("well"), timeout=1) == "well"

    run_actors(main)
    assert [row for row in events.rows if row[0] == "crash"] == []


def test_an_actor_that_leaves_in_a_turn_handles_no_more_of_it() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(
                maker(log, "a", on_media=lambda probe, link: probe.context.stop("enough")),
                "a",
                restart=Restart.TEMPORARY,
            )
            first, second = ref.link("first"), ref.link("second")
            await settle()
            with system.media_turn:
                first.push(1)
                second.push(2)
            await settle()
            assert media(log) == [("first", (1,))]
            assert second.dropped == 1

    run_actors(main)


def test_killed_and_ended_actors_are_passed_over() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            killed = await system.spawn(maker(log, "killed"), "killed")
            ended = await system.spawn(maker(log, "ended"), "ended")
            links = [killed.link("in"), ended.link("in")]
            ended.stop()
            await settle()
            killed.kill()
            with system.media_turn:
                for link in links:
                    link.push(1)
            await settle()
            assert media(log) == []
            assert [link.dropped for link in links] == [1, 1]

    run_actors(main)


def test_a_paused_actor_stays_paused() -> None:
    log: Log = []

    async def main() -> None:
        plan = FaultPlan(faults=(Pause("/a", seconds=3),))
        async with ActorSystem(seed=0, faults=plan) as system:
            ref = await system.spawn(maker(log, "a"), "a")
            link = ref.link("in")
            await settle()
            with system.media_turn:
                link.push(1)
            assert media(log) == []
            await trio.sleep(4)
            assert media(log) == [("in", (1,))]

    run_actors(main)


def test_a_farewell_is_not_interrupted() -> None:
    log: Log = []

    async def main() -> None:
        async def slowly(probe: Probe) -> None:
            await trio.sleep(1)

        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker(log, "a", on_stopping=slowly), "a")
            link = ref.link("in")
            await settle()
            ref.stop()
            await settle()
            with system.media_turn:
                link.push(1)
            await trio.sleep(2)
            assert media(log) == []
            assert log[-1] == ("a", Exit.STOPPED)

    run_actors(main)


def test_an_error_in_the_block_passes_and_rings_are_not_lost() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref: ActorRef[object] = await system.spawn(maker(log, "a"), "a")
            link = ref.link("in")
            await settle()
            try:
                with system.media_turn:
                    link.push(1)
                    raise KeyError("the pusher's")
            except KeyError:
                pass
            assert not system.media_turn.open
            await settle()
            assert media(log) == [("in", (1,))]

    run_actors(main)
