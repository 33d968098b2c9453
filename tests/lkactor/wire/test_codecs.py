"""H.264, H.265, VP9, AV1, Opus: descriptors, key frames, sizes."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkactor.errors import ProtocolViolation
from lkactor.wire.codecs import av1, h264, h265, opus, vp9

# Made with libx264 through PyAV; the names are width x height, profile.
SPS = {
    "1280x720 baseline": "6742c01fda014016e840000003004000000f03c60ca8",
    "1920x1080 baseline, cropped": "6742c028da01e0089f9610000003001000000303c0f1832a",
    "636x358 baseline, cropped both ways": "6742c01eda0280bfb9a10000030001000003003c0f162ea0",
    "640x360 high 4:4:4": "67f4001e919680a02ff89840000003004000000f03c58ba8",
    "1920x1080 main, interlaced": "674d4028f403c0227ee10000030001000003003c1f162ea0",
}
SPS_720P = bytes.fromhex(SPS["1280x720 baseline"])
PPS, IDR = b"\x68\xce\x3c\x80", b"\x65\x88\x84\x00"


def stap_a(*units: bytes) -> bytes:
    return b"\x78" + b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)


# -- H.264


@pytest.mark.parametrize("name", SPS)
def test_h264_size_of_a_real_sps(name: str) -> None:
    width, height = map(int, name.split()[0].split("x"))
    assert h264.frame_size(bytes.fromhex(SPS[name])) == (width, height)


@pytest.mark.parametrize(
    ("payload", "key"),
    [
        (SPS_720P, True),
        (stap_a(SPS_720P, PPS, IDR), True),
        (stap_a(PPS, SPS_720P), True),
        (b"\x7c\x87" + SPS_720P[1:], True),  # FU-A, S
        (b"\x7c\x07" + SPS_720P[1:], False),  # FU-A, middle
        (b"\x7c\x85\x88", False),  # FU-A of an IDR slice: undecodable without its SPS
        (IDR, False),
        (b"\x41\x9a", False),
        (stap_a(PPS, IDR), False),
        (b"\x79\x00\x01" + stap_a(SPS_720P)[1:], True),  # STAP-B: DON first
    ],
)
def test_h264_keyframe(payload: bytes, key: bool) -> None:
    assert h264.is_keyframe(payload) is key


def test_h264_size_from_aggregate_and_fragment() -> None:
    assert h264.frame_size(stap_a(PPS, SPS_720P)) == (1280, 720)
    assert h264.frame_size(b"\x7c\x87" + SPS_720P[1:]) == (1280, 720)
    assert h264.frame_size(IDR) is None


def test_h264_fragment_header_is_rebuilt() -> None:
    assert list(h264.nal_units(b"\x7c\x85\xaa\xbb")) == [b"\x65\xaa\xbb"]  # NRI of the indicator, type of the header


def test_h264_units_of_an_aggregate() -> None:
    assert list(h264.nal_units(stap_a(SPS_720P, PPS))) == [SPS_720P, PPS]


@pytest.mark.parametrize("payload", [b"", b"\x7c", b"\x78\x00\x00", b"\x78\x00\x09\x67", b"\x78\x00"])
def test_h264_damage(payload: bytes) -> None:
    with pytest.raises(ProtocolViolation, match=r"h264\.truncated"):
        list(h264.nal_units(payload))


def test_h264_truncated_sps() -> None:
    for length in range(1, 9):  # the cropping flag, the last bit read, is in the ninth byte
        with pytest.raises(ProtocolViolation, match=r"h264\.sps"):
            h264.sps_size(SPS_720P[:length])


# -- H.265


@pytest.mark.parametrize(
    ("payload", "key"),
    [
        (b"\x40\x01\x0c", True),  # VPS
        (b"\x42\x01\x01", True),  # SPS
        (b"\x44\x01\xc0", True),  # PPS
        (b"\x26\x01\xaf", True),  # IDR_W_RADL
        (b"\x2a\x01\xaf", True),  # CRA
        (b"\x02\x01\xd0", False),  # TRAIL_R
        (b"\x62\x01\x93", True),  # FU start of type 19
        (b"\x62\x01\x13", False),  # FU middle
        (b"\x62\x01\x81", False),  # FU start of a trailing picture
        (b"\x60\x01\x00\x03\x02\x01\xd0\x00\x03\x42\x01\x01", True),  # AP
        (b"\x60\x01\x00\x03\x02\x01\xd0", False),
    ],
)
def test_h265_keyframe(payload: bytes, key: bool) -> None:
    assert h265.is_keyframe(payload) is key


def test_h265_temporal_id() -> None:
    assert h265.temporal_id(b"\x02\x03") == 2
    with pytest.raises(ProtocolViolation, match=r"h265\.temporal_id"):
        h265.temporal_id(b"\x02\x00")


@pytest.mark.parametrize("payload", [b"", b"\x40", b"\x62\x01", b"\x60\x01\x00\x01\x42", b"\x60\x01\x00\x09\x42\x01"])
def test_h265_damage(payload: bytes) -> None:
    with pytest.raises(ProtocolViolation, match=r"h265\.truncated"):
        list(h265.nal_types(payload))


# -- VP9

STRUCTURE = bytes.fromhex("38 0140 00b4 0280 0168 01 14 01".replace(" ", ""))
"""N_S 1, Y, G: 320x180, 640x360; one picture in the group with one reference."""


def test_vp9_non_flexible_with_structure() -> None:
    descriptor = vp9.parse_descriptor(bytes.fromhex("aa 8102 14 07".replace(" ", "")) + STRUCTURE + b"frame")
    assert (descriptor.picture_id, descriptor.picture_id_bits) == (0x102, 15)
    assert (descriptor.temporal_id, descriptor.spatial_id, descriptor.tl0picidx) == (0, 2, 7)
    assert descriptor.switching_up
    assert descriptor.sizes == ((320, 180), (640, 360))
    assert descriptor.size == 5 + len(STRUCTURE)


def test_vp9_flexible_references() -> None:
    descriptor = vp9.parse_descriptor(bytes.fromhex("f4 05 41 03 04 ff".replace(" ", "")))
    assert (descriptor.picture_id, descriptor.picture_id_bits, descriptor.references) == (5, 7, (1, 2))
    assert (descriptor.temporal_id, descriptor.spatial_id, descriptor.inter_layer) == (2, 0, True)
    assert descriptor.tl0picidx is None
    assert descriptor.end_of_frame and not descriptor.start_of_frame
    assert descriptor.size == 5


@pytest.mark.parametrize(
    ("payload", "key"),
    [
        ("88 05 ff", True),
        ("08 ff", True),  # no layers: spatial id absent
        ("a8 05 00 00 ff", True),
        ("a8 05 02 00 ff", False),  # spatial layer 1
        ("80 05 ff", False),  # not the start
        ("c8 05 ff", False),  # inter-predicted
    ],
)
def test_vp9_keyframe(payload: str, key: bool) -> None:
    assert vp9.is_keyframe(bytes.fromhex(payload)) is key


def test_vp9_frame_size_is_the_highest_layer() -> None:
    assert vp9.frame_size(b"\x0a" + STRUCTURE) == (640, 360)
    assert vp9.frame_size(b"\x08") is None


def test_vp9_every_truncation_is_refused() -> None:
    whole = bytes.fromhex("aa81021407") + STRUCTURE
    for length in range(len(whole)):
        with pytest.raises(ProtocolViolation, match=r"vp9\.truncated"):
            vp9.parse_descriptor(whole[:length])


@pytest.mark.parametrize(("payload", "reason"), [("10", "flexible"), ("d0 05 03 03 03 02", "references")])
def test_vp9_malformed(payload: str, reason: str) -> None:
    with pytest.raises(ProtocolViolation, match=rf"vp9\.{reason}"):
        vp9.parse_descriptor(bytes.fromhex(payload))


# -- AV1


def test_av1_elements_with_and_without_a_count() -> None:
    counted = av1.parse_packet(bytes.fromhex("28 02 0a0b 3648ff".replace(" ", "")))
    assert counted == av1.Av1Packet(False, False, True, (av1.Av1Obu(1, None, None), av1.Av1Obu(6, 2, 1)))
    sized = av1.parse_packet(bytes.fromhex("08 02 0a0b 03 3648ff".replace(" ", "")))
    assert sized.obus == counted.obus


def test_av1_continuation_is_no_new_obu() -> None:
    packet = av1.parse_packet(bytes.fromhex("d0 0a0b0c".replace(" ", "")))
    assert (packet.continues, packet.continued, packet.obus) == (True, True, ())


@pytest.mark.parametrize(
    ("payload", "key"),
    [("18 0a0b", True), ("18 3001", False), ("10 0a0b", False), ("98 0a0b", False), ("", False)],
)
def test_av1_keyframe(payload: str, key: bool) -> None:
    assert av1.is_keyframe(bytes.fromhex(payload)) is key


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("", "truncated"),
        ("00 05 0a", "truncated"),
        ("20 01 0a", "truncated"),  # two announced, one there
        ("10 36", "truncated"),  # OBU extension missing
        ("00 ffffffffffffffffff", "leb128"),
        ("98 0a", "aggregation"),
        ("00" + "00" * 65, "elements"),
    ],
)
def test_av1_malformed(payload: str, reason: str) -> None:
    with pytest.raises(ProtocolViolation, match=rf"av1\.{reason}"):
        av1.parse_packet(bytes.fromhex(payload))


# -- Opus


@pytest.mark.parametrize(
    ("payload", "samples"),
    [
        ("78", 960),  # config 15, hybrid 20 ms
        ("f8fffe", 960),  # config 31, CELT 20 ms
        ("e0", 120),  # config 28, CELT 2.5 ms
        ("18", 2880),  # config 3, SILK 60 ms
        ("f9", 1920),
        ("fb03", 2880),
    ],
)
def test_opus_duration(payload: str, samples: int) -> None:
    assert opus.duration(bytes.fromhex(payload)) == samples


def test_opus_toc() -> None:
    assert opus.parse_toc(b"\xfc") == opus.OpusToc(31, True, 0, 960)


@pytest.mark.parametrize(("payload", "reason"), [("", "truncated"), ("fb", "truncated"), ("fb00", "d"), ("1b03", "d")])
def test_opus_malformed(payload: str, reason: str) -> None:
    with pytest.raises(ProtocolViolation, match=rf"opus\.{reason}"):
        opus.duration(bytes.fromhex(payload))


def test_opus_dtx() -> None:
    assert [opus.is_dtx(bytes(size)) for size in range(4)] == [False, True, True, False]


# -- every parser

PARSERS: list[Callable[[bytes], object]] = [
    h264.is_keyframe,
    h264.frame_size,
    h264.sps_size,
    h265.is_keyframe,
    h265.temporal_id,
    vp9.parse_descriptor,
    vp9.is_keyframe,
    av1.parse_packet,
    av1.is_keyframe,
    opus.duration,
]


@given(st.binary(max_size=120))
def test_random_bytes_give_a_value_or_a_violation(data: bytes) -> None:
    for parse in PARSERS:
        for candidate in (data, b"\x67\x64" + data, b"\x78" + data, b"\xbf" + data):
            try:
                parse(candidate)
            except ProtocolViolation:
                pass


@given(st.integers(0, 30), st.binary(max_size=8))
def test_damaged_sps_gives_a_value_or_a_violation(at: int, noise: bytes) -> None:
    for sps in map(bytes.fromhex, SPS.values()):
        try:
            width, height = h264.sps_size(sps[:at] + noise + sps[at + len(noise) :])
        except ProtocolViolation:
            continue
        assert 0 < width <= 16 * 1055 and 0 < height <= 32 * 1055
