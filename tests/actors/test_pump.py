"""The thread that receives for the Python plane: what it takes past the loop, what it hands up, who goes first."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.media import Bench, Sink, audio_format, audio_leg, audio_packet, forwarder_for, plane_named

from actors.net import Ports
from actors.pump import FEWEST, MOST_WAITING, PlaneLock, PythonPump, Source
from actors.sending import sender_for
from lkactor.plane import OPENED, RTCP, InlineIngress, InlineSocket, PythonPlane
from lkactor.sfu import TrackForwarder
from lkactor.srtp import SLOTS_AVAILABLE
from lkactor.wire.rtcp import Nack, ReceiverReport, ReportBlock, build_rtcp
from lkactor.wire.rtp import build_rtp, parse_rtp

pytestmark = [
    pytest.mark.skipif(not SLOTS_AVAILABLE, reason="libsrtp's functions cannot be reached"),
    pytest.mark.usefixtures("turns_that_last"),
]
PATIENCE = 20.0
"""Seconds that a test waits for a packet on the loopback."""


class NoKeys:
    context = None


class Publisher(Sink):
    def __init__(self, ingress: Any) -> None:
        super().__init__()
        self.ingress = ingress


class Known:
    def __init__(self, ingress: Any) -> None:
        self.ingress = ingress


def udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


class Stage:
    """One publisher, one track, two legs, and the thread."""

    def __init__(self) -> None:
        plane = plane_named("python")
        assert isinstance(plane, PythonPlane) and plane.intake is not None
        plane.lock = self.lock = PlaneLock()
        Bench.plane = plane
        self.server, self.sock = udp(), udp()
        self.cell = InlineSocket(self.server.fileno())
        self.cell.sender = sender_for(self.server.fileno())
        ingress = plane.ingress()
        ingress.set_keys(NoKeys())  # type: ignore[arg-type]
        ingress.set_transport_cc(5)
        self.news = 0
        ingress.on_news = self._on_news
        self.ingress = ingress
        self.routes = {self.sock.getsockname(): Known(ingress)}
        self.forwarder: TrackForwarder
        self.forwarder, _ = forwarder_for(audio_format())
        self.forwarder.publisher = Publisher(ingress)
        self.sinks = [Sink(), Sink()]
        for number, sink in enumerate(self.sinks):
            self.forwarder.add_leg(audio_leg(sink, ssrc=number + 1), 1000.0)
        self.pump = PythonPump([Source(self.server, self.cell, self.routes)], plane.intake, self.lock, 1000.0)

    def _on_news(self) -> None:
        self.news += 1

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.sock.sendto(datagram, self.server.getsockname())

    def up(self) -> list[Any]:
        """Waits for it to ring."""
        assert select.select([self.pump.fd], [], [], PATIENCE)[0]
        return self.pump.take(64)

    def handle(self) -> None:
        """As the actors do."""
        for _, _, _, data, arrival, opened in self.up():
            assert opened == OPENED
            with self.lock:
                self.forwarder.receive(0, [parse_rtp(data, arrival)], arrival)

    def wait(self, count: int) -> None:
        """Until a leg has had so many packets."""
        self._wait_until(lambda: len(self.sinks[1].rtp) >= count)

    def wait_received(self, count: int) -> None:
        """Until the thread has read so many datagrams."""
        self._wait_until(lambda: self.cell.received[0] >= count)

    def _wait_until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done() and time.monotonic() < deadline:
            time.sleep(0.001)

    def close(self) -> None:
        self.pump.stop()
        for sock in (self.server, self.sock):
            sock.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()
    Bench.plane = plane_named("plain")


def audio(sequence: int) -> bytes:
    return audio_packet(sequence, sequence * 960, 0.0).data


def padded(sequence: int) -> bytes:
    """So that it goes up."""
    return build_rtp(payload_type=111, sequence=sequence, timestamp=sequence * 960, ssrc=77, payload=b"x", padding=4)


def test_it_forwards_while_the_loop_does_nothing(stage: Stage) -> None:
    stage.pump.start()
    stage.send(audio(1))
    stage.handle()
    stage.send(*(audio(number) for number in range(2, 12)))
    stage.wait(11)
    assert [[packet.sequence for packet in sink.rtp] for sink in stage.sinks] == [list(range(1, 12))] * 2
    for number in (20, 30):  # It rings for the first gap at once, for the others when they have waited a moment.
        stage.send(audio(number))
        assert stage.up() == [] and stage.pump.has_losses and stage.pump.tell_news()
        assert stage.sinks[1].rtp[-1].sequence == number
    assert stage.cell.received[0] == 13


def test_what_has_only_waited_goes_to_the_legs_when_it_is_taken(stage: Stage) -> None:
    stage.pump.start()
    stage.send(audio(1))
    stage.handle()
    stage.send(padded(5), audio(6), audio(7))
    stage.wait_received(4)
    ((*_, data, arrival, _),) = stage.pump.take(1)
    assert stage.pump.has_more
    with stage.lock:
        stage.forwarder.receive(0, [parse_rtp(data, arrival)], arrival)
    assert stage.pump.take(64) == [] and not stage.pump.has_more
    assert [packet.sequence for packet in stage.sinks[0].rtp] == [1, 5, 6, 7]


def test_what_goes_to_the_legs_again_goes_a_few_at_a_time_where_they_are_many(stage: Stage) -> None:
    """What it costs is spent after all have been looked at, so it has to be known before."""
    stage.pump.start()
    stage.send(audio(1))
    stage.handle()
    stage.send(padded(5), *(audio(number) for number in range(6, 26)))
    stage.wait_received(22)
    ((*_, data, arrival, _),) = stage.pump.take(1)
    with stage.lock:
        stage.forwarder.receive(0, [parse_rtp(data, arrival)], arrival)
    before = len(stage.sinks[0].rtp)
    stage.pump._again_cost = 1e9
    assert stage.pump.take(64) == []
    assert (len(stage.sinks[0].rtp) - before, stage.pump.has_more) == (FEWEST, True)
    while stage.pump.has_more:
        assert stage.pump.take(64) == []
    assert [packet.sequence for packet in stage.sinks[0].rtp] == [1, *range(5, 26)]


def test_who_takes_gets_something_even_where_there_is_no_time_at_all(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.pump.TURN", 0.0)
    stage.pump.start()
    for number in range(3):
        stage.send(bytes((0x16, number)))
    stage.wait_received(3)
    assert [[entry[3][1] for entry in stage.pump.take(64)] for _ in range(4)] == [[0], [1], [2], []]


def test_records_of_data_channels_count_less_than_what_may_need_a_decision(stage: Stage) -> None:
    stage.pump.start()
    record, other = b"\x17" + bytes(100), b"\x16" + bytes(100)
    stage.send(*[record] * 10, *[other] * 2, b"", record, record)
    stage.wait_received(15)
    taken = []
    while more := [entry[3][:1] for entry in stage.pump.take(2)]:
        taken.append(more)
    assert taken == [[b"\x17"] * 8, [b"\x17"] * 2 + [b"\x16"] * 2, [b"", b"\x17", b"\x17"]]


def test_what_is_no_rtp_of_a_known_peer_is_handed_up_as_it_came(stage: Stage) -> None:
    stage.pump.start()
    stranger = udp()
    for sender, datagram in ((stage.sock, b"\x16dtls"), (stage.sock, b"\x80\xc9" + bytes(9)), (stranger, audio(1))):
        sender.sendto(datagram, stage.server.getsockname())
        ((number, route, address, data, _, opened),) = stage.up()
        assert (number, route, address, data, opened) == (0, 0, sender.getsockname(), datagram, 0)
    stage.cell.divert = True
    stage.send(audio(1))
    assert stage.up()[0][5] == 0
    stranger.close()


def test_reports_wait_for_each_other_and_nothing_waits_behind_them(stage: Stage) -> None:
    stage.ingress.set_eager(True)
    report = build_rtcp([ReceiverReport(1, (ReportBlock(2, 0, 0, 3, 4, 5, 6),))])
    source = stage.pump._sources[0]
    stage.send(report)
    stage.pump._turn(0, source)
    assert not select.select([stage.pump.fd], [], [], 0)[0]
    stage.send(build_rtcp([Nack(1, 2, (3,))]))
    stage.pump._turn(0, source)
    assert [entry[5] for entry in stage.up()] == [RTCP, RTCP], "a request waits for nobody, and takes what waits along"
    stage.pump.start()
    for _ in range(3):
        stage.send(report)
        assert [entry[3] for entry in stage.up()] == [report], "nothing else comes: it rings when it has waited"
    stage.ingress.note((1000.0, 77, 1, False))
    assert stage.pump.tell_news()
    stage.send(report)
    assert not select.select([stage.pump.fd], [], [], 0.15)[0], "who looks for news takes it along"
    assert [entry[3] for entry in stage.pump.take(64)] == [report]


def test_nothing_is_touched_by_it_while_somebody_else_holds_the_lock(stage: Stage) -> None:
    stage.pump.start()
    stage.send(audio(1))
    stage.handle()
    with stage.lock:
        stage.send(audio(2))
        with stage.lock:
            assert not select.select([stage.pump.fd], [], [], 0.05)[0]
        assert len(stage.sinks[0].rtp) == 1
    stage.wait(2)
    assert len(stage.sinks[0].rtp) == 2


def test_legs_that_come_and_go_meanwhile_miss_nothing_and_get_nothing_twice(stage: Stage) -> None:
    stage.pump.start()
    stage.send(audio(1))
    stage.handle()
    leg = stage.forwarder.legs[0]
    deadline = time.monotonic() + PATIENCE
    for number in range(2, 600):
        stage.send(audio(number))
        if number % 7 == 0:
            leg.abs_send_time_id = number % 14  # It alights, without the lock in hand.
        while stage.cell.received[0] < number and time.monotonic() < deadline:
            time.sleep(0)
        if select.select([stage.pump.fd], [], [], 0)[0]:
            for _, _, _, data, arrival, opened in stage.pump.take(64):
                packet = parse_rtp(data, arrival)
                packet.rest = opened != OPENED
                with stage.lock:
                    stage.forwarder.receive(0, [packet], arrival)
    stage.wait(599)
    for sink in stage.sinks:
        assert [packet.sequence for packet in sink.rtp] == list(range(1, 600))


def test_it_rings_once_for_news(stage: Stage) -> None:
    assert not stage.pump.tell_news() and stage.pump.rings_with_news
    stage.ingress.note((1000.0, 77, 1, False))  # type: ignore[attr-defined]
    assert stage.pump.tell_news() and stage.news == 1
    assert list(stage.ingress.take_arrivals()) == [(1000.0, 77, 1, False)]
    assert not stage.pump.tell_news()


def test_what_the_loop_is_too_slow_for_is_dropped_and_counted(stage: Stage) -> None:
    stage.pump.start()
    sent = 0
    deadline = time.monotonic() + PATIENCE
    while not stage.pump.dropped and time.monotonic() < deadline:
        stage.send(b"\x16" + bytes(100))
        sent += 1
        while stage.cell.received[0] < sent and time.monotonic() < deadline:
            time.sleep(0)
    taken = 0
    for _ in range(MOST_WAITING // 64):
        taken += len(stage.up())
        assert stage.pump.has_more == (taken < MOST_WAITING)
        if stage.pump.has_more:
            stage.pump.ring()
    assert taken == MOST_WAITING and not stage.pump.take(64) and stage.pump.dropped >= 1


def test_it_ends_when_it_is_told_to(stage: Stage) -> None:
    before = threading.active_count()
    stage.pump.start()
    assert threading.active_count() == before + 1
    stage.pump.stop()
    assert threading.active_count() == before
    stage.pump.stop()


def test_the_lock_may_be_entered_again_and_says_who_waits() -> None:
    lock, entered = PlaneLock(), threading.Event()

    def other() -> None:
        with lock:
            entered.set()

    with lock, lock:
        thread = threading.Thread(target=other)
        thread.start()
        deadline = time.monotonic() + PATIENCE
        while not lock.waiting and time.monotonic() < deadline:
            time.sleep(0.001)
        assert lock.waiting == 1 and not entered.is_set()
    thread.join(PATIENCE)
    assert entered.is_set() and lock.waiting == 0


def test_a_thread_that_has_failed_says_so_to_whoever_takes(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Media would stand still for ever, and nobody know: the UDP actor fails with it, and its restart begins anew."""
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    monkeypatch.setattr(InlineIngress, "receive", lambda *_: 1 / 0)
    stage.pump.start()
    stage.send(audio(1))
    with pytest.raises(RuntimeError):
        stage.up()
    stage.pump.stop()
    assert stage.pump.failed and len(raised) == 1


def test_ports_begin_anew_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = Ports(plane_named("python"))
    ports.open_udp(["127.0.0.1"], 0)
    try:
        ports.start_pump(0.0)
        first = ports.pump
        assert isinstance(first, PythonPump)
        ports.start_pump(0.0)
        assert ports.pump is first, "it runs"
        first.failed = True
        ports.start_pump(0.0)
        assert ports.pump is not first and ports.counters["udp.thread_failed"] == 1
    finally:
        ports.close()
