"""The receiving half of both planes: against `lkactor.sfu` alone, under keys, at their edges; the kernel's thread."""

from __future__ import annotations

import gc
import random
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from support.inline import packed, pump_of, receiving_cell
from support.media import (
    OPUS,
    RED,
    Bench,
    Sink,
    audio_format,
    audio_leg,
    audio_packet,
    available_planes,
    forwarder_for,
    plane_named,
    red_payload,
    video_format,
    video_leg,
    vp8_payload,
)

from lkactor.plane import OPENED, REST, RTCP, Plane, PythonPlane
from lkactor.plane.intake import InlineReceiver
from lkactor.sdp import Codec
from lkactor.sfu import Leg, TrackForwarder
from lkactor.sfu.leg import HISTORY
from lkactor.srtp import SrtpKeys, SrtpProfile, SrtpReceiver, SrtpSender
from lkactor.wire.rtcp import (
    Nack,
    Pli,
    ReceiverReport,
    Remb,
    ReportBlock,
    Sdes,
    SenderReport,
    UnknownRtcp,
    Urgency,
    build_rtcp,
    supersedes,
    urgency,
)
from lkactor.wire.rtp import RtpPacket, build_rtp, parse_rtp

pytestmark = pytest.mark.usefixtures("turns_that_last")
FAST = available_planes()[1:]
by_kernel_alone = pytest.mark.parametrize(
    "fast",
    [pytest.param("kernel", marks=pytest.mark.skipif("kernel" not in FAST, reason="the C kernel is not built here"))],
    indirect=True,
)

UDP_SEGMENT, UDP_GRO = 103, 104
PATIENCE = 20.0
"""Seconds that a test waits for a packet on the loopback."""
TRANSPORT_CC, LEVEL = 5, 6


class NoKeys:
    """A receiver's session for a kernel that does not open anything."""

    context_address = 1
    context = None


