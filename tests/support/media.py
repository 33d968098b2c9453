"""A publisher's packets and a subscriber's end, for tests of the forwarding plane. No clock, no keys.

`plane` runs a test through all implementations. The kernel writes to a socket, and so does the Python plane where legs
ride, so there a sink is a UDP socket of this host; with "plain", one leg at a time, there is no network at all.
"""

from __future__ import annotations

import socket
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from livekit.protocol import models

from actors.sending import sender_for
from lkactor.plane import InlineSocket, Plane, PythonPlane, SocketCell, choose
from lkactor.sdp import Codec
from lkactor.sfu import Leg, TrackFormat, TrackForwarder
from lkactor.wire.codecs.vp8 import Vp8Descriptor, parse_descriptor
from lkactor.wire.rtcp import RtcpPacket, SenderReport, parse_rtcp
from lkactor.wire.rtp import RtpPacket, build_rtp, parse_rtp

VP8 = Codec("video/vp8", 96, 90000, feedback=("nack", "nack pli"), rtx_payload_type=97)
OPUS = Codec("audio/opus", 111, 48000, 2)
RED = Codec("audio/red", 63, 48000, 2)
NTP_ZERO = 3_900_000_000 << 32
THREE_LAYERS = tuple(
    models.VideoLayer(quality=quality, width=270 << quality, height=180 << quality) for quality in range(3)
)


class Plain:
    """Keys that change nothing. Duck-types SrtpSender."""

    def protect_rtp_into(self, buffer: Any, offset: int, length: int) -> int:
        return length


class Bench:
    """The plane under test."""

    plane: Plane = PythonPlane(steady=False)


def available_planes() -> list[str]:
    try:
        choose("kernel")
    except RuntimeError:
        return ["plain", "python"]
    return ["plain", "python", "kernel"]


def plane_named(name: str, *, protect: bool = False) -> Plane:
    """One that changes nothing in the packets. "plain": every leg on its own, as `lkactor.sfu` has it."""
    if name == "kernel":
        from lkactor.plane.native import KernelPlane

        return KernelPlane(protect=protect)
    return PythonPlane(protect=protect, steady=name == "python")


def socket_cell(plane: Plane, sock: socket.socket) -> Any:
    """As `actors.net.Ports` makes it."""
    cell = plane.socket(sock.fileno())
    if isinstance(cell, InlineSocket):
        cell.sender = sender_for(sock.fileno())
    return cell


@pytest.fixture(params=available_planes())
def plane(request: pytest.FixtureRequest) -> Iterator[Plane]:
    """Ask for it, in a conftest with autouse, to run through all implementations."""
    Bench.plane = plane_named(request.param)
    yield Bench.plane
    Bench.plane = PythonPlane(steady=False)


class Sink:
    """Implements `lkactor.sfu.Egress`; keeps what was sent, parsed."""

    def __init__(self) -> None:
        self.cell = Bench.plane.egress()
        self.socket: SocketCell | None = None
        self.wire: socket.socket | None = None
        if not isinstance(Bench.plane, PythonPlane) or Bench.plane.intake is not None:
            self._listen()
        self.ready = True
        self.srtp: Any = Plain()
        self._runs: list[int] = []
        self._rtp: list[RtpPacket] = []
        self.rtcp: list[RtcpPacket] = []

    def _listen(self) -> None:
        self.wire, out = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self.wire.bind(("127.0.0.1", 0))
        self.wire.setblocking(False)
        self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        out.connect(self.wire.getsockname())
        self.socket = socket_cell(Bench.plane, out)
        self.cell.set_path(self.socket, b"")
        weakref.finalize(self, out.close)
        weakref.finalize(self, self.wire.close)

    @property
    def ready(self) -> bool:
        return self._ready

    @ready.setter
    def ready(self, value: bool) -> None:
        self._ready = value
        self.cell.set_ready(value)

    def _drain(self) -> None:
        packets: list[bytes] = []
        while self.wire is not None:
            try:
                packets.append(self.wire.recv(2048))
            except BlockingIOError:
                break
        if packets:
            self._keep(packets)

    def _keep(self, packets: Sequence[bytes]) -> None:
        self._runs.append(len(packets))
        self._rtp.extend(parse_rtp(packet) for packet in packets)

    @property
    def rtp(self) -> list[RtpPacket]:
        self._drain()
        return self._rtp

    @rtp.setter
    def rtp(self, packets: list[RtpPacket]) -> None:
        self._drain()
        self._rtp = packets

    @property
    def runs(self) -> list[int]:
        """How many packets came at once."""
        self._drain()
        return self._runs

    def send_run(self, segments: Any) -> None:
        self._drain()
        self._keep([bytes(segment) for segment in segments])

    def send_rtcp(self, packet: bytes) -> None:
        self.rtcp.extend(parse_rtcp(packet))

    def take(self) -> list[RtpPacket]:
        taken, self.rtp = self.rtp, []
        return taken

    def take_rtcp(self, kind: type[Any]) -> list[Any]:
        taken = [packet for packet in self.rtcp if isinstance(packet, kind)]
        self.rtcp = [packet for packet in self.rtcp if not isinstance(packet, kind)]
        return taken


