"""What is said in a long turn of the loop is written in the next ones: in order, all of it, a bounded part in each."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
import trio.testing

from actors.front.writing import FEWEST, MANY, LateWrites, Writer
from actors.looptime import TURN, LoopTime

Story = Callable[["Stage"], Awaitable[None]]


class Turns(LoopTime):
    """Turns as long as the test says."""

    length = 0.0

    def turn_so_far(self) -> float:
        return self.length


class Stage:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.turns = Turns()
        self.late = LateWrites(self.turns)
        self.nursery = nursery
        self.pairs: list[tuple[socket.socket, socket.socket]] = []

    def writer(self) -> tuple[Writer, socket.socket]:
        ours, theirs = socket.socketpair()
        self.pairs.append((ours, theirs))
        for end in (ours, theirs):
            end.setblocking(False)
        return Writer(ours, self.nursery.start_soon, self.late), theirs

    def close(self) -> None:
        for pair in self.pairs:
            for end in pair:
                end.close()


def heard(end: socket.socket) -> bytes:
    """Nothing: b""."""
    try:
        return end.recv(1 << 20)
    except BlockingIOError:
        return b""


def play(story: Story) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            stage = Stage(nursery)
            try:
                await story(stage)
            finally:
                nursery.cancel_scope.cancel()
                stage.close()

    trio.run(main)


@pytest.fixture(params=["short", "long"])
def length(request) -> Iterator[float]:
    yield {"short": TURN / 2, "long": TURN * 2}[request.param]


def test_in_a_short_turn_it_is_written_at_once() -> None:
    async def story(stage: Stage) -> None:
        writer, theirs = stage.writer()
        writer.write(b"one")
        assert (heard(theirs), writer.waiting) == (b"one", 0)
        await writer.drained()

    play(story)


def test_in_a_long_turn_it_waits_and_goes_in_order() -> None:
    async def story(stage: Stage) -> None:
        writer, theirs = stage.writer()
        stage.turns.length = TURN
        writer.write(b"one ")
        stage.turns.length = 0.0
        writer.write(b"two ")
        assert (heard(theirs), writer.waiting) == (b"", 2)
        await writer.drained()
        assert (heard(theirs), writer.waiting) == (b"one two ", 0)
        writer.write(b"three")
        assert heard(theirs) == b"three"

    play(story)


def test_a_turn_writes_to_a_few_and_all_have_their_turn() -> None:
    async def story(stage: Stage) -> None:
        stage.turns.length = TURN
        crowd = [stage.writer() for _ in range(3 * FEWEST + 1)]
        for writer, _ in crowd:
            writer.write(b"news")
        seen: list[int] = []

        class EachTurn(trio.abc.Instrument):
            def before_io_wait(self, timeout: float) -> None:
                seen.append(sum(heard(theirs) == b"news" for _, theirs in crowd))

        watching = EachTurn()
        trio.lowlevel.add_instrument(watching)
        for writer, _ in crowd:
            await writer.drained()
        await trio.lowlevel.checkpoint()
        trio.lowlevel.remove_instrument(watching)
        assert [count for count in seen if count] == [FEWEST] * 3 + [1]
        assert all(writer.waiting == 0 for writer, _ in crowd)
        crowd[0][0].write(b"again")
        await crowd[0][0].drained()
        assert heard(crowd[0][1]) == b"again", "the next one who is late finds somebody who writes"

    play(story)


def test_last_words_do_not_wait_and_overtake_nothing(length: float) -> None:
    async def story(stage: Stage) -> None:
        writer, theirs = stage.writer()
        stage.turns.length = length
        writer.write(b"one ")
        writer.write_now(b"last")
        assert heard(theirs) == b"one last"
        await trio.testing.wait_all_tasks_blocked()
        assert heard(theirs) == b"", "nothing twice"

    play(story)


def test_who_has_much_to_say_in_one_turn_is_not_taken_for_slow() -> None:
    async def story(stage: Stage) -> None:
        writer, theirs = stage.writer()
        stage.turns.length = TURN
        most = 0
        for _ in range(10 * MANY):
            writer.write(b"x")
            most = max(most, writer.waiting)
        await writer.drained()
        assert most <= MANY
        assert heard(theirs) == b"x" * 10 * MANY

    play(story)


def test_what_the_socket_does_not_take_waits_for_it(length: float) -> None:
    async def story(stage: Stage) -> None:
        writer, theirs = stage.writer()
        stage.turns.length = length
        pieces = [bytes([number]) * 300_000 for number in range(4)]
        for piece in pieces:
            writer.write(piece)
        got = b""
        with trio.fail_after(10):
            while len(got) < sum(map(len, pieces)):
                await trio.lowlevel.wait_readable(theirs)
                got += heard(theirs)
            await writer.drained()
        assert got == b"".join(pieces)
        assert writer.waiting == 0

    play(story)


def test_a_broken_socket_keeps_nobody_waiting(length: float) -> None:
    async def story(stage: Stage) -> None:
        writer, theirs = stage.writer()
        stage.turns.length = length
        theirs.close()
        for _ in range(3):
            writer.write(b"anybody?")
            with trio.fail_after(10):
                await writer.drained()
        assert writer.broken and writer.waiting == 0

    play(story)
