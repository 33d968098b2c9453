"""The lanes: bounds, order, links, the quantum."""

from __future__ import annotations

import itertools
from typing import ClassVar

import pytest
import trio
from support.actor_leaks import run_actors
from support.probe_actors import Do, Log, Note, Probe, does, hang, maker

from actors.kernel import Actor, ActorSystem, Exit, MailboxFull, MediaLink, Terminated
from actors.kernel.cell import QUANTUM


class Small(Probe):
    mailbox_capacity: ClassVar[int] = 3


def test_a_full_mailbox_raises_counts_and_still_takes_system_messages() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(lambda: Small(log), "a")
            other = await system.spawn(maker(log, "b"), "b")
            await ref.ask(does(lambda probe: probe.context.watch(other)), timeout=1)
            for n in range(3):
                ref.tell(Note(str(n)))
            with pytest.raises(MailboxFull, match=r"/a: mailbox full \(3 messages\)"):
                ref.tell(Note("too many"))
            with pytest.raises(MailboxFull):
                await ref.ask(Note("too many"), timeout=1)
            (row,) = [row for row in system.tree() if row.path == "/a"]
            assert (row.depth, row.refused) == (3, 2)
            other.stop()
            await trio.testing.wait_all_tasks_blocked()
            ref.tell(Note("room again"))
            await trio.testing.wait_all_tasks_blocked()
            assert [row.depth for row in system.tree()] == [0]

    run_actors(main)
    said = [what for name, what in log if name == "probe"]
    assert [s for s in said if isinstance(s, str)] == ["started", "0", "1", "2", "room again"]
    assert sum(isinstance(s, Terminated) for s in said) == 1


def test_the_default_bound_is_256() -> None:
    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker([], "a"), "a")
            for _ in range(256):
                ref.tell(Note(""))
            with pytest.raises(MailboxFull):
                ref.tell(Note(""))

    run_actors(main)


def test_a_full_actor_can_still_be_stopped() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(lambda: Small(log), "a")
            ref.tell(Note("1"))
            ref.tell(Note("2"))
            ref.tell(Note("3"))
            ref.stop()
            await ref.wait_closed()

    run_actors(main)
    assert [what for _, what in log] == ["started", "1", "2", "3", Exit.STOPPED]


def test_order_is_fifo_per_sender() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system, trio.open_nursery() as nursery:
            ref = await system.spawn(maker(log, "a"), "a")

            async def send(sender: str) -> None:
                for n in range(50):
                    ref.tell(Note(f"{sender}{n}"))
                    await trio.lowlevel.checkpoint()

            for sender in "xyz":
                nursery.start_soon(send, sender)

    run_actors(main)
    notes = [str(what) for _, what in log[1:-1]]
    for sender in "xyz":
        assert [note for note in notes if note[0] == sender] == [f"{sender}{n}" for n in range(50)]


def test_a_link_rings_once_per_burst() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker(log, "a"), "a")
            link = ref.link("in")
            for n in range(5):
                link.push(n)
            ref.tell(Note("after one ring"))
            for n in range(5, 9):
                link.push(n)
            await trio.testing.wait_all_tasks_blocked()
            link.push("next burst")
            await trio.testing.wait_all_tasks_blocked()
            assert (link.pushed, link.dropped) == (10, 0)

    run_actors(main)
    assert [what for _, what in log][1:-1] == [("in", tuple(range(9))), "after one ring", ("in", ("next burst",))]


def test_a_full_link_drops_the_oldest_and_counts() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker(log, "a"), "a")
            link, other = ref.link("in", 4), ref.link("other", 4)
            for n in range(10):
                link.push(n)
            other.push("kept")
            assert (link.dropped, other.dropped, len(link)) == (6, 0, 4)
            assert [row.dropped for row in system.tree()] == [6]

    run_actors(main)
    assert ("a", ("in", (6, 7, 8, 9))) in log
    assert ("a", ("other", ("kept",))) in log


def test_a_link_by_name_is_one_link_and_can_be_resized() -> None:
    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker([], "a"), "a")
            link = ref.link("in", 4)
            for n in range(4):
                link.push(n)
            assert ref.link("in", 2) is link
            assert (link.capacity, link.dropped, len(link)) == (2, 2, 2)
            link.push(4)
            assert link.dropped == 3
            assert list(link.drain()) == [3, 4]
            assert len(link) == 0
            with pytest.raises(ValueError, match="at least 1"):
                ref.link("none", 0)
            with pytest.raises(ValueError, match="at least 1"):
                ref.link("in", 0)

    run_actors(main)


def test_closed_links_and_links_of_the_dead_only_count_drops() -> None:
    log: Log = []

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker(log, "a"), "a")
            link = ref.link("in")
            link.push(1)
            link.close()
            link.push(2)
            assert link.dropped == 2
            again = ref.link("in")
            assert again is not link
            again.push(3)
            assert [row.dropped for row in system.tree()] == [2]
            ref.kill()
            await ref.wait_closed()
            again.push(4)
            assert again.dropped == 2
            late = ref.link("late")
            late.push(5)
            assert late.dropped == 1

    run_actors(main)
    assert [what for _, what in log] == ["started"]


def test_closed_links_are_forgotten_by_the_mailbox() -> None:
    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker([], "a"), "a")
            for n in range(1000):
                link = ref.link(f"source-{n}", 1)
                link.push(1)
                link.push(2)
                link.close()
            assert len(ref.cell.mailbox.links) < 100
            assert [row.dropped for row in system.tree()] == [2000]

    run_actors(main)


def test_what_a_handler_does_not_drain_waits_for_the_next_push() -> None:
    seen: list[int] = []

    class OneByOne(Actor[object]):
        def receive_media(self, link: MediaLink) -> None:
            seen.append(len(link))
            if len(link) == 2:
                link.drain()

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            link = (await system.spawn(OneByOne, "a")).link("in")
            for _ in range(2):
                link.push(0)
                await trio.testing.wait_all_tasks_blocked()

    run_actors(main)
    assert seen == [1, 2]


def test_a_busy_actor_gives_the_loop_away_after_its_quantum() -> None:
    handled: list[int] = []
    between: list[int] = [0]

    class Counter(Actor[int]):
        mailbox_capacity: ClassVar[int] = 10 * QUANTUM

        async def receive(self, message: int) -> None:
            handled.append(message)

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(Counter, "a")
            for n in range(10 * QUANTUM):
                ref.tell(n)
            while len(handled) < 10 * QUANTUM:
                await trio.lowlevel.checkpoint()
                between.append(len(handled))

    run_actors(main)
    # Trio shuffles: the actor may be last in one pass over the runnable tasks and first in the next.
    assert {after - before for before, after in itertools.pairwise(between)} <= {0, QUANTUM, 2 * QUANTUM}
    assert between[-1] == 10 * QUANTUM


def test_tree_shows_state_depth_and_type() -> None:
    log: Log = []

    async def child(probe: Probe) -> None:
        await probe.context.spawn(maker(log, "b"), "b")

    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(maker(log, "a", on_started=child), "a")
            ref.tell(Do(hang))
            await trio.testing.wait_all_tasks_blocked()
            ref.tell(Note("waits"))
            a, b = system.tree()
            assert (a.path, a.type, a.state, a.incarnation, a.depth, a.restarts) == ("/a", "Probe", "running", 1, 1, 0)
            assert b.path == "/a/b"
            ref.kill()

    run_actors(main)
