"""Ask: results, errors, timeouts, rings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.lowlevel
from support.actor_leaks import run_actors
from support.probe_actors import Boom, Crash, Do, Log, Note, Probe, does, hang, maker

from actors.kernel import ActorDead, ActorRef, ActorSystem, AskCycle, AskTimeout, Restart, StartFailed, Strategy

Ref = ActorRef[object]


def asks(ref: Ref, message: object, timeout: float = 10) -> Do:
    """Inside the actor: ask `ref` and reply with what comes back, or with the error."""

    async def step(probe: Probe) -> object:
        try:
            return await ref.ask(message, timeout=timeout)
        except (AskCycle, AskTimeout, ActorDead) as error:
            return error

    return Do(step)


def run(main: Callable[[ActorSystem, Ref, Ref, Ref], Awaitable[None]], log: Log | None = None) -> None:
    """With three probes."""
    said: Log = [] if log is None else log

    async def with_three() -> None:
        async with ActorSystem(seed=0) as system:
            a, b, c = [await system.spawn(maker(said, name), name, restart=Restart.TRANSIENT) for name in "abc"]
            await main(system, a, b, c)

    run_actors(with_three)


def test_the_result_of_receive_is_the_reply() -> None:
    async def main(system: ActorSystem, a: Ref, b: Ref, c: Ref) -> None:
        assert await a.ask(Note("x"), timeout=1) == "x"
        assert await a.ask(asks(b, asks(c, Note("deep"))), timeout=1) == "deep"
        assert await a.ask(object(), timeout=1) is None

    run(main)


def test_a_crash_fails_the_ask_in_hand_and_keeps_the_queued_ones() -> None:
    async def main(system: ActorSystem, a: Ref, b: Ref, c: Ref) -> None:
        async with trio.open_nursery() as nursery:

            async def first() -> None:
                with pytest.raises(ActorDead, match="crashed") as caught:
                    await a.ask(Crash("why"), timeout=10)
                assert isinstance(caught.value.__cause__, Boom)

            async def second() -> None:
                assert await a.ask(Note("later"), timeout=10) == "later"
                assert a.incarnation == 2

            nursery.start_soon(first)
            await trio.lowlevel.checkpoint()
            nursery.start_soon(second)

    run(main)


def test_the_end_fails_the_ask_in_hand_and_the_queued_ones() -> None:
    async def main(system: ActorSystem, a: Ref, b: Ref, c: Ref) -> None:
        async def fails(message: object) -> None:
            with pytest.raises(ActorDead):
                await a.ask(message, timeout=100)
            assert trio.current_time() - start < 50

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails, Do(hang))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(fails, Note("queued"))
            await trio.testing.wait_all_tasks_blocked()
            a.stop()

    run(main)


def test_timeout_handles_the_message_all_the_same() -> None:
    log: Log = []

    async def main(system: ActorSystem, a: Ref, b: Ref, c: Ref) -> None:
        async def slow(probe: Probe) -> None:
            await trio.sleep(5)
            probe.say("slow is done")

        start = trio.current_time()
        with pytest.raises(AskTimeout, match=r"/a: no reply within 2 s"):
            await a.ask(Do(slow), timeout=2)
        assert trio.current_time() - start == pytest.approx(2)
        assert await a.ask(Note("next"), timeout=10) == "next"

    run(main, log)
    assert [what for name, what in log if name == "a"][:3] == ["started", "slow is done", "next"]


def test_asking_oneself_and_a_chain_that_comes_back_are_rings() -> None:
    async def main(system: ActorSystem, a: Ref, b: Ref, c: Ref) -> None:
        start = trio.current_time()
        itself = await a.ask(asks(a, Note("")), timeout=1)
        assert isinstance(itself, AskCycle) and itself.ring == ("/a", "/a")
        around = await a.ask(asks(b, asks(c, asks(a, Note("")))), timeout=1)
        assert isinstance(around, AskCycle)
        assert around.ring == ("/c", "/a", "/b", "/c")
        assert "/c -> /a -> /b -> /c" in str(around)
        assert trio.current_time() == start, "at once, not by timeout"
        assert await a.ask(asks(b, asks(c, Note("fine"))), timeout=1) == "fine"

    run(main)


def test_two_that_ask_each_other_at_the_same_time_are_a_ring() -> None:
    async def main(system: ActorSystem, a: Ref, b: Ref, c: Ref) -> None:
        results: list[object] = []

        async def ask(ref: Ref, other: Ref) -> None:
            results.append(await ref.ask(asks(other, Note("hello")), timeout=10))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, a, b)
            nursery.start_soon(ask, b, a)
        assert sorted(type(result).__name__ for result in results) == ["AskCycle", "str"]

    run(main)


def test_an_abandoned_ask_closes_no_ring() -> None:
    async def main(system: ActorSystem, a: Ref, b: Ref, c: Ref) -> None:
        async def later(probe: Probe) -> object:
            await trio.sleep(5)
            return probe.say(await a.ask(Note("a is free again"), timeout=1))

        assert isinstance(await a.ask(asks(b, Do(later), timeout=1), timeout=10), AskTimeout)
        await trio.sleep(10)
        assert b.incarnation == 1

    run(main)


def test_a_helper_does_not_make_its_actor_deaf() -> None:
    log: Log = []

    async def main(system: ActorSystem, a: Ref, b: Ref, c: Ref) -> None:
        def start(probe: Probe) -> None:
            async def helper() -> None:
                probe.say(await b.ask(asks(a, Note("a answers")), timeout=5))

            probe.context.start_soon(helper)

        await a.ask(does(start), timeout=1)
        await trio.sleep(1)

    run(main, log)
    assert [what for name, what in log if name == "a"][:3] == ["started", "a answers", "a answers"]


def test_tasks_of_a_handler_count_as_the_handler() -> None:
    async def main(system: ActorSystem, a: Ref, b: Ref, c: Ref) -> None:
        async def both(probe: Probe) -> list[object]:
            results: list[object] = []

            async def one(ref: Ref) -> None:
                try:
                    results.append(await ref.ask(asks(a, Note("x")), timeout=5))
                except AskCycle as error:
                    results.append(error)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(one, b)
                nursery.start_soon(one, c)
            return results

        results = await a.ask(Do(both), timeout=1)
        assert [type(result) for result in results] == [AskCycle, AskCycle]

    run(main)


def test_a_child_that_asks_its_spawning_parent_from_started_is_a_ring() -> None:
    async def main(system: ActorSystem, a: Ref, b: Ref, c: Ref) -> None:
        async def ask_parent(child: Probe) -> None:
            await a.ask(Note("are you there"), timeout=100)

        async def spawn(probe: Probe) -> object:
            try:
                await probe.context.spawn(maker([], "child", on_started=ask_parent), "child")
            except StartFailed as error:
                return error.__cause__
            return None

        start = trio.current_time()
        cause = await a.ask(Do(spawn), timeout=200)
        assert isinstance(cause, AskCycle) and cause.ring == ("/a/child", "/a", "/a/child")
        assert trio.current_time() == start

    run(main)


def test_a_crash_forgets_who_the_actor_waited_for() -> None:
    async def main(system: ActorSystem, a: Ref, b: Ref, c: Ref) -> None:
        a.tell(asks(b, Do(hang)))
        await trio.testing.wait_all_tasks_blocked()
        a.kill()
        await trio.sleep(1)
        assert a.incarnation == 2
        b.kill()
        await trio.sleep(1)
        assert await b.ask(asks(a, Note("no ring")), timeout=1) == "no ring"

    run(main)


def test_asking_a_waiting_actor_reaches_its_next_incarnation() -> None:
    async def main() -> None:
        async with ActorSystem(seed=0, strategy=Strategy(backoff=5)) as system:
            ref = await system.spawn(maker([], "a"), "a", restart=Restart.PERMANENT)
            ref.kill()
            await trio.sleep(0.1)
            with pytest.raises(AskTimeout):
                await ref.ask(Note("x"), timeout=0.1)
            assert await ref.ask(Note("y"), timeout=100) == "y"

    run_actors(main)
