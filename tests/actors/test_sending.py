"""Many datagrams by one call: what the system may say to it, by a function that stands for `sendmmsg`."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from actors.sending import MESSAGE, ManySender, sender_for
from lkactor.srtp import SLOTS_AVAILABLE, SlotArray

pytestmark = pytest.mark.skipif(not SLOTS_AVAILABLE, reason="libsrtp's functions cannot be reached")


class System:
    """Takes messages as `answers` say: how many of a call at most, or an error."""

    def __init__(self, *answers: int) -> None:
        self._answers = list(answers)
        self.sent: list[tuple[int, int, int]] = []
        """(address of the first iovec, how many, size of segments or 0)."""
        self.calls = 0

    def __call__(self, fd: int, messages: int, count: int, flags: int) -> int:
        self.calls += 1
        assert flags == socket.MSG_DONTWAIT
        answer = self._answers.pop(0) if self._answers else count
        if answer < 0:
            ctypes.set_errno(-answer)
            return -1
        for index in range(min(answer, count)):
            message = MESSAGE.unpack(ctypes.string_at(messages + MESSAGE.size * index, MESSAGE.size))
            _, _, iovec, parts, control, size, *_ = message
            segment = struct.unpack_from("=H", ctypes.string_at(control, size), 16)[0] if control else 0
            self.sent.append((iovec, parts, segment))
        return min(answer, count)


def send(
    system: System, count: int, sizes: tuple[int, ...], first: int = 0, allow: Callable[[], bool] | None = None
) -> ManySender:
    sender = ManySender(7, system, allow or bool)
    messages = sender.prepare([b""] * (first + count), 0, len(sizes))
    sender.send(messages, first, count, sizes)
    return sender


def counters(sender: ManySender) -> tuple[int, int, int, int]:
    return sender.packets, sender.bytes, sender.buffer_full, sender.errors


def test_what_goes_in_parts_goes_on() -> None:
    system = System(2, 1, -errno.EINTR, 3)
    sender = send(system, 6, (100,))
    assert [iovec // 16 for iovec, *_ in system.sent] == [0, 1, 2, 3, 4, 5]
    assert counters(sender) == (6, 600, 0, 0)


def test_a_part_of_the_messages_can_be_sent() -> None:
    system = System()
    send(system, 2, (100, 50), first=3)
    assert system.sent == [(3 * 2 * 16, 2, 100), (4 * 2 * 16, 2, 100)]


@pytest.mark.parametrize("reason", [errno.EAGAIN, errno.ENOBUFS])
def test_what_does_not_fit_is_dropped_and_counted(reason: int) -> None:
    system = System(1, -reason, -reason)
    sender = send(system, 4, (100, 100))
    assert [iovec // 32 for iovec, *_ in system.sent] == [0, 3]
    assert counters(sender) == (4, 400, 4, 0)


def test_other_errors_are_counted_and_the_rest_goes_out() -> None:
    system = System(-errno.EPERM)
    sender = send(system, 3, (10,))
    assert (len(system.sent), counters(sender)) == (2, (2, 20, 0, 1))
    assert sender.gso, "it says nothing about runs"


@pytest.mark.parametrize("reason", [errno.EIO, errno.EINVAL, errno.ENOPROTOOPT])
def test_a_route_that_cannot_segment_gets_one_by_one(reason: int) -> None:
    system = System(-reason, 1, -errno.EAGAIN, 1)
    sender = send(system, 2, (100, 100, 60))
    assert [(iovec // 16, parts, segment) for iovec, parts, segment in system.sent] == [
        (0, 1, 0),
        (2, 1, 0),
        (3, 3, 100),
    ]
    assert counters(sender) == (5, 160 + 260, 1, 0)
    assert not sender.gso


def test_what_is_too_long_for_a_route_may_be_fragmented() -> None:
    asked: list[int] = []

    def allow() -> bool:
        asked.append(1)
        return len(asked) == 1

    system = System(-errno.EMSGSIZE, -errno.EMSGSIZE, 1, 1)
    sender = send(system, 1, (1400, 300), allow=allow)
    assert [(iovec // 16, parts) for iovec, parts, _ in system.sent] == [(0, 1), (1, 1)]
    assert (sender.gso, counters(sender), len(asked)) == (True, (2, 1700, 0, 0), 1)


def test_what_is_too_long_for_any_way_is_counted_and_says_nothing_about_runs() -> None:
    sender = send(System(-errno.EMSGSIZE, -errno.EMSGSIZE), 1, (1400,))
    assert (sender.gso, counters(sender)) == (True, (0, 0, 0, 1))


def test_a_system_that_takes_nothing_and_gives_no_reason_is_not_asked_for_ever() -> None:
    system = System(0, 0, 0)
    assert (counters(send(system, 3, (10,))), system.calls) == ((0, 0, 0, 3), 3)


@pytest.mark.parametrize("answer", [-errno.ENOSYS, -errno.EPERM])
def test_without_the_call_there_is_no_sender(answer: int) -> None:
    assert sender_for(7, call=System(answer)) is None
    assert sender_for(7, call=None) is None
    assert sender_for(7, call=System()) is not None


@pytest.fixture
def wire() -> Iterator[tuple[socket.socket, Callable[[], list[bytes]]]]:
    """Ours, and what came at the other end."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
    ):
        far.bind(("127.0.0.1", 0))
        far.setblocking(False)
        ours.connect(far.getsockname())

        def received() -> list[bytes]:
            found = []
            while True:
                try:
                    found.append(far.recv(4096))
                except BlockingIOError:
                    return found

        yield ours, received


def fill(slots: SlotArray, *packets: bytes) -> None:
    for index, packet in enumerate(packets):
        start = index * slots.slot_size
        slots.view[start : start + len(packet)] = packet
        slots.lengths[index] = len(packet)


def test_the_system_reads_what_was_prepared(wire: tuple[socket.socket, Callable[[], list[bytes]]]) -> None:
    ours, received = wire
    sender = sender_for(ours.fileno())
    assert sender is not None
    slots = SlotArray(8, 1664)
    fill(slots, b"a" * 30, b"b" * 30, b"c" * 9, b"d" * 30, b"e" * 30, b"f" * 9)
    sender.send(sender.prepare([b"", b""], slots.parts, 3), 0, 2, (30, 30, 9))
    assert received() == [b"a" * 30, b"b" * 30, b"c" * 9, b"d" * 30, b"e" * 30, b"f" * 9]
    sender.send(sender.prepare([b"", b"", b""], slots.parts, 1), 1, 2, (30,))
    assert received() == [b"b" * 30, b"c" * 9]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_each_message_has_its_address(family: int) -> None:
    from support.inline import packed

    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    ends = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(3)]
    try:
        for end in ends:
            end.bind((host, 0))
            end.settimeout(10)
        sender, slots = sender_for(ends[0].fileno()), SlotArray(2, 1664)
        assert sender is not None
        fill(slots, b"one", b"two")
        sender.send(sender.prepare([packed(end.getsockname()) for end in ends[1:]], slots.parts, 1), 0, 2, (3,))
        assert [end.recv(100) for end in ends[1:]] == [b"one", b"two"]
        assert counters(sender) == (2, 6, 0, 0)
    finally:
        for end in ends:
            end.close()