def udp(family: int = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sock.setblocking(False)
    return sock


class Publisher(Sink):
    """A peer that sends to the server's socket, and what the server knows of it."""

    def __init__(self, plane: Any, server: socket.socket, cell: Any, number: int = 1) -> None:
        super().__init__()
        self.sock = udp(server.family)
        self.server, self._cell = server, cell
        self.ingress = plane.ingress()
        self.ingress.set_keys(NoKeys())
        self.news = 0
        self.ingress.on_news = self._on_news
        cell.set_route(packed(self.sock.getsockname()), number, self.ingress)

    def _on_news(self) -> None:
        self.news += 1

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.sock.sendto(datagram, self.server.getsockname())

    def close(self) -> None:
        self.sock.close()


class Stage:
    """One track, its publisher and its legs, with a pump that runs when it is told to."""

    def __init__(self, plane: Any, kind: str = "video", legs: int = 2, **format: Any) -> None:
        Bench.plane = plane
        self.plane = plane
        self.server = udp()
        self.cell = receiving_cell(plane, self.server)
        self.pump = pump_of(plane, [self.cell], 1000.0)
        self.publisher = Publisher(plane, self.server, self.cell)
        made = video_format(**format) if kind == "video" else audio_format(**format)
        self.forwarder, _ = forwarder_for(made)
        self.forwarder.publisher = self.publisher
        self.sinks = [Sink() for _ in range(legs)]
        self.legs = [
            video_leg(sink, ssrc=n * 2 + 1, subscriber=f"PA_{n}") if kind == "video" else audio_leg(sink, ssrc=n + 1)
            for n, sink in enumerate(self.sinks)
        ]
        for leg in self.legs:
            self.forwarder.add_leg(leg, 1000.0)
        self.up: list[tuple[int, int, bytes, bytes, float, int]] = []

    def run(self, *datagrams: bytes, layer: int = 0) -> int:
        """Send, receive, and let Python do what is left to it; how many packets were."""
        self.publisher.send(*datagrams)
        while self.pump.once():
            pass
        return self.handle_up(layer)

    def handle_up(self, layer: int = 0, most: int = 4096) -> int:
        """What `most` of those that wait have left. `layer` for every packet; -1: its SSRC says it."""
        handled = 0
        for entry in self.pump.take(most):
            self.up.append(entry)
            *_, data, arrival, opened = entry
            if opened in (OPENED, REST):
                packet = parse_rtp(data, arrival)
                packet.rest = opened == REST
                self.forwarder.receive(layer if layer >= 0 else packet.ssrc - 1, [packet], arrival)
                handled += 1
        return handled

    def close(self) -> None:
        self.pump.stop()
        self.publisher.close()
        self.server.close()


@pytest.fixture(params=FAST)
def fast(request: pytest.FixtureRequest) -> Iterator[Any]:
    Bench.plane = plane_named(request.param)
    yield Bench.plane
    Bench.plane = plane_named("plain")


@pytest.fixture
def stage(fast: Any) -> Iterator[Stage]:
    made = Stage(fast)
    yield made
    made.close()


@pytest.fixture
def talk(fast: Any) -> Iterator[Stage]:
    made = Stage(fast, "audio")
    yield made
    made.close()


def video(
    sequence: int, *, key: bool = False, ssrc: int = 1, picture: int = 0, tid: int = 0, start: bool = True
) -> bytes:
    payload = vp8_payload(picture, picture, picture & 31, tid, key=key, start=start)
    return build_rtp(
        payload_type=96, sequence=sequence, timestamp=picture * 3000, ssrc=ssrc, payload=payload, marker=start
    )


def audio(sequence: int, **extensions: bytes) -> bytes:
    return build_rtp(
        payload_type=111, sequence=sequence, timestamp=sequence * 960, ssrc=77, payload=b"\xfcopus",
        extensions={{"cc": TRANSPORT_CC, "level": LEVEL}[name]: value for name, value in extensions.items()},
    )  # fmt: skip


def seen(packets: Sequence[RtpPacket]) -> list[tuple[int, int, bool, bytes]]:
    """All but the time, which is the kernel's own, and the place of what came late: it goes by Python."""
    return sorted((packet.ssrc, packet.sequence, packet.marker, bytes(packet.payload)) for packet in packets)


# -- the same as Python ------------------------------------------------------------------------------------------------


class Story:
    """Bursts of three layers: holes, late packets, repetitions, key frames; and what subscribers do meanwhile."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._sequences = [65500, 100, 40000]
        self._sent: tuple[list[bytes], ...] = ([], [], [])
        self._held: tuple[list[bytes], ...] = ([], [], [])
        """Overtaken on the way."""

    def burst(self, step: int) -> tuple[int, list[bytes]]:
        rng, layer = self._rng, self._rng.randrange(3)
        sent, held, out = self._sent[layer], self._held[layer], []
        if held and rng.random() < 0.5:
            out.append(held.pop())
        for index in range(rng.randint(1, 6)):
            key = rng.random() < 0.04
            made = [self._video(layer, step, key, key or index == 0) for _ in range(rng.choice((1,) * 12 + (2,)))]
            held.extend(made[:-1])
            out.append(made[-1])
            if sent and rng.random() < 0.03:
                out.append(sent[-rng.randint(1, min(5, len(sent)))])
            sent.append(made[-1])
        if rng.random() < 0.02:
            out.append(build_rtp(payload_type=96, sequence=0, timestamp=0, ssrc=layer + 1, padding=9))
        return layer, out

    def _video(self, layer: int, step: int, key: bool, start: bool) -> bytes:
        self._sequences[layer] += 1
        number = self._sequences[layer] & 0xFFFF
        return video(number, key=key, ssrc=layer + 1, picture=step, tid=self._rng.randrange(3), start=start)

    def turn(self, forwarder: TrackForwarder, legs: Sequence[Leg], now: float) -> None:
        rng = self._rng
        leg = legs[rng.randrange(len(legs))]
        match rng.randrange(16):
            case 0:
                forwarder.set_paused(leg, rng.random() < 0.4, now)
            case 1:
                forwarder.set_wanted(leg, rng.randrange(3), 0, 0, now)
            case 2:
                newest = leg.munger.last_sequence
                forwarder.on_nack(leg, [(newest - n) & 0xFFFF for n in range(rng.randint(1, 4))], now + 100)
            case 3 if rng.random() < 0.3:
                forwarder.set_muted(rng.random() < 0.3, now)


def steady(receiver: Any) -> int:
    """Packets that only the plane has seen."""
    return int(receiver.steady if isinstance(receiver, InlineReceiver) else receiver.row.steady)


def numbers(leg: Leg) -> tuple[Any, ...]:
    """All that what comes depends on, but for what depends on the time, which is the plane's own."""
    munger, vp8 = leg.munger, leg.vp8
    history = [(*entry[:4], entry[5]) for index in range(HISTORY) if (entry := leg.history[index]) is not None]
    last = (vp8._last_picture, vp8._last_tl0, vp8._last_keyidx)
    return (
        history,
        last,
        munger.newest,
        munger.last_sequence,
        leg.packets,
        leg.octets,
        leg.resent,
    )


def result(forwarder: TrackForwarder, legs: Sequence[Leg], sinks: Sequence[Sink]) -> list[Any]:
    receivers = [
        (r.highest, r.packets, r.bytes, r.duplicates, r.out_of_order, r.restarts, r.take_counts(), r.window())
        for r in forwarder.receivers
    ]
    return [
        receivers,
        *((seen(s.rtp), *numbers(leg)) for s, leg in zip(sinks, legs, strict=True)),
    ]


def by_the_forwarder_alone(seed: int, steps: int) -> list[Any]:
    Bench.plane = plane_named("plain")
    story = Story(seed)
    forwarder, _ = forwarder_for(video_format())
    sinks = [Sink() for _ in range(3)]
    legs = [video_leg(sink, ssrc=n * 2 + 1, subscriber=f"PA_{n}") for n, sink in enumerate(sinks)]
    for leg in legs:
        forwarder.add_leg(leg, 1000.0)
    for step in range(steps):
        layer, burst = story.burst(step)
        forwarder.receive(layer, [parse_rtp(data, 1000.0) for data in burst], 1000.0)
        story.turn(forwarder, legs, 1000.0)
    return result(forwarder, legs, sinks)


@pytest.mark.parametrize("seed", range(8))
def test_what_goes_past_python_is_the_same(fast: Any, seed: int) -> None:
    steps = 400
    expected = by_the_forwarder_alone(seed, steps)
    stage, story = Stage(fast, legs=3), Story(seed)
    try:
        for step in range(steps):
            layer, burst = story.burst(step)
            stage.run(*burst, layer=layer)
            story.turn(stage.forwarder, stage.legs, 1000.0)
        assert result(stage.forwarder, stage.legs, stage.sinks) == expected
        past = sum(steady(receiver) for receiver in stage.forwarder.receivers)
        assert past > 300, "the plane did the work"
    finally:
        stage.close()


def by_the_receiver_alone(bursts: Sequence[Sequence[bytes]]) -> list[Any]:
    Bench.plane = plane_named("plain")
    forwarder, _ = forwarder_for(video_format())
    sinks = [Sink() for _ in range(2)]
    legs = [video_leg(sink, ssrc=n * 2 + 1, subscriber=f"PA_{n}") for n, sink in enumerate(sinks)]
    for leg in legs:
        forwarder.add_leg(leg, 1000.0)
    for burst in bursts:
        forwarder.receive(0, [parse_rtp(data, 1000.0) for data in burst], 1000.0)
    return late_result(forwarder, legs, sinks)


def late_result(forwarder: TrackForwarder, legs: Sequence[Leg], sinks: Sequence[Sink]) -> list[Any]:
    for receiver in forwarder.receivers:
        receiver.note_losses()
    return [*result(forwarder, legs, sinks), [receiver.nack.due(5000.0) for receiver in forwarder.receivers]]


@pytest.mark.parametrize("seed", range(20))
def test_nothing_overtakes_what_waits_for_a_loop_that_is_late(fast: Any, seed: int) -> None:
    """Holes, late packets, padding and key frames of one stream, of which Python takes what goes up when it pleases."""
    story, rng = Story(seed), random.Random(seed)
    bursts = [[video(65500, key=True)]]  # Legs begin with it: whether one may begin with what comes late is a race.
    bursts += [burst for layer, burst in (story.burst(step) for step in range(900)) if layer == 0]
    expected = by_the_receiver_alone(bursts)
    stage = Stage(fast)
    try:
        waited = 0
        for burst in bursts:
            if seed % 2 and rng.random() < 0.1:  # Now as over TCP, and now not.
                sink = stage.sinks[0]
                sink.cell.set_path(rng.choice((None, sink.socket)), b"")
            stage.publisher.send(*burst)
            while stage.pump.once():
                pass
            if rng.random() < 0.3:
                stage.handle_up(most=rng.randint(1, 3))
                waited += stage.pump.has_more
            if rng.random() < 0.2:
                stage.pump.tell_news()
                stage.forwarder.receivers[0].note_losses() if stage.forwarder.receivers else None
            if rng.random() < 0.1:
                stage.handle_up()
        stage.handle_up()
        assert late_result(stage.forwarder, stage.legs, stage.sinks) == expected
        assert waited > 5
    finally:
        stage.close()


def test_a_packet_of_the_past_can_be_sent_again(stage: Stage) -> None:
    stage.run(video(1, key=True))
    assert stage.run(*(video(number, picture=number) for number in range(2, 40))) == 0
    leg, sink = stage.legs[0], stage.sinks[0]
    stage.forwarder.on_nack(leg, [leg.munger.last_sequence - 30], 1001.0)
    again = sink.rtp[-1]
    assert (again.ssrc, leg.resent) == (leg.rtx_ssrc, 1)
    assert bytes(again.payload[2:]) == bytes(sink.rtp[-32].payload)


def test_nothing_overtakes_what_python_has_to_decide(stage: Stage) -> None:
    """A key frame goes up, and so does all that follows it until Python has numbered it."""
    stage.run(video(1, key=True))
    assert stage.run(video(2), video(3, key=True), video(4), video(5)) == 3
    assert stage.run(video(6), video(7)) == 0
    assert [packet.sequence for packet in stage.sinks[0].rtp] == [1, 2, 3, 4, 5, 6, 7]


def test_what_has_only_waited_for_a_number_needs_no_more_of_python_than_that(stage: Stage) -> None:
    """Or a loop that was late once stays so: all that comes meanwhile waits behind what waits."""
    stage.run(video(1, key=True))
    rest = [video(number) for number in (5, 6)], video(7, key=True), [video(number) for number in (8, 9)]
    stage.publisher.send(video(2), video(4, key=True), *rest[0], rest[1], *rest[2])
    while stage.pump.once():
        pass
    assert stage.handle_up(most=1) == 1, "a key frame"
    most = 3 if stage.plane.name == "kernel" else 1  # The kernel counts what goes to the legs, too.
    assert stage.handle_up(most=most) == 1 and stage.pump.has_more, "5 and 6 went; the next one has to be looked at"
    assert stage.handle_up() == 0 and not stage.pump.has_more
    for sink in stage.sinks:
        assert [packet.sequence for packet in sink.rtp] == [1, 2, 4, 5, 6, 7, 8, 9]
    (receiver,) = stage.forwarder.receivers
    assert (receiver.packets, steady(receiver)) == (8, 5)


def test_a_gap_holds_nobody_up_and_is_asked_for(stage: Stage) -> None:
    stage.run(video(1, key=True))
    assert stage.run(video(2), video(5), video(6), video(8)) == 0
    assert stage.pump.has_losses
    assert stage.pump.tell_news() and stage.publisher.news == 1 and not stage.pump.has_losses
    assert stage.publisher.ingress.has_track_news
    for receiver in stage.forwarder.receivers:
        receiver.note_losses()
    assert not stage.publisher.ingress.has_track_news
    stage.forwarder.handle_timeout(1000.0 + PATIENCE)
    (nack,) = (packet for packet in stage.publisher.rtcp if isinstance(packet, Nack))
    assert nack.sequences == (3, 4, 7)
    assert stage.run(video(3)) == 1
    assert [packet.sequence for packet in stage.sinks[0].rtp] == [1, 2, 5, 6, 8, 3]
    (receiver,) = stage.forwarder.receivers
    assert (receiver.packets, receiver.out_of_order) == (6, 1)


def test_what_comes_late_is_not_asked_for_though_nobody_had_told_of_the_gap(stage: Stage) -> None:
    stage.run(video(1, key=True))
    assert stage.run(video(2), video(5), video(4)) == 1
    stage.forwarder.handle_timeout(1000.0 + PATIENCE)
    (nack,) = (packet for packet in stage.publisher.rtcp if isinstance(packet, Nack))
    assert nack.sequences == (3,)


def test_losses_that_nobody_takes_are_bounded(stage: Stage) -> None:
    stage.run(video(1, key=True))
    stage.publisher.send(*(video(number) for number in range(3, 3 + 2 * 32, 2)))
    while stage.pump.once():
        pass
    assert stage.handle_up() == 0
    assert stage.run(video(67)) == 1, "it is Python's to note this one"
    assert stage.run(video(69)) == 0
    for receiver in stage.forwarder.receivers:
        receiver.note_losses()
        assert receiver.nack.due(2000.0) == [65536 + number for number in range(2, 70, 2)]


def test_what_a_pump_that_is_gone_had_is_waited_for_by_nobody(stage: Stage) -> None:
    stage.run(video(1, key=True))
    stage.publisher.send(video(1))
    while stage.pump.once():
        pass
    stage.pump.stop()
    stage.pump = pump_of(stage.plane, [stage.cell], 1000.0)
    assert stage.run(video(3)) == 0
    assert [packet.sequence for packet in stage.sinks[0].rtp] == [1, 3]


def test_a_longer_gap_than_a_stream_survives_goes_up(stage: Stage) -> None:
    stage.run(video(1, key=True))
    assert stage.run(video(2), video(2100)) == 1
    assert stage.run(video(2101)) == 1, "the stream has begun anew"
    assert [receiver.restarts for receiver in stage.forwarder.receivers] == [1]


def test_a_gap_goes_up_where_a_leg_is_left(stage: Stage) -> None:
    stage.run(video(1, key=True))
    stage.sinks[0].cell.set_path(None, b"")
    assert stage.run(video(3)) == 1 and stage.up[-1][5] == OPENED
    assert stage.run(video(4)) == 1 and stage.up[-1][5] == REST
    assert not stage.pump.has_losses
    assert [[packet.sequence for packet in sink.rtp] for sink in stage.sinks] == [[1, 3, 4]] * 2


def test_what_was_overtaken_on_its_way_reaches_a_leg_that_python_serves(stage: Stage) -> None:
    """That leg has the later one by then, which has no gap before it any more when Python numbers it."""
    stage.run(video(1, key=True))
    stage.sinks[0].cell.set_path(None, b"")
    assert stage.run(video(3), video(2), video(4)) == 3
    assert [[packet.sequence for packet in sink.rtp] for sink in stage.sinks] == [[1, 3, 2, 4]] * 2


def test_what_went_up_before_a_stream_was_known_is_not_overtaken(talk: Stage) -> None:
    """Nobody could tell then whose it was."""
    padded = build_rtp(payload_type=111, sequence=2, timestamp=2, ssrc=77, payload=b"x", padding=4)
    talk.publisher.send(audio(1), padded, audio(3))
    while talk.pump.once():
        pass
    assert talk.handle_up(most=1) == 1
    talk.publisher.send(audio(5))
    while talk.pump.once():
        pass
    assert [packet.sequence for packet in talk.sinks[0].rtp] == [1]
    talk.handle_up()
    assert [packet.sequence for packet in talk.sinks[0].rtp] == [1, 2, 3, 5]


def test_a_leg_that_joins_gets_its_key_frame(stage: Stage) -> None:
    stage.run(video(1, key=True), video(2))
    sink = Sink()
    late = video_leg(sink, ssrc=99, subscriber="PA_late")
    stage.forwarder.add_leg(late, 1000.0)
    assert stage.run(video(3)) == 0, "it waits for a key frame: nothing to decide"
    assert stage.run(video(4, key=True)) == 1
    assert stage.run(video(5)) == 0
    assert [packet.sequence for packet in sink.rtp] == [4, 5]
    assert [packet.sequence for packet in stage.sinks[0].rtp] == [1, 2, 3, 4, 5]


def test_a_leg_that_needs_python_gets_its_packets_from_python(stage: Stage) -> None:
    stage.run(video(1, key=True), video(2))
    first, second = stage.sinks
    first.cell.set_path(None, b"")  # As over TCP.
    by_kernel = second.socket.packets if second.socket is not None else 0
    assert stage.run(video(3), video(4)) == 2
    assert [entry[5] for entry in stage.up[-2:]] == [REST, REST]
    assert [[packet.sequence for packet in sink.rtp] for sink in stage.sinks] == [[1, 2, 3, 4]] * 2
    assert second.socket is not None and second.socket.packets == by_kernel + 2
    assert [receiver.packets for receiver in stage.forwarder.receivers] == [4]


def test_a_leg_that_comes_back_to_the_kernel_misses_nothing(talk: Stage) -> None:
    """What is still on its way through Python is not overtaken by what need not go there any more."""
    talk.run(audio(1), audio(2))
    sink = talk.sinks[0]
    sink.cell.set_path(None, b"")
    talk.publisher.send(audio(3), audio(4))
    talk.pump.once()
    sink.cell.set_path(sink.socket, b"")
    talk.publisher.send(audio(5), audio(6))
    talk.pump.once()
    talk.handle_up()
    assert talk.run(audio(7), audio(8)) == 0
    assert [packet.sequence for packet in sink.rtp] == list(range(1, 9))


def test_temporal_layers_are_left_out_by_python_and_the_others_do_not_notice(stage: Stage) -> None:
    stage.run(video(1, key=True))
    thin = stage.legs[0]
    stage.forwarder.set_limit(thin, 2, 0, False, 1000.0)
    for number in range(2, 30):
        assert stage.run(video(number, picture=number, tid=number % 2)) == 1
    thinned, whole = ([packet.sequence for packet in sink.rtp] for sink in stage.sinks)
    assert whole == list(range(1, 30)) and thinned == list(range(1, len(thinned) + 1))
    assert 10 < len(thinned) < 20


def test_a_muted_track_is_received_and_not_forwarded(talk: Stage) -> None:
    talk.run(audio(1), audio(2))
    talk.forwarder.set_muted(True, 1000.0)
    assert talk.run(audio(3), audio(4)) == 0
    assert (len(talk.sinks[0].rtp), talk.forwarder.receivers[0].packets) == (2, 4)
    talk.forwarder.set_muted(False, 1000.0)
    assert talk.run(audio(5)) == 1, "the legs go on at it"
    assert [packet.sequence for packet in talk.sinks[0].rtp] == [1, 2, 3]


def test_a_closed_forwarder_is_shown_everything(talk: Stage) -> None:
    talk.run(audio(1), audio(2))
    talk.forwarder.close()
    assert talk.run(audio(3), audio(4)) == 2


def test_other_codecs_of_the_track_are_pythons(fast: Any) -> None:
    stage = Stage(fast, codecs=(Codec("video/vp9", 96, 90000),), simulcast=False)
    try:
        for number in range(1, 5):
            assert stage.run(video(number, key=number == 1)) == 1
    finally:
        stage.close()


@pytest.mark.parametrize(("inner", "by_plane"), [(111, True), (109, False)])
def test_red_goes_past_python_only_with_the_same_numbers_inside(fast: Any, inner: int, by_plane: bool) -> None:
    stage = Stage(fast, "audio", 1, codecs=(RED, OPUS))
    try:
        (leg,) = stage.legs
        leg.payload_types, leg.red_payload_types = {63: 64, 111: inner}, {63: inner}
        packets = [
            audio_packet(number, number * 960, 0.0, payload=b"\x6fprimary", payload_type=63).data
            for number in range(1, 6)
        ]
        stage.run(packets[0])
        assert stage.run(*packets[1:]) == (0 if by_plane else 4)
        assert [bytes(packet.payload) for packet in stage.sinks[0].rtp] == [bytes((inner,)) + b"primary"] * 5
    finally:
        stage.close()


def test_what_a_leg_without_red_misses_is_recovered(fast: Any) -> None:
    stage = Stage(fast, "audio", codecs=(RED, OPUS))
    try:
        passes, without = stage.legs
        passes.payload_types, passes.red_payload_types = {63: 63, 111: 111}, {63: 111}
        without.payload_types, without.red_payload_types = {63: 111, 111: 111}, {}
        for number in (1, 2, 4, 5):
            payload = red_payload([(960, b"p%d" % (number - 1))], b"p%d" % number)
            stage.run(audio_packet(number, number * 960, 0.0, payload=payload, payload_type=63).data)
        assert [(packet.sequence, bytes(packet.payload)) for packet in stage.sinks[1].rtp] == [
            (number, b"p%d" % number) for number in range(1, 6)
        ]
        assert [packet.sequence for packet in stage.sinks[0].rtp] == [1, 2, 4, 5]
    finally:
        stage.close()


def h264(sequence: int, payload: bytes) -> bytes:
    return build_rtp(payload_type=96, sequence=sequence, timestamp=0, ssrc=1, payload=payload, marker=True)


def test_h264_goes_up_where_a_decoder_can_start(fast: Any) -> None:
    stage = Stage(fast, codecs=(Codec("video/h264", 96, 90000),))
    try:
        sps, idr, slice = b"\x67\x42\x00\x1f", b"\x65" + bytes(40), b"\x41" + bytes(40)
        stap = b"\x78" + len(sps).to_bytes(2, "big") + sps
        for payload, up in ((sps, 1), (idr, 0), (slice, 0), (b"\x7c\x05" + bytes(9), 0), (b"\x7c\x87" + bytes(9), 1),
                            (b"\x06\x05" + bytes(9), 1), (stap, 1), (b"\x7c", 1), (slice, 0)):  # fmt: skip
            number = stage.forwarder.receivers[0].packets + 1 if stage.forwarder.receivers else 1
            assert stage.run(h264(number, payload)) == up, payload[:2].hex()
        assert [packet.sequence for packet in stage.sinks[0].rtp] == list(range(1, 10))
    finally:
        stage.close()


# -- what is handed up -------------------------------------------------------------------------------------------------


def test_what_is_no_rtp_of_a_known_peer_goes_up_as_it_came(talk: Stage) -> None:
    stun, dtls, rtcp = b"\x00\x01" + bytes(18), b"\x16" + bytes(30), b"\x80\xc9" + bytes(9)
    talk.run(stun, dtls, rtcp, b"\xff" * 20, b"\x80")
    stranger = udp()
    stranger.sendto(audio(1), talk.server.getsockname())
    talk.run()
    known = packed(talk.publisher.sock.getsockname())
    assert [(number, address, data, opened) for _, number, address, data, _, opened in talk.up] == [
        *((1, known, data, False) for data in (stun, dtls, rtcp, b"\xff" * 20, b"\x80")),
        (0, packed(stranger.getsockname()), audio(1), False),
    ]
    stranger.close()


def test_a_diverted_socket_hands_everything_up(talk: Stage) -> None:
    talk.run(audio(1), audio(2))
    talk.cell.divert = True
    talk.run(audio(3))
    assert talk.up[-1][3:] == (audio(3), talk.up[-1][4], False)


@by_kernel_alone
@pytest.mark.parametrize("merged", [False, True])
def test_runs_that_the_network_stack_has_merged_are_taken_apart(talk: Stage, merged: bool) -> None:
    talk.server.setsockopt(socket.SOL_UDP, UDP_GRO, merged)
    talk.run(audio(1))
    control = [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("=H", len(audio(2))))]
    run = [audio(number) for number in range(2, 22)]
    talk.publisher.sock.sendmsg(run, control, 0, talk.server.getsockname())
    assert talk.run() == 0
    assert [packet.sequence for packet in talk.sinks[0].rtp] == list(range(1, 22))
    assert talk.cell.received == (21, sum(map(len, [audio(1), *run])), 0)


