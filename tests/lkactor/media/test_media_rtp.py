"""Packetizers and the assembler: there and back for every codec; loss, reordering, wraparound, rubbish."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.made_media import make_video

from lkactor.errors import ProtocolViolation
from lkactor.media.depacketize import PATIENCE, WINDOW, Assembler
from lkactor.media.files import read_media
from lkactor.media.frame import Frame
from lkactor.media.keyframes import nal_units, obus, to_leb128
from lkactor.media.packetize import MAX_PAYLOAD, Packetizer
from lkactor.wire.codecs import is_keyframe
from lkactor.wire.codecs.vp9 import parse_descriptor as vp9_descriptor
from lkactor.wire.rtp import RtpPacket, build_rtp, parse_rtp

CODECS = ["video/vp8", "video/vp9", "video/av1", "video/h264", "audio/opus"]
SPS = bytes.fromhex("6742c01ed90141fb011000000300100000030320f1832480")


def frame_of(mime: str, number: int, size: int, key: bool) -> Frame:
    """A frame of the right shape, its content from its number. `size` in bytes, about."""
    body = random.Random(number).randbytes(size).replace(b"\0", b"\1")
    match mime:
        case "video/vp8":
            data = (b"\x10\x02\x00\x9d\x01\x2a\x40\x01\xf0\x00" if key else b"\x11\x02\x00") + body
        case "video/vp9":
            data = (b"\x82" if key else b"\x86") + body
        case "video/av1":
            head = b"\x0a\x03abc" if key else b""
            data = b"\x12\x00" + head + b"\x32" + to_leb128(len(body)) + body
        case "video/h264":
            slice_ = (b"\x65\x88" if key else b"\x41\x9a") + body
            units = [SPS, b"\x68\xce\x3c\x80", slice_] if key else [slice_]
            data = b"".join(b"\0\0\0\1" + unit for unit in units)
        case _:
            data = b"\x78" + body
    return Frame(data, number / 30, key)


class Stream:
    """Frames to packets with rising numbers."""

    def __init__(self, mime: str, sequence: int = 65530, timestamp: int = 2**32 - 9000) -> None:
        self.mime = mime
        self.packetizer = Packetizer(mime, random.Random(1), size=(320, 240))
        self.sequence, self.base = sequence, timestamp

    def packets(self, frame: Frame, arrival: float = 0.0) -> list[RtpPacket]:
        payloads = self.packetizer.packetize(frame)
        rate = 48000 if self.mime == "audio/opus" else 90000
        out = []
        for index, payload in enumerate(payloads):
            assert len(payload) <= MAX_PAYLOAD
            data = build_rtp(
                payload_type=96,
                sequence=self.sequence,
                timestamp=self.base + round(frame.time * rate),
                ssrc=1,
                marker=index == len(payloads) - 1,
                payload=payload,
            )
            self.sequence += 1
            out.append(parse_rtp(data, arrival))
        return out


def assembler(mime: str) -> Assembler:
    return Assembler(mime, 48000 if mime == "audio/opus" else 90000)


def put(target: Assembler, packets: list[RtpPacket], now: float = 0.0) -> list[tuple[bytes, int, bool]]:
    for packet in packets:
        target.receive(packet, now)
    return target.take()


@pytest.mark.parametrize("mime", CODECS)
@pytest.mark.parametrize("size", [1, 100, 1146, 1147, 1150, 1151, 2300, 40000])
def test_there_and_back(mime: str, size: int) -> None:
    """Across the wrap of both numbers, which happens in the first frames."""
    if mime == "audio/opus" and size > MAX_PAYLOAD - 1:
        pytest.skip("an Opus packet is never cut")
    stream, target = Stream(mime), assembler(mime)
    frames = [frame_of(mime, number, size, number % 5 == 0) for number in range(8)]
    got = [entry for frame in frames for entry in put(target, stream.packets(frame))]
    assert [data for data, _, _ in got] == [frame.data for frame in frames]
    assert [key for _, _, key in got] == [frame.keyframe or mime == "audio/opus" for frame in frames]
    step = 1600 if mime == "audio/opus" else 3000
    assert [at - got[0][1] for _, at, _ in got] == [number * step for number in range(8)]
    assert not target.counters


@pytest.mark.parametrize("mime", CODECS[:4])
def test_real_frames_there_and_back(tmp_path: Path, mime: str) -> None:
    suffix = "h264" if mime == "video/h264" else "ivf"
    path = tmp_path / f"a.{suffix}"
    make_video(path, mime, seconds=1)
    stream, target = Stream(mime), assembler(mime)
    for frame in read_media(path.read_bytes(), f".{suffix}").frames():
        packets = stream.packets(frame)
        assert is_keyframe(mime, packets[0].payload) == frame.keyframe, "what a server sees in the first packet"
        ((data, _, key),) = put(target, packets)
        assert key == frame.keyframe
        if mime == "video/av1":  # the delimiter comes back, padding and tile lists do not
            kept = [entry for entry in obus(frame.data) if entry[0] >> 3 & 15 not in (2, 8, 15)]
            assert [(h >> 3, p) for h, _, p in obus(data)][1:] == [(h >> 3, p) for h, _, p in kept]
        elif mime == "video/h264":
            assert nal_units(data) == [unit for unit in nal_units(frame.data) if unit[0] & 31 not in (9, 12)]
        else:
            assert data == frame.data


@pytest.mark.parametrize("mime", CODECS[:4])
def test_reordering_does_not_matter(mime: str) -> None:
    stream, target = Stream(mime), assembler(mime)
    first = put(target, stream.packets(frame_of(mime, 0, 3000, True)))
    later = [packet for number in range(1, 6) for packet in stream.packets(frame_of(mime, number, 3000, False))]
    random.Random(3).shuffle(later)
    got = put(target, [*later, *later])
    assert [data for data, _, _ in first + got] == [frame_of(mime, n, 3000, n == 0).data for n in range(6)]
    assert target.counters == {"depacketize.late_or_twice": len(later)}


@pytest.mark.parametrize("mime", CODECS[:4])
@pytest.mark.parametrize("lost", [0, 1, -1])
def test_after_a_loss_nothing_comes_before_a_key_frame(mime: str, lost: int) -> None:
    stream, target = Stream(mime), assembler(mime)
    put(target, stream.packets(frame_of(mime, 0, 3000, True)))
    damaged = stream.packets(frame_of(mime, 1, 5000, False))
    del damaged[lost]
    assert put(target, damaged) == []
    assert put(target, stream.packets(frame_of(mime, 2, 3000, False)), PATIENCE / 2) == []
    assert not target.wants_keyframe, "the packet may still come"
    assert put(target, stream.packets(frame_of(mime, 3, 3000, False)), PATIENCE * 2) == []
    assert target.wants_keyframe
    got = put(target, stream.packets(frame_of(mime, 4, 3000, True)), PATIENCE * 2)
    assert [data for data, _, _ in got] == [frame_of(mime, 4, 3000, True).data]
    assert not target.wants_keyframe
    assert target.counters["depacketize.lost"] == 1


@pytest.mark.parametrize("mime", CODECS[:4])
def test_a_key_frame_without_its_beginning_is_none(mime: str) -> None:
    stream, target = Stream(mime), assembler(mime)
    got = put(target, stream.packets(frame_of(mime, 0, 5000, True))[1 if mime != "video/h264" else 3 :])
    assert got == []
    assert target.wants_keyframe


def test_audio_goes_on_after_a_loss() -> None:
    stream, target = Stream("audio/opus"), assembler("audio/opus")
    packets = [stream.packets(frame_of("audio/opus", n, 50, True))[0] for n in range(5)]
    del packets[2]
    assert len(put(target, packets)) == 2
    target.flush()
    assert len(target.take()) == 2


def test_the_window_is_bounded() -> None:
    stream, target = Stream("video/vp8"), assembler("video/vp8")
    put(target, stream.packets(frame_of("video/vp8", 0, 10, True)))
    stream.sequence += 1
    for number in range(3 * WINDOW):
        put(target, stream.packets(frame_of("video/vp8", number + 1, 10, False)))
        assert len(target._waiting) <= WINDOW
    assert target.counters["depacketize.lost"] == 1


def test_padding_is_no_frame() -> None:
    stream, target = Stream("video/vp8"), assembler("video/vp8")
    put(target, stream.packets(frame_of("video/vp8", 0, 10, True)))
    padding = build_rtp(payload_type=96, sequence=stream.sequence, timestamp=stream.base, ssrc=1, padding=200)
    stream.sequence += 1
    assert put(target, [parse_rtp(padding)]) == []
    assert len(put(target, stream.packets(frame_of("video/vp8", 1, 10, False)))) == 1


def test_vp9_key_frames_carry_their_size() -> None:
    payload = Packetizer("video/vp9", random.Random(1), size=(320, 240)).packetize(frame_of("video/vp9", 0, 10, True))[
        0
    ]
    descriptor = vp9_descriptor(payload)
    assert descriptor.sizes == ((320, 240),)
    assert (descriptor.inter_predicted, descriptor.start_of_frame, descriptor.end_of_frame) == (False, True, True)


def test_av1_counts_its_elements() -> None:
    """W is 2, and the frame has no length before it: LiveKit's server finds a key frame in no other form."""
    sequence_header, key_frame = b"\x0a\x03abc", b"\x32\x04\x10bcd"
    frame = Frame(b"\x12\x00" + sequence_header + key_frame, 0.0, True)
    assert Packetizer("video/av1", random.Random(1)).packetize(frame) == [b"\x28\x04\x08abc\x30\x10bcd"]


