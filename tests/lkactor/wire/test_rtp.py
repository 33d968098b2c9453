"""RTP: RFC 3550 section 5, RFC 8285, RFC 4588, RFC 5761."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkactor.errors import ProtocolViolation
from lkactor.wire.rtp import RtpPacket, build_rtp, encode_extensions, is_rtcp, parse_rtp, unwrap_rtx, wrap_rtx


def make(payload: bytes = b"payload", **fields: object) -> RtpPacket:
    arguments = {"payload_type": 96, "sequence": 1000, "timestamp": 90000, "ssrc": 0xDEADBEEF, **fields}
    return parse_rtp(build_rtp(payload=payload, **arguments), 2.5)  # type: ignore[arg-type]


def raw_extension(profile: int, body: bytes) -> RtpPacket:
    header = bytes.fromhex("906003e80001000000000001")
    return parse_rtp(header + profile.to_bytes(2, "big") + (len(body) // 4).to_bytes(2, "big") + body + b"media")


def test_header_bytes_are_those_of_the_rfc() -> None:
    data = build_rtp(
        payload_type=111, sequence=0x1234, timestamp=0x01020304, ssrc=0xAABBCCDD, marker=True, payload=b"x"
    )
    assert data == bytes.fromhex("80ef123401020304aabbccdd78")


def test_fields_come_back() -> None:
    packet = make(marker=True, csrcs=(7, 8), padding=4, extensions={1: b"\x05"})
    assert (packet.payload_type, packet.marker, packet.sequence) == (96, True, 1000)
    assert (packet.timestamp, packet.ssrc, packet.arrival) == (90000, 0xDEADBEEF, 2.5)
    assert packet.csrcs == (7, 8)
    assert packet.padding == 4
    assert bytes(packet.payload) == b"payload"
    assert packet.extension(1) == b"\x05"


def test_extended_numbers_are_taken_modulo_their_width() -> None:
    packet = make(sequence=65536 + 3, timestamp=(1 << 32) + 4)
    assert (packet.sequence, packet.timestamp) == (3, 4)


def test_padding_only_packet_has_an_empty_payload() -> None:
    packet = make(payload=b"", padding=255)
    assert packet.payload_offset == packet.payload_end


@pytest.mark.parametrize("count", [0, 8, 255])
def test_padding_that_is_zero_or_reaches_the_header_is_refused(count: int) -> None:
    data = bytearray(build_rtp(payload_type=0, sequence=0, timestamp=0, ssrc=0, payload=b"1234567"))
    data[0] |= 0x20
    data[-1] = count
    with pytest.raises(ProtocolViolation, match=r"rtp\.padding"):
        parse_rtp(bytes(data))


def test_other_versions_are_refused() -> None:
    with pytest.raises(ProtocolViolation, match=r"rtp\.version"):
        parse_rtp(bytes.fromhex("50600001000000010000000100000000"))


def test_every_truncation_of_the_header_is_refused() -> None:
    data = make(payload=b"", csrcs=(1, 2), extensions={3: b"abc"}).data
    for length in range(len(data)):
        with pytest.raises(ProtocolViolation, match=r"rtp\.truncated"):
            parse_rtp(data[:length])


def test_unknown_extension_profile_is_skipped_over() -> None:
    packet = raw_extension(0x1234, b"\x10\xff\x00\x00")
    assert packet.extension_profile == 0
    assert packet.extension(1) is None
    assert bytes(packet.payload) == b"media"


def test_one_byte_form_with_padding_between_and_after() -> None:
    packet = raw_extension(0xBEDE, bytes.fromhex("10aa0000 32bbccdd 00000000"))
    assert packet.extensions() == {1: b"\xaa", 3: b"\xbb\xcc\xdd"}
    assert packet.extension(3) == b"\xbb\xcc\xdd"
    assert packet.extension(2) is None


@pytest.mark.parametrize("stop", ["f0", "03"], ids=["id 15", "id 0 with a length"])
def test_one_byte_form_stops_at_reserved_ids_and_keeps_what_came_before(stop: str) -> None:
    packet = raw_extension(0xBEDE, bytes.fromhex(f"10aa {stop} 20bb 000000 ".replace(" ", "")))
    assert packet.extension(1) == b"\xaa"
    assert packet.extension(2) is None
    assert packet.extensions() == {1: b"\xaa"}


@pytest.mark.parametrize("profile", [0x1000, 0x1005, 0x100F])
def test_two_byte_form_with_any_appbits(profile: int) -> None:
    packet = raw_extension(profile, bytes.fromhex("0100 00 0f02aabb 00".replace(" ", "")))
    assert packet.extension_profile == profile
    assert packet.extensions() == {1: b"", 15: b"\xaa\xbb"}
    assert packet.extension(1) == b""
    assert packet.extension(15) == b"\xaa\xbb"


@pytest.mark.parametrize(("profile", "body"), [(0xBEDE, "1faabbcc"), (0x1000, "0109aabb"), (0x1000, "00000001")])
def test_an_element_that_overruns_the_block_is_not_there(profile: int, body: str) -> None:
    packet = raw_extension(profile, bytes.fromhex(body))
    assert packet.extension(1) is None
    assert packet.extensions() == {}


def test_the_smaller_form_is_chosen() -> None:
    assert encode_extensions({14: bytes(16)})[:2] == b"\xbe\xde"
    for needs_two in ({15: b"a"}, {1: b""}, {1: bytes(17)}):
        assert encode_extensions(needs_two)[:2] == b"\x10\x00"
    assert encode_extensions({}) == b""


@pytest.mark.parametrize("bad", [{0: b"a"}, {256: b"a"}, {1: bytes(256)}])
def test_extensions_no_form_can_hold(bad: dict[int, bytes]) -> None:
    with pytest.raises(ValueError, match="extension"):
        encode_extensions(bad)


@given(
    extensions=st.dictionaries(st.integers(1, 255), st.binary(max_size=40), max_size=8),
    payload=st.binary(max_size=60),
    padding=st.integers(0, 255),
    csrcs=st.lists(st.integers(0, 2**32 - 1), max_size=15).map(tuple),
)
def test_round_trip(extensions: dict[int, bytes], payload: bytes, padding: int, csrcs: tuple[int, ...]) -> None:
    packet = make(payload, extensions=extensions, padding=padding, csrcs=csrcs)
    assert bytes(packet.payload) == payload
    assert packet.extensions() == extensions
    assert all(packet.extension(id) == value for id, value in extensions.items())
    assert packet.csrcs == csrcs
    assert packet.padding == padding


@given(st.binary(max_size=80), st.integers(0, 255))
def test_random_bytes_parse_or_violate(data: bytes, id: int) -> None:
    for candidate in (data, b"\x90" + data, b"\x90\x60" + bytes(10) + b"\xbe\xde\x00\x02" + data):
        try:
            packet = parse_rtp(candidate)
        except ProtocolViolation:
            continue
        assert 12 <= packet.payload_offset <= packet.payload_end <= len(candidate)
        assert packet.extension(id) == packet.extensions().get(id)


def test_rtx_round_trip() -> None:
    original = make(marker=True, extensions={1: b"\x07"})
    resent = parse_rtp(wrap_rtx(original, payload_type=97, ssrc=5, sequence=77), 3.0)
    assert (resent.payload_type, resent.ssrc, resent.sequence) == (97, 5, 77)
    assert bytes(resent.payload) == b"\x03\xe8payload"  # OSN 1000 first
    back = unwrap_rtx(resent, payload_type=96, ssrc=0xDEADBEEF)
    assert back is not None
    assert back.data == original.data
    assert back.arrival == 3.0


def test_rtx_strips_padding_and_ignores_probes() -> None:
    resent = make(payload=b"\x00\x09abc", padding=6)
    back = unwrap_rtx(resent, payload_type=100, ssrc=1)
    assert back is not None
    assert (back.sequence, bytes(back.payload), back.padding) == (9, b"abc", 0)
    assert unwrap_rtx(make(payload=b"", padding=200), payload_type=100, ssrc=1) is None
    assert unwrap_rtx(make(payload=b"\x00"), payload_type=100, ssrc=1) is None


@pytest.mark.parametrize(("second", "expected"), [(191, False), (192, True), (200, True), (223, True), (224, False)])
def test_rtcp_is_told_by_the_second_byte(second: int, expected: bool) -> None:
    assert is_rtcp(bytes((0x80, second))) is expected
    assert is_rtcp(b"\x80") is False
