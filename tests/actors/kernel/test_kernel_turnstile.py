"""Long turns of the event loop: patient actors go on in later ones, a few at a time; nothing is lost, media pass."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any

import pytest
import trio
from support.actor_leaks import run_actors
from support.probe_actors import Log, Note, Probe, does, maker
from support.turns import CountedTurns

from actors.kernel import ActorRef, ActorSystem, Restart
from actors.kernel.turnstile import MESSAGE, SENT_BACK, Turnstile

SHARE, AT_ONCE = 4 * MESSAGE, 4
CROWD = 5 * AT_ONCE


class Patient(Probe):
    patient = True


class Turns(CountedTurns):
    """Of which the test says whether they are long, too."""

    def __init__(self) -> None:
        super().__init__(SHARE)
        self.late = False

    def is_late(self) -> bool:
        return self.late


@pytest.fixture
def turns() -> Turns:
    return Turns()


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def one_that_waits(
    system: ActorSystem, turns: Turns, log: Log, message: object, restart: Restart = Restart.TEMPORARY
) -> ActorRef[Any]:
    """An actor that has come to `message` in a long turn, behind a crowd."""
    ref = await system.spawn(lambda: Patient(log, "a"), "a", restart=restart)
    others = [await system.spawn(lambda: Patient([], "b"), f"b{n}") for n in range(CROWD)]
    await settle()
    turns.late = True
    for other in others:
        other.tell(Note("before"))
    await trio.lowlevel.checkpoint()
    ref.tell(message)
    await trio.lowlevel.checkpoint()
    return ref


@pytest.mark.parametrize("kind", [Patient, Probe])
def test_of_a_crowd_a_few_go_on_in_each_turn_in_the_order_in_which_they_came(turns: Turns, kind: type[Probe]) -> None:
    handled: list[tuple[int, str]] = []

    async def main() -> None:
        async with ActorSystem(seed=0, turns=turns) as system:
            refs = [await system.spawn(lambda n=n: kind([], str(n)), str(n)) for n in range(CROWD)]
            await settle()
            turns.late = True
            for ref in refs:
                ref.tell(does(lambda probe: handled.append((turns.number, probe.name))))
            await settle()
            turns.late = False

    run_actors(main, instruments=[turns])
    in_turn = Counter(number for number, _ in handled)
    assert sum(in_turn.values()) == CROWD
    if kind is Patient:
        assert max(in_turn.values()) == AT_ONCE
    else:
        assert len(in_turn) == 1, "who is no part of a crowd does not wait"


@pytest.mark.parametrize(("cost", "at_once"), [(SHARE, 1), (SHARE / 2, 2), (SHARE / 8, AT_ONCE)])
def test_as_many_go_on_in_one_turn_as_its_share_lasts_for(turns: Turns, cost: float, at_once: int) -> None:
    handled: list[int] = []

    async def main() -> None:
        async with ActorSystem(seed=0, turns=turns) as system:
            refs = [await system.spawn(lambda: Patient([], "a"), str(n)) for n in range(CROWD)]
            await settle()
            turns.late = True

            def handle(probe: Probe) -> None:
                handled.append(turns.number)
                turns.spent += cost

            for ref in refs:
                ref.tell(does(handle))
            await settle()
            turns.late = False

    run_actors(main, instruments=[turns])
    assert len(handled) == CROWD
    # Somebody who has been sent back often enough may come on top of it.
    assert 0 <= max(Counter(handled).values()) - at_once <= (at_once < AT_ONCE)


def test_what_others_do_in_a_turn_is_not_taken_from_the_share(turns: Turns) -> None:
    handled: list[int] = []

    async def main() -> None:
        async with ActorSystem(seed=0, turns=turns) as system, trio.open_nursery() as nursery:
            refs = [await system.spawn(lambda: Patient([], "a"), str(n)) for n in range(CROWD)]
            await settle()

            async def work() -> None:
                while len(handled) < CROWD:
                    turns.spent += 10 * SHARE
                    await trio.lowlevel.checkpoint()

            turns.late = True
            for ref in refs:
                ref.tell(does(lambda probe: handled.append(turns.number)))
            nursery.start_soon(work)
            await settle()
            turns.late = False

    run_actors(main, instruments=[turns])
    assert max(Counter(handled).values()) == AT_ONCE


def test_whose_share_was_used_up_keeps_its_place(turns: Turns) -> None:
    """Trio shuffles those that are let in together: somebody may be sent back SENT_BACK times, and no more."""
    order: list[int] = []

    async def main() -> None:
        turnstile, places = Turnstile(turns), count()

        async def go_through() -> None:
            place = next(places)
            await turnstile.wait(nursery.start_soon)
            order.append(place)
            turns.spent += SHARE

        async with trio.open_nursery() as nursery:
            for _ in range(CROWD):
                nursery.start_soon(go_through)

    run_actors(main, instruments=[turns])
    assert sorted(order) == list(range(CROWD))
    assert all(at - place < SENT_BACK * AT_ONCE for at, place in enumerate(order))


def test_who_was_let_in_stops_when_the_share_is_used_up(turns: Turns) -> None:
    handled: list[int] = []

    async def main() -> None:
        async with ActorSystem(seed=0, turns=turns) as system:
            ref = await system.spawn(lambda: Patient([], "a"), "a")
            await settle()
            turns.late = True

            def handle(probe: Probe) -> None:
                handled.append(turns.number)
                turns.spent += SHARE / 2

            for _ in range(10):
                ref.tell(does(handle))
            await settle()
            turns.late = False

    run_actors(main, instruments=[turns])
    assert len(handled) == 10
    assert max(Counter(handled).values()) == 2


def test_an_actor_with_much_to_do_leaves_the_rest_of_a_long_turn_to_others(turns: Turns) -> None:
    handled: list[int] = []

    async def main() -> None:
        async with ActorSystem(seed=0, turns=turns) as system:
            ref = await system.spawn(maker([], "busy"), "busy")
            await settle()
            turns.late = True
            for _ in range(10):
                ref.tell(does(lambda probe: handled.append(turns.number)))
            await settle()
            turns.late = False

    run_actors(main, instruments=[turns])
    assert len(handled) == len(set(handled)) == 10


def test_what_waits_is_handled_by_the_next_incarnation_if_its_actor_is_killed(turns: Turns) -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0, turns=turns) as system:
            ref = await one_that_waits(system, turns, log, Note("kept"), Restart.PERMANENT)
            assert ("a", "kept") not in log
            ref.kill()
            await settle()
            turns.late = False
            await trio.sleep(10)
            assert ref.incarnation == 2

    run_actors(main)
    assert [what for _, what in log].count("kept") == 1


def test_media_pass_an_actor_that_waits(turns: Turns) -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0, turns=turns) as system:
            ref = await one_that_waits(system, turns, log, Note("control"))
            link = ref.link("media")
            with system.media_turn:
                link.push(1)
            assert log[-1] == ("a", ("media", (1,)))
            await settle()
            assert log[-1] == ("a", "control")
            turns.late = False

    run_actors(main)


def test_media_pass_an_actor_that_was_let_in_and_waits_again(turns: Turns) -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0, turns=turns) as system:

            def use_up(probe: Probe) -> None:
                turns.spent += SHARE
                probe.say("first")

            class Pusher(trio.abc.Instrument):
                """As soon as the actor has handled the first message, and has come to the next one."""

                def after_task_step(self, task: trio.lowlevel.Task) -> None:
                    if log[-1] == ("a", "first"):
                        with system.media_turn:
                            link.push(1)
                        log.append(("test", "pushed"))

            ref = await one_that_waits(system, turns, log, does(use_up))
            link = ref.link("media")
            ref.tell(Note("next"))
            pusher = Pusher()
            trio.lowlevel.add_instrument(pusher)
            await settle()
            trio.lowlevel.remove_instrument(pusher)
            turns.late = False

    run_actors(main, instruments=[turns])
    assert [what for _, what in log][1:5] == ["first", ("media", (1,)), "pushed", "next"]


def test_a_system_whose_turns_are_all_long_still_ends(turns: Turns) -> None:
    turns.late = True

    async def main() -> None:
        async with ActorSystem(seed=0, turns=turns) as system:
            for n in range(CROWD):
                await system.spawn(lambda: Patient([], "a"), f"a{n}")

    run_actors(main)
