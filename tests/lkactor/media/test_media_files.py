"""Readers and writers of media files: round trips, what ffmpeg makes and reads, damage at every byte."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.made_media import FPS, decode, make_audio, make_video, sample_count

from lkactor.errors import ProtocolViolation
from lkactor.media import ivf, ogg
from lkactor.media.annexb import read_annexb
from lkactor.media.files import TrackWriter, read_media
from lkactor.media.frame import MAX_FRAME, Frame
from lkactor.media.keyframes import is_keyframe, leb128, nal_units, obus, to_leb128

VIDEO = [("video/vp8", ".ivf"), ("video/vp9", ".ivf"), ("video/av1", ".ivf"), ("video/h264", ".h264")]
SPS = bytes.fromhex("6742c01ed90141fb011000000300100000030320f1832480")


def consume(data: bytes, suffix: str) -> list[Frame]:
    """All frames of a file; ProtocolViolation is the only thing that may be raised."""
    try:
        return list(read_media(data, suffix).frames())
    except ProtocolViolation:
        return []


def ivf_of(*frames: tuple[bytes, int], fourcc: bytes = b"VP80", rate: int = 30, scale: int = 1) -> bytes:
    head = ivf.HEADER.pack(b"DKIF", 0, 32, fourcc, 64, 48, rate, scale, len(frames), 0)
    return head + b"".join(ivf.FRAME.pack(len(data), at) + data for data, at in frames)


@pytest.mark.parametrize(("mime", "suffix"), VIDEO)
def test_a_file_of_ffmpeg_goes_through_reader_and_writer_unharmed(tmp_path: Path, mime: str, suffix: str) -> None:
    made, copy = tmp_path / f"made{suffix}", tmp_path / f"copy{suffix}"
    count = make_video(made, mime)
    media = read_media(made.read_bytes(), suffix, FPS)
    assert (media.mime, media.width, media.height) == (mime, 160, 96)
    frames = list(media.frames())
    assert len(frames) == count
    assert frames[0].keyframe
    assert not frames[1].keyframe
    assert [round(frame.time * FPS) for frame in frames] == list(range(count))
    assert len(list(media.frames())) == count  # again, as in a loop
    writer = TrackWriter(mime, width=160, height=96)
    data = bytearray(b"".join(writer.frame(frame.data, 7000 + round(frame.time * 90000)) for frame in frames))
    data += writer.finish()
    if writer.patch is not None:
        offset, patch = writer.patch
        data[offset : offset + len(patch)] = patch
        assert ivf.HEADER.unpack_from(bytes(data))[8] == count
    copy.write_bytes(data)
    pictures = decode(copy)
    assert len(pictures) == count
    assert (pictures[-1].to_ndarray() == decode(made)[-1].to_ndarray()).all()


def test_opus_goes_through_reader_and_writer_unharmed(tmp_path: Path) -> None:
    made, copy = tmp_path / "made.ogg", tmp_path / "copy.ogg"
    make_audio(made)
    media = read_media(made.read_bytes(), ".ogg")
    assert (media.mime, media.channels, media.clock_rate) == ("audio/opus", 1, 48000)
    frames = list(media.frames())
    assert [round(frame.time / 0.02) for frame in frames] == list(range(len(frames)))
    writer = TrackWriter("audio/opus", channels=1)
    parts = [writer.frame(frame.data, round(frame.time * 48000)) for frame in frames]
    copy.write_bytes(b"".join(parts) + writer.finish())
    assert [frame.data for frame in read_media(copy.read_bytes(), ".ogg").frames()] == [frame.data for frame in frames]
    assert abs(sample_count(copy) - 2 * 48000) < 2000


def test_ogg_keeps_a_gap_in_time() -> None:
    writer = ogg.OggWriter(5)
    data = writer.header() + writer.packet(b"\x78abc", 0) + writer.packet(b"\x78abc", 48000) + writer.finish()
    last = data.rindex(b"OggS")
    assert ogg.PAGE.unpack_from(data, last)[3] == 48960


@pytest.mark.parametrize("size", [0, 1, 254, 255, 256, 510, 4000])
def test_ogg_lacing_at_its_edges(size: int) -> None:
    writer = ogg.OggWriter(5)
    packets = [b"\x78" + bytes(size), b"\x78ok"]
    data = writer.header() + b"".join(writer.packet(p, 0) for p in packets) + writer.finish()
    assert [frame.data for frame in ogg.read_ogg(data).frames()] == packets


def test_ogg_crc_of_rfc_3533() -> None:
    # CRC-32 with 0x04c11db7, unreflected, zero start: the check value of "123456789" (CRC-32/CKSUM's inner register).
    assert ogg.crc(b"123456789") == 0x89A1897F


@pytest.mark.parametrize(
    ("toc", "samples"),
    [("00", 480), ("18", 2880), ("60", 480), ("68", 960), ("80", 120), ("78", 960), ("79", 1920), ("7b02", 1920)],
)
def test_opus_durations(toc: str, samples: int) -> None:
    assert ogg.packet_samples(bytes.fromhex(toc)) == samples


@pytest.mark.parametrize("packet", [b"", b"\x1b\x03", b"\x7b", b"\x7b\x3f"])
def test_no_duration_of_a_malformed_opus_packet(packet: bytes) -> None:
    assert ogg.packet_samples(packet) == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ivf.truncated"),
        (b"RIFF" + bytes(40), "ivf.magic"),
        (ivf_of(fourcc=b"H265"), "ivf.codec"),
        (ivf_of(rate=0), "ivf.header"),
        (ivf_of(scale=0), "ivf.header"),
    ],
)
def test_ivf_headers_that_are_none(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolViolation) as refused:
        ivf.read_ivf(data)
    assert refused.value.reason == reason


def test_ivf_damage_is_bounded() -> None:
    for data, reason in (
        (ivf_of((b"\0abc", 0)) + struct.pack("<IQ", MAX_FRAME + 1, 1), "ivf.frame_size"),
        (ivf_of((b"\0abc", 0), (b"\0abc", 2**63)), "ivf.timestamp"),
        (ivf_of((b"\0abc", 0))[:-1], "ivf.truncated"),
        (ivf_of((b"\0abc", 0)) + b"\1", "ivf.truncated"),
    ):
        with pytest.raises(ProtocolViolation) as refused:
            list(ivf.read_ivf(data).frames())
        assert refused.value.reason == reason


def test_ogg_damage_is_found_by_the_crc() -> None:
    writer = ogg.OggWriter(5)
    data = bytearray(writer.header() + writer.packet(b"\x78abc", 0) + writer.finish())
    data[-1] ^= 1
    with pytest.raises(ProtocolViolation) as refused:
        list(ogg.read_ogg(bytes(data)).frames())
    assert refused.value.reason == "ogg.crc"


def test_ogg_of_another_codec_is_refused() -> None:
    page = ogg.OggWriter(1)._page([b"\x01vorbis" + bytes(30)], 0, ogg.FIRST)
    with pytest.raises(ProtocolViolation) as refused:
        ogg.read_ogg(page)
    assert refused.value.reason == "ogg.codec"


def test_annexb_access_units() -> None:
    three, four = b"\0\0\1", b"\0\0\0\1"
    stream = four + SPS + three + b"\x68\xce" + three + b"\x65\x88a" + three + b"\x65\x08b"  # one picture, two slices
    stream += four + b"\x09\xf0" + three + b"\x41\x9ac"  # delimiter, slice
    stream += four + b"\x41\x9ad" + b"\0\0"  # no delimiter: first_mb_in_slice 0 begins it
    frames = list(read_annexb(stream, 25).frames())
    assert [len(nal_units(frame.data)) for frame in frames] == [4, 2, 1]
    assert [frame.keyframe for frame in frames] == [True, False, False]
    assert [frame.time for frame in frames] == [0, 0.04, 0.08]


def test_annexb_without_parameter_sets_is_refused() -> None:
    with pytest.raises(ProtocolViolation) as refused:
        read_annexb(b"\0\0\1\x65\x88abc")
    assert refused.value.reason == "h264.no_sps"


def test_annexb_units_over_the_edge_of_a_piece() -> None:
    """The reader works in pieces of 1 MiB."""
    from lkactor.media.annexb import PROBE

    head = b"\0\0\1" + SPS + b"\0\0\1\x68\xce\0\0\1"
    for shift in range(-5, 5):
        body = b"\x65\x88" + b"x" * (PROBE - len(head) - 2 + shift)
        frames = list(read_annexb(head + body + b"\0\0\1\x41\x9az").frames())
        assert [nal_units(frame.data)[-1] for frame in frames] == [body, b"\x41\x9az"], shift


def test_unknown_suffix_names_the_known_ones() -> None:
    with pytest.raises(ProtocolViolation) as refused:
        read_media(b"", ".mp4")
    assert refused.value.reason == "media.suffix"
    assert ".ivf" in refused.value.detail


@pytest.mark.parametrize(("mime", "suffix"), [*VIDEO, ("audio/opus", ".ogg")])
def test_truncated_at_every_length(tmp_path: Path, mime: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if mime == "audio/opus":
        make_audio(path, seconds=0.1)
    else:
        make_video(path, mime, seconds=0.2)
    data = path.read_bytes()[:3000]
    for length in range(len(data)):
        consume(data[:length], suffix)


@given(st.binary(max_size=300), st.sampled_from([".ivf", ".ogg", ".h264"]), st.booleans())
def test_random_files_raise_nothing_else(data: bytes, suffix: str, plausible: bool) -> None:
    heads = {".ivf": ivf_of(), ".ogg": ogg.OggWriter(1).header(), ".h264": b"\0\0\1" + SPS}
    consume(heads[suffix] + data if plausible else data, suffix)


@given(st.binary(max_size=200))
def test_random_units(data: bytes) -> None:
    for mime, _ in VIDEO:
        is_keyframe(mime, data)
    try:
        list(obus(data))
    except ProtocolViolation as violation:
        assert violation.reason.startswith("av1.")


@given(st.integers(0, 2**56 - 1))
def test_leb128_round_trip(value: int) -> None:
    data = to_leb128(value)
    assert leb128(data, 0) == (value, len(data))


def test_leb128_of_nine_bytes_is_refused() -> None:
    with pytest.raises(ProtocolViolation):
        leb128(b"\xff" * 9, 0)


def test_making_a_file_leaves_our_priority_as_it_was(tmp_path: Path) -> None:
    before = os.sched_getscheduler(0)
    make_video(tmp_path / "a.ivf", "video/av1", seconds=0.2)
    assert os.sched_getscheduler(0) == before
