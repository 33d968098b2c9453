"""The emulator itself: replayable, and each knob does what its name says."""

import random

import pytest
from support.netem import Addressed, Link, Wire, run_pair


class Pinger:
    """Sends `count` numbered datagrams, one each 10 ms, and records what it gets."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.next = 0.0
        self.got: list[tuple[float, bytes]] = []
        self.queue: list[bytes] = []

    def datagrams_to_send(self, now: float) -> list[bytes]:
        queue, self.queue = self.queue, []
        return queue

    def receive_datagram(self, data: bytes, now: float) -> None:
        self.got.append((now, data))

    def next_timeout(self) -> float | None:
        return self.next if self.left else None

    def handle_timeout(self, now: float) -> None:
        self.queue.append(bytes([self.left % 256]) * 100)
        self.left -= 1
        self.next = now + 0.01


def test_delay_is_exact_and_order_kept() -> None:
    rng = random.Random(1)
    a, b = Pinger(10), Pinger(0)
    end = run_pair(a, b, Wire.symmetric(rng, delay=0.5, jitter=0.05), until=2.0, now=0.0)
    assert end == 2.0
    assert [data[0] for _, data in b.got] == list(range(10, 0, -1))
    assert all(0.5 + 0.01 * i <= at <= 0.55 + 0.01 * i for i, (at, _) in enumerate(b.got))


def test_same_seed_same_run() -> None:
    def run(seed: int) -> list[tuple[float, bytes]]:
        a, b = Pinger(200), Pinger(0)
        knobs = {"loss": 0.1, "delay": 0.03, "jitter": 0.01, "reorder": 0.1, "duplicate": 0.1}
        run_pair(a, b, Wire.symmetric(random.Random(seed), **knobs), until=5.0, now=0.0)
        return b.got

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_loss_duplication_and_reordering_happen_at_their_rates() -> None:
    link = Link(random.Random(7), loss=0.2, duplicate=0.1, reorder=0.1, delay=0.01)
    for i in range(5000):
        link.send(i.to_bytes(4, "big"), i * 0.001)
    got = link.receive(100.0)
    assert 0.75 < len(got) / 5500 < 0.85
    assert 400 < link.counters["duplicated"] < 600
    assert got != sorted(got)
    assert link.counters["delivered"] == len(got)
    assert link.next_timeout() is None


def test_bottleneck_paces_and_drops_at_the_tail() -> None:
    link = Link(random.Random(7), rate_bps=8000.0, queue_packets=5)
    for _ in range(10):
        link.send(bytes(100), 0.0)
    assert link.counters["overflow"] == 5
    assert len(link.receive(0.35)) == 3
    assert link.next_timeout() == pytest.approx(0.4)
    assert len(link.receive(10.0)) == 2


def test_run_pair_says_when_nothing_can_happen_any_more() -> None:
    with pytest.raises(AssertionError, match="nothing left"):
        run_pair(Pinger(1), Pinger(0), Wire.symmetric(random.Random(1)), until=lambda: False, now=0.0)


def test_addressed_strips_and_adds_addresses() -> None:
    class WithAddresses(Pinger):
        def datagrams_to_send(self, now: float) -> list[tuple[bytes, str]]:  # type: ignore[override]
            return [(data, "there") for data in super().datagrams_to_send(now)]

        def receive_datagram(self, data: bytes, addr: str, now: float) -> None:  # type: ignore[override]
            assert addr == "here"
            super().receive_datagram(data, now)

    a, b = WithAddresses(3), WithAddresses(0)
    run_pair(Addressed(a, "x"), Addressed(b, "here"), Wire.symmetric(random.Random(1)), until=1.0, now=0.0)
    assert len(b.got) == 3