@by_kernel_alone
def test_what_several_streams_have_for_one_peer_leaves_in_one_message(fast: Any) -> None:
    """Whoever subscribed to them in what order: three people who talk, each heard by all of five but one."""
    talk = Stage(fast, "audio", legs=5)
    talkers, forwarders = [talk.publisher], [talk.forwarder]
    talk.forwarder.remove_leg(talk.legs[0])
    for number in (1, 2):
        talkers.append(Publisher(fast, talk.server, talk.cell, number + 1))
        forwarders.append(forwarder_for(audio_format())[0])
        forwarders[-1].publisher = talkers[-1]
        heard = [sink for place, sink in enumerate(talk.sinks) if place != number]
        for sink in reversed(heard) if number == 1 else heard:
            forwarders[-1].add_leg(audio_leg(sink, ssrc=100 * number), 1000.0)
    try:
        for talker, forwarder in zip(talkers, forwarders, strict=True):
            talker.send(audio(1))
            talk.pump.once()
            _, _, _, data, arrival, _ = next(iter(talk.pump.take(64)))
            forwarder.receive(0, [parse_rtp(data, arrival)], arrival)
        for sink in talk.sinks:
            assert len(sink.rtp) == (2 if sink in talk.sinks[:3] else 3)
            assert sink.wire is not None
            sink.wire.setsockopt(socket.SOL_UDP, UDP_GRO, True)
        for number in (2, 3):
            for talker in talkers:
                talker.send(audio(number))
        assert talk.pump.once() == 6
        for place, sink in enumerate(talk.sinks):
            assert sink.wire is not None
            run, control, *_ = sink.wire.recvmsg(65536, 64)
            with pytest.raises(BlockingIOError):
                sink.wire.recv(65536)
            assert [(level, kind) for level, kind, _ in control] == [(socket.SOL_UDP, UDP_GRO)]
            (size,) = struct.unpack("=i", control[0][2])
            packets = [parse_rtp(run[at : at + size], 0.0) for at in range(0, len(run), size)]
            heard_by = [n for n in range(3) if n != place]
            assert [(packet.ssrc, packet.sequence) for packet in packets] == [
                (100 * n or place + 1, number) for n in heard_by for number in (2, 3)
            ]
    finally:
        talk.close()
        for talker in talkers[1:]:
            talker.close()


