"""Chunks, parameters, DCEP and cookies: known bytes, round trips, truncation at every length, arbitrary bytes."""

import random
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lkactor.errors import ProtocolViolation
from lkactor.sctp import chunks, cookie, dcep
from lkactor.sctp.chunks import ChunkType, Init, ResetOutgoing, Sack, build_chunk, build_packet, parse_packet
from lkactor.sctp.sender import subtract


@pytest.mark.parametrize(
    ("data", "wire"),
    [  # RFC 3720 B.4
        (bytes(32), "aa36918a"),
        (b"\xff" * 32, "43aba862"),
        (bytes(range(32)), "4e79dd46"),
        (bytes(range(31, -1, -1)), "5cdb3f11"),
        (
            bytes.fromhex(
                "01c00000 00000000 00000000 00000000 14000000 00000400"
                "00000014 00000018 28000000 00000000 02000000 00000000"
            ),
            "563a96d9",
        ),
    ],
)
def test_crc32c_vectors(data: bytes, wire: str) -> None:
    assert chunks.checksum(data).hex() == wire


def test_packet_round_trip_pads_each_chunk() -> None:
    parts = [(ChunkType.HEARTBEAT, 0, b"12345"), (ChunkType.COOKIE_ACK, 3, b""), (200, 255, b"abc")]
    packet = build_packet(0xDEADBEEF, [build_chunk(*part) for part in parts])
    assert len(packet) % 4 == 0
    assert parse_packet(packet) == (0xDEADBEEF, parts)
    assert packet[:8] == bytes.fromhex("13881388deadbeef")


def test_every_flipped_bit_is_noticed() -> None:
    packet = build_packet(7, [build_chunk(ChunkType.HEARTBEAT, 0, b"12345678")])
    for bit in range(len(packet) * 8):
        broken = bytearray(packet)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtocolViolation):
            parse_packet(bytes(broken))


def test_data_chunk_bytes() -> None:
    wire = chunks.build_data(0x01020304, 5, 6, 51, chunks.BEGIN | chunks.END, b"hello")
    assert wire.hex() == "00030015" + "01020304" + "0005" + "0006" + "00000033" + "68656c6c6f" + "000000"
    assert chunks.parse_data(wire[4:21]) == (0x01020304, 5, 6, 51, b"hello")


def test_init_round_trip_and_supported_extensions() -> None:
    init = Init(1, 2, 3, 4, 5, True, True, b"cookie!", (b"\xc0\x55\x00\x05x",))
    (kind, _, value) = parse_packet(build_packet(0, [init.build(ChunkType.INIT_ACK)]))[1][0]
    parsed = chunks.parse_init(value)
    assert kind == ChunkType.INIT_ACK
    assert parsed == Init(1, 2, 3, 4, 5, True, True, b"cookie!", ())
    assert (chunks.PARAM_UNRECOGNIZED, b"\xc0\x55\x00\x05x") in chunks.parse_params(value, 16)


@pytest.mark.parametrize(
    ("kind", "reported", "goes_on"),
    [(0x0055, False, False), (0x4055, True, False), (0x8055, False, True), (0xC055, True, True)],
)
def test_unknown_parameters_follow_their_upper_bits(kind: int, reported: bool, goes_on: bool) -> None:
    value = struct.pack(">IIHHI", 1, 2, 3, 4, 5) + chunks.build_param(kind, b"zz") + chunks.build_param(0xC000)
    init = chunks.parse_init(value)
    assert bool(init.unrecognized) is reported
    assert init.forward_tsn is goes_on


def test_zero_checksum_is_not_reported_as_understood() -> None:
    """0x8001 (RFC 9653) is skipped without a word: upper bits 10."""
    value = struct.pack(">IIHHI", 1, 2, 3, 4, 5) + chunks.build_param(0x8001, bytes(4))
    assert chunks.parse_init(value).unrecognized == ()
    assert b"\x80\x01" not in chunks.parse_init(value).build(ChunkType.INIT_ACK)


def test_sack_and_forward_tsn_round_trip() -> None:
    sack = Sack(10, 20, ((2, 3), (5, 9)), (1, 2, 3))
    assert chunks.parse_sack(sack.build()[4:]) == sack
    wire = chunks.build_forward_tsn(9, [(1, 2), (3, 4)])
    assert chunks.parse_forward_tsn(wire[4:]) == (9, [(1, 2), (3, 4)])