def video_format(**changes: Any) -> TrackFormat:
    values: dict[str, Any] = {
        "kind": "video",
        "codecs": (VP8,),
        "layers": THREE_LAYERS,
        "simulcast": True,
        "encrypted": False,
        "history": 500,
    }
    return TrackFormat(**(values | changes))


def audio_format(*codecs: Codec, **changes: Any) -> TrackFormat:
    values: dict[str, Any] = {
        "kind": "audio",
        "codecs": codecs or (OPUS,),
        "layers": (),
        "simulcast": False,
        "encrypted": False,
        "history": 200,
    }
    return TrackFormat(**(values | changes))


def video_leg(sink: Sink, *, ssrc: int = 0xABC0001, rtx: bool = True, subscriber: str = "PA_1") -> Leg:
    leg = Bench.plane.leg(
        track_id="TR_1",
        subscriber=subscriber,
        kind="video",
        ssrc=ssrc,
        rtx_ssrc=ssrc + 1 if rtx else 0,
        cname="PA_pub",
        egress=sink,
    )
    leg.payload_types = {96: 100}
    leg.rtx_payload_types = {100: 101} if rtx else {}
    return leg


def audio_leg(sink: Sink, *, ssrc: int = 0xABC0009) -> Leg:
    leg = Bench.plane.leg(
        track_id="TR_2", subscriber="PA_1", kind="audio", ssrc=ssrc, rtx_ssrc=0, cname="PA_pub", egress=sink
    )
    leg.payload_types = {111: 109}
    return leg


def forwarder_for(format: TrackFormat) -> tuple[TrackForwarder, Sink]:
    """The forwarder, and the publisher's end, where its feedback goes."""
    forwarder, publisher = TrackForwarder(format, Bench.plane.fanout), Sink()
    forwarder.publisher = publisher
    return forwarder, publisher


def vp8_payload(picture: int, tl0: int, keyidx: int, tid: int = 0, *, key: bool, start: bool = True) -> bytes:
    """A descriptor with every field, 15-bit picture id, and a frame tag; key frames say 320x240."""
    head = bytes((0x90 if start else 0x80, 0xF0, 0x80 | picture >> 8 & 0x7F, picture & 0xFF, tl0 & 0xFF))
    head += bytes((tid << 6 | keyidx & 31,))
    if key and start:
        return head + b"\x10\x02\x00\x9d\x01\x2a\x40\x01\xf0\x00" + bytes(20)
    return head + b"\x11" + bytes(29)


def ids_of(packet: RtpPacket) -> Vp8Descriptor:
    return parse_descriptor(packet.payload)


class VideoSource:
    """One simulcast layer: frames of `packets_per_frame` packets, 30 per second, with ids of its own."""

    def __init__(self, ssrc: int, *, sequence: int = 1000, timestamp: int = 5000, picture: int = 100) -> None:
        self.ssrc = ssrc
        self.sequence, self.timestamp = sequence, timestamp
        self.picture, self.tl0, self.keyidx = picture, 10, 3

    def frame(self, now: float, *, key: bool = False, packets: int = 2, tid: int = 0) -> list[RtpPacket]:
        if key:
            self.keyidx += 1
        if tid == 0:
            self.tl0 += 1
        out = []
        for index in range(packets):
            payload = vp8_payload(self.picture, self.tl0, self.keyidx, tid, key=key, start=index == 0)
            out.append(self.packet(payload, now, marker=index == packets - 1))
        self.picture += 1
        self.timestamp += 3000
        return out

    def packet(self, payload: bytes, now: float, *, marker: bool = False, padding: int = 0) -> RtpPacket:
        data = build_rtp(
            payload_type=96,
            sequence=self.sequence,
            timestamp=self.timestamp,
            ssrc=self.ssrc,
            marker=marker,
            payload=payload,
            padding=padding,
        )
        self.sequence += 1
        return parse_rtp(data, now)

    def padding(self, now: float) -> RtpPacket:
        return self.packet(b"", now, padding=255)

    def report(self, captured: float) -> SenderReport:
        """As if the coming frame were captured at `captured` seconds."""
        return SenderReport(self.ssrc, NTP_ZERO + int(captured * (1 << 32)), self.timestamp & 0xFFFFFFFF, 0, 0)


def audio_packet(
    sequence: int, timestamp: int, now: float, *, payload: bytes = b"\xfcopus", payload_type: int = 111, ssrc: int = 77
) -> RtpPacket:
    data = build_rtp(payload_type=payload_type, sequence=sequence, timestamp=timestamp, ssrc=ssrc, payload=payload)
    return parse_rtp(data, now)


def red_payload(blocks: list[tuple[int, bytes]], primary: bytes, inner: int = 111) -> bytes:
    """RFC 2198: `blocks` are (timestamp offset, data), oldest first."""
    head = b"".join(bytes((0x80 | inner,)) + (offset << 10 | len(data)).to_bytes(3, "big") for offset, data in blocks)
    return head + bytes((inner,)) + b"".join(data for _, data in blocks) + primary