def test_av1_counts_no_more_than_three_elements() -> None:
    tile_group = b"\x22\x01x"
    frame = Frame(b"\x12\x00" + 4 * tile_group, 0.0, False)
    assert Packetizer("video/av1", random.Random(1)).packetize(frame) == [b"\x00" + 4 * b"\x02\x20x"]


def test_picture_ids_rise_by_one_and_wrap() -> None:
    packetizer = Packetizer("video/vp8", random.Random(1))
    packetizer._picture_id = 0x7FFE
    ids = [packetizer.packetize(frame_of("video/vp8", n, 9, False))[0][2:4] for n in range(3)]
    assert ids == [b"\xff\xff", b"\x80\x00", b"\x80\x01"]


def test_h264_stap_a_of_rfc_6184() -> None:
    """What browsers send: parameter sets in one packet (section 5.7.1)."""
    units = [SPS, b"\x68\xce\x3c\x80"]
    stap = b"\x78" + b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)
    packets = [
        parse_rtp(build_rtp(payload_type=96, sequence=n, timestamp=0, ssrc=1, marker=n == 1, payload=payload))
        for n, payload in enumerate([stap, b"\x65\x88ab"])
    ]
    ((data, _, key),) = put(assembler("video/h264"), packets)
    assert key
    assert nal_units(data) == [*units, b"\x65\x88ab"]