def test_legs_that_begin_while_the_loop_is_late_are_written_by_python_once(
    talk: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that waits was left for them, and more is until the loop is through: at a hundred legs it would never be."""
    talk.run(*(audio(number) for number in range(1, 5)))
    late = [Sink() for _ in range(5)]
    for number, sink in enumerate(late):
        talk.forwarder.add_leg(audio_leg(sink, ssrc=100 + number), 1000.0)
    written: list[Any] = []
    forward = talk.forwarder._forward
    monkeypatch.setattr(talk.forwarder, "_forward", lambda leg, *rest: (written.append(leg.ssrc), forward(leg, *rest)))
    for number in range(5, 30):
        talk.publisher.send(audio(number))
        talk.pump.once()
    while talk.handle_up(most=4):
        talk.publisher.send(audio(number := number + 1))
        talk.pump.once()
        assert number < 100, "it does not catch up"
    assert {entry[5] for entry in talk.up[-5:]} == {REST}
    expected = list(range(5, number + 1))
    assert [[packet.sequence for packet in sink.rtp] for sink in late] == [expected] * 5
    assert [packet.sequence for packet in talk.sinks[0].rtp] == list(range(1, number + 1))
    assert sorted(written) == [100, 101, 102, 103, 104], "the first packet is Python's, all others the plane's"


def test_an_address_that_is_forgotten_is_a_strangers(talk: Stage) -> None:
    talk.run(audio(1), audio(2))
    talk.cell.set_route(packed(talk.publisher.sock.getsockname()), 0, None)
    talk.run(audio(3))
    assert talk.up[-1][1] == 0 and not talk.up[-1][5]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_many_addresses_come_and_go(fast: Any, family: int) -> None:
    server = udp(family)
    cell, rng = receiving_cell(fast, server), random.Random(4)
    pump = pump_of(fast, [cell], 0.0)
    live: dict[bytes, int] = {}
    senders = [udp(family) for _ in range(8)]
    own = {packed(sender.getsockname()) for sender in senders}
    for number in range(1, 4000):
        ip = rng.randbytes(4) if family == socket.AF_INET else rng.randbytes(16)
        head = struct.pack("=H", family) + rng.randbytes(2)
        address = head + (ip + bytes(8) if family == socket.AF_INET else bytes(4) + ip + bytes(4))
        if number % 500 == 0:
            address = packed(senders[number // 500 - 1].getsockname())
        cell.set_route(address, number, fast.ingress())
        live[address] = number
        if len(live) > 300:
            gone = rng.choice([known for known in live if known not in own])
            cell.set_route(gone, 0, None)
            del live[gone]
    for sender in senders:
        sender.sendto(b"\x16hello", server.getsockname())
    while pump.once():
        pass
    assert [number for _, number, *_ in pump.take(4096)] == [*range(500, 4000, 500), 0]
    pump.stop()
    for sock in (server, *senders):
        sock.close()


@by_kernel_alone
def test_what_python_is_too_slow_for_is_dropped_and_counted(talk: Stage) -> None:
    count = 1500
    for _ in range(count):
        talk.publisher.send(b"\x16" + bytes(1200))
        talk.pump.once()
    taken = 0
    while more := len(list(talk.pump.take(7))):
        taken += more
        assert more == 7 or taken + talk.pump.dropped == count
        assert talk.pump.has_more == (taken + talk.pump.dropped < count)
        assert not select.select([talk.pump.fd], [], [], 0)[0], "who leaves some for later rings"
        if talk.pump.has_more:
            talk.pump.ring()
            assert select.select([talk.pump.fd], [], [], 0)[0]
    assert talk.pump.dropped > 0 and taken + talk.pump.dropped == count
    talk.publisher.send(b"\x16" + bytes(1200))
    talk.pump.once()
    assert len(list(talk.pump.take(64))) == 1


def test_records_of_data_channels_count_less_than_what_may_need_a_decision(talk: Stage) -> None:
    record, other = b"\x17" + bytes(100), b"\x16" + bytes(100)
    for datagram in [record] * 10 + [other] * 3 + [record] * 2:
        talk.publisher.send(datagram)
        talk.pump.once()
    taken = []
    while more := [entry[3] for entry in talk.pump.take(2)]:
        taken.append([datagram[:1] for datagram in more])
    assert taken == [[b"\x17"] * 8, [b"\x17"] * 2 + [b"\x16"] * 2, [b"\x16"] + [b"\x17"] * 2]


def test_an_empty_datagram_is_nothing(talk: Stage) -> None:
    assert talk.run(b"", b"\x17" + bytes(20)) == 0
    assert [entry[3][:1] for entry in talk.up if entry[3]] == [b"\x17"]


# -- RTCP --------------------------------------------------------------------------------------------------------------

REPORT = ReceiverReport(1, (ReportBlock(2, 0, 0, 3, 4, 5, 6),))
ESTIMATE = Remb(1, 1_000_000, (2,))


REPORTED, ESTIMATED = build_rtcp([REPORT]), build_rtcp([REPORT, ESTIMATE])


def rings(stage: Stage) -> bool:
    while stage.pump.once():
        pass
    return bool(select.select([stage.pump.fd], [], [], 0)[0])


def reports(stage: Stage) -> list[bytes]:
    entries = list(stage.pump.take(64))
    assert all(entry[5] == RTCP for entry in entries)
    return [entry[3] for entry in entries]


def test_reports_wait_for_each_other_and_nothing_waits_behind_them(talk: Stage) -> None:
    talk.publisher.ingress.set_eager(True)
    talk.publisher.send(REPORTED)
    assert not rings(talk)
    talk.publisher.send(ESTIMATED)
    time.sleep(0.12)
    assert rings(talk), "the first one has waited long enough"
    assert reports(talk) == [REPORTED, ESTIMATED] and not rings(talk)
    asked = build_rtcp([REPORT, Nack(1, 2, (3,))])
    talk.publisher.send(REPORTED, asked)
    assert rings(talk) and reports(talk) == [REPORTED, asked], "a request waits for nobody"
    time.sleep(0.12)
    assert not rings(talk), "nothing waits"


def test_what_says_nothing_new_waits_for_more_of_its_peer(talk: Stage) -> None:
    other = Publisher(talk.plane, talk.server, talk.cell, 2)
    less, more = (build_rtcp([REPORT, Remb(1, bitrate, (2,))]) for bitrate in (900_000, 3_000_000))
    talk.publisher.send(ESTIMATED, REPORTED, more)
    other.send(REPORTED)
    time.sleep(0.12)
    assert not rings(talk) and reports(talk) == []
    talk.publisher.send(less)
    assert not rings(talk) and reports(talk) == [ESTIMATED, REPORTED, more, less]
    talk.publisher.send(less)
    assert not rings(talk) and reports(talk) == []
    asked = build_rtcp([Nack(1, 2, (3,))])
    talk.publisher.send(REPORTED, asked)
    assert rings(talk) and reports(talk) == [less, REPORTED, asked]
    time.sleep(1.0)
    assert not rings(talk) and reports(talk) == [REPORTED], "the other peer's have waited long enough"
    later = build_rtcp([ReceiverReport(1, (ReportBlock(2, 0, 1, 9, 4, 5, 6),))])
    talk.publisher.send(REPORTED, later, asked)
    assert rings(talk) and reports(talk) == [later, asked], "it says all that the one before says"
    other.close()


def test_reports_that_wait_are_bounded(talk: Stage) -> None:
    most = 0
    for stream in range(100):
        talk.publisher.send(build_rtcp([ReceiverReport(1, (ReportBlock(stream, 0, 0, 3, 4, 5, 6),))]))
        assert not rings(talk)
        most = max(most, len(reports(talk)))
    assert 4 <= most <= 16


def test_the_thread_rings_for_a_report_though_nothing_else_comes(talk: Stage) -> None:
    talk.pump.start()
    for eager in (True, True, False):
        talk.publisher.ingress.set_eager(eager)
        talk.publisher.send(REPORTED)
        assert select.select([talk.pump.fd], [], [], PATIENCE)[0]
        assert reports(talk) == [REPORTED]


def test_how_soon_a_compound_is_read_is_the_same_in_both_planes(talk: Stage) -> None:
    rng = random.Random(5)
    packets = [
        REPORT,
        ReceiverReport(1, (ReportBlock(2, 1, 1, 9, 9, 9, 9),)),
        ESTIMATE,
        Remb(1, 2_000_000, (2,)),
        SenderReport(1, 2, 3, 4, 5, ()),
        Sdes(((1, ((1, b"ab"),)),)),
        UnknownRtcp(207, 0, bytes(8)),
        Nack(1, 2, (3,)),
        Pli(1, 2),
    ]
    seen: Counter[Urgency | None] = Counter()
    estimate, held = 0, list[bytes]()
    for _ in range(1200):
        compound = bytearray(build_rtcp(rng.choices(packets, (4, 4, 8, 1, 1, 2, 2, 1, 1), k=rng.randint(1, 3))))
        if rng.random() < 0.3:
            compound[rng.randrange(2, len(compound))] = rng.randrange(256)
        if rng.random() < 0.1:
            del compound[rng.randrange(12, len(compound) + 1) :]
        sent_at = time.monotonic()
        talk.publisher.send(bytes(compound))
        rang = rings(talk)
        found, estimate = urgency(bytes(compound), estimate)
        if time.monotonic() - sent_at < 0.1:  # Else something may have waited long enough.
            assert rang == (found is Urgency.URGENT), compound.hex()
            seen[found] += 1
        taken, known = (
            reports(talk),
            [number for number, older in enumerate(held) if supersedes(bytes(compound), older)],
        )
        if found is Urgency.USUAL and known:
            held[known[0]] = bytes(compound)
            seen[None] += 1
        else:
            held.append(bytes(compound))
        if found is not Urgency.USUAL or taken:
            left = held[-1:] if found is Urgency.USUAL else []  # There was no room for it beside the others.
            assert taken + left == held, compound.hex()
            held = left
    assert min(seen[found] for found in (*Urgency, None)) > 20


@pytest.mark.parametrize("name", FAST)
def test_rtcp_is_opened_and_what_cannot_be_opened_goes_up_as_it_came(name: str) -> None:
    stage = Stage(plane_named(name, protect=True), "audio")
    sender, opener, stranger = sessions()
    try:
        stage.publisher.ingress.set_keys(opener)
        stage.publisher.ingress.set_eager(True)
        plain = build_rtcp([REPORT, ESTIMATE])
        protected, foreign = sender.protect_rtcp(plain), stranger.protect_rtcp(plain)
        for datagram in (protected, protected, foreign, protected[:11], sender.protect_rtcp(plain)):
            stage.run(datagram)
        assert [(data, opened) for *_, data, _, opened in stage.up] == [
            (plain, RTCP),
            (protected, 0),
            (foreign, 0),
            (protected[:11], 0),
            (plain, RTCP),
        ]
    finally:
        stage.close()
        Bench.plane = plane_named("plain")


# -- news --------------------------------------------------------------------------------------------------------------


def test_arrivals_and_levels_wait_until_they_are_taken(fast: Any) -> None:
    talk = Stage(fast, "audio", level_id=LEVEL)
    try:
        talk.publisher.ingress.set_transport_cc(TRANSPORT_CC)
        assert not talk.pump.tell_news() and talk.pump.rings_with_news
        talk.run(audio(1, cc=b"\x00\x01", level=b"\x8a"))
        talk.publisher.send(*(audio(n, cc=n.to_bytes(2, "big"), level=bytes((n,))) for n in range(2, 5)))
        while talk.pump.once():
            pass
        assert not talk.pump.rings_with_news
        if fast.name == "kernel":
            assert select.select([talk.pump.fd], [], [], 0)[0], "it rings once"
        assert talk.pump.tell_news() and talk.publisher.news == 1
        arrivals = talk.publisher.ingress.take_arrivals()
        assert [(number, ssrc, marker) for _, ssrc, number, marker in arrivals] == [(n, 77, False) for n in range(2, 5)]
        assert all(1000 <= at < 1000 + PATIENCE for at, *_ in arrivals)
        assert talk.publisher.ingress.has_track_news
        assert talk.forwarder.receivers[0].take_levels() == [(n * 960, n) for n in range(2, 5)]
        assert not talk.publisher.ingress.has_track_news and talk.forwarder.receivers[0].take_latency() > 0
        assert not talk.pump.tell_news() and talk.publisher.news == 1
    finally:
        talk.close()


def test_who_looks_for_news_is_not_rung_for_reports(fast: Any) -> None:
    talk = Stage(fast, "audio")
    report = build_rtcp([REPORT])

    def rings() -> bool:
        talk.publisher.send(report)
        while talk.pump.once():
            pass
        time.sleep(0.12)
        talk.pump.once()
        return bool(select.select([talk.pump.fd], [], [], 0)[0])

    try:
        talk.publisher.ingress.set_eager(True)
        talk.publisher.ingress.set_transport_cc(TRANSPORT_CC)
        talk.run(audio(1))
        talk.run(audio(2, cc=b"\x00\x02"))
        assert talk.pump.tell_news()
        assert not rings() and [entry[3] for entry in talk.pump.take(64)] == [report]
        assert not talk.pump.tell_news()
        assert rings() and [entry[3] for entry in talk.pump.take(64)] == [report]
    finally:
        talk.close()


def elements(rng: random.Random, number: int) -> bytes:
    """A block of one-byte header extensions with the two that count among others, in any order and at any place."""
    values = {TRANSPORT_CC: number.to_bytes(2, "big"), LEVEL: bytes((number & 127,)), 3: b"abc", 9: bytes(16)}
    block = b""
    for id in rng.sample(sorted(values), rng.randint(0, len(values))):
        block += bytes(rng.choice((0, 0, 0, 1, 3))) + bytes((id << 4 | len(values[id]) - 1,)) + values[id]
    return block + bytes(-len(block) % 4)


@pytest.mark.parametrize("seed", range(4))
def test_elements_are_found_wherever_they_are(fast: Any, seed: int) -> None:
    rng = random.Random(seed)
    talk = Stage(fast, "audio", level_id=LEVEL)
    try:
        talk.publisher.ingress.set_transport_cc(TRANSPORT_CC)
        talk.run(audio(0))
        layout = 0.0
        for number in range(1, 400):
            if rng.random() < 0.7:  # Else the same places as before, with other values.
                layout = rng.random()
            block, packet = elements(random.Random(layout), number), bytearray(audio(number))
            packet[0] |= 0x10
            packet[12:12] = b"\xbe\xde" + (len(block) // 4).to_bytes(2, "big") + block
            talk.run(bytes(packet))
            read = parse_rtp(bytes(packet), 0.0)
            arrivals = [number.to_bytes(2, "big") for _, _, number, _ in talk.publisher.ingress.take_arrivals()]
            levels = [bytes((level,)) for _, level in talk.forwarder.receivers[0].take_levels()]
            assert (arrivals or [None], levels or [None]) == ([read.extension(TRANSPORT_CC)], [read.extension(LEVEL)])
        assert steady(talk.forwarder.receivers[0]) == 399
    finally:
        talk.close()


def test_what_nobody_takes_is_bounded(fast: Any) -> None:
    talk = Stage(fast, "audio", level_id=LEVEL)
    try:
        talk.publisher.ingress.set_transport_cc(TRANSPORT_CC)
        talk.run(audio(1))
        for first in range(2, 1202, 40):
            talk.run(*(audio(n, cc=n.to_bytes(2, "big"), level=b"\x01") for n in range(first, first + 40)))
        assert len(talk.publisher.ingress.take_arrivals()) == 512
        assert len(talk.forwarder.receivers[0].take_levels()) == 64
    finally:
        talk.close()


@by_kernel_alone
def test_news_of_a_peer_that_is_gone_are_nobodys(fast: Any) -> None:
    """It was freed while the pump still had it in its list."""
    server, senders = udp(), [udp() for _ in range(6)]
    cell = receiving_cell(fast, server)
    pump = pump_of(fast, [cell], 0.0)
    told: list[int] = []
    kept = []
    for number, sender in enumerate(senders, 1):
        ingress = fast.ingress()
        ingress.set_keys(NoKeys())
        ingress.set_transport_cc(TRANSPORT_CC)
        ingress.on_news = partial(told.append, number)
        fanout, publisher = fast.fanout("audio", {}), Sink()
        publisher.ingress = ingress  # type: ignore[attr-defined]
        receiver = fanout.receiver(0, 48000, 64)
        receiver.receive(parse_rtp(audio(1), 0.0))
        fanout.feed(receiver, publisher, audio_format())
        cell.set_route(packed(sender.getsockname()), number, ingress)
        sender.sendto(build_rtcp([REPORT]), server.getsockname())
        sender.sendto(audio(2, cc=b"\x00\x02"), server.getsockname())
        while pump.once():
            pass
        kept.append((ingress, fanout, publisher, receiver))
    for sender in senders[:5]:
        cell.set_route(packed(sender.getsockname()), 0, None)
    last = kept[-1]
    kept.clear()
    del ingress, fanout, publisher, receiver
    gc.collect()
    while pump.tell_news():
        pass
    assert told == [6] and last[0].take_arrivals()
    for sock in (server, *senders):
        sock.close()


# -- keys --------------------------------------------------------------------------------------------------------------


def sessions() -> tuple[SrtpSender, SrtpReceiver, SrtpSender]:
    """The publisher's, ours for it, and somebody else's."""
    profile = SrtpProfile.AEAD_AES_128_GCM
    material = random.Random(1).randbytes(profile.exported_size)
    other = random.Random(2).randbytes(profile.exported_size)
    return (
        SrtpSender(SrtpKeys.from_exported(profile, material, client=True)),
        SrtpReceiver(SrtpKeys.from_exported(profile, material, client=False)),
        SrtpSender(SrtpKeys.from_exported(profile, other, client=True)),
    )


@pytest.mark.parametrize("name", FAST)
def test_packets_are_opened_and_what_is_not_the_peers_is_refused(name: str) -> None:
    stage = Stage(plane_named(name, protect=True), "audio")
    sender, opener, stranger = sessions()
    try:
        for sink in stage.sinks:
            sink.srtp = sessions()[0]
            sink.cell.set_keys(sink.srtp)
        stage.publisher.ingress.set_keys(opener)
        protected = [sender.protect_rtp(audio(number)) for number in range(1, 30)]
        stage.run(protected[0])
        assert stage.run(*protected[1:]) == 0
        theirs = sessions()[1]
        received = [theirs.unprotect_rtp(packet.data) for packet in stage.sinks[0].rtp]
        assert [parse_rtp(packet).sequence for packet in received] == list(range(1, 30))
        stage.run(protected[3], stranger.protect_rtp(audio(30)), b"\x80\x6f" + bytes(40))
        assert stage.publisher.ingress.take_refusals() == {"srtp.replay": 1, "srtp.auth": 2}
        assert stage.publisher.ingress.take_refusals() == {}
        stage.publisher.ingress.set_keys(None)
        raw = sender.protect_rtp(audio(31))
        stage.run(raw)
        assert stage.up[-1][3] == raw and not stage.up[-1][5]
    finally:
        stage.close()
        Bench.plane = plane_named("plain")


# -- the thread --------------------------------------------------------------------------------------------------------


@by_kernel_alone
def test_the_thread_forwards_while_python_does_nothing(talk: Stage) -> None:
    talk.run(audio(1))
    talk.pump.start()
    talk.publisher.send(*(audio(number) for number in range(2, 12)))
    deadline = time.monotonic() + PATIENCE
    while len(talk.sinks[1].rtp) < 11 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert [packet.sequence for packet in talk.sinks[1].rtp] == list(range(1, 12))
    for number in (20, 30):  # It rings for the first one at once, for the others when they have waited a moment.
        talk.publisher.send(audio(number))
        assert select.select([talk.pump.fd], [], [], PATIENCE)[0]
        assert talk.handle_up() == 0 and talk.pump.has_losses and talk.pump.tell_news()
    talk.pump.stop()
    talk.pump.stop()


@by_kernel_alone
def test_thread_and_python_share_the_rows(stage: Stage) -> None:
    """Legs that come, go, pause and are asked again, while packets run: nobody sees a number twice or a hole."""
    rng, forwarder, lock = random.Random(9), stage.forwarder, stage.plane.lock
    stage.run(video(0, key=True))
    stage.pump.start()
    made = list(zip(stage.legs, stage.sinks, strict=True))
    deadline = time.monotonic() + 3 * PATIENCE
    for number in range(1, 3000):
        stage.publisher.send(video(number, key=number % 50 == 0, picture=number & 0x7FFF))
        while number - stage.cell.received[0] > 50 and time.monotonic() < deadline:
            time.sleep(0.0002)  # The socket holds so many on any machine.
        leg, sink = rng.choice(made)
        with lock:
            stage.handle_up()
            match rng.randrange(12):
                case 0:
                    forwarder.set_paused(leg, rng.random() < 0.5, 1000.0)
                case 1:
                    forwarder.remove_leg(leg)
                case 2:
                    forwarder.add_leg(leg, 1000.0)
                case 3:
                    forwarder.on_nack(leg, [leg.munger.last_sequence], 2000.0 + number)
                case 4 if len(made) < 12:
                    new = Sink()
                    made.append((video_leg(new, ssrc=1000 + 2 * number, subscriber=f"PA_{number}"), new))
                    forwarder.add_leg(made[-1][0], 1000.0)
    received = forwarder.receivers[0]
    while received.packets < 3000 and time.monotonic() < deadline:
        with lock:
            stage.handle_up()
    stage.pump.stop()
    assert received.packets == 3000
    for leg, sink in made:
        media = [packet.sequence for packet in sink.rtp if packet.ssrc == leg.ssrc]
        first = media[0] if media else 0
        assert media == list(range(first, first + len(media)))
    assert steady(received) > 100


def test_planes_without_a_kernel_have_no_pump() -> None:
    plane: Plane = PythonPlane()
    assert plane.pump([plane.socket(0)], 0.0) is None
