"""Random trees under random blows: the invariants hold, and a seed replays its run."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from support.actor_leaks import (
    Cells,
    TaskCounter,
    assert_nothing_left,
    cells_recorded,
    deterministic_scheduling,
    run_actors,
)
from support.probe_actors import Crash, Do, Note, Probe, maker

from actors.kernel import (
    Actor,
    ActorDead,
    ActorError,
    ActorRef,
    ActorSystem,
    AskTimeout,
    Exit,
    FailNext,
    FaultPlan,
    Group,
    Kill,
    LinkFault,
    MailboxFull,
    MediaLink,
    Restart,
    RestartIntensityExceeded,
    Slow,
    Strategy,
)

Trace = list[tuple[object, ...]]


def tree_of(depth: int, width: int) -> Any:
    """A factory of actors with `width` children each, `depth` levels."""

    async def children(probe: Probe) -> None:
        for n in range(width if depth else 0):
            await probe.context.spawn(tree_of(depth - 1, width), str(n))

    return maker([], f"level {depth}", on_started=children)


@pytest.mark.parametrize("how", ["stop", "kill", "leave the block"])
def test_a_tree_of_a_thousand_starts_and_goes(how: str) -> None:
    async def main() -> None:
        async with ActorSystem(seed=0) as system:
            ref = await system.spawn(tree_of(3, 10), "top")
            assert len(system.tree()) == 1111
            if how != "leave the block":
                ref.stop() if how == "stop" else ref.kill()
                await ref.wait_closed()
                assert system.tree() == []

    run_actors(main)


class Node(Actor[Any]):
    """A node of the random tree. Checks in every callback what the kernel promises."""

    def __init__(self, rng: random.Random, trace: Trace, depth: int) -> None:
        self.rng, self.trace, self.depth = rng, trace, depth
        self.busy = False
        self.up = False
        self.left = False

    async def started(self) -> None:
        self.trace.append(
            (self.context.ref.path, "started", self.context.ref.incarnation, round(self.context.now(), 6))
        )
        for n in range(self.rng.randint(0, 3) if self.depth else 0):
            await self.context.spawn(
                lambda: Node(self.rng, self.trace, self.depth - 1),
                str(n),
                restart=self.rng.choice(list(Restart)),
                strategy=random_strategy(self.rng),
            )
        self.context.start_soon(self.tick)
        self.up = True

    async def tick(self) -> None:
        while True:
            await trio.sleep(self.context.random.uniform(0.05, 0.5))
            self.context.ref.link("self").push("tick")

    async def receive(self, message: Any) -> object:
        assert self.up and not self.busy and not self.left
        self.busy = True
        if isinstance(message, Crash):
            raise ValueError(message.text)
        if isinstance(message, Do):
            await trio.sleep(self.rng.uniform(0, 0.3))
        if message == "leave":
            self.context.stop()
        self.busy = False
        return self.context.ref.incarnation

    def receive_media(self, link: MediaLink) -> None:
        assert self.up and not self.busy and not self.left
        link.drain()

    async def stopping(self, exit: Exit) -> None:
        assert self.up and not self.left
        assert self.context.children == ()
        self.left = True
        self.trace.append(
            (self.context.ref.path, exit.value, self.context.ref.incarnation, round(self.context.now(), 6))
        )
        if self.rng.random() < 0.1:
            await trio.sleep(1)


def random_strategy(rng: random.Random) -> Strategy:
    return Strategy(rng.choice(list(Group)), rng.choice([1, 3, 10]), 1.0, 0.02, 0.5, rng.choice([0.1, 2.0]))


async def blow(system: ActorSystem, rng: random.Random) -> None:
    """One random thing done to one random actor."""
    rows = system.tree()
    if not rows:
        return
    ref = system.find(rng.choice(rows).path)
    assert ref is not None
    try:
        match rng.randrange(6):
            case 0:
                ref.kill()
            case 1 if rng.random() < 0.2:
                ref.stop()
            case 2:
                ref.tell(Crash("blow"))
            case 3:
                ref.tell("leave")
            case 4:
                ref.tell(Do(trio.sleep_forever))  # type: ignore[arg-type]
            case _:
                await ref.ask(Note("ping"), timeout=0.2)
    except ActorError as error:
        assert isinstance(error, MailboxFull | ActorDead | AskTimeout)


def check(system: ActorSystem, cells: Cells) -> None:
    """What must be true at any moment between two turns of the loop."""
    rows = system.tree()
    paths = [row.path for row in rows]
    assert len(set(paths)) == len(paths)
    assert set(paths) == set(system.cells) - {"/"}
    for cell in cells.seen:
        ended = cell.closed.is_set()
        assert ended is (cell.exit is not None)
        if ended:
            assert not cell.children and not cell._timers and not cell.alive
        else:
            assert cell.parent is None or cell.parent.children[cell.name] is cell
            assert cell.parent is None or not cell.parent.closed.is_set()
            assert cell.mailbox.pending >= 0


async def chaos(seed: int, trace: Trace, steps: int = 60) -> None:
    rng = random.Random(seed)
    counter = TaskCounter()
    trio.lowlevel.add_instrument(counter)
    before = set(counter.living)
    with cells_recorded() as cells:
        system = ActorSystem(seed=seed, strategy=random_strategy(rng))
        try:
            async with system:
                for n in range(3):
                    factory = lambda: Node(rng, trace, 3)  # noqa: E731
                    await system.spawn(
                        factory, f"top{n}", restart=rng.choice(list(Restart)), strategy=random_strategy(rng)
                    )
                for _ in range(steps):
                    await blow(system, rng)
                    await trio.sleep(rng.choice([0.0, 0.01, 0.1]))
                    check(system, cells)
        except RestartIntensityExceeded as error:
            trace.append(("escalated", error.path, error.child))
        await trio.testing.wait_all_tasks_blocked()
        assert_nothing_left(counter, before, cells, (system,))
    trio.lowlevel.remove_instrument(counter)


def run_chaos(seed: int) -> Trace:
    trace: Trace = []
    with deterministic_scheduling(seed):
        trio.run(chaos, seed, trace, clock=trio.testing.MockClock(autojump_threshold=0))
    return trace


@pytest.mark.parametrize("seed", range(40))
def test_invariants_hold_under_random_blows(seed: int) -> None:
    run_chaos(seed)


def test_the_same_seed_replays_the_same_chaos() -> None:
    first = [run_chaos(seed) for seed in range(5)]
    assert [run_chaos(seed) for seed in range(5)] == first
    assert len({str(trace) for trace in first}) == 5


def faulty_run(seed: int) -> Trace:
    """Five actors that talk, under a plan of every kind of randomness; what happened, in order."""
    trace: Trace = []
    plan = FaultPlan(
        seed,
        (
            Kill("/*", at=1.0),
            FailNext("/1", ValueError("planned"), on=str),
            Slow("/2", 0.01),
            LinkFault("/*", loss=0.2, delay=0.01, reorder=0.3, duplicate=0.1),
        ),
    )

    class Talker(Actor[Any]):
        async def started(self) -> None:
            self.context.schedule(self.context.random.random(), "go")

        async def receive(self, message: Any) -> None:
            trace.append((self.context.ref.path, message, round(self.context.now() - start, 9)))
            if isinstance(message, int) and self.context.random.random() < 0.5:
                return
            target: ActorRef[Any] = self.context.random.choice(refs)
            target.link("media").push(len(trace))
            try:
                target.tell(len(trace))
            except ActorDead:
                trace.append(("dead", target.path))
            if message == "go":
                self.context.schedule(self.context.random.random() / 10, "go")

        def receive_media(self, link: MediaLink) -> None:
            trace.append((self.context.ref.path, tuple(link.drain())))

    refs: list[ActorRef[Any]] = []
    start = 0.0

    async def main() -> None:
        nonlocal start
        start = trio.current_time()

        def note(kind: str, path: str, _detail: str) -> None:
            trace.append((kind, path))

        async with ActorSystem(seed=seed, faults=plan, on_event=note, strategy=Strategy(intensity=1000)) as system:
            for n in range(5):
                refs.append(await system.spawn(Talker, str(n), restart=Restart.PERMANENT))
            await trio.sleep(2)

    with deterministic_scheduling(seed):
        run_actors(main)
    return trace


def test_the_same_seed_replays_the_same_faults() -> None:
    first = faulty_run(7)
    assert len(first) > 100
    assert faulty_run(7) == first
    assert faulty_run(8) != first
