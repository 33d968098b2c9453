"""Death watch; timers."""

from __future__ import annotations

import itertools

import pytest
import trio
import trio.testing
from support.actor_leaks import run_actors
from support.probe_actors import Boom, Crash, Do, Log, Note, Probe, does, maker

from actors.kernel import ActorRef, ActorSystem, Exit, Restart, Restarted, Strategy, Terminated, Timer
from actors.kernel.timers import AT_ONCE, TimerQueue

Ref = ActorRef[object]


def watch(ref: Ref) -> Do:
    return does(lambda probe: probe.context.watch(ref))


def news(log: Log) -> list[object]:
    return [what for name, what in log if name == "w" and isinstance(what, Terminated | Restarted)]


def test_watch_tells_of_restarts_and_once_of_the_end() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            w = await system.spawn(maker(log, "w"), "w")
            a = await system.spawn(maker(log, "a"), "a", restart=Restart.TRANSIENT)
            await w.ask(watch(a), timeout=1)
            await w.ask(watch(a), timeout=1)
            a.tell(Crash("one"))
            await trio.sleep(1)
            a.kill()
            await trio.sleep(1)
            a.stop()
            await trio.sleep(1)
            first, second, third = news(log)
            assert isinstance(first, Restarted) and first.incarnation == 2 and isinstance(first.error, Boom)
            assert second == Restarted(a, 3, None)
            assert third == Terminated(a, Exit.STOPPED, None)

    run_actors(main)


@pytest.mark.parametrize("how", ["stop", "crash", "kill"])
def test_watching_the_dead_tells_at_once(how: str) -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            w = await system.spawn(maker(log, "w"), "w")
            a = await system.spawn(maker(log, "a"), "a")
            {"stop": a.stop, "crash": lambda: a.tell(Crash()), "kill": a.kill}[how]()
            await a.wait_closed()
            await w.ask(watch(a), timeout=1)
            await w.ask(Note("sync"), timeout=1)
            (end,) = news(log)
            assert isinstance(end, Terminated)
            assert end.exit is {"stop": Exit.STOPPED, "crash": Exit.FAILED, "kill": Exit.KILLED}[how]
            assert isinstance(end.error, Boom) is (how == "crash")

    run_actors(main)


def test_unwatch_holds_even_for_what_is_queued() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            w = await system.spawn(maker(log, "w"), "w")
            a = await system.spawn(maker(log, "a"), "a", restart=Restart.TRANSIENT)

            async def let_it_die(probe: Probe) -> None:
                probe.context.watch(a)
                a.tell(Crash())
                await trio.sleep(1)
                a.stop()
                await a.wait_closed()
                probe.context.unwatch(a)

            await w.ask(Do(let_it_die), timeout=5)
            await w.ask(Note("sync"), timeout=1)
            assert news(log) == []

    run_actors(main)


def test_watches_end_with_the_watchers_incarnation() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            w = await system.spawn(maker(log, "w"), "w", restart=Restart.TRANSIENT)
            a = await system.spawn(maker(log, "a"), "a")
            await w.ask(watch(a), timeout=1)
            w.tell(Crash())
            await trio.sleep(1)
            a.stop()
            await trio.sleep(1)
            assert news(log) == []
            await w.ask(watch(a), timeout=1)
            await w.ask(Note("sync"), timeout=1)
            assert news(log) == [Terminated(a, Exit.STOPPED, None)]

    run_actors(main)


def test_a_dead_watcher_is_forgotten() -> None:
    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            w = await system.spawn(maker([], "w"), "w")
            a = await system.spawn(maker([], "a"), "a")
            await w.ask(watch(a), timeout=1)
            w.stop()
            await w.wait_closed()
            assert not a.cell._watchers

    run_actors(main)


def test_timers_fire_in_order_at_their_time_and_not_after_cancel() -> None:
    log: Log = []
    start = 0.0

    async def main() -> None:
        nonlocal start
        start = trio.current_time()
        async with ActorSystem(seed=0) as system:
            a = await system.spawn(maker(log, "a"), "a")

            async def schedule(probe: Probe) -> None:
                for delay, text in ((3, "c"), (1, "a"), (2, "b1"), (2, "b2"), (2, "gone"), (0, "now"), (-1, "past")):
                    timer = probe.context.schedule(delay, does(lambda p, text=text: p.say((text, p.context.now()))))  # type: ignore[misc]
                    if text == "gone":
                        timer.cancel()
                        timer.cancel()
                        assert timer.cancelled and not timer.pending

            a.tell(Do(schedule))
            await trio.sleep(10)
            assert len(system.timers) == 0

    run_actors(main)
    fired = [what for _, what in log if isinstance(what, tuple)]
    assert sorted(text for text, _ in fired[:2]) == ["now", "past"]
    assert [text for text, _ in fired[2:]] == ["a", "b1", "b2", "c"]
    assert [round(when - start, 6) for _, when in fired] == [0, 0, 1, 2, 2, 3]


