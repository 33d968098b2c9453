"""Slow readers of reliable data: their measured rate, who is dropped for, who holds the room up."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

from lkactor.peer.backlog import BUSY, SLICE, WINDOW, DrainRate, Received
from lkactor.peer.channels import LOSSY, RELIABLE, SHORT_HIGH_WATER, SHORT_LOW_WATER, DataChannels
from lkactor.sctp import SctpAssociation

THRESHOLD = 20_000


class Queue:
    """An association whose reader takes what it is told to take."""

    def __init__(self) -> None:
        self.level = 0
        self.sent: list[bytes] = []

    def buffered_amount(self, channel: int) -> int:
        return self.level

    def send(self, channel: int, payload: bytes, *, now: float) -> None:
        self.level += len(payload)
        self.sent.append(payload)

    def reads(self, size: float) -> None:
        self.level = max(0, self.level - int(size))


def opened(threshold: int) -> tuple[DataChannels, Queue, SctpAssociation]:
    channels, queue = DataChannels(slow_threshold=threshold), Queue()
    sctp = cast(SctpAssociation, cast(Any, queue))
    for number, label in enumerate((RELIABLE, LOSSY)):
        channels.opened(number, label, sctp, 0.0)
    return channels, queue, sctp


def test_idle_time_is_not_slowness() -> None:
    rate, now = DrainRate(), 0.0
    for _ in range(100):
        rate.queued(800)
        rate.sample(0, now)  # 800 bytes are taken at once ...
        now += WINDOW + 1e-6
        rate.sample(0, now)
        now += 10.0  # ... and for long nothing is there to be taken
        rate.sample(0, now)
    assert rate.bits_per_second == pytest.approx(64_000, rel=0.01)


@pytest.mark.parametrize("bits", [8_000, 64_000])
def test_the_rate_is_that_of_the_last_busy_seconds(bits: int) -> None:
    rate, level, now = DrainRate(), 1_000_000, 0.0
    rate.sample(0, now)
    rate.queued(level)
    for _ in range(200):
        assert rate.bits_per_second is None or now >= BUSY
        now += WINDOW
        level -= int(bits / 8 * WINDOW)
        rate.sample(level, now)
    assert rate.bits_per_second == pytest.approx(bits, rel=0.02)


@pytest.mark.parametrize(("bits", "drops"), [(THRESHOLD / 2, True), (0, True), (THRESHOLD * 2, False)])
def test_a_reader_below_the_threshold_is_dropped_for_and_holds_up_nobody(bits: float, drops: bool) -> None:
    channels, queue, sctp = opened(THRESHOLD)
    rng, now, congested = random.Random(1), 0.0, []
    for _ in range(600):
        if not channels.congested:  # As the room does: nobody's data is read while somebody is behind.
            for _ in range(rng.randrange(60)):
                assert channels.send(True, bytes(150), sctp, now)
        channels.water_mark_crossed(sctp, now)
        congested.append(channels.congested)
        if channels.congested:
            assert channels.next_timeout(now) == now + WINDOW
        now += 0.05
        queue.reads(bits / 8 * 0.05)
    dropped = dict(channels.counters).get("data.slow_reader_dropped", 0)
    assert (dropped > 0) is drops
    assert any(congested[:40]), "in the first two seconds nobody can know how slow it is"
    assert any(congested[60:]) is not drops
    assert queue.level <= SHORT_HIGH_WATER + 60 * 150


def test_who_reads_again_gets_everything_again() -> None:
    channels, queue, sctp = opened(THRESHOLD)
    channels.send(True, bytes(SHORT_HIGH_WATER + 1), sctp, 0.0)
    for tenth in range(30):
        channels.water_mark_crossed(sctp, tenth / 10)
    channels.send(True, b"lost", sctp, 3.0)
    queue.reads(SHORT_HIGH_WATER - SHORT_LOW_WATER)
    channels.send(True, b"kept", sctp, 3.2)
    assert queue.sent[1:] == [b"kept"]


def test_without_a_threshold_nothing_is_dropped() -> None:
    channels, queue, sctp = opened(0)
    for tenth in range(100):
        channels.send(True, bytes(SHORT_HIGH_WATER), sctp, tenth / 10)
        assert not channels.water_mark_crossed(sctp, tenth / 10) and channels.next_timeout(tenth / 10) is None
    assert len(queue.sent) == 100 and not dict(channels.counters)


def test_what_waits_goes_up_in_order_and_in_slices() -> None:
    received = Received(sliced=True)
    messages = [(n % 3 != 0, bytes([n]) * 1000) for n in range(50)]
    received.extend(messages)
    late = received.ready(paused=True)
    assert late == tuple(message for message in messages if not message[0])
    received.gone(len(late), paused=True)
    up: list[tuple[bool, bytes]] = []
    while received:
        ready = received.ready(paused=False)
        assert sum(len(payload) for _, payload in ready[:-1]) < SLICE
        received.gone(len(ready), paused=False)
        up += ready
    assert up == [message for message in messages if message[0]]
    whole = Received(sliced=False)
    whole.extend(messages)
    assert whole.ready(paused=False) == tuple(messages)
