"""The kernel and the Python plane against `lkactor.sfu` alone, under real keys, and at their edges."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
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
    socket_cell,
    video_format,
    video_leg,
    vp8_payload,
)

from lkactor.plane import InlineSocket, Plane, choose
from lkactor.sfu import Leg, TrackForwarder
from lkactor.sfu.leg import HISTORY
from lkactor.srtp import SrtpKeys, SrtpProfile, SrtpReceiver, SrtpSender
from lkactor.wire.rtp import RtpPacket, build_rtp, parse_rtp

FAST = available_planes()[1:]


def video_packet(sequence: int, timestamp: int, *, now: float, key: bool, ssrc: int = 1, picture: int = 0) -> RtpPacket:
    payload = vp8_payload(picture, picture, picture & 31, key=key)
    return parse_rtp(
        build_rtp(payload_type=96, sequence=sequence, timestamp=timestamp, ssrc=ssrc, payload=payload), now
    )


@pytest.fixture(params=FAST)
def fast(request: pytest.FixtureRequest) -> Iterator[Any]:
    Bench.plane = plane_named(request.param)
    yield Bench.plane
    Bench.plane = plane_named("plain")


def stage(plane: Plane, kind: str, legs: int) -> tuple[TrackForwarder, list[Leg], list[Sink]]:
    Bench.plane = plane
    forwarder, _ = forwarder_for(video_format() if kind == "video" else audio_format())
    sinks = [Sink() for _ in range(legs)]
    made = [
        video_leg(sink, ssrc=n * 2 + 1, subscriber=f"PA_{n}") if kind == "video" else audio_leg(sink, ssrc=n + 1)
        for n, sink in enumerate(sinks)
    ]
    for leg in made:
        forwarder.add_leg(leg, 0.0)
    return forwarder, made, sinks


def numbers(leg: Leg) -> tuple[Any, ...]:
    """All that what comes depends on."""
    munger, vp8 = leg.munger, leg.vp8
    history = [leg.history[index] for index in range(HISTORY)]
    last = (vp8._last_picture, vp8._last_tl0, vp8._last_keyidx)
    sent = (munger.newest, munger.last_sequence, munger.last_timestamp, leg.last_sent_at)
    return history, last, sent, leg.packets, leg.octets, leg.resent


def wire(packets: Sequence[RtpPacket]) -> list[bytes]:
    return [packet.data for packet in packets]


@pytest.mark.parametrize("seed", range(8))
def test_all_planes_send_the_same(fast: Any, seed: int) -> None:
    """Random bursts of three layers with losses, late packets, key frames, pauses, wishes and NACKs."""
    results = []
    for plane in (plane_named("plain"), fast):
        rng = random.Random(seed)
        forwarder, legs, sinks = stage(plane, "video", 3)
        for leg in legs:
            leg.abs_send_time_id = rng.choice((0, 3))
            leg.playout_delay = rng.choice((0, 0x42_00A0C8))
        now, sequences = 0.0, [65500, 100, 40000]
        for step in range(400):
            now += 0.01
            layer = rng.randrange(3)
            burst = []
            for _ in range(rng.randint(1, 6)):
                sequences[layer] += rng.choice((1, 1, 1, 1, 2))
                number = sequences[layer] - (rng.randint(1, 5) if rng.random() < 0.05 else 0)
                burst.append(
                    video_packet(
                        number & 0xFFFF, step * 900, ssrc=layer + 1, key=rng.random() < 0.2, picture=step, now=now
                    )
                )
            forwarder.receive(layer, burst, now)
            leg = legs[rng.randrange(3)]
            match rng.randrange(12):
                case 0:
                    forwarder.set_paused(leg, rng.random() < 0.5, now)
                case 1:
                    forwarder.set_wanted(leg, rng.randrange(3), 0, 0, now)
                case 2:
                    newest = leg.munger.last_sequence
                    forwarder.on_nack(leg, [(newest - n) & 0xFFFF for n in range(rng.randint(1, 4))], now)
                case 3:
                    forwarder.handle_timeout(now)
                case 4:
                    leg.playout_delay = rng.choice((0, 0x42_00B0C8))
        results.append([(wire(sink.rtp), *numbers(leg)) for sink, leg in zip(sinks, legs, strict=True)])
    assert results[0] == results[1]
    assert sum(len(sent) for sent, *_ in results[0]) > 300
    assert sum(sink.socket.packets for sink in sinks if sink.socket is not None) > 300, "the plane did the work"


def keys() -> tuple[SrtpSender, SrtpReceiver]:
    profile = SrtpProfile.AEAD_AES_128_GCM
    material = bytes(range(profile.exported_size))
    return (
        SrtpSender(SrtpKeys.from_exported(profile, material, client=True)),
        SrtpReceiver(SrtpKeys.from_exported(profile, material, client=False)),
    )


class Protected(Sink):
    """A sink with real keys: what comes is opened with them."""

    def __init__(self) -> None:
        super().__init__()
        self.srtp, self._opener = keys()
        self.cell.set_keys(self.srtp)

    def _keep(self, packets: Sequence[bytes]) -> None:
        super()._keep([self._opener.unprotect_rtp(packet) for packet in packets])


@pytest.mark.parametrize("name", FAST)
def test_a_peer_can_open_what_plane_and_forwarder_send_in_turn(name: str) -> None:
    """The session is shared: rollover of the sequence number, retransmissions by the forwarder in between."""
    Bench.plane = plane_named(name, protect=True)
    try:
        forwarder, _ = forwarder_for(video_format())
        sink = Protected()
        leg = video_leg(sink)
        forwarder.add_leg(leg, 0.0)
        for number in range(65500, 65700):
            now = number / 100
            forwarder.receive(0, [video_packet(number & 0xFFFF, number * 900, key=number == 65500, now=now)], now)
            if number % 20 == 0:
                forwarder.on_nack(leg, [(leg.munger.last_sequence - 3) & 0xFFFF], now + 1.0)
        media = [packet for packet in sink.rtp if packet.ssrc == leg.ssrc]
        again = [packet for packet in sink.rtp if packet.ssrc == leg.rtx_ssrc]
        assert [packet.sequence for packet in media] == [number & 0xFFFF for number in range(65500, 65700)]
        assert len(again) == leg.resent == 9
    finally:
        Bench.plane = plane_named("plain")


def test_a_run_of_equal_packets_arrives_whole(fast: Any) -> None:
    forwarder, _, sinks = stage(fast, "audio", 2)
    forwarder.receive(0, [audio_packet(1, 0, 0.0)], 0.0)
    forwarder.receive(0, [audio_packet(number, number * 960, 0.1) for number in range(2, 42)], 0.1)
    for sink in sinks:
        assert [packet.sequence for packet in sink.rtp] == list(range(1, 42))
        assert sink.socket is not None and sink.socket.packets == 40


def test_closing_an_egress_is_one_write(fast: Any) -> None:
    forwarder, _, (first, second) = stage(fast, "audio", 2)
    forwarder.receive(0, [audio_packet(1, 0, 0.0)], 0.0)
    first.ready = False
    forwarder.receive(0, [audio_packet(2, 960, 0.02)], 0.02)
    assert (len(first.rtp), len(second.rtp)) == (1, 2)


def test_what_is_no_udp_path_and_what_is_diverted_goes_through_python(fast: Any) -> None:
    forwarder, _, (first, second, third) = stage(fast, "audio", 3)
    first.cell.set_path(None, b"")
    assert second.socket is not None and third.socket is not None
    second.socket.divert = True
    for number in range(1, 4):
        forwarder.receive(0, [audio_packet(number, number * 960, 0.1)], number / 50)
    assert [len(sink.rtp) for sink in (first, second, third)] == [3, 3, 3]
    assert (second.socket.packets, third.socket.packets) == (0, 2)


def test_what_does_not_fit_the_socket_is_dropped_and_counted(fast: Any) -> None:
    forwarder, legs, (sink,) = stage(fast, "audio", 1)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        cell = socket_cell(fast, near)
        (cell.sender if isinstance(cell, InlineSocket) else cell.cell).gso = 0
        forwarder.receive(0, [audio_packet(1, 0, 0.0)], 0.0)
        sink.cell.set_path(cell, b"")
        forwarder.receive(0, [audio_packet(number, number * 960, 0.1) for number in range(2, 102)], 0.1)
        assert cell.buffer_full > 0 and cell.errors == 0
        assert cell.packets + cell.buffer_full == 100
        assert legs[0].packets == 101, "a drop in the socket is a loss on the way: the numbers go on"


def test_a_socket_that_fails_is_counted(fast: Any) -> None:
    forwarder, _, (sink,) = stage(fast, "audio", 1)
    forwarder.receive(0, [audio_packet(1, 0, 0.0)], 0.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unconnected:
        cell = socket_cell(fast, unconnected)
        sink.cell.set_path(cell, b"")
        forwarder.receive(0, [audio_packet(number, number * 960, 0.1) for number in range(2, 6)], 0.1)
        gso = (cell.sender if isinstance(cell, InlineSocket) else cell.cell).gso
        assert (cell.packets, cell.errors, bool(gso)) == (0, 4, True)


@pytest.mark.parametrize(("inner", "by_plane"), [(111, True), (109, False)])
def test_red_passes_the_kernel_only_with_the_same_numbers_inside(fast: Any, inner: int, by_plane: bool) -> None:
    forwarder, _ = forwarder_for(audio_format(RED, OPUS))
    sink = Sink()
    leg = audio_leg(sink)
    leg.payload_types, leg.red_payload_types = {63: 64, 111: inner}, {63: inner}
    forwarder.add_leg(leg, 0.0)
    for number in range(1, 4):
        forwarder.receive(
            0, [audio_packet(number, number * 960, 0.1, payload=b"\x6fprimary", payload_type=63)], number / 50
        )
    assert [bytes(packet.payload) for packet in sink.rtp] == [bytes((inner,)) + b"primary"] * 3
    assert sink.socket is not None and (sink.socket.packets > 0) == by_plane


def test_python_can_be_asked_for() -> None:
    assert choose("python").name == "python"
    if "kernel" in FAST:
        assert choose("auto").name == choose("kernel").name == "kernel"


def test_packets_are_whole(fast: Any) -> None:
    """No byte of a neighbour's slot: sizes fall and rise within one burst."""
    forwarder, _, (sink,) = stage(fast, "audio", 1)
    forwarder.receive(0, [audio_packet(1, 0, 0.0)], 0.0)
    payloads = [bytes([n]) * size for n, size in enumerate((900, 1, 1400, 1400, 1399, 3, 3, 2, 900))]
    burst = [audio_packet(n + 2, n * 960, 0.1, payload=payload) for n, payload in enumerate(payloads)]
    forwarder.receive(0, burst, 0.1)
    assert [bytes(parse_rtp(packet.data).payload) for packet in sink.rtp[1:]] == payloads