@pytest.mark.parametrize("mime", ["video/h265", "audio/pcmu", ""])
def test_unknown_codecs_are_refused(mime: str) -> None:
    with pytest.raises(ProtocolViolation):
        Packetizer(mime, random.Random(1))
    with pytest.raises(ProtocolViolation):
        Assembler(mime, 90000)


@given(
    st.sampled_from(CODECS),
    st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 3), st.booleans(), st.binary(max_size=40)), max_size=30),
)
def test_random_packets_raise_nothing(mime: str, packets: list[tuple[int, int, bool, bytes]]) -> None:
    target = assembler(mime)
    for number, (sequence, timestamp, marker, payload) in enumerate(packets):
        data = build_rtp(
            payload_type=96, sequence=sequence, timestamp=timestamp, ssrc=1, marker=marker, payload=payload
        )
        target.receive(parse_rtp(data, number / 10), number / 10)
    target.flush()
    target.take()


@given(st.sampled_from(CODECS), st.binary(max_size=3000), st.booleans())
def test_random_frames_are_cut_or_refused(mime: str, data: bytes, key: bool) -> None:
    try:
        payloads = Packetizer(mime, random.Random(1), size=(9, 9)).packetize(Frame(data, 0.0, key))
    except ProtocolViolation as violation:
        assert violation.reason.startswith("av1.")
    else:
        assert mime == "audio/opus" or all(0 < len(payload) <= MAX_PAYLOAD for payload in payloads)