def test_a_cancelled_timer_does_not_arrive_even_if_it_is_queued() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            a = await system.spawn(maker(log, "a"), "a")

            async def step(probe: Probe) -> None:
                timer = probe.context.schedule(1, Note("never"))
                await trio.sleep(2)
                assert timer.fired
                timer.cancel()

            await a.ask(Do(step), timeout=5)
            await a.ask(Note("sync"), timeout=1)

    run_actors(main)
    assert "never" not in [what for _, what in log]


@pytest.mark.parametrize("queued", [False, True])
def test_timers_end_with_their_incarnation(queued: bool) -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            a = await system.spawn(maker(log, "a"), "a", restart=Restart.PERMANENT)

            async def step(probe: Probe) -> None:
                probe.context.schedule(1, Note("never"))
                if queued:
                    await trio.sleep(2)
                raise Boom

            a.tell(Do(step))
            await trio.sleep(10)
            assert a.incarnation == 2

    run_actors(main)
    assert "never" not in [what for _, what in log]


def test_a_sleeping_timer_does_not_delay_a_stop() -> None:
    async def main() -> float:
        async with ActorSystem(seed=0, strategy=Strategy(grace=5)) as system:
            a = await system.spawn(maker([], "a"), "a")
            await a.ask(does(lambda probe: probe.context.schedule(1000, Note("x"))), timeout=1)
            start = trio.current_time()
        return trio.current_time() - start

    assert run_actors(main) == 0


def test_timers_bypass_a_full_mailbox() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            a = await system.spawn(maker(log, "a"), "a")

            async def step(probe: Probe) -> None:
                probe.context.schedule(1, Note("timer"))
                for _ in range(256):
                    a.tell(Note("filler"))
                await trio.sleep(2)

            await a.ask(Do(step), timeout=5)
            await trio.sleep(1)

    run_actors(main)
    assert ("a", "timer") in log


def test_cancelled_timers_do_not_pile_up() -> None:
    async def main() -> None:
        queue = TimerQueue()
        group: set[Timer] = set()
        for n in range(10_000):
            queue.at(1e9 + n, lambda: None, group).cancel()
        keep = queue.at(2e9, lambda: None, group)
        assert len(queue) == 1 and group == {keep}
        assert len(queue._heap) < 200

    trio.run(main)


def test_a_timer_that_is_cancelled_wakes_nobody() -> None:
    """A connection that keeps alive sets one for each check, and takes it back a millisecond later."""

    class Steps(trio.abc.Instrument):
        count = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.count += task.name.endswith("TimerQueue.run")

    async def main() -> None:
        queue, steps, fired = TimerQueue(), Steps(), []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.run)
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.add_instrument(steps)
            queue.at(5.5, lambda: fired.append(trio.current_time()))
            for n in range(3):
                queue.at(1.0 + n, lambda: fired.append("in vain")).cancel()
            await trio.sleep(5)
            assert steps.count == 0
            await trio.sleep(1)
            assert fired == [5.5] and len(queue) == 0
            nursery.cancel_scope.cancel()

    run_actors(main)


def test_timers_that_are_due_together_share_no_turn_with_all_the_others() -> None:
    """Those of a thousand connections that only keep alive go off at the same quarter of a second."""
    most, together = AT_ONCE, 10 * AT_ONCE + 1

    class Turns(trio.abc.Instrument):
        def __init__(self) -> None:
            self.fired: list[int] = []

        def before_io_wait(self, timeout: float) -> None:
            self.fired.append(len(order))

    order: list[int] = []

    async def main() -> None:
        queue, turns = TimerQueue(), Turns()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.run)
            for n in range(together):
                queue.at(5.0, lambda n=n: order.append(n))  # type: ignore[misc]
            late = queue.at(5.0, lambda: order.append(-1))
            trio.lowlevel.add_instrument(turns)
            queue.at(4.0, late.cancel)
            await trio.sleep(6)
            assert order == list(range(together)) and trio.current_time() == 6
            steps = [after - before for before, after in itertools.pairwise(turns.fired)]
            assert max(steps) == most and sum(step > 0 for step in steps) == 11
            nursery.cancel_scope.cancel()

    run_actors(main)