def test_reset_round_trip_with_odd_number_of_streams() -> None:
    reset = ResetOutgoing(1, 2, 3, (4, 5, 6))
    ((kind, value),) = chunks.parse_params(reset.build())
    assert kind == chunks.PARAM_RESET_OUTGOING
    assert chunks.parse_reset_outgoing(value) == reset


def test_dcep_open_bytes() -> None:
    wire = dcep.Open("ab", ordered=False, max_retransmits=3, protocol="c").build()
    assert wire.hex() == "0381" + "0100" + "00000003" + "0002" + "0001" + "616263"
    assert dcep.parse(wire) == dcep.Open("ab", False, 3, None, "c")
    assert dcep.parse(dcep.ACK) is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "dcep.unknown_message"),
        (b"\x04", "dcep.unknown_message"),
        (b"\x03\x03" + bytes(10), "dcep.channel_type"),
        (b"\x03\x00" + bytes(6) + b"\0\5\0\0abcd", "dcep.length"),
        (b"\x03\x00" + bytes(6) + b"\0\1\0\0\xff", "dcep.utf8"),
    ],
)
def test_dcep_refusals(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        dcep.parse(data)
    assert caught.value.reason == reason


def test_cookie_is_bound_to_its_key() -> None:
    state = cookie.StateCookie(1.5, 1, 2, 3, 4, 5, 6, 7, 8, 9, True, False)
    signed = state.sign(b"k")
    assert cookie.verify(signed, b"k") == state
    for broken, key in ((signed, b"other"), (signed[:-1], b"k"), (signed[:-1] + b"\1", b"k")):
        with pytest.raises(ProtocolViolation):
            cookie.verify(broken, key)


PARSERS: list[tuple[Callable[[bytes], Any], bytes]] = [
    (parse_packet, build_packet(1, [build_chunk(3, 0, b"abcde"), build_chunk(4, 0, b"x")])),
    (chunks.parse_params, chunks.build_param(7, b"abc") + chunks.build_param(8, b"")),
    (chunks.parse_init, Init(1, 2, 3, 4, 5, True, True, b"c", (b"\xc0\x55\x00\x05x",)).build(2)[4:]),
    (chunks.parse_data, chunks.build_data(1, 2, 3, 4, 3, b"data")[4:]),
    (chunks.parse_sack, Sack(10, 20, ((2, 3), (5, 9)), (1, 2, 3)).build()[4:]),
    (chunks.parse_forward_tsn, chunks.build_forward_tsn(9, [(1, 2), (3, 4)])[4:]),
    (chunks.parse_reset_outgoing, ResetOutgoing(1, 2, 3, (4, 5, 6)).build()[4:]),
    (chunks.parse_reconfig_response, chunks.build_reconfig_response(1, 2)[4:]),
    (chunks.parse_request_number, bytes(4)),
    (dcep.parse, dcep.Open("label", False, 3, None, "proto").build()),
    (lambda data: cookie.verify(data, b"k"), cookie.StateCookie(1.5, 1, 2, 3, 4, 5, 6, 7, 8, 9, True, True).sign(b"k")),
]


@pytest.mark.parametrize("index", range(len(PARSERS)))
def test_truncated_and_mutated_input_raises_only_violations(index: int) -> None:
    parse, good = PARSERS[index]
    rng = random.Random(index)
    parse(good)
    inputs = [good[:length] for length in range(len(good))]
    for _ in range(2000):
        mutated = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        inputs.append(bytes(mutated))
    for data in inputs:
        try:
            parse(data)
        except ProtocolViolation:
            pass


@given(st.integers(0, len(PARSERS) - 1), st.binary(max_size=100))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_arbitrary_bytes_raise_only_violations(index: int, data: bytes) -> None:
    try:
        PARSERS[index][0](data)
    except ProtocolViolation:
        pass


RANGES = st.lists(st.integers(0, 40), unique=True).map(lambda numbers: _ranges(set(numbers)))


def _ranges(numbers: set[int]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if out and out[-1][1] == number - 1:
            out[-1] = (out[-1][0], number)
        else:
            out.append((number, number))
    return out


@given(RANGES, RANGES)
@settings(max_examples=400, deadline=None, derandomize=True)
def test_range_difference_equals_set_difference(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> None:
    def members(ranges: list[tuple[int, int]]) -> set[int]:
        return {n for start, end in ranges for n in range(start, end + 1)}

    assert members(subtract(left, right)) == members(left) - members(right)
