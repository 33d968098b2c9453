"""Packet trailers: gone for who does not know them, there for who does, also in what is sent again; on both planes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.media import Sink, VideoSource, forwarder_for, video_format, video_leg

from lkactor.sfu.trailers import trailer_size
from lkactor.wire.rtp import RtpPacket, parse_rtp, unwrap_rtx

TRAILER = b"\x01\x08timestmp" + bytes((15 ^ 0xFF,)) + b"LKTS"


@pytest.mark.parametrize(
    ("payload", "size"),
    [
        (b"picture" + TRAILER, 15),
        (TRAILER, 15),
        (b"picture", 0),
        (b"", 0),
        (b"LKTS", 0),
        (b"\xfaLKTS", 5),
        (b"\xfbLKTS", 0),
        (b"x" * 20 + bytes((30 ^ 0xFF,)) + b"LKTS", 0),
        (b"picture" + TRAILER + b"x", 0),
    ],
    ids=["behind a picture", "alone", "none", "nothing", "magic alone", "empty", "too short", "too long", "not last"],
)
def test_where_a_trailer_begins(payload: bytes, size: int) -> None:
    assert trailer_size(payload) == trailer_size(memoryview(payload)) == size


@given(st.binary(max_size=40))
def test_any_payload_has_one_or_none(payload: bytes) -> None:
    assert 0 <= trailer_size(payload + b"LKTS") <= len(payload) + 4


def with_trailer(source: VideoSource, at: float, *, key: bool) -> list[RtpPacket]:
    """A picture whose packets all end like a trailer; only the last one's is one."""
    packets = source.frame(at, key=key, packets=2)
    return [parse_rtp(bytes(packet.data) + TRAILER, at) for packet in packets]


def test_who_does_not_know_trailers_gets_none() -> None:
    forwarder, _ = forwarder_for(video_format())
    able, plain = Sink(), Sink()
    knows, strips = (video_leg(sink, ssrc=n, subscriber=f"PA_{n}") for n, sink in ((1, able), (2, plain)))
    strips.strips_trailers = True
    source = VideoSource(5)
    for leg in (knows, strips):
        forwarder.add_leg(leg, 0.0)
    for number in range(3):
        at = number / 30
        forwarder.receive(0, with_trailer(source, at, key=number == 0), at)
    ends = [bytes(packet.payload).endswith(TRAILER) for packet in able.rtp]
    assert ends == [True] * 6
    ends = [bytes(packet.payload).endswith(TRAILER) for packet in plain.rtp]
    assert ends == [True, False] * 3, "of the last packet of each picture"
    for whole, cut in zip(able.rtp, plain.rtp, strict=True):
        assert bytes(whole.payload).removesuffix(TRAILER)[10:] == bytes(cut.payload).removesuffix(TRAILER)[10:]
        assert (whole.marker, whole.timestamp) == (cut.marker, cut.timestamp)
    assert strips.octets == knows.octets - 3 * len(TRAILER)


def test_what_is_sent_again_has_none_either() -> None:
    forwarder, _ = forwarder_for(video_format())
    sink = Sink()
    leg = video_leg(sink)
    leg.strips_trailers = True
    forwarder.add_leg(leg, 0.0)
    forwarder.receive(0, with_trailer(VideoSource(5), 0.0, key=True), 0.0)
    original = sink.rtp[-1]
    before = len(sink.rtp)
    forwarder.on_nack(leg, (original.sequence,), 0.2)
    (again,) = sink.rtp[before:]
    assert unwrap_rtx(again, payload_type=100, ssrc=leg.ssrc).data == original.data  # type: ignore[union-attr]
    assert not bytes(original.payload).endswith(TRAILER)
