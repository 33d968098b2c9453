"""Asking at once: the same as asking, or NOT_NOW."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from support.actor_leaks import run_actors
from support.probe_actors import Boom, Crash, Do, Log, Note, Probe

from actors.kernel import NOT_NOW, ActorDead, ActorRef, ActorSystem, Exit, FaultPlan, Restart, Slow

Ref = ActorRef[object]


class Quick(Probe):
    """Answers notes at once, and says in whose task."""

    def receive_now(self, message: object) -> object:
        match message:
            case Note("stop"):
                self.context.stop()
                return "stopping"
            case Note("self"):
                return self.context.ref.ask_now(Note("again"))
            case Note(text):
                self.say(text)
                return text
            case Crash(text):
                raise Boom(text)
            case _:
                return NOT_NOW


def run(
    main: Callable[[ActorSystem, Ref, Log], Awaitable[None]],
    restart: Restart = Restart.TRANSIENT,
    faults: FaultPlan | None = None,
) -> Log:
    log: Log = []

    async def with_one() -> None:
        async with ActorSystem(seed=0, faults=faults) as system:
            ref: Ref = await system.spawn(lambda: Quick(log, "a"), "a", restart=restart)
            await trio.testing.wait_all_tasks_blocked()
            await main(system, ref, log)

    run_actors(with_one)
    return log


def test_an_answer_without_a_task_switch() -> None:
    async def main(system: ActorSystem, a: Ref, log: Log) -> None:
        assert a.ask_now(Note("x")) == "x"
        assert a.ask_now(Note("y")) == "y"
        assert log == [("a", "started"), ("a", "x"), ("a", "y")]
        assert await a.ask(Note("z"), timeout=1) == "z"

    run(main)


def test_what_was_sent_before_comes_first() -> None:
    async def main(system: ActorSystem, a: Ref, log: Log) -> None:
        a.tell(Note("first"))
        assert a.ask_now(Note("second")) is NOT_NOW
        assert await a.ask(Note("second"), timeout=1) == "second"
        assert log[1:] == [("a", "first"), ("a", "second")]

    run(main)


def test_not_in_the_middle_of_a_message() -> None:
    async def main(system: ActorSystem, a: Ref, log: Log) -> None:
        go = trio.Event()

        async def step(probe: Probe) -> None:
            await go.wait()

        a.tell(Do(step))
        await trio.testing.wait_all_tasks_blocked()
        assert a.ask_now(Note("x")) is NOT_NOW
        go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert a.ask_now(Note("x")) == "x"

    run(main)


def test_not_what_takes_time_and_not_within_itself() -> None:
    async def main(system: ActorSystem, a: Ref, log: Log) -> None:
        assert a.ask_now(object()) is NOT_NOW
        assert a.ask_now(Note("self")) is NOT_NOW
        assert a.ask_now(Note("after")) == "after"

    run(main)


def test_an_actor_without_the_method_answers_nothing_at_once() -> None:
    async def main(system: ActorSystem, a: Ref, log: Log) -> None:
        plain: Ref = await system.spawn(lambda: Probe(log, "b"), "b")
        await trio.testing.wait_all_tasks_blocked()
        assert plain.ask_now(Note("x")) is NOT_NOW

    run(main)


def test_an_error_is_the_actor_s() -> None:
    async def main(system: ActorSystem, a: Ref, log: Log) -> None:
        with pytest.raises(ActorDead) as dead:
            a.ask_now(Crash("bug"))
        assert isinstance(dead.value.__cause__, Boom)
        assert a.ask_now(Note("meanwhile")) is NOT_NOW
        assert await a.ask(Note("later"), timeout=1) == "later"
        assert a.incarnation == 2

    log = run(main)
    assert ("a", Exit.FAILED) in log


def test_who_stops_itself_and_who_was_stopped() -> None:
    async def main(system: ActorSystem, a: Ref, log: Log) -> None:
        assert a.ask_now(Note("stop")) == "stopping"
        assert a.ask_now(Note("x")) is NOT_NOW
        await a.wait_closed()
        assert a.ask_now(Note("x")) is NOT_NOW
        with pytest.raises(ActorDead):
            await a.ask(Note("x"), timeout=1)

    log = run(main)
    assert log[-1] == ("a", Exit.NORMAL)


def test_a_killed_one() -> None:
    async def main(system: ActorSystem, a: Ref, log: Log) -> None:
        a.kill()
        assert a.ask_now(Note("x")) is NOT_NOW
        await a.wait_closed()

    run(main, Restart.TEMPORARY)


def test_faults_are_for_messages_in_the_mailbox() -> None:
    async def main(system: ActorSystem, a: Ref, log: Log) -> None:
        assert a.ask_now(Note("x")) is NOT_NOW
        begun = trio.current_time()
        assert await a.ask(Note("x"), timeout=10) == "x"
        assert trio.current_time() - begun >= 1

    run(main, faults=FaultPlan(0, (Slow("/a", 1.0),)))
