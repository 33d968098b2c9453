"""Extended reports: RFC 3611 sections 4.4 and 4.5."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkactor.errors import ProtocolViolation
from lkactor.wire.xr import Xr, XrDlrr, XrDlrrEntry, XrReferenceTime, XrUnknown, decode, encode

RRTR = bytes.fromhex("00000001 04000002 e000000012345678")
DLRR = bytes.fromhex("00000001 05000003 000000020000123400010000")


def test_bytes_of_both_blocks() -> None:
    reference = Xr(1, (XrReferenceTime(0xE000000012345678),))
    answer = Xr(1, (XrDlrr((XrDlrrEntry(2, 0x1234, 65536),)),))
    assert encode(reference) == RRTR
    assert encode(answer) == DLRR
    assert decode(RRTR) == reference
    assert decode(DLRR) == answer


def test_unknown_blocks_are_carried_in_place() -> None:
    packet = Xr(7, (XrUnknown(6, 0x80, b"12345678"), XrReferenceTime(5), XrDlrr(()), XrUnknown(200, 1, b"")))
    assert decode(encode(packet)) == packet


@pytest.mark.parametrize("data", [RRTR, DLRR])
def test_truncated_at_every_length(data: bytes) -> None:
    for length in set(range(len(data))) - {4}:  # an SSRC without blocks is whole
        with pytest.raises(ProtocolViolation, match=r"rtcp\.xr"):
            decode(data[:length])
    assert decode(data[:4]) == Xr(1, ())


@pytest.mark.parametrize(
    "body",
    ["00000001 04000001 00000000", "00000001 05000002 0000000000000000", "00000001 04000009 0000000000000000"],
    ids=["short RRTR", "part of a DLRR entry", "block overruns the packet"],
)
def test_malformed_blocks(body: str) -> None:
    with pytest.raises(ProtocolViolation, match=r"rtcp\.xr"):
        decode(bytes.fromhex(body))


@given(st.binary(max_size=80))
def test_random_bodies_parse_or_violate(data: bytes) -> None:
    try:
        packet = decode(data)
    except ProtocolViolation:
        return
    assert decode(encode(packet)) == packet
